"""`autodl runs watch`: a run that another process works on, live."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autodl_ray.cli.console import Console
from autodl_ray.cli.runs.common import StoreOption, store_folder
from autodl_ray.errors import StageError, StoreError

if TYPE_CHECKING:
    from autodl_ray.cli.runs.following import Follower, Snapshot

__all__ = ["add_to", "watch"]

_SILENT_S = 10.0  # without a terminal: at most so long between two lines


def add_to(cli: typer.Typer) -> None:
    """Add the verb."""
    cli.command(name="watch")(watch)


def watch(
    context: typer.Context,
    run: Annotated[
        str | None, typer.Argument(help="Name of the run.  [default: the one that wrote last]", show_default=False)
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Show how it stands and end.")] = False,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 1.0,
    trials: Annotated[int, typer.Option(min=1, help="Trials that are listed, best first.")] = 10,
    store: StoreOption = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON document a line at each change.")] = False,
) -> None:
    """Follow a run live: its stage, its trials, loss and accuracy, speed, memory and what is left.

    Only files are read, so the run may be another process's, or have ended. The command ends with the run: exit 0,
    or 1 when the run failed or was killed. Ctrl-C leaves the run alone.

    Examples:

        autodl runs watch

        autodl runs watch photos-3f2a1c --json
    """
    from autodl_ray.cli.runs.following import Follower

    console: Console = context.obj
    folder = store_folder(store)
    follower = Follower(folder, run or _newest(folder), most=trials)
    try:
        last = _follow(follower, console, every=every, once=once)
    except (KeyboardInterrupt, BrokenPipeError):  # the run goes on
        return
    if last.status in ("failed", "killed"):
        raise StageError(
            "The run failed." if last.status == "failed" else "The process of the run is gone.",
            seen=last.run,
            hint="the line of the run again goes on where it stopped; its log is in the folder logs of the store",
        )


def _newest(folder: Path) -> str:
    from autodl_ray.cli.runs.following import newest_run

    name = newest_run(folder)
    if name is None:
        raise StoreError("The store has no runs yet.", seen=str(folder), hint="autodl run photos/")
    return name


def _follow(follower: Follower, console: Console, *, every: float, once: bool) -> Snapshot:
    if console.json_output or once or not console.rich.is_terminal:
        return _say(follower, console, every=every, once=once)
    from rich.live import Live

    from autodl_ray.cli.runs.drawing import drawn

    seen = follower.look()
    with Live(drawn(seen), console=console.rich, auto_refresh=False) as screen:
        while not seen.has_ended:
            time.sleep(every)
            seen = follower.look()
            screen.update(drawn(seen), refresh=True)
    return seen


def _say(follower: Follower, console: Console, *, every: float, once: bool) -> Snapshot:
    """A line for everything that happens, and one every ten seconds."""
    from autodl_ray.cli.runs.drawing import drawn, line

    told: tuple[Any, ...] = ()
    last = float("-inf")
    while True:
        seen = follower.look()
        now = _happened(seen)
        if console.json_output and (now != told or seen.live):
            console.json_line(seen.to_json())
        elif once:
            console.rich.print(drawn(seen))
        elif now != told or time.monotonic() - last > _SILENT_S:
            console.print(line(seen))
            last = time.monotonic()
        told = now
        if once or seen.has_ended:
            return seen
        time.sleep(every)


def _happened(seen: Snapshot) -> tuple[Any, ...]:
    """What is worth a line when it changes."""
    best = seen.best
    return (
        seen.stage,
        tuple(seen.counts.items()),
        None if best is None else (best.name, best.value),
        tuple((one.name, one.epoch) for one in seen.live),
    )
