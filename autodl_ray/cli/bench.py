"""`autodl bench`: how fast a bundle answers on this machine, and what of it to ship."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from autodl_ray.cli.console import Console, ConsoleProgress
from autodl_ray.cli.pictures import pictures_below
from autodl_ray.errors import DatasetError, InputError

if TYPE_CHECKING:
    from autodl_ray.artifacts.bundle import BundleInfo
    from autodl_ray.export.bench import BenchTable
    from autodl_ray.images import ImageArray

__all__ = ["bench"]

_PICTURES = 64
_SIZE = (480, 640)
_EDGE_SHARE = 0.2  # of the seconds


def bench(
    context: typer.Context,
    bundle: Annotated[Path, typer.Argument(help="Folder or zip of a bundle.", show_default=False)],
    images: Annotated[
        Path | None, typer.Option(help="Folder of pictures.  [default: noise of 640 x 480 px]", show_default=False)
    ] = None,
    batch: Annotated[
        list[int] | None, typer.Option(help="Pictures a call; may be repeated.  [default: 1, 8, 32]")
    ] = None,
    threads: Annotated[
        list[int] | None, typer.Option(help="Threads of a call; may be repeated.  [default: 1 and all cores]")
    ] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(help="onnxruntime, openvino, torch or 'torch bf16'; may be repeated.  [default: all]"),
    ] = None,
    seconds: Annotated[float, typer.Option(help="About how long all of it may take.", min=1, max=3600)] = 60,
    target: Annotated[
        Literal["any", "edge"], typer.Option(help="edge: also one thread and memory, and what to ship.")
    ] = "any",
    plot: Annotated[Path | None, typer.Option(help="Write a plot: .png, .svg or .pdf.", show_default=False)] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """Time a bundle: p50, p95 and throughput over batch sizes and threads, FP32 and INT8, several engines.

    Raw pictures go in, probabilities come out; decoding is not counted. All engines take turns, so that other work on
    the machine meets them alike. torch is the reference: eager, and with channels-last and bfloat16.

    Examples:

        autodl bench runs/photos/bundle

        autodl bench runs/photos/bundle --images photos/ --batch 1 --threads 2 --plot speed.png

        autodl bench runs/photos/bundle --target edge --json
    """
    from autodl_ray.artifacts.bundle import open_bundle
    from autodl_ray.export import bench as benches
    from autodl_ray.export.bench.plot import SUFFIXES, write_plot

    console: Console = context.obj
    if plot is not None and plot.suffix.lower() not in SUFFIXES:
        raise InputError("The plot has an unknown suffix.", seen=str(plot), accepted=", ".join(SUFFIXES))
    artifact, info = open_bundle(bundle)
    grid = benches.Grid(
        batches=tuple(batch or benches.Grid().batches),
        threads=tuple(threads or ()),
        engines=_engines(engine),
        seconds=seconds * (1 - _EDGE_SHARE) if target == "edge" else seconds,
    )
    grid.cells()  # what is wrong with it is said before anything is timed
    pictures = _pictures(images)
    with ConsoleProgress(console).stage("bench") as bar:
        table = benches.bench(
            artifact.path, info, pictures, grid, tell=lambda done, total, note: bar.update(done, total, note=note)
        )
    _print(console, info, table, pictures[0].shape)
    document: dict[str, Any] = {
        "model": info.name,
        "version": info.version,
        "picture": list(pictures[0].shape),
        **table.to_json(),
        "int8": info.int8.model_dump(mode="json"),
    }
    if target == "edge":
        document["edge"] = _edge(console, artifact.path, info, pictures[0].shape[:2], _EDGE_SHARE * seconds)
    if plot is not None:
        write_plot(table.rows, plot, title=f"{info.name} {info.version}: {info.model}")
        console.print(f"plot: {plot}")
        document["plot"] = str(plot)
    console.result(document)


def _engines(names: list[str] | None) -> Any:
    from autodl_ray.export.bench.engines import ENGINES

    wrong = [name for name in names or () if name not in ENGINES]
    if wrong:
        raise InputError("There is no such engine.", seen=wrong[0], accepted=", ".join(ENGINES))
    return tuple(dict.fromkeys(names)) if names else ENGINES


def _pictures(folder: Path | None) -> list[ImageArray]:
    """Read pictures of one size (the commonest), or make noise: speed does not depend on what is seen."""
    from collections import Counter

    import numpy as np

    from autodl_ray.images import decode_image
    from autodl_ray.seeding import rng_for

    if folder is None:
        return [rng_for(0, "bench", i).integers(0, 256, (*_SIZE, 3), dtype=np.uint8) for i in range(8)]
    found = []
    for file in pictures_below(folder)[:_PICTURES]:
        try:
            found.append(decode_image(file.read_bytes()))
        except (DatasetError, OSError) as error:
            seen = f"{file}: {error.what if isinstance(error, DatasetError) else error}"
            raise InputError("A picture cannot be read.", seen=seen, hint="take it out of the folder") from error
    shape = Counter(picture.shape for picture in found).most_common(1)[0][0]
    return [picture for picture in found if picture.shape == shape]


def _print(console: Console, info: BundleInfo, table: BenchTable, shape: tuple[int, ...]) -> None:
    rows = [
        [r.label, str(r.batch), str(r.threads), f"{r.p50_ms:.2f}", f"{r.p95_ms:.2f}",
         f"{r.images_per_s:.1f}", str(r.calls)]
        for r in sorted(table.rows, key=lambda r: (r.batch, r.threads, -r.images_per_s))
    ]  # fmt: skip
    console.table(
        f"{info.name} {info.version} ({info.model}), pictures of {shape[1]} x {shape[0]} px",
        ["engine", "batch", "threads", "p50 ms", "p95 ms", "pictures/s", "calls"],
        rows,
    )
    for line in table.left_out:
        console.print(f"left out: {line}")
    console.print(f"INT8: {'kept' if info.int8.kept else 'left out'}: {info.int8.reason}")


def _edge(console: Console, folder: Path, info: BundleInfo, size: tuple[int, ...], seconds: float) -> dict[str, Any]:
    from dataclasses import asdict

    from autodl_ray.export.bench import measure_edge, pick_edge
    from autodl_ray.spec import ExportSpec

    record = info.int8
    lost = record.fp32.accuracy - record.int8.accuracy if record.fp32 and record.int8 else 0.0
    files: dict[str, Path] = {variant: folder / file for variant, file in info.variants.items()}
    measured = measure_edge(files, size=(size[0], size[1]), lost={"int8": lost}, seconds=seconds)
    if "fp32" in files:
        choice = pick_edge(measured, ExportSpec())
        variant, reason = choice.variant, choice.reason
    else:
        variant, reason = measured[0].variant, "the bundle has no other file"
    console.table(
        "one thread, one picture a call, in a process of its own",
        ["file", "p50 ms", "peak MB", "file MB"],
        [[m.variant, f"{m.ms:.2f}", f"{m.peak_mb:.0f}", f"{m.file_mb:.1f}"] for m in measured],
    )
    console.print(f"ship {info.variants[variant]}: {reason}")  # type: ignore[index]
    return {"files": [asdict(m) for m in measured], "ship": variant, "reason": reason}
