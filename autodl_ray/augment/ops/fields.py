"""Types of the operations' parameters: numbers with their bounds, and ranges of them."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, Field

__all__ = [
    "MAX_REMAPPED",
    "UNKNOWN",
    "Amounts",
    "Angle",
    "Angles",
    "Border",
    "Bytes",
    "Counts",
    "Factors",
    "Leans",
    "Parts",
    "Positives",
    "Qualities",
    "Shares",
    "Signeds",
    "ordered",
]

MAX_REMAPPED = 32_000
"""Longest side, in pixels, of a picture whose every pixel can be taken from elsewhere (OpenCV counts in 16 bits)."""
UNKNOWN = 255
"""What a mask says of pixels from outside the picture."""

T = TypeVar("T", bound=float)


def ordered(value: tuple[T, T]) -> tuple[T, T]:
    """Let a range [low, high] pass.

    Raises:
        ValueError: Low is above high.
    """
    if value[0] > value[1]:
        raise ValueError("low must not be above high")
    return value


Angle = Annotated[float, Field(ge=-360, le=360)]
"""Degrees."""
_Amount = Annotated[float, Field(ge=0, le=100)]
_Byte = Annotated[int, Field(ge=0, le=255)]
_Count = Annotated[int, Field(ge=1, le=64)]
_Factor = Annotated[float, Field(ge=0, le=10)]
_Lean = Annotated[float, Field(ge=-80, le=80)]
_Part = Annotated[float, Field(ge=0, le=1)]
_Positive = Annotated[float, Field(gt=0, le=100)]
_Quality = Annotated[int, Field(ge=1, le=100)]
_Share = Annotated[float, Field(gt=0, le=1)]
_Signed = Annotated[float, Field(ge=-1, le=1)]

Amounts = Annotated[tuple[_Amount, _Amount], AfterValidator(ordered)]
"""[low, high] in [0, 100]."""
Angles = Annotated[tuple[Angle, Angle], AfterValidator(ordered)]
"""[low, high] in [-360, 360] degrees."""
Bytes = Annotated[tuple[_Byte, _Byte], AfterValidator(ordered)]
"""[low, high] of whole numbers 0 to 255."""
Counts = Annotated[tuple[_Count, _Count], AfterValidator(ordered)]
"""[low, high] of whole numbers 1 to 64."""
Factors = Annotated[tuple[_Factor, _Factor], AfterValidator(ordered)]
"""[low, high] in [0, 10]; 1 changes nothing."""
Leans = Annotated[tuple[_Lean, _Lean], AfterValidator(ordered)]
"""[low, high] in [-80, 80] degrees."""
Parts = Annotated[tuple[_Part, _Part], AfterValidator(ordered)]
"""[low, high] in [0, 1]."""
Positives = Annotated[tuple[_Positive, _Positive], AfterValidator(ordered)]
"""[low, high] in (0, 100]."""
Qualities = Annotated[tuple[_Quality, _Quality], AfterValidator(ordered)]
"""[low, high] of whole numbers 1 to 100."""
Shares = Annotated[tuple[_Share, _Share], AfterValidator(ordered)]
"""[low, high] in (0, 1]."""
Signeds = Annotated[tuple[_Signed, _Signed], AfterValidator(ordered)]
"""[low, high] in [-1, 1]."""

Border = Literal["edge", "fill"]
"""What pixels from outside the picture are: the nearest pixel of its edge, or the fill colour."""
