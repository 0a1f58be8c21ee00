"""A folder on S3 or a store like it, fetched into a local folder: only what is missing or changed, in parallel."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from autodl_ray.data.addresses import hidden
from autodl_ray.errors import DatasetError, StoreError

__all__ = ["Fetched", "fetch_folder", "is_remote"]

_SCHEMES = ("s3://", "cos://", "gs://", "oss://")
_ENDPOINTS = {"cos://": "cos.{}.myqcloud.com", "oss://": "oss-{}.aliyuncs.com"}
_OWN_OPTIONS = frozenset({"addressing", "anonymous"})
_CHUNK = 4 * 2**20
_MOST_FILES = 20_000_000


class _Object(NamedTuple):
    """A file of the store: its path there, its path below the folder, its size and its time of change."""

    source: str
    path: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Fetched:
    """A remote folder that is here now.

    Attributes:
        folder: Where.
        files: How many files it has.
        fetched: How many of them were fetched just now.
        bytes: Of those that were fetched.
        removed: How many files were here that the store has no longer.
    """

    folder: Path
    files: int
    fetched: int
    bytes: int
    removed: int


def is_remote(path: str | Path) -> bool:
    """Whether a path names a remote folder, such as ``s3://bucket/prefix``."""
    return str(path).startswith(_SCHEMES)


def fetch_folder(
    uri: str, cache: Path, *, threads: int = 16, done: Callable[[int, int], None] | None = None
) -> Fetched:
    """Fetch a remote folder into the cache, or bring what is there up to date.

    A file that is here with the size and time of change that the store tells is not fetched again, so a fetch that
    was stopped goes on where it was.

    Args:
        uri: ``s3://bucket/prefix``; other stores with S3's protocol by ``?endpoint_override=HOST&scheme=https``;
            Tencent's COS by ``cos://bucket-appid/prefix?region=ap-guangzhou``. Options of our own:
            ``anonymous=true`` for public buckets, ``addressing=virtual|path``. Keys are taken from the
            environment, as AWS's own tools do.
        cache: Local folder.
        threads: How many files are fetched at once.
        done: Called with (files fetched, files to fetch).

    Raises:
        DatasetError: The folder is missing, empty, cannot be reached, or holds names that are no file names.
        StoreError: The cache cannot be written.
    """
    files, base = _connect(uri)
    objects = _list(uri, files, base)
    folder = cache / "remote" / hashlib.sha256(uri.encode()).hexdigest()[:32]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        removed = _remove_others(folder, {one.path for one in objects})
        wanted = [one for one in objects if not _is_current(folder / one.path, one)]
        for parent in sorted({(folder / one.path).parent for one in wanted}):
            parent.mkdir(parents=True, exist_ok=True)
        _fetch_all(files, wanted, folder, threads, done)
    except OSError as error:
        raise StoreError("A remote folder cannot be fetched.", seen=f"{hidden(uri)}: {error}") from error
    return Fetched(folder, len(objects), len(wanted), sum(one.size for one in wanted), removed)


def _connect(uri: str) -> tuple[Any, str]:
    import pyarrow as pa
    from pyarrow import fs

    try:
        files, base = _open_s3(uri) if _is_special(uri) else fs.FileSystem.from_uri(uri)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DatasetError(
            "The address of a remote folder is not usable.",
            seen=f"{hidden(uri)}: {error}",
            accepted="s3://bucket/prefix, with ?endpoint_override=HOST&scheme=https for other stores; "
            "cos://bucket-appid/prefix?region=REGION",
        ) from error
    return files, str(base).rstrip("/")


def _is_special(uri: str) -> bool:
    """Whether an address says what pyarrow's own reading of addresses does not know."""
    return uri.startswith(tuple(_ENDPOINTS)) or bool(_OWN_OPTIONS & dict(parse_qsl(urlsplit(uri).query)).keys())


def _open_s3(uri: str) -> tuple[Any, str]:
    from pyarrow import fs

    parts = urlsplit(uri)
    options = dict(parse_qsl(parts.query))
    unknown = options.keys() - _OWN_OPTIONS - {"region", "scheme", "endpoint_override"}
    if unknown:
        raise ValueError(f"unknown options: {', '.join(sorted(unknown))}")
    keys, _, bucket = parts.netloc.rpartition("@")
    key, _, secret = keys.partition(":")
    region = options.get("region")
    pattern = _ENDPOINTS.get(f"{parts.scheme}://")
    endpoint = options.get("endpoint_override") or (pattern.format(region) if pattern and region else None)
    if pattern and endpoint is None:
        raise ValueError("the region is missing")
    # COS and OSS answer to bucket.HOST alone; a server on an address such as 127.0.0.1 needs HOST/bucket.
    addressing = options.get("addressing", "virtual" if pattern else "path")
    files = fs.S3FileSystem(
        access_key=unquote(key) or None,
        secret_key=unquote(secret) or None,
        anonymous=options.get("anonymous") == "true",
        region=region or (None if endpoint else fs.resolve_s3_region(bucket)),
        scheme=options.get("scheme", "https"),
        endpoint_override=endpoint,
        force_virtual_addressing=addressing == "virtual",
    )
    return files, f"{bucket}{parts.path}"


def _list(uri: str, files: Any, base: str) -> list[_Object]:
    import pyarrow as pa
    from pyarrow import fs

    try:
        infos = files.get_file_info(fs.FileSelector(base, recursive=True))
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(
            "The remote folder cannot be listed.",
            seen=f"{hidden(uri)}: {error}",
            hint="check bucket, keys (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) and endpoint",
        ) from error
    objects = [
        _Object(info.path, info.path[len(base) + 1 :], info.size, info.mtime_ns or 0)
        for info in infos
        if info.type == fs.FileType.File
    ]
    if not objects:
        raise DatasetError("The remote folder holds no files.", seen=hidden(uri))
    if len(objects) > _MOST_FILES:
        raise DatasetError("The remote folder holds too many files.", seen=len(objects), accepted=f"{_MOST_FILES:,}")
    _check_names(uri, objects)
    return objects


def _check_names(uri: str, objects: Iterable[_Object]) -> None:
    """Refuse keys that are no paths below a folder, or are a file and a folder at once."""
    names = {one.path for one in objects}
    for name in names:
        parts = name.split("/")
        if any(part in ("", ".", "..") for part in parts) or "\0" in name or "\\" in name:
            raise DatasetError("A remote file has a name that cannot be a file here.", seen=f"{hidden(uri)}: {name!a}")
        for end in range(1, len(parts)):
            if "/".join(parts[:end]) in names:
                raise DatasetError(
                    "A remote name is a file and a folder.",
                    seen=f"{hidden(uri)}: {'/'.join(parts[:end])}",
                    hint="rename it",
                )


def _is_current(path: Path, one: _Object) -> bool:
    try:
        stat = path.lstat()
    except OSError:
        return False
    return (stat.st_size, stat.st_mtime_ns) == (one.size, one.mtime_ns)


def _remove_others(folder: Path, names: set[str]) -> int:
    """Delete what the store has no longer, and what a killed fetch left."""
    removed = 0
    for parent, _, found in os.walk(folder):
        for name in found:
            path = Path(parent, name)
            if path.relative_to(folder).as_posix() not in names:
                path.unlink(missing_ok=True)
                removed += not name.startswith(".fetch-")
    return removed


def _fetch_all(
    files: Any, wanted: list[_Object], folder: Path, threads: int, done: Callable[[int, int], None] | None
) -> None:
    with ThreadPoolExecutor(threads) as pool:
        jobs = pool.map(lambda one: _fetch(files, one, folder / one.path), wanted)
        try:
            for count, _ in enumerate(jobs, start=1):
                if done is not None:
                    done(count, len(wanted))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _fetch(files: Any, one: _Object, path: Path) -> None:
    temporary = path.with_name(f".fetch-{uuid.uuid4().hex[:8]}")
    try:
        # Without "None" a file named .gz would be unpacked on its way.
        with files.open_input_stream(one.source, compression=None) as stream, temporary.open("wb") as out:
            shutil.copyfileobj(stream, out, _CHUNK)
        size = temporary.stat().st_size
        if size != one.size:
            raise OSError(f"{one.path} has {size} bytes instead of {one.size}; it was changed meanwhile")
        os.utime(temporary, ns=(one.mtime_ns, one.mtime_ns))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
