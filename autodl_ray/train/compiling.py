"""torch.compile as an option: where it does not work, the training goes on without it."""

from __future__ import annotations

from torch import nn

__all__ = ["Compiling"]


class Compiling:
    """Compiles the forward pass of a network in place: its parameters keep their names.

    The first call compiles, which takes seconds to minutes. Not run on CUDA.

    Args:
        model: The network.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.failed = False
        model.compile()

    def settle(self, error: BaseException | None, seconds: float) -> str:
        """Return a note on how the first call went; where it failed, the network is what it was.

        Args:
            error: Of the first call; None: it worked.
            seconds: That it took.
        """
        if error is None:
            return f"torch.compile took {seconds:.1f} s"
        self.failed = True
        self.model._compiled_call_impl = None
        reason = (str(error).strip() or "?").splitlines()[0]
        return f"torch.compile failed, so the network runs without it ({type(error).__name__}: {reason[:200]})"
