"""The machine is shared out so that nothing can wait for ever."""

from __future__ import annotations

import pytest

from autodl_ray.errors import ResourceError
from autodl_ray.runtime.resources import Shares, plan_resources


@pytest.mark.parametrize("cpus", [1, 2, 3, 4, 8, 64])
@pytest.mark.parametrize("num_workers", [1, 2, 4])
@pytest.mark.parametrize("num_samples", [1, 8, 100])
@pytest.mark.parametrize("stream_cpus", [0.0, 0.2, 0.5])
def test_a_plan_fits_and_leaves_room_for_data_tasks(
    cpus: int, num_workers: int, num_samples: int, stream_cpus: float
) -> None:
    try:
        plan = plan_resources(cpus=cpus, num_samples=num_samples, num_workers=num_workers, stream_cpus=stream_cpus)
    except ResourceError:
        assert num_workers * 0.25 + 0.05 > min(0.9 * cpus, cpus - stream_cpus)
        return
    group = num_workers > 1
    used = plan.trials_at_once * (plan.cpus_per_trial + (num_workers * plan.cpus_per_worker if group else 0))
    assert used + plan.free_cpus == pytest.approx(cpus)
    assert plan.free_cpus >= max(stream_cpus, 0.1 * cpus) - 1e-6
    assert 1 <= plan.trials_at_once <= num_samples
    assert plan.cpus_per_worker > 0
    assert plan.trials_at_once * num_workers * plan.threads_per_worker <= max(cpus, num_workers) + 1


@pytest.mark.parametrize(
    ("cpus", "line"),
    [
        (1, "8 trials, 1 at a time × 1 worker × 0.9 CPU of 1"),
        (2, "8 trials, 2 at a time × 1 worker × 0.9 CPU of 2"),
        (4, "8 trials, 4 at a time × 1 worker × 0.9 CPU of 4"),
    ],
)
def test_the_line(cpus: int, line: str) -> None:
    assert plan_resources(cpus=cpus, num_samples=8).line() == line


def test_a_single_training_takes_the_machine() -> None:
    plan = plan_resources(cpus=2, num_samples=1)
    assert plan.line() == "1 trial × 1 worker × 1.8 CPU of 2"
    assert plan.threads_per_worker == 2


def test_a_worker_group_fits_on_two_cpus_and_on_one() -> None:
    assert plan_resources(cpus=2, num_samples=4, num_workers=2).line() == (
        "4 trials, 1 at a time × 2 workers × 0.87 CPU of 2"
    )
    assert plan_resources(cpus=1, num_samples=4, num_workers=2).cpus_per_worker == 0.42


def test_limits_and_gpus_are_kept() -> None:
    assert plan_resources(cpus=8, num_samples=8, max_concurrent_trials=3).trials_at_once == 3
    gpu = plan_resources(cpus=16, gpus=2, num_samples=8)
    assert (gpu.trials_at_once, gpu.gpus_per_worker, gpu.cpus_per_worker) == (2, 1.0, 7.2)
    assert plan_resources(cpus=4, gpus=1, num_samples=8, gpus_per_worker=0.5).trials_at_once == 2


def test_a_share_that_is_given_is_taken_as_it_is() -> None:
    assert plan_resources(cpus=2, num_samples=4, cpus_per_worker=1.0).trials_at_once == 2
    assert plan_resources(cpus=2, num_samples=4, cpus_per_worker=2.0).trials_at_once == 1
    with pytest.raises(ResourceError, match="One trial does not fit") as caught:
        plan_resources(cpus=2, num_samples=4, cpus_per_worker=2.0, stream_cpus=0.2)
    assert "1 worker × 2 CPU + 0.2 CPU for data tasks, on 2 CPU" in str(caught.value)
    assert "at most 1.8 CPU" in str(caught.value)


def test_what_cannot_fit_is_refused_with_the_knob() -> None:
    with pytest.raises(ResourceError, match="One trial does not fit") as caught:
        plan_resources(cpus=2, num_samples=4, num_workers=4, cpus_per_worker=1.0)
    assert "4 workers × 1 CPU, on 2 CPU" in str(caught.value)
    assert "train.num_workers" in str(caught.value)
    with pytest.raises(ResourceError, match="more GPUs than there are"):
        plan_resources(cpus=2, num_samples=4, gpus_per_worker=1)


def test_memory_bounds_the_trials_at_once_and_the_first_of_them_shows_how_many_fit() -> None:
    plan = plan_resources(cpus=8, num_samples=20, memory_mb=6500)
    assert plan.line() == "20 trials, 6 at a time × 1 worker × 1.2 CPU of 8"
    shares = Shares(plan)
    assert shares.seen({"epoch": 1}) is None
    assert shares.seen({"epoch": 1, "rss_mb": 900.0}) is None
    assert shares.at_once == 6
    assert shares.seen({"epoch": 2, "rss_mb": 2000.0}) == "3 trials at a time: one holds 2.0 GB of 6.5"
    assert shares.seen({"epoch": 1, "rss_mb": 500.0}) is None  # another trial; the largest counts
    assert shares.seen({"epoch": 3, "rss_mb": 9000.0}) == "1 trial at a time: one holds 9.0 GB of 6.5"
    with pytest.raises(ResourceError, match="does not fit into the memory") as caught:
        plan_resources(cpus=8, num_samples=20, num_workers=2, memory_mb=700)
    assert "700 MB free for 2 workers" in str(caught.value)


def test_one_gpu_is_shared_once_it_is_known_what_a_trial_takes_of_it() -> None:
    plan = plan_resources(cpus=16, gpus=1, num_samples=20, memory_mb=60000, gpu_memory_mb=80000)
    assert plan.line() == "20 trials, up to 4 at a time × 1 worker × 3.6 CPU + 0.25 GPU of 16"
    shares = Shares(plan)
    assert shares.at_once == 1
    assert shares.seen({"rss_mb": 3000.0, "gpu_memory_mb": 24000.0}) == (
        "3 trials at a time: one holds 3.0 GB of 60.0, 24.0 GB of the GPU"
    )
    assert shares.seen({"rss_mb": 3000.0, "gpu_memory_mb": 70000.0}) is None  # all three together
    for alone in (
        plan_resources(cpus=16, gpus=1, num_samples=20),
        plan_resources(cpus=16, gpus=1, num_samples=1, gpu_memory_mb=80000),
        plan_resources(cpus=16, gpus=2, num_samples=20, gpu_memory_mb=80000),
    ):
        assert (alone.gpus_per_worker, alone.shares_gpu) == (1.0, False)
