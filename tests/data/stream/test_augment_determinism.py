"""Through the stream: the pixels of sample i in epoch e are the same in any batch, worker, process and mode."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from autodl_ray.artifacts import DatasetVersion
from autodl_ray.data.stream import StreamSource, execution
from autodl_ray.images import Preprocess
from tests.data.stream.streams import digits_version, taken

Seen = dict[str, str]


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another test of the session may have started Ray: these are about a process without it."""
    monkeypatch.setattr(execution, "ray_is_on", lambda: False)


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> DatasetVersion:
    return digits_version(tmp_path_factory.mktemp("digits"), n=60)


def seen(version: DatasetVersion, augment: str, *, kept: bool = True, **options: int) -> Seen:
    """Return "epoch/sample" → digest of the pixels."""
    limit = 2**30 if kept else 0
    source = StreamSource.make(version.train, version.val, Preprocess(16), seed=3, memory_limit_bytes=limit)
    rows = taken(source, augment, **options)
    return {f"{epoch}/{i}": digest for epoch, row in enumerate(rows) for i, _, digest in row}


@pytest.mark.parametrize("augment", ["light", "strong", "auto_augment", "rand_augment", "trivial_augment", "augmix"])
def test_batch_mode_and_workers_do_not_matter(version: DatasetVersion, augment: str) -> None:
    whole = seen(version, augment)
    assert len(whole) == 2 * len(version.train.ids)
    assert seen(version, augment, batch_size=7) == whole
    assert seen(version, augment, kept=False, batch_size=5) == whole
    workers: Seen = {}
    for rank in range(3):
        workers.update(seen(version, augment, rank=rank, world_size=3, batch_size=9))
    assert workers == whole
    same = sum(whole[f"0/{i}"] == whole[f"1/{i}"] for i in version.train.ids)
    assert same < 0.3 * len(version.train.ids)  # another picture in every epoch


def test_another_process_makes_the_same_pixels(version: DatasetVersion, tmp_path: Path) -> None:
    code = (
        "import json, sys\n"
        "from pathlib import Path\n"
        "from tests.data.stream.streams import digits_version\n"
        "from tests.data.stream.test_augment_determinism import seen\n"
        "version = digits_version(Path(sys.argv[1]), n=60)\n"
        "print(json.dumps(seen(version, 'trivial_augment', batch_size=11)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True, timeout=120
    )
    assert json.loads(done.stdout.strip().split("\n")[-1]) == seen(version, "trivial_augment")
