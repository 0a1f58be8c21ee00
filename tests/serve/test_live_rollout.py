"""New versions, lost replicas and a lost controller under load, over a real Ray Serve: nothing is lost."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from autodl_ray.runtime.cluster import ClusterInfo
from autodl_ray.serve.goal import NextVersion
from autodl_ray.serve.rollout import RolloutRules
from autodl_ray.serve.service import Service, start, stop
from autodl_ray.spec import ServeSpec
from tests.serve.conftest import free_port
from tests.serve.tiny import make_bundle, picture

pytestmark = pytest.mark.ray

RULES = RolloutRules(min_requests=15, min_seconds=0.5)


@pytest.fixture(scope="module")
def service(ray_cluster: ClusterInfo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One model on two replicas that share the machine."""
    first = make_bundle(tmp_path_factory.mktemp("first"), version="first0000000")
    spec = ServeSpec(port=free_port(), min_replicas=2, max_replicas=2, num_threads=1, max_wait_s=30)
    yield start([first], spec)
    stop(leave_ray=True)


@contextmanager
def load(service: Service, *, threads: int = 3) -> Iterator[Counter[tuple[int, str]]]:
    """Ask all the time from some threads; yields how often each status and version came."""
    seen: Counter[tuple[int, str]] = Counter()
    over, data = threading.Event(), picture("red")

    def ask(_: int) -> None:
        with httpx.Client(base_url=service.url, timeout=60, trust_env=False) as client:
            while not over.is_set():
                answer = client.post("/predict", content=data)
                seen[(answer.status_code, answer.json().get("version", ""))] += 1
                time.sleep(0.02)

    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(ask, i) for i in range(threads)]
        try:
            yield seen
        finally:
            over.set()
            for future in futures:
                future.result(60)


def until(condition: Callable[[], object], seconds: float = 45) -> None:
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


def stages(service: Service) -> set[tuple[str, str]]:
    """Id and stage of the rollout in all replicas."""
    states = service.status()["states"].values()
    rollouts = [(s or {"models": {}})["models"].get("colours", {}).get("next") for s in states]
    return {("", "") if r is None else (r["rollout"], r["stage"]) for r in rollouts}


def roll_out(service: Service, folder: Path, name: str, **options: float) -> None:
    """Bring a version in."""
    service.roll_out("colours", NextVersion(bundle=str(folder), rollout=name, rules=RULES, **{"share": 0.5, **options}))


def test_a_good_version_takes_over_and_nobody_notices(service: Service, tmp_path: Path) -> None:
    good = make_bundle(tmp_path, version="good00000000", smoke="right")
    with load(service) as seen:
        roll_out(service, good, "good")
        until(lambda: stages(service) == {("good", "took over")})
        before = seen[(200, "good00000000")]
        until(lambda: seen[(200, "good00000000")] > before + 10)
    assert {status for status, _ in seen} == {200}
    assert httpx.get(f"{service.url}/models", trust_env=False).json()["models"][0]["version"] == "good00000000"


def test_versions_that_do_not_load_or_fail_their_probes_never_answer(service: Service, tmp_path: Path) -> None:
    broken = make_bundle(tmp_path / "a", version="broken000000", model=b"this is no model")
    wrong = make_bundle(tmp_path / "b", version="wrong0000000", smoke="wrong")
    with load(service) as seen:
        for folder, name, reason in (
            (broken, "broken", "cannot be loaded"),
            (wrong, "wrong", "other than where it was made"),
        ):
            roll_out(service, folder, name)
            until(lambda name=name: stages(service) == {(name, "rolled back")})  # type: ignore[misc]
            told = httpx.get(f"{service.url}/v1/rollouts", trust_env=False).json()["models"]["colours"]
            assert reason in told["next"]["reason"]
    assert set(seen) == {(200, "good00000000")}


def test_a_version_that_names_other_classes_is_rolled_back_and_can_be_taken_back(
    service: Service, tmp_path: Path
) -> None:
    other = make_bundle(tmp_path, version="other0000000", classes=("red", "green", "blue"))
    with load(service) as seen:
        roll_out(service, other, "other", share=0.0, shadow=1.0)
        until(lambda: stages(service) == {("other", "rolled back")})
        service.take_back("colours")  # the declared goal forgets it: the good version stays
        time.sleep(0.3)
    assert set(seen) == {(200, "good00000000")}


def test_what_a_killed_replica_had_under_way_is_answered_by_another(service: Service) -> None:
    replicas = [p for p in psutil.Process(os.getpid()).children(recursive=True) if "ServeReplica" in p.name() or
                "ServeReplica" in " ".join(p.cmdline())]  # fmt: skip
    assert len(replicas) == 2
    with load(service, threads=6) as seen:
        time.sleep(0.3)
        os.kill(replicas[0].pid, signal.SIGKILL)
        until(lambda: service.status()["replicas"] == 1, 5)
        until(lambda: service.status()["replicas"] == 2)
    assert {status for status, _ in seen} == {200}
    assert {version for _, version in seen} == {"good00000000"}  # the new replica follows what was decided


def test_answers_go_on_while_the_controller_is_gone(service: Service) -> None:
    controller = next(
        p for p in psutil.Process(os.getpid()).children(recursive=True) if "ServeController" in " ".join(p.cmdline())
    )
    with load(service) as seen:
        os.kill(controller.pid, signal.SIGKILL)
        time.sleep(2.0)
    assert set(seen) == {(200, "good00000000")}
