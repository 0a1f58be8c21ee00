"""Who answers, who waits and who is refused; batches; how many replicas: all without Ray, sockets or real time."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import Counter
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from autodl_ray.serve.batching import Batching, Lane, Lanes, choose_batching
from autodl_ray.serve.door.balance import Balance, Room, Ticket
from autodl_ray.serve.scaling import Load, Policy, wanted


def ticket() -> Ticket:
    """A request that nobody waits for."""
    return Ticket([], lambda *_: None)


def rooms(balance: Balance, *slots: int) -> list[Room]:
    """Let replicas with so many places join."""
    found = [Room(f"r{i}", count, lambda _: None) for i, count in enumerate(slots)]
    for room in found:
        balance.join(room, 0.0)
    return found


def test_requests_go_where_the_largest_share_of_places_is_free() -> None:
    balance = Balance(max_queued=10, max_wait_s=1)
    small, large = rooms(balance, 2, 4)
    for _ in range(6):
        assert balance.offer(ticket(), 0.0) is None
    assert (len(small.busy), len(large.busy)) == (2, 4)


def test_the_queue_is_bounded_by_number_and_by_time() -> None:
    balance = Balance(max_queued=3, max_wait_s=100)
    (room,) = rooms(balance, 1)
    assert [balance.offer(ticket(), 0.0) for _ in range(6)] == [None, None, None, None, 1.0, 1.0]
    assert balance.refused == 2
    first = next(iter(room.busy))
    balance.finish(room, first, 4.0)  # an answer takes 4 s
    assert balance.offer(ticket(), 4.0) == 12.0  # Retry-After: two wait, each takes four seconds
    patient = Balance(max_queued=-1, max_wait_s=5)
    (room,) = rooms(patient, 1)
    patient.offer(ticket(), 0.0)
    patient.finish(room, next(iter(room.busy)), 4.0)
    assert [patient.offer(ticket(), 4.0) for _ in range(4)] == [None, None, 8.0, 8.0]


def test_what_waits_is_answered_in_its_order_and_whoever_hung_up_is_left_out() -> None:
    balance = Balance(max_queued=9, max_wait_s=9)
    (room,) = rooms(balance, 1)
    asked = [ticket() for _ in range(4)]
    for one in asked:
        balance.offer(one, 0.0)
    asked[1].open = False
    balance.finish(room, next(iter(room.busy)), 1.0)
    assert list(room.busy.values()) == [asked[2]]


def test_a_lost_replica_s_requests_go_first() -> None:
    balance = Balance(max_queued=9, max_wait_s=9)
    one, two = rooms(balance, 1, 1)
    asked = [ticket() for _ in range(3)]
    for request in asked:
        balance.offer(request, 0.0)
    (lost,) = balance.leave(one)
    balance.again(lost, 1.0)
    assert not lost.may_repeat
    balance.finish(two, next(iter(two.busy)), 1.0)
    assert list(two.busy.values()) == [lost]
    assert list(balance.waiting) == [asked[2]]
    (late,) = rooms(balance, 1)  # a new replica takes what waits
    assert list(late.busy.values()) == [asked[2]]


@pytest.mark.parametrize(
    ("seconds", "target", "size"),
    [
        ({1: 0.010, 2: 0.0199, 4: 0.040, 8: 0.082}, None, 1),  # large models: batches do not pay
        ({1: 0.010, 2: 0.018, 4: 0.036}, None, 1),  # a tenth is not worth the latency
        ({1: 1.0e-4, 2: 1.1e-4, 4: 1.3e-4, 8: 1.8e-4, 16: 3.5e-4}, None, 8),
        ({1: 0.010, 2: 0.012, 4: 0.016, 8: 0.024, 16: 0.040}, None, 16),
        ({1: 0.010, 2: 0.012, 4: 0.016, 8: 0.024, 16: 0.040}, 0.035, 4),  # a call takes at most half of the target
        ({1: 0.010, 2: 0.012}, 0.005, 1),
    ],
)
def test_the_size_of_batches_is_what_was_measured(seconds: dict[int, float], target: float | None, size: int) -> None:
    batching = choose_batching(seconds, latency_target_s=target)
    assert batching.size == size
    assert batching.wait_s == 0 if target is None else 0 <= batching.wait_s <= 0.005


def test_batches_fill_while_the_threads_are_busy_and_lanes_take_turns() -> None:
    order: list[str] = []
    gate = threading.Event()

    def work(name: str, items: Sequence[Any]) -> list[Any]:
        gate.wait(5)
        order.append(f"{name}{len(items)}")
        return [ValueError(item) if item == 3 else item * 2 for item in items]

    lanes = Lanes(1)
    big = lanes.add(Lane(lambda items: work("big", items), Batching(size=4)))
    small = lanes.add(Lane(lambda items: work("small", items)))

    async def ask() -> list[Any]:
        tasks = [asyncio.ensure_future(lanes.do(big, i)) for i in range(6)]
        tasks += [asyncio.ensure_future(lanes.do(small, 10)) for _ in range(2)]
        await asyncio.sleep(0.05)
        gate.set()
        return list(await asyncio.gather(*tasks, return_exceptions=True))

    answers = asyncio.run(ask())
    lanes.close()
    assert answers[:3] == [0, 2, 4]
    assert isinstance(answers[3], ValueError)
    assert answers[4:] == [8, 10, 20, 20]
    assert Counter(order)["small1"] == 2
    assert "big4" in order
    assert sum(int(done[3:]) for done in order if done.startswith("big")) == 6
    assert order.index("small1") < 3  # one busy model does not hold up another


@pytest.mark.parametrize(
    ("load", "target_ms", "replicas"),
    [
        (Load(1, 0), None, 0),
        (Load(0, 1), None, 1),
        (Load(1, 4), None, 1),
        (Load(1, 5), None, 2),
        (Load(1, 40), None, 10),
        (Load(3, 8), None, 3),  # two would be full to the brim: no flapping
        (Load(3, 6), None, 2),
        (Load(2, 3, 90.0), 50.0, 4),
        (Load(2, 2, 90.0), 50.0, 2),  # one request each: more replicas would not be faster
        (Load(2, 2, 45.0), 50.0, 2),  # near the target nothing is taken away
        (Load(2, 1, 10.0), 50.0, 1),
    ],
)
def test_wanted_replicas(load: Load, target_ms: float | None, replicas: int) -> None:
    assert wanted(load, target_ongoing=4, latency_target_ms=target_ms) == replicas


def simulate(under_way: Sequence[float], *, up_s: float = 3, down_s: float = 30) -> list[int]:
    """Run the policy inside Ray Serve's own wrapper with a clock of our own, a step a second; replicas come at once."""
    from ray.serve.autoscaling_policy import _apply_autoscaling_config
    from ray.serve.config import AutoscalingConfig

    now, replicas, state = 1000.0, 1, dict[str, Any]()
    config = AutoscalingConfig(
        min_replicas=1, max_replicas=4, upscale_delay_s=up_s, downscale_delay_s=down_s, look_back_period_s=11
    )
    decide = _apply_autoscaling_config(Policy(target_ongoing=4.0))
    counts = []
    for load in under_way:
        now += 1
        points = [SimpleNamespace(timestamp=now, value=load / replicas)]
        context: Any = SimpleNamespace(
            raw_metrics={"under_way": {f"r{i}": points for i in range(replicas)}},
            running_replicas=[f"r{i}" for i in range(replicas)],
            current_num_replicas=replicas,
            target_num_replicas=replicas,
            total_num_requests=0.0,
            total_queued_requests=0.0,
            capacity_adjusted_min_replicas=1,
            capacity_adjusted_max_replicas=4,
            policy_state=state,
            config=config,
            current_time=now,
        )
        wanted_now, state = decide(context)
        replicas = int(wanted_now)
        counts.append(replicas)
    return counts


def test_a_burst_brings_replicas_in_seconds_and_they_leave_without_flapping(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100_000))
    monkeypatch.setattr("time.time", lambda: 1000.0 + next(clock) * 0.1)
    counts = simulate([1] * 5 + [14, 15] * 30 + [1] * 700)
    peak = counts.index(4)
    assert max(counts) == 4
    assert peak > 5
    changes = [b - a for a, b in itertools.pairwise(counts) if b != a]
    ups, downs = [c for c in changes if c > 0], [c for c in changes if c < 0]
    assert changes == ups + downs  # up, then down, and never again
    assert counts[-1] == 1
