"""`autodl data`: snapshots of a data set, by content."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autodl_ray.cli.console import Console, ConsoleProgress
from autodl_ray.cli.data import version_files
from autodl_ray.cli.data.common import Json, StoreOption, human_bytes, many_small_objects, open_store, surroundings
from autodl_ray.cli.unchanged import remember

if TYPE_CHECKING:
    from autodl_ray.artifacts import Store
    from autodl_ray.data.records import Listing
    from autodl_ray.data.versions.index import IndexRow
    from autodl_ray.spec import SplitSpec

__all__ = ["add_to"]

_SHOWN = 10
_SPLITS = ("train", "val", "test")
_VERSION = "A tag, latest, an id, or its first 6 or more digits."


def add_to(cli: typer.Typer) -> None:
    """Add the verbs to `autodl data`."""
    cli.command(name="snapshot")(_snapshot)
    cli.command(name="list")(_list)
    cli.command(name="show")(_show)
    cli.command(name="diff")(_diff)
    cli.command(name="tag")(_tag)
    version_files.add_to(cli)


def _snapshot(
    context: typer.Context,
    path: Annotated[str, typer.Argument(help="Folder, table, archive or s3:// address of pictures.")],
    name: Annotated[str, typer.Option(help="Of the data set: its versions are one history.  [default: folder]")] = "",
    tag: Annotated[str | None, typer.Option(help="A name for this version.")] = None,
    message: Annotated[str, typer.Option("--message", "-m", help="What there is to say about it.")] = "",
    format: Annotated[str, typer.Option(help="See `autodl data detect`.")] = "auto",
    by: Annotated[str, typer.Option(help="How it is divided: stratified, group or hash.")] = "stratified",
    group: Annotated[str | None, typer.Option(help="Regular expression that finds the group in a path.")] = None,
    val: Annotated[float, typer.Option(help="Share of the validation split.")] = 0.15,
    test: Annotated[float, typer.Option(help="Share of the sealed test split.")] = 0.15,
    splits: Annotated[
        tuple[Path, Path, Path] | None,
        typer.Option("--splits", help="Published split: the lists of train, validation and test files."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the division.")] = 0,
    no_copy: Annotated[
        bool, typer.Option("--no-copy", help="Keep hashes, labels and splits, not the pictures.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Move the tag where another version has it.")] = False,
    ray: Annotated[
        bool, typer.Option("--ray", help="Read and copy with all machines of the Ray cluster ($RAY_ADDRESS).")
    ] = False,
    store: StoreOption = None,
    json_output: Json = False,
) -> None:
    """Keep a data set as it is now: every byte, label, box and split.

    The id is of the content: the same data gives the same id on every machine. Unchanged files are not read again.

    Examples:

        autodl data snapshot photos/ --tag raw -m "as it came"

        autodl data snapshot photos/ --splits train.txt val.txt test.txt

        autodl run version:raw --budget 10m
    """
    from autodl_ray.data.formats import read
    from autodl_ray.data.versions import snapshot

    console: Console = context.obj
    place = open_store(store)
    place.check_writable()
    split = _split_spec(by=by, group=group, val=val, test=test, splits=splits)
    with many_small_objects():
        listing = read(path, cache=place.folder("cache/formats"), format=format)
        if ray and not no_copy:
            _ingest(listing, store=place, console=console)
        done = snapshot(
            listing,
            split=split,
            context=surroundings(place, console, seed=seed),
            name=name,
            tag=tag,
            message=message,
            source=path,
            copy=not no_copy,
            force=force,
        )
    entry = done.entry
    rest = [*(f"  {line}" for line in done.warnings), f"next: autodl run version:{tag or entry.short}"]
    if not no_copy:
        rest.insert(0, f"copied {done.added} files, {human_bytes(done.added_bytes)}")
    console.print(f"{'new version' if done.new else 'unchanged: version'} {entry.short}  {_counts(entry.facts)}")
    for line in rest:
        console.print(line)
    told = {"version": entry.version, "name": entry.name, "parent": entry.parent, "tag": tag, **entry.facts}
    told["warnings"] = list(done.warnings)
    console.result({**told, "new": done.new, "copied": done.added, "copied_bytes": done.added_bytes})
    if not message:  # a message is written down each time
        again = [f"unchanged: version {entry.short}  {_counts(entry.facts)}", *rest[not no_copy :], ""]
        unchanged = {**told, "new": False, "copied": 0, "copied_bytes": 0}
        remember(
            console.arguments,
            root=path,
            key=entry.key,
            text="\n".join(again),
            document=json.dumps(unchanged, indent=1, ensure_ascii=False) + "\n",
        )


def _ingest(listing: Listing, *, store: Store, console: Console) -> None:
    """Read and copy the pictures with Ray Data; the snapshot that follows finds them done."""
    from autodl_ray.data.ingest import ingest
    from autodl_ray.runtime.cluster import ensure_ray

    ensure_ray(Path(store.root), log_to_driver=False)
    with ConsoleProgress(console).stage("ingest", len(listing.records)) as bar:
        ingest(listing, store=store, use_ray=True, done=lambda count, total: bar.update(count, total))


def _split_spec(
    *, by: str, group: str | None, val: float, test: float, splits: tuple[Path, Path, Path] | None
) -> SplitSpec:
    """Read the options as the section data.split of a spec, with its checks and messages."""
    from autodl_ray.spec import parse_spec

    section: dict[str, Any] = {"by": by, "group": group, "val": val, "test": test}
    if splits is not None:
        section |= {f"{part}_list": str(path) for part, path in zip(("train", "val", "test"), splits, strict=True)}
    return parse_spec({"data": {"path": ".", "split": section}}, source="the command line").data.split


def _counts(facts: dict[str, Any]) -> str:
    sizes = ", ".join(f"{split} {facts['sizes'][split]}" for split in _SPLITS)
    boxes = f", {facts['boxes']} boxes" if facts["boxes"] else ""
    size = human_bytes(facts["bytes"])
    return f"{facts['pictures']} pictures{boxes}, {facts['classes']} classes, {size}; {sizes}"


def _list(context: typer.Context, store: StoreOption = None, json_output: Json = False) -> None:
    """List the versions in the store, oldest first.

    Examples:

        autodl data list

        autodl data list --json
    """
    from autodl_ray.data.versions import Refs

    console: Console = context.obj
    refs = Refs(open_store(store))
    entries, tags = refs.entries(), refs.tags()
    named = {entry.version: [tag for tag, version in tags.items() if version == entry.version] for entry in entries}
    console.table(
        "versions",
        ["version", "data set", "when (UTC)", "pictures", "train/val/test", "size", "message"],
        [
            [
                " ".join([e.short, *named[e.version]]),
                e.name,
                e.when[5:16].replace("T", " "),
                str(e.facts["pictures"]),
                "/".join(str(e.facts["sizes"][split]) for split in _SPLITS),
                human_bytes(e.facts["bytes"]) + ("" if e.copied else " (not copied)"),
                e.message,
            ]
            for e in entries
        ],
    )
    if not entries:
        console.print("no versions yet: autodl data snapshot FOLDER")
    console.result({"versions": [{**vars(entry), "tags": named[entry.version]} for entry in entries]})


def _show(
    context: typer.Context,
    ref: Annotated[str, typer.Argument(help=_VERSION)] = "latest",
    store: StoreOption = None,
    json_output: Json = False,
) -> None:
    """Show a version: pictures (or boxes) of each class in each split, its parent, and what was noticed.

    Examples:

        autodl data show latest

        autodl data show raw --json
    """
    import json

    from autodl_ray.data.versions import Refs
    from autodl_ray.data.versions.keeping import FINDINGS
    from autodl_ray.data.versions.opening import artifact_of

    console: Console = context.obj
    place = open_store(store)
    refs = Refs(place)
    entry = refs.resolve(ref)
    artifact = artifact_of(entry, store=place)
    findings = json.loads(artifact.file(FINDINGS).read_text(encoding="utf-8"))
    tags = [tag for tag, version in refs.tags().items() if version == entry.version]
    console.print(f"version  {entry.version}")
    console.print(f"tags     {', '.join(tags) or '-'}")
    console.print(f"data set {entry.name}, parent {entry.parent[:12] if entry.parent else '-'}")
    console.print(f"taken    {entry.when} by {entry.who}" + (f" from {entry.source}" if entry.source else ""))
    if entry.message:
        console.print(f"message  {entry.message}")
    console.print(f"holds    {_counts(entry.facts)}" + ("" if entry.copied else "; pictures not copied"))
    counts = artifact.meta["counts"]
    what = "boxes" if artifact.meta["task"] == "detection" else "pictures"
    rows = [[name, *(str(counts[split][name]) for split in _SPLITS)] for name in artifact.meta["classes"]]
    console.table(f"{what} of each class", ["class", *_SPLITS], rows)
    for line in findings.get("warnings", ()):
        console.print(f"  {line}")
    console.result({**vars(entry), "tags": tags, "counts": counts, "findings": findings})


def _diff(
    context: typer.Context,
    before: Annotated[str, typer.Argument(help="A version, or a folder.")],
    after: Annotated[str, typer.Argument(help="A version, or a folder.")] = "latest",
    format: Annotated[str, typer.Option(help="Of the folder.")] = "auto",
    store: StoreOption = None,
    json_output: Json = False,
) -> None:
    """List what differs: added, removed, relabelled, re-split, other boxes, other bytes, moved.

    What is no version of the store is read as a folder, as it is now.

    Examples:

        autodl data diff raw clean

        autodl data diff latest photos/
    """
    from autodl_ray.data.versions.diff import diff_rows

    console: Console = context.obj
    place = open_store(store)
    old, old_splits = _rows(before, format, place, console)
    new, new_splits = _rows(after, format, place, console)
    diff = diff_rows(old, new, splits=old_splits and new_splits)
    console.print(", ".join(f"{name} {count}" for name, count in diff.counts.items() if count) or "nothing differs")
    if not (old_splits and new_splits):
        console.print("  splits are not compared: the folder does not give them")
    for name, count in diff.counts.items():
        for change in getattr(diff, name)[:_SHOWN]:
            console.print(f"  {name:<10} {_change(change)}")
        if count > _SHOWN:
            console.print(f"  {name:<10} … and {count - _SHOWN} more (--json lists all)")
    console.result({"before": before, "after": after, "counts": diff.counts, **diff.to_json()})


def _change(change: Any) -> str:
    if isinstance(change, str):
        return change
    path = change.path if change.path == change.was else f"{change.was} → {change.path}"
    return f"{path}  {change.before} → {change.after}" if change.before else str(path)


def _rows(ref: str, format: str, store: Store, console: Console) -> tuple[list[IndexRow], bool]:
    """Return the rows of a version or of a folder, and whether they say where a picture belongs."""
    from autodl_ray.data.facts.reading import read_facts
    from autodl_ray.data.formats import read
    from autodl_ray.data.versions import Refs
    from autodl_ray.data.versions.index import index_row
    from autodl_ray.data.versions.opening import artifact_of, rows_of
    from autodl_ray.errors import DatasetError

    refs = Refs(store)
    is_place = "://" in ref or Path(ref).expanduser().exists()
    try:
        return rows_of(artifact_of(refs.resolve(ref), store=store)), True
    except DatasetError:
        if not is_place:
            raise
    listing = read(ref, cache=store.folder("cache/formats"), format=format)
    facts = read_facts(listing, decode=False, context=surroundings(store, console))
    pairs = zip(listing.records, facts, strict=True)
    return [index_row(record, split=record.split, facts=fact) for record, fact in pairs], listing.is_split


def _tag(
    context: typer.Context,
    ref: Annotated[str, typer.Argument(help=_VERSION)],
    name: Annotated[str, typer.Argument(help="The tag.")],
    force: Annotated[bool, typer.Option("--force", help="Move it where another version has it.")] = False,
    delete: Annotated[bool, typer.Option("--delete", help="Take the tag away from the version.")] = False,
    store: StoreOption = None,
    json_output: Json = False,
) -> None:
    """Give a version a name.

    Examples:

        autodl data tag latest trash-clean

        autodl data tag 3f2a91 trash-clean --force
    """
    from autodl_ray.data.versions import Refs
    from autodl_ray.errors import DatasetError

    console: Console = context.obj
    refs = Refs(open_store(store))
    entry = refs.resolve(ref)
    if delete:
        if refs.tags().get(name) != entry.version:
            raise DatasetError("The version has no such tag.", seen=f"{name} of {entry.short}")
        refs.untag(name)
    else:
        refs.tag(name, entry.version, force=force)
    console.print(f"{entry.short} {'no longer has the tag' if delete else 'has the tag'} {name}")
    console.result({"version": entry.version, "tag": None if delete else name})
