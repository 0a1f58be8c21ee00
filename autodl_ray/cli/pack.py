"""`autodl pack`: a bundle that runs where this package is not installed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from autodl_ray.cli.console import Console

__all__ = ["pack"]


def pack(
    context: typer.Context,
    bundle: Annotated[Path, typer.Argument(help="Folder or zip of a bundle.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="A new folder, or a file that ends in .zip.", show_default=False)],
    variant: Annotated[
        Literal["auto", "fp32", "int8"], typer.Option(help="The model file to keep; auto: the one that is served.")
    ] = "auto",
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Pack a bundle with a program that needs onnxruntime, numpy and Pillow alone.

    What comes out is a bundle itself: `autodl serve` and `autodl predict` take it, as a folder or as a zip.

    Examples:

        autodl pack runs/photos/bundle --out photos.zip

        autodl pack runs/photos/bundle --out device/ --variant int8

        python photos.zip a.jpg
    """
    from autodl_ray.export.pack import pack as pack_bundle

    console: Console = context.obj
    packed = pack_bundle(bundle, out, variant=variant)
    console.result({"path": str(packed.path), "variant": packed.variant, "bytes": packed.bytes, "files": packed.files})
    console.print(f"packed    {packed.path}  {packed.bytes / 1e6:.2f} MB, {packed.files} files, {packed.variant}")
    program = packed.path if packed.path.is_file() else packed.path / "predict.py"
    console.print(f"run it    python {program} PHOTO.jpg   (onnxruntime, numpy and Pillow)")
