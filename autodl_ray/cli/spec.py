"""`autodl spec`: print, check and show experiment specifications."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from autodl_ray.cli.console import Console
from autodl_ray.spec import json_schema, load_spec, render_spec

__all__ = ["spec_app"]

_File = Annotated[Path, typer.Argument(help="The YAML file.", show_default=False)]


def spec_app() -> Any:
    """Build the sub-commands of `autodl spec`."""
    cli = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help=_help())
    cli.command(name="init")(init)
    cli.command(name="validate")(validate)
    cli.command(name="show")(show)
    return cli


def _help() -> str:
    return """Print, check and show experiment specifications.

    Examples:

        autodl spec init > experiment.yaml

        autodl spec validate experiment.yaml
    """


def init(
    context: typer.Context,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema instead (for editors).")] = False,
) -> None:
    """Print the complete, commented spec with its defaults.

    Examples:

        autodl spec init > experiment.yaml

        autodl spec init --schema > experiment.schema.json
    """
    console: Console = context.obj
    console.print(json_schema() if schema else render_spec().rstrip())


def validate(
    context: typer.Context,
    file: _File,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Check a spec: every mistake at once, with its key, its line and near names; exit 2 when there are any.

    Examples:

        autodl spec validate experiment.yaml
    """
    console: Console = context.obj
    load_spec(file)
    console.print(f"{file} is valid")
    console.result({"file": str(file), "valid": True})


def show(
    context: typer.Context,
    file: _File,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Print a spec in full: what the file says, with every default filled in.

    Examples:

        autodl spec show experiment.yaml

        autodl spec show experiment.yaml --json
    """
    console: Console = context.obj
    spec = load_spec(file)
    console.print(render_spec(spec).rstrip())
    console.result(spec.model_dump(mode="json"))
