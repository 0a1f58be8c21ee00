"""The model card: what is known of a model, in Markdown, made from the records in its bundle and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autodl_ray.artifacts.bundle import BundleInfo

__all__ = ["CARD", "model_card"]

CARD = "MODEL_CARD.md"
_MAX_CLASSES = 40
_FIT = {
    "stretch": "stretched to a square",
    "crop": "scaled by the shorter side and cut to the centre",
    "pad": "scaled by the longer side and filled up with grey",
}


def model_card(
    info: BundleInfo,
    *,
    parity: Mapping[str, Any],
    packages: Mapping[str, str],
    speed: Mapping[str, Any] | None = None,
    dataset: Mapping[str, Any] | None = None,
) -> str:
    """Write the card.

    Args:
        info: The record of the bundle.
        parity: The content of ``parity.json``.
        packages: Versions that made it.
        speed: The content of ``speed.json``, where it was measured.
        dataset: Facts of the data set version, where they are at hand: ``sizes`` and ``counts``.
    """
    parts = [
        f"# {info.name} {info.version}",
        _summary(info),
        _section("Data", _data(info, dataset)),
        _section("Scores", _scores(info)),
        _section("Files and parity", _parity(info, parity)),
        _section("INT8", _int8(info)),
        _section("Speed", _speed(speed)),
        _section("Use", _use(info)),
        _section("Limits", _limits(info)),
        _section("Licence", [f"Weights started from: {info.licence or 'not recorded'}."]),
        _section("Versions", [", ".join(f"{name} {version}" for name, version in sorted(packages.items())) + "."]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _section(title: str, lines: Sequence[str]) -> str:
    return f"## {title}\n\n" + "\n".join(lines) if lines else ""


def _summary(info: BundleInfo) -> str:
    pixels = f"{info.preprocess.size} x {info.preprocess.size} px"
    return (
        f"An image classifier with {len(info.classes)} classes: `{info.model}`, input {pixels}, pictures "
        f"{_FIT[info.preprocess.fit]}. Weights from: {info.source}."
    )


def _data(info: BundleInfo, dataset: Mapping[str, Any] | None) -> list[str]:
    shown = ", ".join(f"`{name}`" for name in info.classes[:_MAX_CLASSES])
    more = len(info.classes) - _MAX_CLASSES
    lines = [
        f"Data set version `{info.dataset_id}`.",
        "",
        f"Classes: {shown}{f' and {more} more' if more > 0 else ''}.",
    ]
    if dataset and dataset.get("sizes"):
        sizes = dataset["sizes"]
        lines += ["", "Pictures: " + ", ".join(f"{split} {sizes[split]}" for split in sizes) + "."]
        counts = dataset.get("counts", {}).get("train", {})
        if counts:
            rarest = min(counts, key=lambda name: counts[name])
            lines += ["", f"The rarest class of the training split is `{rarest}`, with {counts[rarest]} pictures."]
    return lines


def _scores(info: BundleInfo) -> list[str]:
    lines = ["| split | accuracy | macro F1 |", "| --- | --- | --- |"]
    val = info.val_scores
    lines.append(f"| validation (models were chosen by it) | {_number(val, 'accuracy')} | {_number(val, 'macro_f1')} |")
    test = info.test_scores
    if test is None:
        return [*lines, "", "The test split was not opened for this model."]
    interval = test.get("accuracy_interval")
    width = f" ({interval[0]:.4f} to {interval[1]:.4f})" if interval else ""
    lines.append(f"| test ({test.get('num_images', '?')} pictures) | {_number(test, 'accuracy')}{width} "
                 f"| {_number(test, 'macro_f1')} |")  # fmt: skip
    note = "The test split was opened once, for the delivered file; the interval is of 95 %."
    return [*lines, "", note if interval else "The test split was opened once, for the delivered file."]


def _number(scores: Mapping[str, Any], name: str) -> str:
    value = scores.get(name)
    return f"{value:.4f}" if isinstance(value, int | float) else "-"


def _parity(info: BundleInfo, parity: Mapping[str, Any]) -> list[str]:
    lines = ["Held against the trained network on pictures of the validation split, in batches of 1, 3 and 32:", ""]
    lines += ["| format | pictures | same class | largest difference | note |", "| --- | --- | --- | --- | --- |"]
    rows = {"onnx (fp32)": (parity, f"exporter {info.exporter}; preprocessing inside")}
    notes = {name: f"{r.note}{'' if r.ran_here else ' (not run here)'}" for name, r in info.formats.items()}
    rows.update({name: (parity.get("formats", {}).get(name, {}), note) for name, note in notes.items()})
    for name, (row, note) in rows.items():
        lines.append(
            f"| {name} | {row.get('pictures', '-')} | {row.get('agreement', float('nan')):.4f} "
            f"| {row.get('max_difference', float('nan')):.2g} | {note} |"
        )
    return lines


def _int8(info: BundleInfo) -> list[str]:
    record = info.int8
    lines = [f"{'Delivered' if record.kept else 'Not delivered'}: {record.reason}."]
    if record.fp32 is not None and record.int8 is not None:
        lines += ["", "| file | validation accuracy | pictures a second | bytes |", "| --- | --- | --- | --- |"]
        for name, figures in (("FP32", record.fp32), ("INT8", record.int8)):
            lines.append(f"| {name} | {figures.accuracy:.4f} | {figures.images_per_s:.1f} | {figures.bytes:,} |")
    return lines


def _speed(speed: Mapping[str, Any] | None) -> list[str]:
    if not speed:
        return []
    rows = [f"| {name} | {v['latency_ms']:.2f} |" for name, v in speed["variants"].items()]
    size = " x ".join(str(side) for side in speed["picture_px"])
    head = f"One decoded picture of {size} px a call, onnxruntime, {speed['threads']} threads, median:"
    return [head, "", "| file | milliseconds |", "| --- | --- |", *rows]


def _use(info: BundleInfo) -> list[str]:
    default = info.variants[info.default_variant]
    return [
        f"`{default}` is served. It takes `image` uint8 (N, H, W, 3), RGB, upright, any size, and gives "
        f"`probabilities` float32 (N, {len(info.classes)}); the order of the classes is that of `labels.json`.",
        "",
        "```sh",
        "autodl predict BUNDLE photo.jpg",
        "autodl serve BUNDLE",
        "autodl pack BUNDLE --out model.zip   # a runner that needs onnxruntime, numpy and Pillow alone",
        "```",
    ]


def _limits(info: BundleInfo) -> list[str]:
    return [
        "- It names one of its classes for every picture, also for pictures of something else: the probability says "
        "how sure it is among its classes, and nothing about others.",
        "- Scores hold for pictures like those of the data set; other cameras, light and places may do worse. Fairness "
        "between groups of people was not examined.",
        "- Probabilities were not calibrated unless the report says so.",
    ]
