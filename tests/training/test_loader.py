from itertools import islice

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cyclemlp.errors import ConfigError, DataError
from cyclemlp.training.loader import GroupedStream, ResumableLoader, SampleStream, derive_seed


class Numbers:
    """Sample `i` is the number i and three random ones."""

    def __init__(self, length: int, bad: int | None = None) -> None:
        self.length = length
        self.bad = bad

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if index == self.bad:
            raise DataError(f"image {index} is damaged; replace it")
        return torch.tensor(index), torch.rand(3)


def batches(loader: ResumableLoader, count: int) -> list[tuple[list[int], list[list[float]]]]:
    return [(numbers.tolist(), values.tolist()) for numbers, values in islice(loader, count)]


@given(st.integers(1, 30), st.integers(0, 2**40), st.integers(0, 5))
def test_every_pass_has_every_sample_once(length: int, seed: int, epoch: int) -> None:
    stream = SampleStream(length, seed)
    indices = [stream[epoch * length + place][0] for place in range(length)]
    assert sorted(indices) == list(range(length))


def test_passes_and_seeds_differ() -> None:
    stream = SampleStream(20, 0)
    orders = [[stream[epoch * 20 + i][0] for i in range(20)] for epoch in range(3)]
    assert orders[0] != orders[1] != orders[2]
    assert [SampleStream(20, 1)[i][0] for i in range(20)] != orders[0]
    seeds = {stream[i][1] for i in range(200)}
    assert len(seeds) == 200


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # where there is one processor
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stopped_after", [1, 3, 6, 7])
def test_continues_with_the_same_batches(workers: int, stopped_after: int) -> None:
    whole = batches(ResumableLoader(Numbers(6), 2, seed=1), 10)  # passes end after batches 3, 6 and 9
    first = ResumableLoader(Numbers(6), 2, seed=1, workers=workers)
    begun = batches(first, stopped_after)
    second = ResumableLoader(Numbers(6), 2, seed=1, workers=workers)
    second.load_state_dict(first.state_dict())
    assert begun + batches(second, 10 - stopped_after) == whole


GROUPS = (0, 1, 1, 0, 2, 1, 0)


@given(st.integers(1, 300), st.integers(1, 9), st.integers(0, 2**40))
def test_grouping_keeps_samples_and_their_seeds(length: int, batch_size: int, seed: int) -> None:
    plain = SampleStream(length, seed)
    grouped = GroupedStream(plain, [index % 3 for index in range(length)], batch_size)
    stretch = batch_size * max(1, min(64, length // batch_size))
    for first in (0, stretch):
        numbers = range(first, first + stretch)
        assert sorted(grouped[number] for number in numbers) == sorted(plain[number] for number in numbers)


def test_few_batches_are_mixed() -> None:
    groups = [index % 2 for index in range(200)]
    stream = GroupedStream(SampleStream(200, 0), groups, 4)
    rows = [{groups[stream[4 * batch + i][0]] for i in range(4)} for batch in range(50)]
    assert sum(len(row) > 1 for row in rows) <= 1
    assert {0} in rows[:10]
    assert {1} in rows[:10]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # where there is one processor
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stopped_after", [2, 3, 5])
def test_grouped_batches_continue_the_same(workers: int, stopped_after: int) -> None:
    whole = batches(ResumableLoader(Numbers(7), 2, seed=1, aspect_groups=GROUPS), 9)
    assert whole != batches(ResumableLoader(Numbers(7), 2, seed=1), 9)
    first = ResumableLoader(Numbers(7), 2, seed=1, aspect_groups=GROUPS, workers=workers)
    begun = batches(first, stopped_after)
    second = ResumableLoader(Numbers(7), 2, seed=1, aspect_groups=GROUPS)
    second.load_state_dict(first.state_dict())
    assert begun + batches(second, 9 - stopped_after) == whole


def test_processes_share_out_grouped_batches() -> None:
    alone = batches(ResumableLoader(Numbers(7), 2, seed=5, aspect_groups=GROUPS), 6)
    parts = [
        batches(ResumableLoader(Numbers(7), 2, seed=5, aspect_groups=GROUPS, rank=rank, world=2), 3)
        for rank in range(2)
    ]
    assert [batch for step in zip(*parts, strict=True) for batch in step] == alone


def test_refuses_to_continue_in_other_groups() -> None:
    state = ResumableLoader(Numbers(7), 2, seed=1, aspect_groups=GROUPS).state_dict()
    with pytest.raises(ConfigError, match="made with batches of similar shapes 1, now it is 0"):
        ResumableLoader(Numbers(7), 2, seed=1).load_state_dict(state)


def test_fewer_samples_than_a_batch() -> None:
    (numbers, values), (again, other) = batches(ResumableLoader(Numbers(3), 8, seed=0), 2)
    assert len(numbers) == len(again) == 8
    assert sorted(numbers[:6]) == [0, 0, 1, 1, 2, 2]
    assert values != other


def test_processes_share_out_one_stream() -> None:
    alone = batches(ResumableLoader(Numbers(12), 4, seed=5), 3)
    parts = [batches(ResumableLoader(Numbers(12), 2, seed=5, rank=rank, world=2), 3) for rank in range(2)]
    together = [(a[0] + b[0], a[1] + b[1]) for a, b in zip(*parts, strict=True)]
    assert together == alone


def test_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    batches(ResumableLoader(Numbers(6), 2, seed=1), 3)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_of_the_user_arrive_as_they_were(workers: int) -> None:
    with pytest.raises(DataError) as refused:
        batches(ResumableLoader(Numbers(4, bad=2), 2, seed=0, workers=workers), 3)
    assert str(refused.value) == "image 2 is damaged; replace it"


def test_refuses_to_continue_other_batches() -> None:
    state = ResumableLoader(Numbers(6), 2, seed=1).state_dict()
    with pytest.raises(ConfigError, match="made with training images 6, now it is 7: an exact continuation needs"):
        ResumableLoader(Numbers(7), 2, seed=1).load_state_dict(state)
    with pytest.raises(ConfigError, match="made with batch size 2, now it is 3"):
        ResumableLoader(Numbers(6), 3, seed=1).load_state_dict(state)


def test_seeds_depend_on_every_part() -> None:
    assert len({derive_seed(*parts) for parts in [(0,), (1,), (0, 1), (1, 0), (0, 0, 1), (2**40, 1)]}) == 6
