"""`autodl data`: finding faults, and a new version without them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autodl_ray.cli.console import Console, human_seconds
from autodl_ray.cli.data.common import Json, StoreOption, open_store, surroundings
from autodl_ray.errors import DatasetError, SpecError, StoreError

if TYPE_CHECKING:
    from autodl_ray.artifacts.dataset import Split
    from autodl_ray.data.cleaning.findings import Report
    from autodl_ray.data.cleaning.plan import Plan
    from autodl_ray.data.cleaning.subject import Subject
    from autodl_ray.data.records import Listing
    from autodl_ray.runtime import Context

__all__ = ["add_to"]

_SHOWN = 3
_SHOWN_CHANGES = 12
_WIDTH = 150
_PREFIX = "version:"
_PATH = "Folder, table, archive or s3:// address of pictures, or version:REF for a snapshot."

Splits = Annotated[
    tuple[Path, Path, Path] | None,
    typer.Option("--splits", help="Published split: the lists of train, validation and test files."),
]
Format = Annotated[str, typer.Option(help="See `autodl data detect`.")]
Seed = Annotated[int, typer.Option(help="Of the folds.")]
Fast = Annotated[bool, typer.Option("--fast", help="Leave out label errors and outliers: no model is used.")]


def add_to(cli: typer.Typer) -> None:
    """Add the verbs to `autodl data`."""
    cli.command(name="check")(_check)
    cli.command(name="clean")(_clean)


def _check(
    context: typer.Context,
    path: Annotated[str, typer.Argument(help=_PATH)],
    format: Format = "auto",
    splits: Splits = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write the report with pictures here.")] = None,
    folder: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for report.html and report.json.")
    ] = None,
    fast: Fast = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 when there are errors.")] = False,
    seed: Seed = 0,
    store: StoreOption = None,
    json_output: Json = False,
) -> int:
    """Find what is wrong with a data set; nothing is changed.

    Unreadable, identical and nearly identical pictures (also with different labels, also across splits: leaks),
    blank, dark, bright, blurred and odd-sized ones, probable label errors, outliers, classes too small or unequal,
    boxes without area or out of the picture. Each with its reason, how sure it is (0 to 1), and what to do.

    The test split is sealed: its labels are judged by no model. A second check of unchanged data takes seconds.

    Examples:

        autodl data check photos/

        autodl data check photos/ --splits train.txt val.txt test.txt --html report.html

        autodl data check version:raw --strict --json
    """
    console: Console = context.obj
    checked = _checked(path, console=console, format=format, splits=splits, fast=fast, seed=seed, store=store)
    written = _write(checked, html=html, folder=folder)
    _print(checked.report, console)
    for place in written:
        console.print(f"report   {place}")
    if checked.report.findings:
        console.print(
            f"next:    autodl data clean {_again(path, format, splits, fast)}   # shows a plan, changes nothing"
        )
    console.result({**checked.report.to_json(), "written": [str(place) for place in written]})
    return 1 if strict and checked.report.by_severity()["error"] else 0


def _clean(
    context: typer.Context,
    path: Annotated[str, typer.Argument(help=_PATH)],
    apply: Annotated[bool, typer.Option("--apply", help="Make the new version; without it a plan is shown.")] = False,
    drop: Annotated[
        str | None,
        typer.Option(
            help="Kinds to act on, by comma: exact, near, boxes, or a kind of the report such as blank.  "
            "[default: unreadable,exact, and boxes that are empty, turned or out of the picture]"
        ),
    ] = None,
    relabel: Annotated[
        float | None, typer.Option(help="Also change labels that are wrong with at least this certainty (0.5 to 1).")
    ] = None,
    tag: Annotated[str | None, typer.Option(help="A name for the new version.")] = None,
    name: Annotated[str, typer.Option(help="Of the data set.  [default: folder]")] = "",
    format: Format = "auto",
    splits: Splits = None,
    fast: Fast = False,
    seed: Seed = 0,
    store: StoreOption = None,
    json_output: Json = False,
) -> None:
    """Plan a version without the faults; with --apply, make it.

    The default acts on facts alone: unreadable pictures go, of identical pictures one stays (in test before val
    before train), identical pictures with different labels go unless the models are sure, boxes without area go,
    boxes that leave the picture are cut. Labels change only with --relabel. Nothing is ever deleted or edited in
    place: the data set as it was is kept as the parent of the new version.

    Examples:

        autodl data clean photos/

        autodl data clean photos/ --drop exact,unreadable,blank --relabel 0.95 --apply --tag clean

        autodl data diff version:raw version:clean
    """
    from autodl_ray.data.cleaning.plan import make_plan, parse_drop

    console: Console = context.obj
    kinds = parse_drop(drop)
    if relabel is not None and not 0.5 <= relabel <= 1:
        raise SpecError("This is no certainty to relabel from.", seen=f"--relabel {relabel:g}", accepted="0.5 to 1")
    if relabel is not None and fast:
        raise SpecError(
            "Labels are judged by models, which --fast leaves out.", seen="--fast --relabel", accepted="one of the two"
        )
    checked = _checked(path, console=console, format=format, splits=splits, fast=fast, seed=seed, store=store)
    plan = make_plan(checked.report, checked.subject, drop=kinds, relabel=relabel)
    document: dict[str, Any] = {
        "source": path,
        "applied": False,
        "pictures": {"before": len(checked.subject.listing.records), "after": len(plan.records)},
        "counts": plan.counts(),
        "notes": list(plan.notes),
        "changes": [change.to_json() for change in plan.changes],
    }
    _print_plan(plan, len(checked.subject.listing.records), console)
    if apply and not plan.records:
        raise DatasetError(
            "Nothing would be left of the data set.", seen=f"{len(plan.changes)} changes",
            hint="act on fewer kinds of findings with --drop",
        )  # fmt: skip
    if apply and plan.changes:
        document |= _apply(plan, checked, path=path, name=name, tag=tag, console=console)
    elif plan.changes:
        console.print("nothing was changed; --apply makes the new version")
    console.result(document)


@dataclass(frozen=True)
class _Checked:
    subject: Subject
    report: Report
    surroundings: Context
    version: str | None
    name: str


def _checked(
    path: str,
    *,
    console: Console,
    format: str,
    splits: tuple[Path, Path, Path] | None,
    fast: bool,
    seed: int,
    store: str | None,
) -> _Checked:
    from autodl_ray.data.addresses import hidden
    from autodl_ray.data.cleaning.inspect import inspect
    from autodl_ray.data.cleaning.subject import Subject
    from autodl_ray.data.facts.reading import read_facts

    place = open_store(store)
    place.check_writable()
    around = surroundings(place, console, seed=seed)
    listing, version, name = _listing(path, format=format, around=around)
    facts = read_facts(listing, context=around)
    subject = Subject(listing, facts, _divided(listing, splits))
    report = inspect(subject, source=hidden(path), context=around, fast=fast, version=version)
    return _Checked(subject, report, around, version, name)


def _listing(path: str, *, format: str, around: Context) -> tuple[Listing, str | None, str]:
    if path.startswith(_PREFIX):
        from autodl_ray.data.versions import Refs, open_listing

        ref = path.removeprefix(_PREFIX)
        entry = Refs(around.store).resolve(ref)
        return open_listing(ref, store=around.store), entry.version, entry.name
    from autodl_ray.data.formats import read

    listing = read(path, cache=around.store.folder("cache/formats"), format=format)
    return listing, None, listing.root.name


def _divided(listing: Listing, splits: tuple[Path, Path, Path] | None) -> Mapping[str, Split]:
    if splits is None:
        return {record.path: record.split for record in listing.records if record.split is not None}
    from autodl_ray.data.splits.lists import read_lists
    from autodl_ray.spec import SplitSpec

    train, val, test = map(str, splits)
    spec = SplitSpec(train_list=train, val_list=val, test_list=test)
    return read_lists(spec, [record.path for record in listing.records], root=listing.root)


def _write(checked: _Checked, *, html: Path | None, folder: Path | None) -> list[Path]:
    from autodl_ray.artifacts import write_atomic

    texts: dict[Path, str] = {}
    pages = [place for place in (html, folder / "report.html" if folder else None) if place is not None]
    if pages:
        from autodl_ray.data.cleaning.html import render_html

        page = render_html(checked.report, checked.subject)
        texts |= dict.fromkeys(pages, page)
    if folder is not None:
        texts[folder / "report.json"] = json.dumps(checked.report.to_json(), indent=1, ensure_ascii=False) + "\n"
    for place, text in texts.items():
        try:
            write_atomic(place, text)
        except OSError as error:
            raise StoreError("The report cannot be written.", seen=f"{place}: {error.strerror}") from error
    return list(texts)


def _print(report: Report, console: Console) -> None:
    from autodl_ray.data.cleaning.findings import KINDS, SEVERITIES

    sizes = ", ".join(f"{split} {size}" for split, size in report.sizes.items())
    split = f"; {sizes}" if sizes else ""
    console.print()
    console.print(f"{report.format}: {report.num_pictures} pictures, {len(report.classes)} classes{split}")
    rows = []
    for kind, count in report.counts().items():
        found = report.of(kind)
        grave = " ".join(f"{n} {s}" for s in SEVERITIES if (n := sum(item.severity == s for item in found)))
        rows.append([KINDS[kind].title, str(count), grave, f"{found[0].sure:.2f}"])
    if rows:
        console.table("found", ["what", "how many", "how grave", "sure, at most"], rows)
    else:
        console.print("nothing was found")
    for kind, count in report.counts().items():
        console.print()
        console.print(f"{KINDS[kind].title}  (sure is {KINDS[kind].sure})")
        for item in report.of(kind)[:_SHOWN]:
            path = f"{item.paths[0]}: " if len(item.paths) == 1 else ""
            console.print(_cut(f"  {item.severity:<7} {item.sure:.2f}  {path}{item.reason}"))
        if count > _SHOWN:
            console.print(f"  … and {count - _SHOWN} more (--html shows them, --json has all)")
    console.print()
    if report.model:
        console.print(
            f"labels   judged out of fold by features {report.model['features']!r}, which agree with "
            f"{report.model['accuracy_out_of_fold']:.1%} of the labels of {report.model['pictures']} pictures"
        )
    for note in report.notes:
        console.print(f"note     {note}")
    console.print(f"took     {human_seconds(sum(report.seconds.values()))}")


def _cut(text: str) -> str:
    return text if len(text) <= _WIDTH + 60 else text[: _WIDTH + 59] + "…"


def _again(path: str, format: str, splits: tuple[Path, Path, Path] | None, fast: bool) -> str:
    kind = [] if format == "auto" else ["--format", format]
    lists = ["--splits", *map(str, splits)] if splits else []
    return shlex.join([path, *kind, *lists, *(["--fast"] if fast else [])])


def _print_plan(plan: Plan, before: int, console: Console) -> None:
    said = ", ".join(f"{what.replace('_', ' ')} {count}" for what, count in plan.counts().items())
    console.print()
    console.print(f"plan     {said or 'nothing to change'}: {before} pictures before, {len(plan.records)} after")
    for change in plan.changes[:_SHOWN_CHANGES]:
        arrow = f" {change.before} → {change.after or 'gone'}" if change.before else ""
        where = f" ({change.split})" if change.split else ""
        console.print(_cut(f"  {change.what.replace('_', ' '):<10} {change.path}{where}{arrow}: {change.reason}"))
    if len(plan.changes) > _SHOWN_CHANGES:
        console.print(f"  … and {len(plan.changes) - _SHOWN_CHANGES} more (--json has all)")
    for note in plan.notes:
        console.print(f"note     {note}")


def _apply(plan: Plan, checked: _Checked, *, path: str, name: str, tag: str | None, console: Console) -> dict[str, Any]:
    from autodl_ray.data.cleaning.apply import apply_plan

    done = apply_plan(
        plan, checked.subject, context=checked.surroundings, name=name or checked.name, source=path,
        parent=checked.version, tag=tag,
    )  # fmt: skip
    console.print(f"version  {done.version}  (from {done.parent[:12]}, which stays as it was)")
    console.print(f"next:    autodl data diff {done.parent[:12]} {done.version[:12]}")
    console.print(f"         autodl run version:{tag or done.version[:12]}")
    return {"applied": True, "version": done.version, "parent": done.parent, "new": done.new, "tag": tag, **done.facts}
