"""The first way that answers like the network is taken; what is wrong with the others is said, whatever they raise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from autodl_ray.errors import StageError, in_short
from autodl_ray.export.faithful import first_faithful, logit_error
from autodl_ray.export.formats.torchscript import scripted
from autodl_ray.export.onnx import export_core

WORDS = {"what": "It could not be made.", "accepted": "an even number", "hint": "take another"}


def odd(number: int) -> str:
    return f"{number} is odd" if number % 2 else ""


def silent() -> int:
    raise AssertionError


class _Silent(nn.Module):
    """Answers three pictures, and raises without a word while it is recorded with one or two."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[0] < 3 or torch.jit.is_tracing():
            raise NotImplementedError
        return x.mean(dim=(2, 3))


def test_the_first_faithful_way_is_taken() -> None:
    assert first_faithful({"a": silent, "b": lambda: 3, "c": lambda: 4, "d": lambda: 6}, odd, **WORDS) == (4, "c")
    with pytest.raises(StageError, match="It could not be made") as caught:
        first_faithful({"a": silent, "b": lambda: 3}, odd, **WORDS)
    assert caught.value.seen == "a: AssertionError; b: 3 is odd"


@pytest.mark.parametrize("write", [export_core, scripted])
def test_an_exporter_that_fails_without_a_message(write: Callable[[nn.Module, int], object]) -> None:
    with pytest.raises(StageError, match="could not be") as caught:
        write(_Silent(), 8)
    assert "trace: NotImplementedError" in str(caught.value)


def test_no_number_is_never_alike() -> None:
    wanted = np.array([[1.0, 4.0]], dtype=np.float32)
    assert logit_error(wanted, wanted + np.float32(0.5)) == 0.125
    assert logit_error(wanted, np.array([[1.0, np.nan]], dtype=np.float32)) == np.inf
    with pytest.raises(ValueError, match="instead of"):
        logit_error(wanted, wanted[:, :1])


def test_an_error_in_short() -> None:
    assert in_short(ValueError("  a\nb")) == "ValueError: a"
    assert in_short(ValueError("abcdef"), 3) == "ValueError: abc"
    assert in_short(StageError("It failed.", hint="again")) == "StageError: It failed."
