"""The command line: one thin file a verb; errors are a few lines and come last."""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # `typing` is not imported before it is known that there is something to do
if TYPE_CHECKING:
    from typing import Any

__all__ = ["app", "main"]


def app() -> Any:
    """Build the command line application (typer)."""
    import typer

    from autodl_ray.cli import bench, export, lr_find, models, pack, predict, run, serve, spec
    from autodl_ray.cli.augment import augment_app
    from autodl_ray.cli.data import data_app
    from autodl_ray.cli.deploy import deploy_app
    from autodl_ray.cli.keys import keys_app
    from autodl_ray.cli.runs import runs_app

    cli = typer.Typer(
        name="autodl",
        help="From a folder of photos to a tuned, honestly evaluated, quantized model behind an HTTP endpoint.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    cli.callback()(_top)
    cli.command(name="run")(run.run)
    cli.command(name="lr-find")(lr_find.lr_find)
    cli.command(name="predict")(predict.predict)
    cli.command(name="bench")(bench.bench)
    cli.command(name="serve")(serve.serve)
    cli.command(name="export")(export.export)
    cli.command(name="pack")(pack.pack)
    cli.command(name="models")(models.models)
    cli.add_typer(data_app(), name="data")
    cli.add_typer(runs_app(), name="runs")
    cli.add_typer(augment_app(), name="augment")
    cli.add_typer(deploy_app(), name="deploy")
    cli.add_typer(keys_app(), name="keys")
    cli.add_typer(spec.spec_app(), name="spec")
    return cli


def _top() -> None:
    """From a folder of photos to a tuned, honestly evaluated, quantized model behind an HTTP endpoint."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 unusable input, 130 stopped by Ctrl-C."""
    sys.exit(_run(sys.argv[1:] if arguments is None else arguments))


def _run(arguments: list[str]) -> int:
    from autodl_ray.cli.unchanged import told_again

    if told_again(arguments):
        return 0
    import typer

    from autodl_ray.cli.console import Console
    from autodl_ray.errors import AutoDLError

    console = Console(json_output="--json" in arguments, verbose="-v" in arguments or "--verbose" in arguments)
    console.arguments = tuple(arguments)
    try:
        result = app()(arguments, standalone_mode=False, obj=console)
        return result if isinstance(result, int) else 0
    except AutoDLError as error:
        _log_traceback()
        console.error(str(error))
        return error.exit_code
    except typer.Exit as stop:
        return stop.exit_code
    except typer.TyperException as error:  # an unknown verb or option, a missing value
        console.error(f"{error.format_message()}\n  next: autodl --help")
        return 2
    except (KeyboardInterrupt, typer.Abort):
        console.error("stopped")
        return 130
    except Exception as error:
        _log_traceback()
        where = f"\n  log: {console.log_path}" if console.log_path else ""
        console.error(f"{type(error).__name__}: {error}{where}\n  next: this is a bug; please report it with the log")
        return 1
    finally:
        console.close()


def _log_traceback() -> None:
    import logging

    if logging.getLogger().handlers:  # without a log file it would be printed
        logging.getLogger("autodl_ray").exception("the command ended with an error")
