"""The quiet console: what libraries print goes into a log file, and people see bars, tables and the result."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from autodl_ray.runtime.progress import StageProgress

__all__ = ["Console", "ConsoleProgress", "human_seconds"]


_PLAIN_WIDTH = 160


def human_seconds(seconds: float) -> str:
    """Write a duration as people do.

    Example:
        >>> human_seconds(75)
        '1 min 15 s'
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


class Console:
    """Standard output and error as they were, while file descriptors 1 and 2 lead into a log file.

    Redirecting the descriptors (not ``sys.stdout``) catches what C++ code and child processes print as well.

    Args:
        json_output: Print one JSON document on standard output and nothing else; progress goes to nobody.
        verbose: Leave the output of libraries on the terminal.
    """

    def __init__(self, *, json_output: bool = False, verbose: bool = False) -> None:
        self.json_output = json_output
        self.verbose = verbose
        self.log_path: Path | None = None
        self.arguments: tuple[str, ...] = ()  # the words behind autodl
        self._out: IO[str] = _duplicate(1)
        self._err: IO[str] = _duplicate(2)
        out = self._err if json_output else self._out
        # A file or a pipe has no width: 80 columns would cut tables that nobody needs cut.
        width = None if out.isatty() else _PLAIN_WIDTH
        self.rich = RichConsole(file=out, quiet=json_output, soft_wrap=True, width=width)
        self.error_console = RichConsole(file=self._err, stderr=True, soft_wrap=True, highlight=False)

    def log_to(self, path: Path) -> None:
        """Send everything that is printed from now on (by anyone but this class) into ``path``."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.log_path = path
        log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        sys.stdout.flush()
        sys.stderr.flush()
        if not self.verbose:
            os.dup2(log, 1)
            os.dup2(log, 2)
        stream = os.fdopen(log, "a", buffering=1, encoding="utf-8")
        logging.basicConfig(
            stream=stream, level=logging.INFO, force=True, format="%(asctime)s %(levelname)s %(name)s %(message)s"
        )
        logging.captureWarnings(True)

    def close(self) -> None:
        """Let go of the two streams; nothing is printed after that."""
        for stream in (self._out, self._err):
            with contextlib.suppress(OSError):  # the reader of a pipe went away
                stream.close()

    def print(self, text: str = "") -> None:
        """Print a line for people."""
        self.rich.print(text, highlight=False, markup=False)

    def table(self, title: str, columns: list[str], rows: list[list[str]], *, left: Sequence[str] = ()) -> None:
        """Print a small table; its first column and those named in ``left`` begin at the left."""
        table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
        for i, column in enumerate(columns):
            table.add_column(column, justify="left" if i == 0 or column in left else "right", no_wrap=i == 0)
        for row in rows:
            table.add_row(*row)
        self.rich.print(table)

    def result(self, document: dict[str, Any]) -> None:
        """Print the one JSON document (with ``--json`` only)."""
        if self.json_output:
            self._out.write(json.dumps(document, indent=1, ensure_ascii=False, default=str) + "\n")
            self._out.flush()

    def json_line(self, document: dict[str, Any]) -> None:
        """Print a JSON document on one line of standard output (with ``--json`` only)."""
        if self.json_output:
            self._out.write(json.dumps(document, ensure_ascii=False, default=str) + "\n")
            self._out.flush()

    def error(self, text: str) -> None:
        """Print an error, last, on standard error."""
        first, *rest = text.split("\n")
        self.error_console.print(f"error: {first}", style="bold red", markup=False)
        for line in rest:
            self.error_console.print(line, markup=False)


def _duplicate(descriptor: int) -> IO[str]:
    try:
        copy = os.dup(descriptor)
    except OSError:  # closed by the caller, as a daemon does
        return io.StringIO()
    return os.fdopen(copy, "w", buffering=1, encoding="utf-8", errors="replace")


class _Bar:
    def __init__(self, bars: Progress | None, task: TaskID | None) -> None:
        self._bars, self._task = bars, task
        self.note = ""

    def update(self, done: float, total: float | None = None, *, note: str = "") -> None:
        """Move the bar."""
        self.note = note or self.note
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, completed=done, total=total, note=self.note)


class _BudgetColumn(ProgressColumn):
    """What is left of the budget, at the moment the bar is drawn."""

    def __init__(self, seconds_left: Callable[[], float] | None) -> None:
        super().__init__()
        self._seconds_left = seconds_left

    def render(self, task: Task) -> Text:
        """Draw the column."""
        left = f"budget: {human_seconds(self._seconds_left())} left" if self._seconds_left else ""
        return Text(left, style="dim")


class ConsoleProgress:
    """Bars on a terminal; elsewhere one line for each finished stage.

    Args:
        console: Where to print.
        seconds_left: Returns what is left of the budget, shown behind each bar.
    """

    def __init__(self, console: Console, seconds_left: Callable[[], float] | None = None) -> None:
        self._console = console
        self._seconds_left = seconds_left
        self._logger = logging.getLogger("autodl_ray")

    @contextmanager
    def stage(self, name: str, total: float | None = None) -> Iterator[StageProgress]:
        """Show the bar of a stage while its block runs."""
        started = time.monotonic()
        bars = self._bars()
        task = bars.add_task(name, total=total, note="") if bars else None
        bar = _Bar(bars, task)
        self._logger.info("stage %s", name)
        try:
            with bars or contextlib.nullcontext():
                yield bar
        except BaseException:
            self._logger.info("stage %s did not finish", name)
            raise
        self._finished(name, bar.note, time.monotonic() - started)

    def say(self, line: str) -> None:
        """Print a line that stays."""
        self._logger.info("%s", line)
        self._console.print(f"  {line}")

    def _bars(self) -> Progress | None:
        rich = self._console.rich
        if self._console.json_output or not rich.is_terminal:
            return None
        return Progress(
            TextColumn("[bold]{task.description:<9}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[note]}", markup=False),
            TimeRemainingColumn(compact=True),
            _BudgetColumn(self._seconds_left),
            console=rich,
            transient=True,
            refresh_per_second=4,
        )

    def _finished(self, name: str, note: str, seconds: float) -> None:
        self._logger.info("stage %s done in %.1f s %s", name, seconds, note)
        mark = "✓" if self._console.rich.encoding.startswith("utf") else "+"
        self._console.rich.print(
            f"{mark} {name:<9} {human_seconds(seconds):>12}  {note}".rstrip(), highlight=False, markup=False
        )
