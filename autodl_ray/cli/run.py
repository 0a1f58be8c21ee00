"""`autodl run`: from a folder of photos to a bundle that can be served."""

from __future__ import annotations

import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from autodl_ray.cli.console import Console, ConsoleProgress, human_seconds
from autodl_ray.errors import RunInterrupted, SpecError, StageError
from autodl_ray.spec import ExperimentSpec, load_spec, parse_spec, with_overrides

if TYPE_CHECKING:
    from autodl_ray.pipeline.result import RunResult

__all__ = ["run"]


def run(
    context: typer.Context,
    data: Annotated[
        str | None,
        typer.Argument(help="Folder, table, archive or s3:// address of photos, or version:NAME.", show_default=False),
    ] = None,
    spec: Annotated[Path | None, typer.Option(help="Spec in YAML: see `autodl spec init`.")] = None,
    budget: Annotated[
        str | None, typer.Option(help="Wall-clock for everything: 90s, 10m, 1h30m.  [default: 10m]")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the run.  [default: folder + digest]")] = None,
    store: Annotated[
        str | None, typer.Option(help="Where everything is kept.  [default: $AUTODL_STORE or ./runs]")
    ] = None,
    model: Annotated[str | None, typer.Option(help="A model of the zoo: see `autodl models`.")] = None,
    splits: Annotated[
        tuple[Path, Path, Path] | None,
        typer.Option("--splits", help="Published split: the lists of train, validation and test files."),
    ] = None,
    augment: Annotated[
        str | None, typer.Option(help="A ready policy, or a YAML file: see `autodl augment list`.  [default: auto]")
    ] = None,
    balance: Annotated[
        str | None, typer.Option(help="For unequal classes: none, weights, sampler or auto.  [default: auto]")
    ] = None,
    num_samples: Annotated[
        int | None, typer.Option(help="Trials of the search; more of a finished run go on with it.  [default: auto]")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Of the final training; more of a finished run go on with it.  [default: auto]")
    ] = None,
    search: Annotated[
        str | None, typer.Option(help="auto, curves, bayes, tpe, random, grid, one_factor, portfolio …")
    ] = None,
    scheduler: Annotated[str | None, typer.Option(help="auto, freeze_thaw, asha, median, none …")] = None,
    repeat: Annotated[
        int | None, typer.Option(help="Do the final training with so many seeds, for an interval.  [default: 1]")
    ] = None,
    disk_limit: Annotated[
        str | None, typer.Option(help="Most that the run and Ray may keep on the disk, e.g. 2GB.")
    ] = None,
    mlflow: Annotated[
        str | None, typer.Option(help="Tracking URI of MLflow, for the live metrics (needs the extra mlflow).")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Root of everything random.  [default: 0]")] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="Any key of the spec, e.g. --set train.lr=1e-3.")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what the libraries print.")] = False,
) -> None:
    """Check, version and split a folder of photos; search, train, evaluate, export and bundle a model.

    The same line again resumes: what is done is not done twice. Ctrl-C once finishes the best model so far.

    Examples:

        autodl run photos/ --budget 10m

        autodl run photos/ --splits train.txt val.txt test.txt --budget 2m

        autodl run version:clean-photos --augment trivial_augment --balance sampler

        autodl run photos/ --num-samples 32 --search bayes --scheduler asha --repeat 3

        autodl run --spec experiment.yaml --set tune.patience=5 --set train.precision=bf16 --json
    """
    started = time.time()
    console: Console = context.obj
    overrides = _overrides(
        {
            "data.path": data,
            "budget_s": budget,
            "name": name,
            "data.balance": balance,
            "model.name": model,
            "train.augment": augment,
            "tune.num_samples": num_samples,
            "tune.search": search,
            "tune.scheduler": scheduler,
            "train.epochs": epochs,
            "repeat": repeat,
            "disk_limit": disk_limit,
            "log.mlflow": mlflow,
            "seed": seed,
            **({f"data.split.{k}_list": str(v) for k, v in zip(("train", "val", "test"), splits, strict=True)}
               if splits else {}),
        },
        setting or [],
    )  # fmt: skip
    wanted = load_spec(spec, overrides) if spec else _spec_of(overrides)
    place = store or os.environ.get("AUTODL_STORE") or "runs"
    result = _execute(wanted, place, console, started)
    _print(result, console)
    if result.missed_limits is not None:
        raise StageError(
            "The delivered model does not keep tune.limits.",
            seen=result.missed_limits,
            hint="allow more, take a smaller model with --model, or a smaller model.image_size",
        )
    if result.interrupted:
        raise RunInterrupted(
            "Stopped before the budget was used; the best model so far is in the bundle.", hint=f"resume: {_line()}"
        )


def _execute(spec: ExperimentSpec, place: str, console: Console, started: float) -> RunResult:
    from autodl_ray.artifacts import Store
    from autodl_ray.pipeline.run import run as run_pipeline

    store = Store(place)
    store.check_writable()
    stamp = time.strftime("%Y%m%d-%H%M%S")
    console.log_to(store.folder("logs") / f"{stamp}-{os.getpid()}.log")
    console.print(f"autodl run {spec.data.path}  budget {human_seconds(spec.budget_s)}  store {place}")
    deadline = started + spec.budget_s
    progress = ConsoleProgress(console, lambda: max(0.0, deadline - time.time()))
    return run_pipeline(spec, store=store, progress=progress, started=started, resume_line=_line())


def _overrides(options: dict[str, Any], settings: list[str]) -> dict[str, Any]:
    found = {k: v for k, v in options.items() if v is not None}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise SpecError("A setting needs a key and a value.", seen=setting, accepted="--set train.lr=1e-3")
        found[key.strip()] = _value(value)
    return found


def _value(text: str) -> Any:
    value = yaml.safe_load(text) if text else ""
    if isinstance(value, str):
        try:
            return float(value)  # YAML 1.1 reads 1e-3 as text
        except ValueError:
            return value
    return value


def _spec_of(overrides: dict[str, Any]) -> ExperimentSpec:
    if "data.path" not in overrides:
        raise SpecError(
            "There is nothing to run.",
            accepted="a folder of photos, version:NAME or --spec FILE",
            hint="autodl run photos/",
        )
    return parse_spec(with_overrides({}, overrides), source="the command line")


def _line() -> str:
    return shlex.join(["autodl", *sys.argv[1:]])


def _print(result: RunResult, console: Console) -> None:
    console.result(result.to_json())
    rows = [
        [r.source, f"{r.accuracy:.4f}", f"{r.macro_f1:.4f}", f"{r.epochs:g}", human_seconds(r.seconds), r.status]
        for r in result.leaderboard[:8]
    ]
    console.print()
    console.table("leaderboard (validation split)", ["model", "accuracy", "macro F1", "epochs", "time", "status"], rows)
    console.print()
    console.print(f"dataset   {result.dataset_id}")
    console.print(f"test      {_test_line(result.report.meta)}")
    console.print(f"int8      {result.int8}")
    for name in ("repeat", "limits"):
        if name in result.facts:
            console.print(f"{name:<9} {result.facts[name]['line']}")
    console.print(f"report    {_relative(result.report.path / 'report.html')}")
    console.print(f"bundle    {_relative(result.bundle.path)}  ({human_seconds(result.seconds)} in all)")
    console.print()
    console.print("next:")
    bundle = shlex.quote(_relative(result.bundle.path))
    console.print(f"  autodl serve {bundle}")
    console.print(f"  autodl predict {bundle} PHOTO.jpg")


def _test_line(meta: dict[str, Any]) -> str:
    low, high = meta["accuracy_interval"]
    return (
        f"accuracy {meta['accuracy']:.4f} ({low:.3f} to {high:.3f}), macro F1 {meta['macro_f1']:.4f}, "
        f"on {meta['num_images']} pictures that nothing was chosen by"
    )


def _relative(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
