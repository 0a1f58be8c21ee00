"""Several ways to make one thing: the first whose result answers like the network is taken, or all are blamed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from autodl_ray.errors import StageError, in_short

__all__ = ["first_faithful", "logit_error"]

Made = TypeVar("Made")
Name = TypeVar("Name", bound=str)


def first_faithful(
    ways: Mapping[Name, Callable[[], Made]], fault: Callable[[Made], str], *, what: str, accepted: str, hint: str
) -> tuple[Made, Name]:
    """Try ways in their order; return what the first faithful one made, and its name.

    Args:
        ways: Name → makes it; may raise anything, as exporters do.
        fault: Says what is wrong with what was made; empty where nothing is.
        what: Of the error, as are ``accepted`` and ``hint``.

    Raises:
        StageError: None is faithful; what is wrong with each is named.
    """
    failures: list[str] = []
    for name, make in ways.items():
        try:
            made = make()
            wrong = fault(made)
        except Exception as cause:  # each exporter raises dozens of kinds
            failures.append(f"{name}: {in_short(cause)}")
            continue
        if not wrong:
            return made, name
        failures.append(f"{name}: {wrong}")
    raise StageError(what, seen="; ".join(failures), accepted=accepted, hint=hint)


def logit_error(wanted: npt.NDArray[Any], seen: npt.NDArray[Any]) -> float:
    """Return the largest difference of a logit, relative to the largest logit wanted (or to 1); infinite for NaN.

    Raises:
        ValueError: The shapes differ.
    """
    if seen.shape != wanted.shape:
        raise ValueError(f"logits of shape {seen.shape} instead of {wanted.shape}")
    return float(np.nan_to_num(np.abs(seen - wanted), nan=np.inf).max() / max(1.0, float(np.abs(wanted).max())))
