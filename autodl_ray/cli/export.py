"""`autodl export`: a bundle in another format, held against the network that was trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autodl_ray.cli.console import Console

if TYPE_CHECKING:
    from autodl_ray.artifacts import ValSamples
    from autodl_ray.artifacts.bundle import BundleInfo

__all__ = ["export"]


def export(
    context: typer.Context,
    bundle: Annotated[Path, typer.Argument(help="Folder or zip of a bundle.", show_default=False)],
    to: Annotated[
        list[str],
        typer.Option(
            "--to",
            help="torchscript, openvino, tensorrt or safetensors; may be given several times.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder; each format gets one in it.", show_default=False)],
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of the photos it was trained on.  [default: as the run beside the bundle says]"),
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Write a bundle in other formats, and hold each against the trained network.

    The check reads the original files of the whole validation split, in batches of 1, 3 and 32; a format that does not
    answer like the network is not written, and the layer that differs first is named. Where the photos are not to be
    found, made pictures stand in for them, and the record says so.

    Examples:

        autodl export runs/photos/bundle --to torchscript --out exported/

        autodl export runs/photos/bundle --to openvino --to tensorrt --out exported/ --data photos/ --json
    """
    import tempfile

    from autodl_ray.artifacts import write_atomic
    from autodl_ray.artifacts.bundle import open_bundle
    from autodl_ray.export import format_source
    from autodl_ray.export.documents import dump
    from autodl_ray.export.formats import known_format, make_formats
    from autodl_ray.export.placing import place, refuse_foreign

    console: Console = context.obj
    artifact, info = open_bundle(bundle)
    names = tuple(dict.fromkeys(known_format(name) for name in to))
    refuse_foreign(out, names)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".autodl-export-", dir=out) as staging:
        pictures, where = _pictures(bundle, info, data, Path(staging))
        records, parity = make_formats(names, format_source(artifact, info), Path(staging), samples=pictures)
        for name in names:
            document = {
                "model": info.name,
                "version": info.version,
                "format": name,
                "checked_on": where,
                "record": {**records[name].model_dump(mode="json"), "folder": "."},
                "parity": parity[name].to_json(),
            }
            write_atomic(Path(staging) / name / "export.json", dump(document))
            place(Path(staging) / name, out / name)
    rows: list[dict[str, Any]] = [
        {"format": name, **records[name].model_dump(mode="json"), "folder": str(out / name)} for name in names
    ]
    console.result({"model": info.name, "version": info.version, "checked_on": where, "formats": rows})
    console.table(
        f"{info.name} {info.version}, checked on {where}",
        ["format", "size", "same class", "largest difference", "made by", "note", "folder"],
        [
            [
                row["format"],
                f"{row['bytes'] / 1e6:.2f} MB",
                f"{row['agreement']:.4f}",
                f"{row['max_difference']:.1e}",
                row["how"],
                row["note"],
                row["folder"],
            ]
            for row in rows
        ],
        left=("made by", "note", "folder"),
    )


def _pictures(bundle: Path, info: BundleInfo, data: Path | None, staging: Path) -> tuple[ValSamples, str]:
    """Return the validation split of the data set version, or made pictures, and what to call them."""
    from autodl_ray.export.placing import made_samples
    from autodl_ray.pipeline.finding import validation_split

    samples = validation_split(bundle, info.dataset_id, data)
    if samples is not None:
        return samples, f"{len(samples)} pictures of the validation split"
    made = made_samples(staging / ".made", info.classes)
    return made, f"{len(made)} made pictures (the photos were not found: give --data)"
