"""`autodl data`: what a folder holds, and writing it in another format."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autodl_ray.cli.console import Console, ConsoleProgress
from autodl_ray.cli.data.common import Json, StoreOption, open_store

if TYPE_CHECKING:
    from autodl_ray.data.formats import Detection
    from autodl_ray.data.records import Listing

__all__ = ["add_to"]

_SHOWN = 10
_PATH = "A folder, a table, an archive, or s3://bucket/prefix."
_STEP = 64  # pictures between two moves of the bar


def add_to(cli: typer.Typer) -> None:
    """Add the verbs to `autodl data`."""
    cli.command(name="detect")(_detect)
    cli.command(name="convert")(_convert)


def _detect(
    context: typer.Context,
    path: Annotated[str, typer.Argument(help=_PATH)],
    store: StoreOption = None,
    json_output: Json = False,
) -> None:
    """Say of what format a data set is, why, what it holds, and what was not understood.

    Examples:

        autodl data detect photos/

        autodl data detect photos.zip --json

        autodl data detect "s3://bucket/photos?region=eu-central-1"
    """
    from autodl_ray.data.formats import detect, read_found

    console: Console = context.obj
    cache = open_store(store).folder("cache/formats")
    found = detect(path, cache=cache)
    listing = read_found(found, cache=cache)
    _show_detection(console, found, listing)
    console.result(
        {
            "format": found.format,
            "why": found.why,
            "confidence": found.confidence,
            "opened": found.opened,
            "not_understood": list(found.not_understood),
            "alternatives": [vars(other) for other in found.alternatives],
            **_facts(listing),
        }
    )


def _show_detection(console: Console, found: Detection, listing: Listing) -> None:
    console.print(f"{found.format}: {found.why} (confidence {found.confidence:.2f})")
    for other in found.alternatives:
        console.print(f"  or {other.format}: {other.why} ({other.confidence:.2f})")
    _show_listing(console, listing)
    for name in found.not_understood[:_SHOWN]:
        console.print(f"  not understood: {name}")
    if len(found.not_understood) > _SHOWN:
        console.print(f"  … and {len(found.not_understood) - _SHOWN} more that were not understood")


def _show_listing(console: Console, listing: Listing) -> None:
    facts = _facts(listing)
    boxes = f", {facts['boxes']:,} boxes" if facts["task"] == "detection" else ""
    console.print(f"  {facts['pictures']:,} pictures, {len(facts['classes'])} classes{boxes}")
    if facts["splits"]:
        console.print("  " + ", ".join(f"{split} {count:,}" for split, count in facts["splits"].items()))
    counts = facts["classes"]
    console.table("", ["class", facts["counted"]], [[name, f"{count:,}"] for name, count in counts.items()][:_SHOWN])
    if len(counts) > _SHOWN:
        console.print(f"… and {len(counts) - _SHOWN} more classes")
    for note in listing.notes:
        console.print(f"  {note}")
    for what, count in listing.passed_over.items():
        console.print(f"  passed over: {count:,} {what}")
    for problem in listing.problems[:_SHOWN]:
        console.print(f"  not usable: {problem.path}: {problem.reason}")
    if len(listing.problems) > _SHOWN:
        console.print(f"  … and {len(listing.problems) - _SHOWN:,} more that are not usable")


def _facts(listing: Listing) -> dict[str, Any]:
    """Return what a listing holds, as JSON."""
    is_detection = listing.task == "detection"
    labels = (
        (box.label for record in listing.records for box in record.boxes or ())
        if is_detection
        else (record.label for record in listing.records if record.label is not None)
    )
    counts = Counter({name: 0 for name in listing.classes})
    counts.update(labels)
    splits = Counter(record.split for record in listing.records)
    return {
        "task": listing.task,
        "pictures": len(listing.records),
        "boxes": sum(len(record.boxes or ()) for record in listing.records),
        "counted": "boxes" if is_detection else "pictures",
        "classes": {name: counts[name] for name in listing.classes or sorted(counts)},
        "splits": {str(name or "none"): splits[name] for name in ("train", "val", "test", None) if splits[name]}
        if listing.is_split
        else {},
        "passed_over": listing.passed_over,
        "problems": [problem._asdict() for problem in listing.problems],
        "notes": listing.notes,
    }


def _convert(
    context: typer.Context,
    path: Annotated[str, typer.Argument(help=_PATH)],
    out: Annotated[Path, typer.Argument(help="Folder to write; it must be new or empty.")],
    to: Annotated[str, typer.Option(help="imagefolder, parquet, coco, voc or yolo.")],
    format: Annotated[str, typer.Option(help="Of PATH; see `autodl data detect`.")] = "auto",
    force: Annotated[
        bool, typer.Option("--force", help="Write into a folder that has files; same names are replaced.")
    ] = False,
    store: StoreOption = None,
    json_output: Json = False,
) -> None:
    """Write a data set in another format, with its splits, labels and boxes; pictures are copied byte by byte.

    Examples:

        autodl data convert BCCD/ bccd-coco/ --to coco

        autodl data convert mnist/ digits/ --to imagefolder

        autodl data convert photos.zip photos-parquet/ --to parquet --json
    """
    from autodl_ray.data.formats import check_write, read, write

    console: Console = context.obj
    check_write(format=to, folder=out, force=force)
    progress = ConsoleProgress(console)
    with progress.stage("read") as bar:
        listing = read(path, cache=open_store(store).folder("cache/formats"), format=format)
        bar.update(1, 1, note=f"{listing.format}, {len(listing.records):,} pictures")
    with progress.stage("write", len(listing.records)) as bar:

        def done(count: int, total: int) -> None:
            if count % _STEP == 0 or count == total:
                bar.update(count, total, note=f"{count:,} pictures")

        written = write(listing, format=to, folder=out, force=force, done=done)
    console.print(f"{written.folder}: {written.format}, {written.pictures:,} pictures, {written.boxes:,} boxes")
    for note in written.notes:
        console.print(f"  {note}")
    left_out = len(listing.problems)
    if left_out:
        console.print(f"  {left_out:,} things of the source are not usable: autodl data detect {path}")
    console.result(
        {
            "folder": str(written.folder),
            "format": written.format,
            "pictures": written.pictures,
            "boxes": written.boxes,
            "notes": list(written.notes),
            "source": _facts(listing),
        }
    )
