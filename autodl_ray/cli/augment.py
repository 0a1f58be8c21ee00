"""`autodl augment`: what there is to augment with, what a policy does to a picture, and how fast it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autodl_ray.cli.console import Console
from autodl_ray.errors import InputError

if TYPE_CHECKING:
    from autodl_ray.augment import AugmentPolicy
    from autodl_ray.augment.sheet import Tile
    from autodl_ray.images import Fit, ImageArray

__all__ = ["augment_app"]

_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
_Policy = Annotated[str, typer.Argument(help="A ready policy, or a YAML file.", show_default=False)]
_Size = Annotated[int, typer.Option(help="Side of the network's input, px.", min=8, max=1024)]
_Magnitude = Annotated[float, typer.Option(help="Strength of a ready policy, 0 to 1 (0.5: as written).", min=0, max=1)]


def augment_app() -> Any:
    """Build the sub-commands of `autodl augment`."""
    cli = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help=_help())
    cli.command(name="list")(list_all)
    cli.command(name="show")(show)
    cli.command(name="preview")(preview)
    cli.command(name="bench")(bench)
    return cli


def _help() -> str:
    return """See, preview and time augmentations of training pictures.

    Examples:

        autodl augment list

        autodl augment show ColorJitter

        autodl augment preview trivial_augment photo.jpg

        autodl augment bench strong
    """


def list_all(
    context: typer.Context,
    family: Annotated[str | None, typer.Option(help="Only this family, such as geometry or weather.")] = None,
    json_output: _Json = False,
) -> None:
    """List every operation, ready policy and way to mix a batch, by family.

    Examples:

        autodl augment list

        autodl augment list --family weather

        autodl augment list --json
    """
    from autodl_ray.augment.describe import entries

    console: Console = context.obj
    found = entries()
    families = tuple(dict.fromkeys(entry.family for entry in found))
    if family is not None and family not in families:
        raise InputError("There is no such family.", seen=family, accepted=", ".join(families))
    chosen = [entry for entry in found if family in (None, entry.family)]
    console.table(
        f"{len(chosen)} augmentations",
        ["name", "family", "moves boxes", "what it does"],
        [[e.name, e.family, "yes" if e.moves_boxes else "no", e.doc] for e in chosen],
        left=("family", "moves boxes", "what it does"),
    )
    console.result({"augmentations": [entry.to_json() for entry in chosen]})


def show(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="As `autodl augment list` shows it.", show_default=False)],
    json_output: _Json = False,
) -> None:
    """Show one augmentation: its parameters with type, range and default, and an example in YAML.

    Examples:

        autodl augment show RandomRotate

        autodl augment show rand_augment --json
    """
    from autodl_ray.augment.describe import find_entry

    console: Console = context.obj
    entry = find_entry(name)
    console.print(f"{entry.name} ({entry.family}): {entry.doc}")
    console.print(f"boxes and masks {'follow the picture' if entry.moves_boxes else 'stay as they are'}")
    if entry.parameters:
        rows = [[p.name, p.type, p.range, p.default, p.doc] for p in entry.parameters]
        columns = ["name", "type", "range", "default", "what it is"]
        console.table("parameters", columns, rows, left=columns)
    console.print(f"\n{entry.example.rstrip()}")
    console.result(entry.to_json())


def preview(
    context: typer.Context,
    policy: _Policy,
    image: Annotated[Path, typer.Argument(help="A picture.", show_default=False)],
    out: Annotated[Path, typer.Option("-o", "--out", help="The contact sheet (PNG).")] = Path("preview.png"),
    count: Annotated[int, typer.Option(help="Augmented versions.", min=1, max=200)] = 12,
    size: _Size = 224,
    fit: Annotated[str, typer.Option(help="How the picture becomes square: stretch, crop or pad.")] = "stretch",
    magnitude: _Magnitude = 0.5,
    seed: Annotated[int, typer.Option(help="Another seed, other versions.", min=0)] = 0,
    boxes: Annotated[
        list[str] | None, typer.Option("--boxes", help="A box to follow: x1,y1,x2,y2 in pixels; may be repeated.")
    ] = None,
    json_output: _Json = False,
) -> None:
    """Draw a contact sheet: the picture as it is, and as training would see it.

    Examples:

        autodl augment preview strong photo.jpg

        autodl augment preview jobs/augment.yaml photo.jpg -o sheet.png --count 20

        autodl augment preview rand_augment photo.jpg --boxes 40,30,200,180 --fit pad
    """
    from autodl_ray.augment import AugmentPolicy
    from autodl_ray.augment.sheet import contact_sheet

    console: Console = context.obj
    made = AugmentPolicy.parse(policy, magnitude=magnitude)
    tiles = _tiles(made, _picture(image), boxes or [], count=count, size=size, fit=_fit(fit), seed=seed)
    sheet = contact_sheet(tiles, columns=min(5, count + 1), side=min(size, 224))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(out, format="PNG")
    except OSError as error:
        raise InputError("The contact sheet cannot be written.", seen=f"{out}: {error}", hint="choose -o") from error
    console.print(f"{out}: the picture and {count} versions of it by {made.name}")
    console.result({"file": str(out), "policy": made.name, "digest": made.digest, "versions": count})


def _fit(word: str) -> Fit:
    fits: dict[str, Fit] = {"stretch": "stretch", "crop": "crop", "pad": "pad"}
    if word not in fits:
        raise InputError("There is no such fit.", seen=word, accepted=", ".join(fits))
    return fits[word]


def _picture(path: Path) -> ImageArray:
    from autodl_ray.images import decode_image

    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError("The picture cannot be read.", seen=f"{path}: {error.strerror}") from error
    return decode_image(data)


def _tiles(
    policy: AugmentPolicy, image: ImageArray, boxes: list[str], *, count: int, size: int, fit: Fit, seed: int
) -> list[Tile]:
    import numpy as np

    from autodl_ray.augment import Scene
    from autodl_ray.augment.sheet import Tile
    from autodl_ray.seeding import seed_for

    height, width = image.shape[:2]
    rows = np.array([_box(text, width, height) for text in boxes], dtype=np.float32).reshape(-1, 4)
    scene = Scene(image, None, rows, np.arange(len(rows)))
    tiles = [Tile(image, "as it is", rows)]
    for i in range(count):
        done = policy.apply_scene(scene, size=size, fit=fit, rng_seed=seed_for(seed, "preview", i))
        tiles.append(Tile(done.image, f"{policy.name} {i + 1}", done.boxes))
    return tiles


def _box(text: str, width: int, height: int) -> tuple[float, float, float, float]:
    try:
        x1, y1, x2, y2 = (float(part) for part in text.split(","))
    except ValueError:
        x1 = y1 = x2 = y2 = 0.0
    if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
        raise InputError(
            "This is no box of the picture.",
            seen=f"--boxes {text}",
            accepted=f"x1,y1,x2,y2 with 0 <= x1 < x2 <= {width} and 0 <= y1 < y2 <= {height}",
        )
    return x1, y1, x2, y2


def bench(
    context: typer.Context,
    policy: Annotated[
        str | None, typer.Argument(help="A ready policy, a YAML file or an operation; none: every operation.")
    ] = None,
    image: Annotated[Path | None, typer.Option(help="A picture; none: a generated one of 256 x 256 px.")] = None,
    size: _Size = 224,
    seconds: Annotated[float, typer.Option(help="For each, s.", min=0.01, max=60)] = 0.2,
    magnitude: _Magnitude = 0.5,
    albumentations: Annotated[
        bool, typer.Option("--albumentations", help="Time its transforms of the same names too (their defaults).")
    ] = False,
    json_output: _Json = False,
) -> None:
    """Time a policy, one operation or all of them: pictures a second of one thread.

    Examples:

        autodl augment bench

        autodl augment bench GaussianBlur --albumentations

        autodl augment bench strong --image photo.jpg --json
    """
    from autodl_ray.augment import CATALOGUE
    from autodl_ray.augment.timing import example_picture, operation_speeds, policy_speed

    console: Console = context.obj
    picture = example_picture() if image is None else _picture(image)
    if policy is None or policy in CATALOGUE:
        names = (policy,) if policy else ()
        found = list(operation_speeds(picture, size=size, seconds=seconds, names=names, rival=albumentations))
    else:
        made = _policy_or_operation(policy, magnitude)
        found = [policy_speed(made, picture, size=size, seconds=seconds)]
    rival = ["albumentations"] if albumentations else []
    console.table(
        f"pictures a second, one thread, {picture.shape[1]} x {picture.shape[0]} px",
        ["name", "img/s", *rival],
        [[s.name, f"{s.images_per_s:.0f}", *([_rate(s.rival_images_per_s)] if rival else [])] for s in found],
    )
    console.result(
        {
            "height": picture.shape[0],
            "width": picture.shape[1],
            "speeds": [
                {"name": s.name, "images_per_s": s.images_per_s, "albumentations_images_per_s": s.rival_images_per_s}
                for s in found
            ],
        }
    )


def _policy_or_operation(word: str, magnitude: float) -> AugmentPolicy:
    """Read a policy; where the word is none, say which operations are near as well."""
    from autodl_ray.augment import CATALOGUE, AugmentPolicy
    from autodl_ray.errors import near_names

    try:
        return AugmentPolicy.parse(word, magnitude=magnitude)
    except InputError as error:
        error.hint = error.hint or near_names(word, CATALOGUE)
        raise


def _rate(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"
