"""One plan of moves, carried out in every way: a copy, the moved groups alone, their adjoint, and in graphs."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cyclemlp.ops.cycle_fc import cycle_plan
from cyclemlp.ops.shift import (
    Move,
    Plan,
    add_back,
    adjoint,
    in_place_of_itself,
    is_recorded,
    only_moved,
    padded_groups,
    read_moved,
    shift,
    unread,
)

SHAPES = [(2, 4, 5, 7), (1, 1, 1, 7), (2, 1, 6, 7), (0, 3, 3, 7)]
STEPS = [(1, 3), (5, 1), (3, 3), (1, 7)]


def read_by_loop(x_nhwc: Tensor, move: Move) -> Tensor:
    """One group by the formula, position by position."""
    group = x_nhwc[..., move.source]
    out = torch.zeros_like(group)
    for i in range(x_nhwc.shape[1]):
        for j in range(x_nhwc.shape[2]):
            if 0 <= i + move.down < x_nhwc.shape[1] and 0 <= j + move.right < x_nhwc.shape[2]:
                out[:, i, j] = group[:, i + move.down, j + move.right]
    return out


def numbers(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(0, 2), st.integers(1, 5), st.integers(1, 5), st.just(6)),
    down=st.integers(-6, 6),
    right=st.integers(-6, 6),
    source=st.sampled_from([slice(0, 4), slice(2, 6), slice(1, None, 3), slice(0, 6)]),
)
def test_every_way_equals_the_formula(shape: tuple[int, int, int, int], down: int, right: int, source: slice) -> None:
    x, move = numbers(shape), in_place_of_itself(source, down, right)
    expected = read_by_loop(x, move)
    assert torch.equal(shift(x, (move,))[..., source], expected)
    assert torch.equal(padded_groups(x, (move,))[0], expected)
    if move.moves:
        assert torch.equal(read_moved(x, only_moved((move,), 6)), expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("stepsize", STEPS)
def test_reading_what_moves_and_its_adjoint(shape: tuple[int, int, int, int], stepsize: tuple[int, int]) -> None:
    x, plan = numbers(shape), only_moved(cycle_plan(7, stepsize), 7)
    moved = read_moved(x, plan)
    assert moved.shape[-1] == plan[-1].target.stop == sum(len(range(7)[move.source]) for move in plan)
    for move in plan:
        assert torch.equal(moved[..., move.target], read_by_loop(x, move))
    y = numbers(tuple(moved.shape), seed=1)
    total = numbers(shape, seed=2)
    expected = (moved * y).sum() + (x * total).sum()
    torch.testing.assert_close((x * add_back(total.clone(), y, plan)).sum(), expected, rtol=1e-12, atol=1e-12)


def test_a_plan_without_moves_reads_nothing() -> None:
    plan = only_moved(cycle_plan(4, (1, 1)), 4)
    assert plan == ()
    assert read_moved(torch.zeros(2, 3, 3, 4), plan).shape == (2, 3, 3, 0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("offset", [-3, -1, 1, 2])
def test_what_a_move_leaves_unread(shape: tuple[int, int, int, int], offset: int) -> None:
    x = numbers(shape)
    for move in (in_place_of_itself(slice(0, 7), offset, 0), in_place_of_itself(slice(0, 7), 0, offset)):
        lost = x.sum((1, 2)) - read_by_loop(x, move).sum((1, 2))
        torch.testing.assert_close(unread(x, move).sum((1, 2)), lost, rtol=1e-12, atol=1e-12)


def test_the_adjoint_of_the_adjoint_is_the_plan() -> None:
    plan: Plan = only_moved(cycle_plan(8, (3, 5), dilation=2), 8)
    assert adjoint(adjoint(plan)) == plan


class Shifted(torch.nn.Module):
    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan

    def forward(self, x_nhwc: Tensor) -> Tensor:
        return shift(x_nhwc, self.plan)


@pytest.mark.parametrize("stepsize", STEPS)
def test_an_exported_graph_has_few_nodes_and_takes_any_size(stepsize: tuple[int, int]) -> None:
    module = Shifted(cycle_plan(7, stepsize))
    height, width = (torch.export.Dim(name, min=1, max=64) for name in ("height", "width"))
    program = torch.export.export(module, (numbers((2, 4, 5, 7)),), dynamic_shapes=({1: height, 2: width},))
    assert len(program.graph.nodes) <= 4 * len(module.plan) + 4  # a slice and two pads each
    for size in ((4, 5), (1, 1), (1, 9), (2, 3)):
        x = numbers((2, *size, 7))
        assert torch.equal(program.module()(x), module(x))
    assert not is_recorded()


def test_torch_compile_is_not_taken_for_an_export() -> None:
    compiled = torch.compile(lambda x: x + 1 if is_recorded() else x, backend="eager", fullgraph=True)
    assert compiled(torch.zeros(2)).tolist() == [0, 0]
