"""`autodl keys`: API keys of the service: make one, list them, take one away."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autodl_ray.cli.console import Console
from autodl_ray.errors import InputError

__all__ = ["keys_app"]

_File = Annotated[
    Path, typer.Option("--file", help="File of the keys' hashes; the service reads it again when it changes.")
]
_HELP = """API keys of the service.

Examples:

    autodl keys create shop

    autodl keys revoke shop
"""
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
_DEFAULT = Path("keys.json")


def keys_app() -> typer.Typer:
    """Build the commands below `autodl keys`."""
    group = typer.Typer(name="keys", help=_HELP, no_args_is_help=True)
    group.command(name="create")(_create)
    group.command(name="list")(_list)
    group.command(name="revoke")(_revoke)
    return group


def _create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Of the key, shown in the log.", show_default=False)],
    file: _File = _DEFAULT,
    scope: Annotated[
        list[str] | None, typer.Option(help="predict and/or admin (metrics, changes); repeat it.  [default: predict]")
    ] = None,
    rate: Annotated[float | None, typer.Option(help="Requests a second at one replica.  [default: no own]")] = None,
    json_output: _Json = False,
) -> None:
    """Make a key, keep its hash, and print the key: it is shown this once.

    Examples:

        autodl keys create shop --file keys.json

        autodl serve runs/photos/bundle --host 0.0.0.0 --keys-file keys.json
    """
    from autodl_ray.serve.guard.keys import SCOPES, create_key

    console: Console = context.obj
    wanted = tuple(scope or ("predict",))
    scopes = tuple(known for known in SCOPES if known in wanted)
    if len(scopes) != len(set(wanted)):
        raise InputError("This scope is unknown.", seen=", ".join(wanted), accepted=", ".join(SCOPES))
    if rate is not None and not rate > 0:
        raise InputError("The rate is above 0.", seen=rate)
    key = create_key(file, name, scopes=scopes, rate_limit_per_s=rate)
    console.result({"name": name, "key": key, "scopes": list(scopes), "file": str(file)})
    console.print(key)
    console.print(f"  kept as a hash in {file}; this key is not shown again")


def _list(context: typer.Context, file: _File = _DEFAULT, json_output: _Json = False) -> None:
    """List names, scopes and dates; the keys themselves are nowhere.

    Examples:

        autodl keys list --file keys.json
    """
    from autodl_ray.serve.guard.keys import read_keys

    console: Console = context.obj
    keys = read_keys(file)
    console.result(
        {
            "keys": [
                {"name": k.name, "scopes": list(k.scopes), "created": k.created, "rate_limit_per_s": k.rate_limit_per_s}
                for k in keys
            ]
        }
    )
    for key in keys:
        rate = "" if key.rate_limit_per_s is None else f"  {key.rate_limit_per_s:g}/s"
        console.print(f"  {key.name}  {', '.join(key.scopes)}  {key.created}{rate}")
    if not keys:
        console.print("  no keys")


def _revoke(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Of the key.", show_default=False)],
    file: _File = _DEFAULT,
    json_output: _Json = False,
) -> None:
    """Take a key away; running services follow within two seconds.

    Examples:

        autodl keys revoke shop
    """
    from autodl_ray.serve.guard.keys import revoke_key

    console: Console = context.obj
    revoke_key(file, name)
    console.result({"revoked": name, "file": str(file)})
    console.print(f"  {name} is revoked")
