"""`autodl data`: the files of versions: writing them out, checking, cleaning up, and moving to a remote place."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autodl_ray.cli.console import Console, ConsoleProgress
from autodl_ray.cli.data.common import Json, StoreOption, human_bytes, open_store

__all__ = ["add_to"]

_REMOTE = "s3://bucket/prefix?region=…&endpoint_override=HOST:PORT&scheme=http, or a folder."
_VERSION = "A tag, latest, an id, or its first 6 or more digits."


def add_to(cli: typer.Typer) -> None:
    """Add the verbs to `autodl data`."""
    cli.command(name="checkout")(_checkout)
    cli.command(name="verify")(_verify)
    cli.command(name="gc")(_gc)
    cli.command(name="push")(_push)
    cli.command(name="pull")(_pull)


def _checkout(
    context: typer.Context,
    ref: Annotated[str, typer.Argument(help=_VERSION)],
    folder: Annotated[Path, typer.Argument(help="Where to; made when missing.")],
    force: Annotated[bool, typer.Option("--force", help="Replace files that have other bytes.")] = False,
    store: StoreOption = None,
    json_output: Json = False,
) -> None:
    """Write the files of a version into a folder, as they were.

    Files with equal bytes are left alone; so are files of other names.

    Examples:

        autodl data checkout raw photos-as-they-came/

        autodl data checkout latest photos/ --force
    """
    from autodl_ray.data.versions import Refs
    from autodl_ray.data.versions.checkout import checkout

    console: Console = context.obj
    place = open_store(store)
    entry = Refs(place).resolve(ref)
    done = checkout(entry, folder, store=place, progress=ConsoleProgress(console), force=force)
    console.print(f"{entry.short} → {folder}: {done.written} files written, {done.equal} were equal")
    if done.others:
        console.print(f"  {done.others} other files in the folder are left as they are")
    console.result({"version": entry.version, "folder": str(folder), **vars(done)})


def _verify(
    context: typer.Context,
    ref: Annotated[str | None, typer.Argument(help="A version.  [default: all]", show_default=False)] = None,
    repair: Annotated[
        str | None, typer.Option("--repair", metavar="REMOTE", help="Get what is damaged from this remote.")
    ] = None,
    store: StoreOption = None,
    json_output: Json = False,
) -> None:
    """Hash everything again; exit 1 when something is damaged or gone.

    With --repair what is whole of damaged packs is kept, and the rest is fetched.

    Examples:

        autodl data verify

        autodl data verify --repair s3://bucket/data?region=eu-central-1
    """
    from autodl_ray.data.versions import Refs
    from autodl_ray.data.versions.repair import repair_store
    from autodl_ray.data.versions.verify import verify

    console: Console = context.obj
    place = open_store(store)
    refs = Refs(place)
    entries = refs.entries() if ref is None else [refs.resolve(ref)]
    progress = ConsoleProgress(console)
    found = verify(entries, store=place, progress=progress, only=ref is not None)
    if repair is not None and found.faults:
        for fault in found.faults:
            console.print(f"  {fault.place}: {fault.reason}")
        fetched = repair_store(entries, found, store=place, address=repair, progress=progress)
        console.print(f"repaired: {fetched} pictures came from the remote")
        found = verify(entries, store=place, progress=progress, only=ref is not None)
    for fault in found.faults:
        console.print(f"  {fault.place}: {fault.reason}")
    said = "all is whole" if not found.faults else f"{len(found.faults)} faults"
    console.print(f"{said}: {len(entries)} versions, {found.blobs} files in {found.packs} packs, "
                  f"{human_bytes(found.bytes)}")  # fmt: skip
    if found.faults and repair is None:
        console.print("next: autodl data verify --repair REMOTE, or take the snapshot again from a whole folder")
    console.result({"whole": not found.faults, "versions": len(entries), "packs": found.packs, "files": found.blobs}
                   | {"bytes": found.bytes, "faults": [fault._asdict() for fault in found.faults]})  # fmt: skip
    if found.faults:
        raise typer.Exit(1)


def _gc(
    context: typer.Context,
    apply: Annotated[bool, typer.Option("--apply/--dry-run", help="Delete, or only say what would be.")] = False,
    grace_hours: Annotated[float, typer.Option(min=0, help="Leave alone what was used in the last hours.")] = 24.0,
    forget: Annotated[list[str] | None, typer.Option(help="Take this version out of the list first.")] = None,
    store: StoreOption = None,
    json_output: Json = False,
) -> None:
    """Delete pictures that no version in the list needs.

    Examples:

        autodl data gc

        autodl data gc --forget 3f2a91 --apply
    """
    from autodl_ray.data.versions import Refs
    from autodl_ray.data.versions.gc import collect

    console: Console = context.obj
    place = open_store(store)
    versions = [Refs(place).resolve(ref).version for ref in forget or ()]
    done = collect(
        place, progress=ConsoleProgress(console), dry_run=not apply, grace_s=grace_hours * 3600, forget=versions
    )
    would = "" if apply else "would be "
    console.print(
        f"{len(done.deleted)} packs {would}deleted, {len(done.rewritten)} {would}rewritten, "
        f"{done.leftovers} leftovers {would}deleted: {human_bytes(done.freed_bytes)} free"
    )
    console.print(f"versions need {human_bytes(done.kept_bytes)}")
    if done.waiting:
        console.print(f"{len(done.waiting)} packs that nothing needs were used in the last {grace_hours:g} h and stay")
    if not apply and done.freed_bytes:
        console.print("next: autodl data gc --apply")
    console.result({"applied": apply, "forgotten": versions, **vars(done)})


def _push(
    context: typer.Context,
    ref: Annotated[str, typer.Argument(help=_VERSION)],
    remote: Annotated[str, typer.Argument(help=_REMOTE)],
    force: Annotated[bool, typer.Option("--force", help="Move tags that the remote has for another version.")] = False,
    store: StoreOption = None,
    json_output: Json = False,
) -> None:
    """Send a version to a remote; only what is missing there. The same line again goes on where it was.

    Examples:

        autodl data push trash-clean s3://bucket/data?region=eu-central-1

        autodl data push latest /mnt/disk/data
    """
    from autodl_ray.data.addresses import hidden
    from autodl_ray.data.versions import Refs
    from autodl_ray.data.versions.push import push
    from autodl_ray.data.versions.remote import Remote

    console: Console = context.obj
    place = open_store(store)
    entry = Refs(place).resolve(ref)
    done = push(entry, store=place, remote=Remote(remote), progress=ConsoleProgress(console), force=force)
    console.print(f"{entry.short} → {hidden(remote)}: sent {done.moved} of {done.files} files, "
                  f"{human_bytes(done.moved_bytes)}")  # fmt: skip
    for line in done.notes:
        console.print(f"  {line}")
    console.result(vars(done))


def _pull(
    context: typer.Context,
    ref: Annotated[str, typer.Argument(help=f"{_VERSION} Of the remote.")],
    remote: Annotated[str, typer.Argument(help=_REMOTE)],
    force: Annotated[bool, typer.Option("--force", help="Move tags that the store has for another version.")] = False,
    store: StoreOption = None,
    json_output: Json = False,
) -> None:
    """Get a version from a remote; only what is missing here, checked by hash.

    Examples:

        autodl data pull trash-clean s3://bucket/data?region=eu-central-1

        autodl run version:trash-clean --budget 10m
    """
    from autodl_ray.data.versions.pull import pull
    from autodl_ray.data.versions.remote import Remote

    console: Console = context.obj
    place = open_store(store)
    place.check_writable()
    done = pull(ref, store=place, remote=Remote(remote), progress=ConsoleProgress(console), force=force)
    console.print(f"{done.version[:12]}: fetched {done.moved} of {done.files} files, {human_bytes(done.moved_bytes)}")
    for line in done.notes:
        console.print(f"  {line}")
    console.print(f"next: autodl run version:{done.version[:12]}")
    console.result(vars(done))
