"""The store: what is there is whole, whatever happens while it is written."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import pytest

from autodl_ray.artifacts import Artifact, Store, open_artifact, write_atomic
from autodl_ray.artifacts.manifest import MANIFEST
from autodl_ray.errors import BundleError, StoreError

FACTS: dict[str, Any] = {"kind": "features", "spec_digest": "d", "inputs": {"dataset": "i"}, "seed": 0}


def put(store: Store, key: str = "run/a", text: str = "hello", **facts: Any) -> Artifact:
    with store.write(key, **{**FACTS, **facts}) as writer:
        (writer.path / "sub").mkdir()
        (writer.path / "sub" / "x.txt").write_text(text)
        writer.meta["length"] = len(text)
    found = store.find(key)
    assert found is not None
    return found


def half_write(store: Store, error: BaseException) -> None:
    with store.write("run/a", **FACTS) as writer:
        (writer.path / "half.txt").write_text("half")
        raise error


def hidden(folder: Path) -> list[str]:
    return [p.name for p in folder.rglob(".*")]


# ---- writing and finding


def test_what_was_written_is_found_whole(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.find("run/a") is None
    made = put(store, meta={"given": 1})
    assert made.meta == {"given": 1, "length": 5}
    assert made.manifest.kind == "features"
    assert made.manifest.inputs == {"dataset": "i"}
    assert list(made.manifest.files) == ["sub/x.txt"]
    assert made.file("sub/x.txt").read_text() == "hello"
    assert "numpy" in made.manifest.packages
    made.verify()
    assert open_artifact(made.path, verify=True).id == made.id
    assert hidden(tmp_path) == []


def test_equal_content_has_an_equal_id_and_any_change_another(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = put(store, "run/a").id
    assert put(store, "other/b").id == first
    changes: list[dict[str, Any]] = [
        {"text": "hullo"},
        {"kind": "sweep"},
        {"spec_digest": "e"},
        {"inputs": {}},
        {"meta": {"m": 1}},
    ]
    assert len({first, *(put(store, "run/c", **change).id for change in changes)}) == 6


def test_nothing_in_the_manifest_says_where_it_lies(tmp_path: Path) -> None:
    made = put(Store(tmp_path))
    assert str(tmp_path) not in (made.path / MANIFEST).read_text()


def test_a_moved_store_still_opens(tmp_path: Path) -> None:
    made = put(Store(tmp_path / "old"))
    (tmp_path / "old").rename(tmp_path / "new")
    found = Store(tmp_path / "new").find("run/a")
    assert found is not None
    assert found.id == made.id
    found.verify()


def test_a_nested_manifest_is_a_file_like_any_other(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.write("a", **FACTS) as writer:
        (writer.path / "inner").mkdir()
        (writer.path / "inner" / MANIFEST).write_text("{}")
    found = store.find("a")
    assert found is not None
    assert list(found.manifest.files) == [f"inner/{MANIFEST}"]


def test_a_store_can_be_given_as_a_uri(tmp_path: Path) -> None:
    store = Store(f"file://{tmp_path}/s")
    assert store.is_local
    put(store)
    assert Store(tmp_path / "s").find("run/a") is not None


def test_working_folders_are_made(tmp_path: Path) -> None:
    folder = Store(tmp_path).folder("run/logs")
    assert folder.is_dir()
    assert folder == tmp_path / "run" / "logs"


# ---- failing half way


@pytest.mark.parametrize("error", [RuntimeError("x"), KeyboardInterrupt(), StoreError("x")])
def test_an_exception_leaves_nothing_behind(tmp_path: Path, error: BaseException) -> None:
    store = Store(tmp_path)
    with pytest.raises(type(error)):
        half_write(store, error)
    assert store.find("run/a") is None
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
    assert hidden(tmp_path) == []


def test_an_exception_keeps_the_earlier_artifact(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = put(store)
    with pytest.raises(RuntimeError), store.write("run/a", **FACTS):
        raise RuntimeError
    found = store.find("run/a")
    assert found is not None
    assert found.id == first.id
    found.verify()


def run_python(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


WRITE = """
    import sys, time
    from autodl_ray.artifacts import Store
    with Store(sys.argv[1]).write("run/a", kind="features", spec_digest="d", inputs={}, seed=0) as writer:
        (writer.path / "big.bin").write_bytes(b"x" * 100_000)
        THEN
"""


def test_a_kill_leaves_nothing_that_is_found(tmp_path: Path) -> None:
    first = put(Store(tmp_path))
    process = run_python(WRITE.replace("THEN", 'print("in", flush=True); time.sleep(60)'), str(tmp_path))
    assert process.stdout is not None
    assert process.stdout.readline() == "in\n"
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)
    store = Store(tmp_path)
    found = store.find("run/a")
    assert found is not None
    assert found.id == first.id
    found.verify()
    assert put(store, text="again").meta["length"] == 5
    left = [p for p in (tmp_path / "run").glob(".a.*")]
    assert len(left) == 1  # of the killed writer; it could still be writing, for all this process knows
    os.utime(left[0], (time.time() - 90_000,) * 2)
    put(store)
    assert hidden(tmp_path) == []


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = put(store)
    first.path.rename(tmp_path / "run" / ".a.0123abcd.old")
    found = store.find("run/a")
    assert found is not None
    assert found.id == first.id
    found.verify()
    assert hidden(tmp_path) == []


def test_leftovers_of_another_key_are_not_taken_for_this_one(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put(store, "run/a.b").path.rename(tmp_path / "run" / ".a.b.0123abcd.old")
    assert store.find("run/a") is None
    assert store.find("run/a.b") is not None


def test_a_reader_sees_the_old_or_the_new_never_half(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put(store, text="0" * 1000)
    done = threading.Event()
    seen: list[str] = []

    def read() -> None:
        while not done.is_set():
            try:
                found = Store(tmp_path).find("run/a")
                if found is not None:
                    seen.append(found.file("sub/x.txt").read_text())
            except (BundleError, FileNotFoundError):
                continue  # replaced between the look-up and the reading

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(30):
        put(store, text=str(i % 10) * 1000)
    done.set()
    reader.join()
    assert seen
    assert all(len(text) == 1000 and len(set(text)) == 1 for text in seen)


def test_writers_of_one_key_all_succeed(tmp_path: Path) -> None:
    code = """
        import sys
        from autodl_ray.artifacts import Store
        for i in range(40):
            with Store(sys.argv[1]).write("run/a", kind="features", spec_digest="d", inputs={}, seed=0) as writer:
                (writer.path / "x").write_text(sys.argv[2] * 100)
    """
    processes = [run_python(code, str(tmp_path), name) for name in "abc"]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    found = Store(tmp_path).find("run/a")
    assert found is not None
    found.verify()
    assert hidden(tmp_path) == []


def test_replacing_deletes_the_files_of_the_earlier_one(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.write("a", **FACTS) as writer:
        (writer.path / "old.txt").write_text("old")
    made = put(store, "a")
    assert not (made.path / "old.txt").exists()


# ---- damage


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.unlink(), "missing"),
        (lambda f: f.write_text("hell"), "truncated or was changed"),
        (lambda f: f.write_text("hallo"), "truncated or was changed"),
        (lambda f: f.write_text(""), "truncated or was changed"),
    ],
)
def test_verify_finds_every_damage(tmp_path: Path, change: Any, message: str) -> None:
    made = put(Store(tmp_path))
    change(made.path / "sub" / "x.txt")
    for check in (made.verify, lambda: open_artifact(made.path, verify=True)):
        with pytest.raises(BundleError, match=message) as caught:
            check()
        assert "sub/x.txt" in str(caught.value)
        assert caught.value.hint is not None


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    made = put(Store(tmp_path))
    (made.path / "unlisted.txt").write_text("x")
    for name in ("model.onnx", "unlisted.txt"):
        with pytest.raises(BundleError, match="no such file") as caught:
            made.file(name)
        assert name in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "damaged"),
        ("{", "damaged"),
        ("[]", "damaged"),
        ("{}", "damaged"),
        ('{"schema_version": 1}', "damaged"),
        ('{"schema_version": "1"}', "newer schema"),
    ],
)
def test_a_damaged_manifest(tmp_path: Path, text: str, message: str) -> None:
    made = put(Store(tmp_path))
    (made.path / MANIFEST).write_text(text)
    with pytest.raises(BundleError, match=message) as caught:
        open_artifact(made.path)
    assert str(made.path) in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_truncated_manifest(tmp_path: Path) -> None:
    made = put(Store(tmp_path))
    whole = (made.path / MANIFEST).read_text()
    for length in (1, len(whole) // 2, len(whole) - 3):
        (made.path / MANIFEST).write_text(whole[:length])
        with pytest.raises(BundleError, match="damaged"):
            Store(tmp_path).find("run/a")


def test_unknown_keys_in_a_manifest_are_damage(tmp_path: Path) -> None:
    made = put(Store(tmp_path))
    document = {**json.loads((made.path / MANIFEST).read_text()), "extra": 1}
    (made.path / MANIFEST).write_text(json.dumps(document))
    with pytest.raises(BundleError, match="damaged"):
        open_artifact(made.path)


def test_a_newer_schema_is_refused_with_the_way_out(tmp_path: Path) -> None:
    made = put(Store(tmp_path))
    document = {**json.loads((made.path / MANIFEST).read_text()), "schema_version": 2}
    (made.path / MANIFEST).write_text(json.dumps(document))
    with pytest.raises(BundleError, match="newer schema") as caught:
        open_artifact(made.path)
    assert "schema_version 2" in str(caught.value)
    assert "up to 1" in str(caught.value)
    assert "upgrade" in str(caught.value)


@pytest.mark.parametrize("place", ["nothing", "empty", "file"])
def test_a_folder_without_a_manifest_is_no_artifact(tmp_path: Path, place: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    with pytest.raises(BundleError, match="no whole artifact here") as caught:
        open_artifact(tmp_path / place)
    assert MANIFEST in str(caught.value)


# ---- stores that cannot be written


@pytest.mark.parametrize("place", ["file/store", "/proc/store"])
def test_a_store_that_cannot_be_written(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("in the way")  # the tests may run as root, whom permissions do not stop
    store = Store(tmp_path / place)
    with pytest.raises(StoreError, match="cannot be written") as caught:
        store.check_writable()
    assert "--store" in str(caught.value)
    with pytest.raises(StoreError, match="cannot be written"):
        store.folder("run")
    with pytest.raises(StoreError, match="cannot be written"), store.write("run/a", **FACTS):
        raise AssertionError("never reached")
    assert store.find("run/a") is None


def test_a_writable_store_is_left_clean(tmp_path: Path) -> None:
    Store(tmp_path / "new" / "store").check_writable()
    assert list((tmp_path / "new" / "store").iterdir()) == []


def test_a_full_disk_is_a_store_error_and_keeps_what_was_there(tmp_path: Path) -> None:
    """The kernel refuses to let a file grow (RLIMIT_FSIZE), as it does on a full disk."""
    first = put(Store(tmp_path))
    code = f"""
        import resource, signal, sys
        from autodl_ray.errors import StoreError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, {resource.RLIM_INFINITY}))
        try:
            exec({textwrap.dedent(WRITE.replace("THEN", "pass"))!r})
        except StoreError as error:
            print(error)
    """
    out, errors = run_python(code, str(tmp_path)).communicate(timeout=60)
    assert "The artifact could not be written" in out, errors
    assert "File too large" in out
    assert "run the same line again" in out
    found = Store(tmp_path).find("run/a")
    assert found is not None
    assert found.id == first.id
    assert hidden(tmp_path) == []


def test_a_really_full_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if (
        mount is None
        or subprocess.run(
            [mount, "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("this user may not mount a small disk")
    try:
        store = Store(disk)
        first = put(store)
        with pytest.raises(StoreError, match="could not be written") as caught, store.write("run/a", **FACTS) as writer:
            (writer.path / "big.bin").write_bytes(b"x" * 1_000_000)
        assert "No space left" in str(caught.value)
        found = store.find("run/a")
        assert found is not None
        assert found.id == first.id
        put(store, "run/b")  # the half-written one does not fill the disk
        (disk / "fill").write_bytes(b"x" * 4096 * (shutil.disk_usage(disk).free // 4096))
        with pytest.raises(StoreError, match="cannot be written"):
            store.check_writable()
        with pytest.raises(OSError, match="No space left"):
            write_atomic(disk / "run" / "state.json", b"x" * 100_000)
        assert not (disk / "run" / "state.json").exists()
        assert hidden(disk) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_missing_source_file_is_not_blamed_on_the_store(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    with pytest.raises(FileNotFoundError, match="photo"), store.write("run/a", **FACTS):
        (tmp_path / "photo.jpg").read_bytes()
    assert store.find("run/a") is None


# ---- atomic files


def test_an_atomic_write_replaces_and_makes_parents(tmp_path: Path) -> None:
    file = tmp_path / "a" / "b.json"
    write_atomic(file, "one")
    write_atomic(file, b"two")
    assert file.read_text() == "two"
    assert [p.name for p in file.parent.iterdir()] == ["b.json"]


def test_an_atomic_write_that_fails_keeps_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "b.json"
    write_atomic(file, "old")

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(file, "new")
    assert file.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["b.json"]


# ---- other file systems


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store in memory behind pyarrow.fs, with the copies for reading below ``tmp_path``."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return Store("mock:///bucket/store")


def test_an_artifact_goes_to_another_file_system_and_back(remote: Store, tmp_path: Path) -> None:
    assert not remote.is_local
    remote.check_writable()
    assert remote.find("run/a") is None
    made = put(remote)
    assert made.file("sub/x.txt").read_text() == "hello"
    made.verify()
    assert put(remote, text="other").id != made.id
    found = remote.find("run/a")
    assert found is not None
    assert found.file("sub/x.txt").read_text() == "other"
    assert not [p for p in tmp_path.iterdir() if p.name.startswith("autodl-") and p.name != "autodl-store"]


def test_a_failed_block_uploads_nothing(remote: Store) -> None:
    with pytest.raises(RuntimeError):
        half_write(remote, RuntimeError())
    assert remote.find("run/a") is None
    selector = pafs.FileSelector(remote.root, allow_not_found=True, recursive=True)
    assert remote.fs.get_file_info(selector) == []


class Recorder:
    """Passes everything on to a file system and notes what is written and deleted."""

    def __init__(self, fs: pafs.FileSystem) -> None:
        self.fs, self.calls = fs, []

    def __getattr__(self, name: str) -> Any:
        def noted(path: Any, *args: Any, **kwargs: Any) -> Any:
            if name in ("open_output_stream", "delete_file"):
                self.calls.append((name, str(path).rsplit("/", 1)[-1]))
            return getattr(self.fs, name)(path, *args, **kwargs)

        return noted


def test_the_manifest_goes_first_and_comes_last(remote: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put(remote)
    recorder = Recorder(remote.fs)
    monkeypatch.setattr(remote, "fs", recorder)
    with remote.write("run/a", **FACTS) as writer:
        (writer.path / "zzz.txt").write_text("later in the alphabet than the manifest")
    assert recorder.calls == [
        ("delete_file", MANIFEST),
        ("open_output_stream", "zzz.txt"),
        ("open_output_stream", MANIFEST),
    ]


def test_working_folders_are_local(remote: Store) -> None:
    with pytest.raises(StoreError, match="Only a local store"):
        remote.folder("run")


@pytest.mark.parametrize("address", ["nonsense://x", "://", "s3:///"])
def test_an_address_that_is_not_understood(address: str) -> None:
    with pytest.raises(StoreError, match="address is not understood") as caught:
        Store(address)
    assert address in str(caught.value)
