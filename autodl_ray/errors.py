"""The one tree of errors that autodl_ray raises on purpose.

```
AutoDLError                    exit 1
├── InputError                 exit 2   something the user gave is not usable
│   ├── SpecError                       the experiment specification
│   ├── DatasetError                    the data folder, an image, a split
│   ├── BundleError                     a bundle or another artifact that is read
│   ├── StoreError                      the store: not writable, full, another run's
│   ├── ResourceError                   more CPUs, memory or ports than there are
│   └── MissingExtraError               an optional package
├── StageError                 exit 1   a stage failed on good input
└── RunInterrupted             exit 130 stopped by Ctrl-C, with the work kept
```

Every message says what was wrong, the value seen, what is accepted and what to do next.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

__all__ = [
    "AutoDLError",
    "BundleError",
    "DatasetError",
    "InputError",
    "MissingExtraError",
    "ResourceError",
    "RunInterrupted",
    "SpecError",
    "StageError",
    "StoreError",
    "in_short",
    "near_names",
]


class AutoDLError(Exception):
    """Base of every error that autodl_ray raises on purpose.

    Args:
        what: One sentence: what was wrong.
        seen: The value that was seen, shown as it is.
        accepted: What would have been accepted.
        hint: What to do next.
    """

    exit_code = 1

    def __init__(self, what: str, *, seen: object = None, accepted: str | None = None, hint: str | None = None) -> None:
        self.what = what
        self.seen = None if seen is None else str(seen)
        self.accepted = accepted
        self.hint = hint
        super().__init__(what)

    def __str__(self) -> str:
        parts = [self.what]
        if self.seen is not None:
            parts.append(f"  seen: {self.seen}")
        if self.accepted is not None:
            parts.append(f"  accepted: {self.accepted}")
        if self.hint is not None:
            parts.append(f"  next: {self.hint}")
        return "\n".join(parts)

    def __reduce__(self) -> tuple[Any, ...]:
        state = {"seen": self.seen, "accepted": self.accepted, "hint": self.hint}
        return _rebuild, (type(self), self.what, state), dict(self.__dict__)  # the dict holds the notes


def _rebuild(cls: type[AutoDLError], what: str, state: dict[str, str | None]) -> AutoDLError:
    return cls(what, seen=state["seen"], accepted=state["accepted"], hint=state["hint"])


class InputError(AutoDLError):
    """Something the user gave is not usable; nothing was changed."""

    exit_code = 2


class SpecError(InputError):
    """The experiment specification is not valid."""


class DatasetError(InputError):
    """The data folder, an image or a split is not usable."""


class BundleError(InputError):
    """A bundle, or another artifact that is read, is damaged or of another schema."""


class StoreError(InputError):
    """The store cannot be read or written, or holds another run of that name."""


class ResourceError(InputError):
    """More CPUs, GPUs, memory or ports were asked for than there are."""


class MissingExtraError(InputError):
    """An optional package is not installed."""


class StageError(AutoDLError):
    """A stage failed although its input was good."""


class RunInterrupted(AutoDLError):
    """The run was stopped by the user; what was done is kept."""

    exit_code = 130


def in_short(error: BaseException, most: int = 200) -> str:
    """Return the class of any error and the first line of its message, which may be empty, as one short line.

    Example:
        >>> in_short(ValueError("no such operator\\n  at node 7")), in_short(AssertionError())
        ('ValueError: no such operator', 'AssertionError')
    """
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:most]}" if lines else type(error).__name__


def near_names(name: str, known: Iterable[str]) -> str | None:
    """Return a hint such as ``did you mean 'resnet18'?``, or None when nothing is near."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f"did you mean {' or '.join(repr(c) for c in close)}?" if close else None
