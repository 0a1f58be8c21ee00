"""The list of versions of a store: what was snapshotted when, by whom and from what, and the tags."""

from __future__ import annotations

import datetime
import getpass
import json
import os
import re
import time
import uuid
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from autodl_ray.artifacts import Store, write_atomic
from autodl_ray.errors import DatasetError, SpecError, StoreError, near_names

__all__ = ["LATEST", "REFS", "Entry", "Refs", "check_tag", "new_entry"]

LATEST = "latest"
REFS = "datasets/refs"
"""Key of the list in a store."""
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ID = re.compile(r"[0-9a-f]{6,64}")
_VERSION = re.compile(r"[0-9a-f]{32}")
_KEY = re.compile(r"datasets/[0-9a-f]{16}")


@dataclass(frozen=True)
class Entry:
    """A version as it was kept at one moment.

    Attributes:
        version: Its id, 32 hex digits.
        key: Of its artifact in the store.
        name: Of the data set, such as the name of its folder; the versions of one name are its history.
        parent: The version of that name before it; None for the first.
        message: What the user said about it.
        who: User name.
        when: UTC, ISO 8601.
        when_ns: Unix time in ns, which orders entries.
        source: The address as it was given; empty where it was absolute.
        copied: Whether its pictures are in the packs of the store.
        facts: Counts for tables: pictures, bytes, classes, sizes.
    """

    version: str
    key: str
    name: str
    parent: str | None
    message: str
    who: str
    when: str
    when_ns: int
    source: str
    copied: bool
    facts: dict[str, Any]

    @property
    def short(self) -> str:
        """The first twelve digits of the id."""
        return self.version[:12]


class Refs:
    """Entries and tags, one small file each below ``datasets/refs``.

    Files are only added (two writers never write the same one) or replaced whole.
    """

    def __init__(self, store: Store) -> None:
        self.history = store.folder(f"{REFS}/history")
        self.tag_folder = store.folder(f"{REFS}/tags")

    def entries(self) -> list[Entry]:
        """Return the entry of each version, oldest first; of several of one version the newest."""
        found = [_entry(path) for path in sorted(self.history.glob("[0-9a-f]*.json"))]
        newest = {entry.version: entry for entry in sorted(found, key=lambda entry: entry.when_ns)}
        copied = {entry.version for entry in found if entry.copied}  # a later snapshot without a copy takes none away
        merged = [replace(entry, copied=entry.version in copied) for entry in newest.values()]
        return sorted(merged, key=lambda entry: (entry.when_ns, entry.version))

    def tags(self) -> dict[str, str]:
        """Return tag → version, sorted by tag."""
        return {path.stem: _tagged(path) for path in sorted(self.tag_folder.glob("*.json"))}

    def add(self, entry: Entry) -> None:
        """Write an entry down: from now on the version is listed, and kept from ``gc``."""
        name = f"{entry.version[:16]}-{entry.when_ns}-{uuid.uuid4().hex[:6]}.json"
        write_atomic(self.history / name, json.dumps(asdict(entry), indent=1, ensure_ascii=False) + "\n")

    def files_of(self, version: str) -> list[Path]:
        """Return the files of its entries, oldest first."""
        return sorted(self.history.glob(f"{version[:16]}-*.json"), key=lambda path: path.name.split("-")[1])

    def forget(self, version: str) -> None:
        """Take a version out of the list, with its tags; its pictures stay until ``gc``."""
        for name, tagged in self.tags().items():
            if tagged == version:
                self.untag(name)
        for path in self.files_of(version):
            path.unlink(missing_ok=True)

    def tag(self, name: str, version: str, *, force: bool = False) -> None:
        """Give a version a name.

        Args:
            name: Letters, digits, ``.``, ``_``, ``-``.
            version: Its id.
            force: Move the tag where another version has it.

        Raises:
            SpecError: It is no name for a tag.
            StoreError: Another version has it.
        """
        check_tag(name)
        path = self.tag_folder / f"{name}.json"
        document = json.dumps({"version": version, "who": _user(), "when": _now()}, indent=1) + "\n"
        if force:
            write_atomic(path, document)
            return
        fresh = self.tag_folder / f".{name}.{uuid.uuid4().hex[:8]}"
        write_atomic(fresh, document)
        try:
            os.link(fresh, path)  # unlike a rename it fails where the name is taken: one of two writers wins
        except FileExistsError as error:
            owner = _tagged(path)
            if owner != version:
                raise StoreError(
                    f"The tag {name!r} is taken.",
                    seen=f"it names {owner[:12]}",
                    hint=f"choose another name, or move it: autodl data tag {version[:12]} {name} --force",
                ) from error
        finally:
            fresh.unlink(missing_ok=True)

    def untag(self, name: str) -> None:
        """Take a tag away.

        Raises:
            DatasetError: There is no such tag.
        """
        try:
            (self.tag_folder / f"{name}.json").unlink()
        except FileNotFoundError as error:
            raise DatasetError("There is no such tag.", seen=name, hint=near_names(name, self.tags())) from error

    def resolve(self, ref: str) -> Entry:
        """Find a version.

        Args:
            ref: A tag, ``latest``, an id, or the first six or more digits of one; ``version:`` may stand before it.

        Raises:
            DatasetError: There is none, or there are several.
        """
        wanted = ref.removeprefix("version:").strip()
        entries = self.entries()
        if not entries:
            raise DatasetError(
                "The store holds no version.", seen=self.history.parents[2], hint="autodl data snapshot FOLDER"
            )
        if wanted == LATEST:
            return max(entries, key=lambda entry: entry.when_ns)
        tags = self.tags()
        wanted_id = tags.get(wanted, wanted.lower())
        found = [e for e in entries if e.version.startswith(wanted_id[:32])] if _ID.fullmatch(wanted_id) else []
        if len(found) == 1:
            return found[0]
        if found:
            raise DatasetError(
                "Several versions begin like this.",
                seen=f"{wanted}: {', '.join(entry.short for entry in found)}",
                accepted="more digits of one of them",
            )
        raise DatasetError(
            "There is no such version in the store.",
            seen=ref,
            accepted=f"a tag, {LATEST}, or 6 or more digits of an id",
            hint=near_names(wanted, [*tags, LATEST]) or "autodl data list",
        )

    def parent_of(self, name: str, version: str) -> str | None:
        """Return the newest version of the data set ``name`` that is not ``version``."""
        mine = [entry for entry in self.entries() if entry.name == name and entry.version != version]
        return max(mine, key=lambda entry: entry.when_ns).version if mine else None


def new_entry(
    version: str,
    key: str,
    *,
    name: str,
    parent: str | None,
    message: str,
    source: str,
    copied: bool,
    facts: dict[str, Any],
) -> Entry:
    """Return an entry of this user, of now."""
    return Entry(version, key, name, parent, message, _user(), _now(), time.time_ns(), source, copied, facts)


def check_tag(name: str) -> None:
    """Refuse what is no name for a tag.

    Raises:
        SpecError: It has other characters, or could be read as an id.
    """
    if _TAG.fullmatch(name) and name != LATEST and not _ID.fullmatch(name.lower()):
        return
    raise SpecError(
        "This is no name for a tag.",
        seen=repr(name),
        accepted=f"letters, digits, '.', '_' and '-', at most 64; not {LATEST!r}, and not like the digits of an id",
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(
            "A record of a version is damaged.", seen=f"{path.name}: {error}", hint="delete this file, or pull it again"
        ) from error
    if not isinstance(document, dict):
        raise StoreError("A record of a version is damaged.", seen=path.name, hint="delete this file")
    return document


def _tagged(path: Path) -> str:
    version = _read(path).get("version")
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        raise StoreError("A tag is damaged.", seen=path.name, hint="delete this file, and give the tag again")
    return version


def _entry(path: Path) -> Entry:
    document = _read(path)
    try:
        entry = Entry(**{field.name: document[field.name] for field in fields(Entry)})
    except KeyError as error:
        raise StoreError("A record of a version is damaged.", seen=f"{path.name}: no {error}") from error
    # A pulled record comes from elsewhere: its key becomes a path here.
    if not _VERSION.fullmatch(str(entry.version)) or not _KEY.fullmatch(str(entry.key)):
        raise StoreError("A record of a version is damaged.", seen=f"{path.name}: {entry.version}, {entry.key}")
    return entry


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return f"uid {os.getuid()}"
