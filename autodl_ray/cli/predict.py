"""`autodl predict`: what a bundle says about pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from autodl_ray.cli.console import Console
from autodl_ray.cli.pictures import pictures_below

if TYPE_CHECKING:
    from autodl_ray.images import ImageArray
    from autodl_ray.models.predictor import Predictor

__all__ = ["predict"]

_CHUNK = 32


def predict(
    context: typer.Context,
    bundle: Annotated[Path, typer.Argument(help="Folder or zip of a bundle.", show_default=False)],
    files: Annotated[list[Path], typer.Argument(help="Pictures, or folders of pictures.", show_default=False)],
    top_k: Annotated[int, typer.Option(min=1, help="How many classes to name, the likeliest first.")] = 1,
    variant: Annotated[
        Literal["auto", "fp32", "int8"], typer.Option(help="Model file; auto: the one that the bundle serves.")
    ] = "auto",
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Classify pictures with a bundle; exit 2 when some could not be read, with the others answered.

    Examples:

        autodl predict runs/photos/bundle a.jpg b.png

        autodl predict runs/photos/bundle holiday/ --top-k 3 --json
    """
    from autodl_ray.models.predictor import Predictor

    console: Console = context.obj
    predictor = Predictor.open(bundle, variant=variant)
    paths = _pictures(files)
    rows = [row for i in range(0, len(paths), _CHUNK) for row in _answers(predictor, paths[i : i + _CHUNK], top_k)]
    failed = [row for row in rows if "error" in row]
    _table(console, predictor, [row for row in rows if "error" not in row])
    console.result(
        {
            "model": predictor.name,
            "version": predictor.version,
            "variant": predictor.variant,
            "predictions": rows,
            "failed": len(failed),
        }
    )
    if failed:
        lines = [f"  {row['file']}: {row['error']}" for row in failed]
        console.error("\n".join([f"{len(failed)} of {len(rows)} pictures could not be read.", *lines]))
        raise typer.Exit(2)


def _pictures(files: Sequence[Path]) -> list[Path]:
    """Files as they are given, and of each folder the pictures below it, sorted."""
    return [path for file in files for path in (pictures_below(file) if file.is_dir() else [file])]


def _answers(predictor: Predictor, paths: Sequence[Path], k: int) -> list[dict[str, Any]]:
    """One row a path, in order: the answer, or the reason why there is none."""
    from autodl_ray.tasks.classification import top_k

    rows: list[dict[str, Any]] = [{"file": str(path)} for path in paths]
    pictures: list[ImageArray] = []
    readable: list[dict[str, Any]] = []
    for row, path in zip(rows, paths, strict=True):
        picture = _read(path)
        if isinstance(picture, str):
            row["error"] = picture
        else:
            pictures.append(picture)
            readable.append(row)
    for row, probabilities in zip(readable, predictor(pictures), strict=True):
        top = top_k(probabilities, predictor.classes, k)
        row.update(top[0])
        if k > 1:
            row["top"] = top
    return rows


def _read(path: Path) -> ImageArray | str:
    from autodl_ray.errors import DatasetError
    from autodl_ray.images import decode_image

    try:
        return decode_image(path.read_bytes())
    except DatasetError as error:
        return error.what if error.seen is None else f"{error.what} ({error.seen})"
    except OSError as error:
        return f"The file cannot be read. ({error.strerror})"


def _table(console: Console, predictor: Predictor, rows: Sequence[dict[str, Any]]) -> None:
    """Print a line a picture; the file comes last and whole, however long its path is."""
    if not rows:
        return
    more = any("top" in row for row in rows)
    lines = [["class", "probability", *(["then"] if more else []), "file"]]
    for row in rows:
        then = [", ".join(f"{t['class']} {t['probability']:.4f}" for t in row["top"][1:])] if more else []
        lines.append([row["class"], f"{row['probability']:.4f}", *then, row["file"]])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]) - 1)]
    console.print(f"{predictor.name} {predictor.version} ({predictor.variant})")
    for line in lines:
        console.print("  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[-1]]))
