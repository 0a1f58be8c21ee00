"""The order of samples: every sample once an epoch, for every number of workers and wherever it begins."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodl_ray.data.stream.blocks import blocks_of
from autodl_ray.data.stream.order import Plan
from autodl_ray.errors import SpecError


@given(n=st.integers(1, 200), batch=st.integers(1, 40), world=st.integers(1, 5), epoch=st.integers(0, 3))
def test_the_ranks_together_are_the_epoch(n: int, batch: int, world: int, epoch: int) -> None:
    if batch < world:
        with pytest.raises(SpecError, match="smaller than the number of workers"):
            Plan(n, batch, 0, 0, world)
        return
    single = list(Plan(n, batch, 0).batches(epoch))
    assert sorted(np.concatenate(single).tolist()) == list(range(n))
    ranks = [list(Plan(n, batch, 0, rank, world).batches(epoch)) for rank in range(world)]
    assert {len(parts) for parts in ranks} == {Plan(n, batch, 0).steps}
    assert all(len(part) > 0 for parts in ranks for part in parts)
    together = [np.concatenate([parts[step] for parts in ranks]) for step in range(len(single))]
    everything = np.concatenate(together).tolist()
    if n >= world and batch >= 2 * world - 1:
        assert everything == np.concatenate(single).tolist()
    else:  # hardly one sample a worker: what is missing of the last batch is repeated
        assert everything[:n] == np.concatenate(single).tolist()
        assert len(everything) < n + world
    for one, two in list(zip(single, together, strict=True))[:-2]:
        assert np.array_equal(one, two)


@given(
    start=st.integers(0, 3),
    epochs=st.integers(0, 3),
    skip=st.integers(0, 5),
    most=st.integers(1, 7),
    world=st.integers(1, 3),
)
def test_blocks_cover_every_batch_once(start: int, epochs: int, skip: int, most: int, world: int) -> None:
    plan = Plan(50, 8, 3, rank=world - 1, world_size=world)
    blocks = list(blocks_of(plan, start, start + epochs, skip=skip, most=most, ramp=2))
    cut = [(b.epoch, p) for b in blocks for p in np.split(b.positions, np.cumsum(b.lengths)[:-1])]
    wanted = [(e, p) for e in range(start, start + epochs) for p in plan.batches(e, skip if e == start else 0)]
    assert [(e, p.tolist()) for e, p in cut] == [(e, p.tolist()) for e, p in wanted]
    assert all(len(b.lengths) <= min(most, 2 ** (i // 2)) for i, b in enumerate(blocks))


def test_epochs_and_seeds_differ() -> None:
    orders = {tuple(next(Plan(100, 100, seed).batches(epoch))) for seed in (0, 1) for epoch in (0, 1)}
    assert len(orders) == 4
