"""How a picture looks, in a few numbers, and the pictures that look wrong: blank, dark, bright, blurred, odd-sized.

The measures and the limits are cleanvision's. Its ``Imagelab`` is not used: it wants files or a data set of its own,
opens every picture three times and forks a process a core; its measures take 2 ms a picture of 256 × 192 px here, in
the same pass and thread that decodes the picture for everything else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from autodl_ray.data.cleaning.findings import Finding, finding
from autodl_ray.data.cleaning.subject import Subject

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["LOOKS", "TINY_PX", "find_odd_looks", "measure_looks"]

TINY_PX = 64
"""Pictures whose longer side is at most this are not judged for blur: the measure is made for 64 px and more."""

LOOKS = ("brightness_perc_5", "brightness_perc_99", "entropy", "blurriness", "blurriness_grayscale_std", "spread")
"""What is measured of a picture, in this order; ``spread`` is the standard deviation of its grey values (0 to 127)."""

_KINDS = {
    "low_information": "blank",
    "dark": "dark",
    "light": "bright",
    "blurry": "blurred",
    "odd_aspect_ratio": "odd_aspect",
    "odd_size": "odd_size",
}
_BLANK_SPREAD = 2.0
_BLANK_ENTROPY = 0.05


def measure_looks(picture: Image) -> list[float]:
    """Measure one RGB picture of at most some hundred pixels a side; returns :data:`LOOKS`."""
    from cleanvision.issue_managers.image_property import BlurrinessProperty, BrightnessProperty, EntropyProperty
    from PIL import ImageStat

    values: dict[str, Any] = {
        **BrightnessProperty("dark").calculate(picture),
        **EntropyProperty().calculate(picture),
        **BlurrinessProperty().calculate(picture),
        "spread": ImageStat.Stat(picture.convert("L")).stddev[0],
    }
    return [float(values[name]) for name in LOOKS]


def find_odd_looks(subject: Subject, positions: Sequence[int], looks: npt.NDArray[np.float32]) -> Iterator[Finding]:
    """Yield pictures past cleanvision's limits.

    Args:
        subject: The data set.
        positions: N records.
        looks: (N, 6) float32, :data:`LOOKS` of each.
    """
    if not positions:
        return
    sizes = np.array([(subject.facts[i].width, subject.facts[i].height) for i in positions], dtype=np.float64)
    columns = {name: looks[:, number].astype(np.float64) for number, name in enumerate(LOOKS)}
    columns["aspect_ratio"] = sizes.min(axis=1) / sizes.max(axis=1)
    columns["size"] = np.sqrt(sizes[:, 0] * sizes[:, 1])
    judged = _judged(columns)
    blank = judged["low_information"][0] & (columns["spread"] < _BLANK_SPREAD) | (columns["entropy"] < _BLANK_ENTROPY)
    for issue, kind in _KINDS.items():
        hit, sure = judged[issue]
        hit = _trusted(kind, hit, blank=blank, longer=sizes.max(axis=1))
        for row in np.flatnonzero(hit).tolist():
            i = positions[row]
            path = subject.listing.records[i].path
            values = {name: float(column[row]) for name, column in columns.items()}
            reason = _reason(kind, values, width=int(sizes[row, 0]), height=int(sizes[row, 1]))
            drop = (path,) if kind == "blank" else ()
            certainty = 1.0 if kind == "blank" and values["spread"] == 0 else float(sure[row])
            yield finding(kind, [path], reason, sure=certainty, drop=drop, splits=subject.splits_of([i]))


def _trusted(
    kind: str, hit: npt.NDArray[np.bool_], *, blank: npt.NDArray[np.bool_], longer: npt.NDArray[np.float64]
) -> npt.NDArray[np.bool_]:
    """Take cleanvision's word where it is good.

    Its ``low_information`` (entropy below 3 bits) names simple drawings and small pictures that are anything but
    blank (a third of Fashion-MNIST): blank is what has next to no contrast besides. A blank picture is not also
    called dark, bright or blurred. Blur of pictures below 64 px is not judged.
    """
    if kind == "blank":
        return blank
    if kind == "blurred":
        return hit & ~blank & (longer > TINY_PX)
    return hit & ~blank if kind in ("dark", "bright") else hit


def _judged(columns: Mapping[str, npt.NDArray[np.float64]]) -> dict[str, tuple[npt.NDArray[np.bool_], Any]]:
    """Let cleanvision score and mark; how sure: 0.5 at its limit, 1 where its score is 0."""
    import pandas as pd
    from cleanvision.issue_managers.image_property_issue_manager import ImagePropertyIssueManager

    frame = pd.DataFrame(columns)
    manager = ImagePropertyIssueManager()
    judged = {}
    for issue in _KINDS:
        measure, settings = manager.image_properties[issue], manager.params[issue]
        scores = measure.get_scores(raw_scores=frame[measure.score_columns], issue_type=issue, **settings)
        marks = measure.mark_issue(scores=scores, issue_type=issue, threshold=settings.get("threshold"))
        score = scores.iloc[:, 0].to_numpy(dtype=np.float64)
        limit = float(settings.get("threshold") or getattr(measure, "threshold", 0.5))
        hit = marks.iloc[:, 0].to_numpy(dtype=np.bool_)
        judged[issue] = (hit, np.clip(1 - 0.5 * score / limit, 0.5, 1.0))
    return judged


def _reason(kind: str, values: Mapping[str, float], *, width: int, height: int) -> str:
    return {
        "blank": f"Next to nothing is in the picture: its grey values differ by {values['spread']:.1f} of 255.",
        "dark": f"Its brightest pixels have only {values['brightness_perc_99']:.0%} of full brightness.",
        "bright": f"95 % of its pixels have at least {values['brightness_perc_5']:.0%} of full brightness.",
        "blurred": f"It has hardly any edges (strength {values['blurriness']:.0f}; sharp photos have 40 and more).",
        "odd_aspect": f"It has {width} × {height} px: one side is {1 / values['aspect_ratio']:.1f} times the other.",
        "odd_size": f"It has {width} × {height} px, far from the size of the others.",
    }[kind]
