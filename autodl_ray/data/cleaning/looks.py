"""How a picture looks, in a few numbers, and the pictures that look wrong: blank, dark, bright, blurred, odd-sized.

Dark, bright, odd size and odd aspect are cleanvision's measures and limits. Its ``Imagelab`` is not used: it wants
files or a data set of its own, opens every picture several times and forks a process a core; its measures take 1.5 ms
a picture of 256 × 192 px here, in the pass and thread that decodes the picture for everything else.

Two of its measures are not good enough. ``low_information`` (entropy) takes a drawing on white for blank, and 27 of
102 photos that are merely over-exposed. ``blurry`` scales to 64 px and counts the frame as an edge: of 102 TrashNet
photos blurred with a Gaussian of 6 px it finds one.
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

__all__ = ["LOOKS", "TINY_PX", "blur_of", "find_odd_looks", "measure_looks"]

TINY_PX = 64
"""Pictures whose longer side is at most this are not judged for blur: they have hardly any detail to lose."""

LOOKS = ("brightness_perc_5", "brightness_perc_99", "blur", "spread")
"""What is measured of a picture, in this order; ``spread``: the largest standard deviation of a channel (0 to 127)."""

_CLEANVISION = {"dark": "dark", "light": "bright", "odd_aspect_ratio": "odd_aspect", "odd_size": "odd_size"}
_BLANK = 3.0
_BLUR = 0.55
_BLUR_ALWAYS = 0.7
_BLUR_FULL = 0.85
_TAPS = 11
_SIZE_RATIO = 1.5

Hits = tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]


def measure_looks(picture: Image) -> list[float]:
    """Measure one RGB picture of at most some hundred pixels a side; returns :data:`LOOKS`."""
    from cleanvision.issue_managers.image_property import BrightnessProperty
    from PIL import ImageStat

    values: dict[str, Any] = {
        **BrightnessProperty("dark").calculate(picture),
        "blur": blur_of(np.asarray(picture.convert("L"), dtype=np.float32)),
        "spread": max(ImageStat.Stat(picture).stddev),
    }
    return [float(values[name]) for name in LOOKS]


def blur_of(grey: npt.NDArray[np.float32]) -> float:
    """Return how blurred a picture is, from 0 (sharp) to 1: how little it changes when it is blurred once more.

    F. Crété-Roffet, T. Dolmiere, P. Ladret, M. Nicolas, The Blur Effect, SPIE 2007. Median of TrashNet's photos 0.25,
    of the same after a Gaussian of 2 px 0.60, of 3 px 0.72.

    Args:
        grey: (H, W) float32.
    """
    from scipy.ndimage import uniform_filter1d

    if min(grey.shape) <= 2 * _TAPS:
        return 0.0
    inner = (slice(_TAPS // 2, -(_TAPS // 2)),) * 2
    kept = []
    for axis in (0, 1):
        again = uniform_filter1d(grey, _TAPS, axis=axis)
        steps, left = (np.abs(np.diff(image, axis=axis))[inner] for image in (grey, again))
        total = float(steps.sum())
        kept.append(float(np.minimum(steps, left).sum()) / total if total > 0 else 1.0)
    return max(kept)


def find_odd_looks(subject: Subject, positions: Sequence[int], looks: npt.NDArray[np.float32]) -> Iterator[Finding]:
    """Yield the pictures that look wrong.

    Args:
        subject: The data set.
        positions: N records.
        looks: (N, 4) float32, :data:`LOOKS` of each.
    """
    if not positions:
        return
    sizes = np.array([(subject.facts[i].width, subject.facts[i].height) for i in positions], dtype=np.float64)
    columns = {name: looks[:, number].astype(np.float64) for number, name in enumerate(LOOKS)}
    columns["aspect_ratio"] = sizes.min(axis=1) / sizes.max(axis=1)
    columns["size"] = np.sqrt(sizes[:, 0] * sizes[:, 1])
    for kind, (hit, sure) in _judged(columns, longer=sizes.max(axis=1)).items():
        for row in np.flatnonzero(hit).tolist():
            i = positions[row]
            path = subject.listing.records[i].path
            values = {name: float(column[row]) for name, column in columns.items()}
            reason = _reason(kind, values, width=int(sizes[row, 0]), height=int(sizes[row, 1]))
            drop = (path,) if kind == "blank" else ()
            yield finding(kind, [path], reason, sure=float(sure[row]), drop=drop, splits=subject.splits_of([i]))


def _judged(columns: Mapping[str, npt.NDArray[np.float64]], *, longer: npt.NDArray[np.float64]) -> dict[str, Hits]:
    """Return by kind which pictures are hit, and how sure; a blank picture is not also dark, bright or blurred."""
    spread, blur = columns["spread"], columns["blur"]
    blank = spread < _BLANK
    judged: dict[str, Hits] = {"blank": (blank, 1 - 0.5 * spread / _BLANK)}
    limit = _blur_limit(blur[~blank])
    sure = np.clip(0.5 + 0.5 * (blur - limit) / (_BLUR_FULL - limit), 0.5, 1.0)
    judged["blurred"] = ((blur > limit) & ~blank & (longer > TINY_PX), sure)
    for issue, (hit, certainty) in _by_cleanvision(columns).items():
        if issue in ("dark", "light"):
            hit = hit & ~blank
        if issue == "odd_size":  # where nearly all have one size, cleanvision calls a single pixel odd
            ratio = columns["size"] / np.median(columns["size"])
            hit = hit & (np.maximum(ratio, 1 / ratio) >= _SIZE_RATIO)
        judged[_CLEANVISION[issue]] = (hit, certainty)
    return judged


def _blur_limit(blur: npt.NDArray[np.float64]) -> float:
    """0.55, or more where most pictures are soft (as through a microscope), but never above 0.7."""
    if not len(blur):
        return _BLUR
    lower, upper = np.percentile(blur, [25, 75])
    return float(min(_BLUR_ALWAYS, max(_BLUR, upper + 1.5 * (upper - lower))))


def _by_cleanvision(columns: Mapping[str, npt.NDArray[np.float64]]) -> dict[str, Hits]:
    """Let cleanvision score and mark; how sure: 0.5 at its limit, 1 where its score is 0."""
    import pandas as pd
    from cleanvision.issue_managers.image_property_issue_manager import ImagePropertyIssueManager

    frame = pd.DataFrame(columns)
    manager = ImagePropertyIssueManager()
    judged = {}
    for issue in _CLEANVISION:
        measure, settings = manager.image_properties[issue], manager.params[issue]
        scores = measure.get_scores(raw_scores=frame[measure.score_columns], issue_type=issue, **settings)
        marks = measure.mark_issue(scores=scores, issue_type=issue, threshold=settings.get("threshold"))
        score = scores.iloc[:, 0].to_numpy(dtype=np.float64)
        limit = float(settings.get("threshold") or getattr(measure, "threshold", 0.5))
        judged[issue] = (marks.iloc[:, 0].to_numpy(dtype=np.bool_), np.clip(1 - 0.5 * score / limit, 0.5, 1.0))
    return judged


def _reason(kind: str, values: Mapping[str, float], *, width: int, height: int) -> str:
    return {
        "blank": f"Next to nothing is in the picture: its values differ by {values['spread']:.1f} of 255.",
        "dark": f"Its brightest pixels have only {values['brightness_perc_99']:.0%} of full brightness.",
        "bright": f"95 % of its pixels have at least {values['brightness_perc_5']:.0%} of full brightness.",
        "blurred": f"Blurred once more it keeps {values['blur']:.0%} of its edges; a sharp photo keeps 15 to 45 %.",
        "odd_aspect": f"It has {width} × {height} px: one side is {1 / values['aspect_ratio']:.1f} times the other.",
        "odd_size": f"It has {width} × {height} px, far from the size of the others.",
    }[kind]
