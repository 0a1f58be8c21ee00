"""`autodl lr-find`: which learning rate suits this data and this model, by a range test of a minute."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autodl_ray.cli.console import Console
from autodl_ray.errors import InputError

if TYPE_CHECKING:
    from autodl_ray.artifacts import Store
    from autodl_ray.evaluate.charts import Chart
    from autodl_ray.spec import ExperimentSpec
    from autodl_ray.train.lr_range import LrRange

__all__ = ["lr_find"]

_ROWS = 12
_SUFFIXES = (".png", ".svg")


def lr_find(
    context: typer.Context,
    data: Annotated[str, typer.Argument(help="Folder, table, archive or address of pictures, as for `autodl run`.")],
    model: Annotated[str, typer.Option(help="See `autodl models`, or package.module:function.")] = "auto",
    steps: Annotated[int, typer.Option(help="Training steps at most.", min=10, max=10_000)] = 100,
    low: Annotated[float, typer.Option(help="First learning rate.")] = 1e-6,
    high: Annotated[float, typer.Option(help="Last learning rate.")] = 1.0,
    out: Annotated[Path, typer.Option("-o", "--out", help="The plot: .png or .svg.")] = Path("lr-find.png"),
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Any key of the spec, e.g. --set train.optimizer=sgd.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Root of everything random.", min=0)] = 0,
    store: Annotated[
        str | None, typer.Option("--store", help="Where what was read is kept.  [default: $AUTODL_STORE or ./runs]")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """Find a learning rate: train briefly while it grows, and see where the loss falls fastest (Smith 2017).

    No run is begun and no weights are kept. The rate is the peak rate of the backbone: give it to `autodl run` with
    `--set train.lr=`.

    Examples:

        autodl lr-find photos/

        autodl lr-find photos/ --model resnet18 --set model.weights=none --steps 200

        autodl lr-find photos/ --set train.optimizer=sgd -o lr.svg --json
    """
    from autodl_ray.cli.data.common import open_store

    console: Console = context.obj
    if out.suffix.lower() not in _SUFFIXES:
        raise InputError("The plot has an unknown suffix.", seen=str(out), accepted=" or ".join(_SUFFIXES))
    spec = _spec(data, model, settings or [], seed)
    kept = open_store(store)
    console.log_to(kept.folder("logs") / "lr-find.log")
    found, lr_now = _test(spec, kept, console, steps=steps, low=low, high=high)
    _write(out, _chart(found))
    _print(found, console, lr_now=lr_now, out=out, data=data)
    console.result(_document(found, lr_now, out))


def _spec(data: str, model: str, settings: list[str], seed: int) -> ExperimentSpec:
    from autodl_ray.spec import parse_spec, with_overrides

    given: dict[str, Any] = {"data.path": data, "model.name": model, "seed": seed}
    for text in settings:
        key, is_pair, value = text.partition("=")
        if not is_pair:
            raise InputError("A setting has no value.", seen=f"--set {text}", accepted="--set KEY=VALUE")
        given[key.strip()] = _value(value.strip())
    return parse_spec(with_overrides({}, given), source="the command line")


def _value(text: str) -> Any:
    import yaml

    try:
        value = yaml.safe_load(text) if text else ""
        return float(value) if isinstance(value, str) else value  # YAML 1.1 reads 1e-3 as text
    except (ValueError, yaml.YAMLError):
        return text


def _test(
    spec: ExperimentSpec, store: Store, console: Console, *, steps: int, low: float, high: float
) -> tuple[LrRange, float]:
    """Read the data as a run does, and do the range test; also return the rate that a run would take."""
    from autodl_ray import data
    from autodl_ray.cli.data.common import surroundings
    from autodl_ray.models.zoo import TINY_PX
    from autodl_ray.pipeline.feeding import balance, open_stream
    from autodl_ray.pipeline.state import begin
    from autodl_ray.train.config import resolve
    from autodl_ray.train.lr_range import lr_range_test

    around = surroundings(store, console, seed=spec.seed)
    version = data.run(spec.data, context=around)
    run = begin(spec, version, around)
    network, balanced = run.network, balance(spec.data, version, context=around)
    config = resolve(
        run.spec.train,
        network.entry,
        preprocess=network.preprocess,
        num_classes=version.num_classes,
        weights=network.weights,
        epochs=1,
        seed=spec.seed,
        class_weights=balanced.loss_weights,
        balanced=balanced.way == "sampler",
    )
    # Without Ray: threads of this process decode, which is enough for a hundred steps.
    source = open_stream(version, network.preprocess, seed=spec.seed, max_unreadable=spec.data.max_unreadable)
    threads = 1 if network.preprocess.size <= TINY_PX else None  # of a tiny step, two only wait for each other
    with around.progress.stage("learning rates"):
        return lr_range_test(config, source, steps=steps, low=low, high=high, num_threads=threads), config.lr


def _print(found: LrRange, console: Console, *, lr_now: float, out: Path, data: str) -> None:
    from autodl_ray.train.lr_range import RULE

    chosen = sorted({round(i * (len(found.lrs) - 1) / (_ROWS - 1)) for i in range(_ROWS)}) if found.lrs else []
    rows = [[f"{found.lrs[i]:.2e}", f"{found.losses[i]:.4f}", f"{found.smoothed[i]:.4f}"] for i in chosen]
    console.table(f"{len(found.lrs)} steps of {found.batch_size} pictures", ["lr", "loss", "smoothed"], rows)
    if found.suggested is None:
        console.print("the loss never fell: try a wider range (--low, --high) or more --steps")
    else:
        console.print(f"suggested: {found.suggested:.2e} ({RULE}); lowest loss at {found.lowest:.2e}")
        console.print(f"a run takes {lr_now:.2e}; autodl run {data} --set train.lr={found.suggested:.2e}")
    console.print(f"{found.ended}; plot: {out}")


def _document(found: LrRange, lr_now: float, out: Path) -> dict[str, Any]:
    from dataclasses import asdict

    from autodl_ray.train.lr_range import RULE

    return {**asdict(found), "rule": RULE, "lr_of_a_run": lr_now, "plot": str(out)}


def _write(out: Path, chart: Chart) -> None:
    from autodl_ray.artifacts import write_atomic
    from autodl_ray.evaluate.charts import sheet_png, sheet_svg

    drawn = sheet_svg([chart], columns=1) if out.suffix.lower() == ".svg" else sheet_png([chart], columns=1)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(out, drawn)
    except OSError as error:
        raise InputError("The plot cannot be written.", seen=f"{out}: {error}", hint="choose -o") from error


def _chart(found: LrRange) -> Chart:
    """Draw the loss over the rate, whose axis is logarithmic, and a line at the suggestion."""
    from autodl_ray.evaluate.charts import Chart, Dot, Stroke, Words

    width, height, left, top = 480.0, 220.0, 56.0, 30.0
    x_low, x_high = math.log10(found.lrs[0]), math.log10(found.lrs[-1])
    y_low, y_high = min(found.losses), max(*found.smoothed[:1], *found.losses[:10], min(found.smoothed) + 1e-9)

    def place(lr: float, loss: float) -> tuple[float, float]:
        share = (math.log10(lr) - x_low) / max(x_high - x_low, 1e-9)
        up = (min(max(loss, y_low), y_high) - y_low) / max(y_high - y_low, 1e-9)
        return left + width * share, top + height * (1 - up)

    shapes: list[Stroke | Dot | Words] = []
    for loss in (y_low, (y_low + y_high) / 2, y_high):
        y = place(found.lrs[0], loss)[1]
        shapes += [
            Stroke(((left, y), (left + width, y)), "line", 1.0),
            Words(left - 7, y + 4, f"{loss:.3g}", 11, "end"),
        ]
    for power in range(math.ceil(x_low - 1e-9), math.floor(x_high + 1e-9) + 1):
        shapes.append(Words(place(10.0**power, y_low)[0], top + height + 18, f"1e{power}", 11))
    shapes += [Dot(*place(lr, loss), 1.6, "soft") for lr, loss in zip(found.lrs, found.losses, strict=True)]
    line = tuple(place(lr, loss) for lr, loss in zip(found.lrs, found.smoothed, strict=True))
    shapes.append(Stroke(line, "blue", 2.2))
    if found.suggested is not None:
        x = place(found.suggested, y_low)[0]
        shapes.append(Stroke(((x, top), (x, top + height)), "orange", 1.6, (7.0, 4.0)))
        shapes.append(Words(x, top - 8, f"suggested {found.suggested:.2e}", colour="orange"))
    shapes.append(Words(left + width / 2, top + height + 36, "learning rate of the backbone"))
    return Chart(left + width + 16, top + height + 46, "training loss over the learning rate", tuple(shapes))
