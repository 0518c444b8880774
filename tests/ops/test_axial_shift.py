import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cyclemlp.ops import AxialFC, axial_shift, axial_shift_reference
from cyclemlp.ops.axial_shift import Axis, axial_plan
from cyclemlp.ops.shift import padded_groups

AXES: tuple[Axis, Axis] = ("height", "width")


def padded_and_cut(x_nhwc: Tensor, shift_size: int, axis: Axis) -> Tensor:
    """Another oracle: each chunk of channels cut out of the padded map at its own place."""
    pad, dim = shift_size // 2, AXES.index(axis) + 1
    margin = (0, 0, pad, pad, 0, 0) if axis == "width" else (0, 0, 0, 0, pad, pad)
    padded = torch.nn.functional.pad(x_nhwc, margin)
    chunks = padded.chunk(shift_size, -1)
    return torch.cat([c.narrow(dim, 2 * pad - k, x_nhwc.shape[dim]) for k, c in enumerate(chunks)], -1)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(0, 2), st.integers(1, 6), st.integers(1, 6), st.integers(1, 12)),
    shift_size=st.sampled_from([1, 3, 5, 7]),
    axis=st.sampled_from(AXES),
    dilation=st.integers(1, 3),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.int64]),
)
def test_equals_the_formula(
    shape: tuple[int, int, int, int], shift_size: int, axis: Axis, dilation: int, dtype: torch.dtype
) -> None:
    x = torch.randint(-9, 9, shape).to(dtype)
    given = axial_shift(x, shift_size, axis, dilation)
    assert given.dtype == dtype
    assert torch.equal(given, axial_shift_reference(x, shift_size, axis, dilation))
    groups = padded_groups(x, axial_plan(shape[-1], shift_size, axis, dilation))  # an exported graph holds this form
    assert torch.equal(given, torch.cat(groups, -1))
    if dilation == 1:
        assert torch.equal(given, padded_and_cut(x, shift_size, axis))


@pytest.mark.parametrize("axis", AXES)
def test_gradient(axis: Axis) -> None:
    x = torch.randn(2, 4, 3, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: axial_shift(x, 5, axis), x)
    assert torch.autograd.gradgradcheck(lambda x: axial_shift(x, 3, axis, 2), x)


def test_input_that_is_not_contiguous() -> None:
    x = torch.randn(2, 7, 4, 3).permute(0, 2, 3, 1)
    assert torch.equal(axial_shift(x), axial_shift(x.contiguous()))


def test_groups_cover_all_channels_once() -> None:
    for channels in range(1, 30):
        for shift_size in (1, 3, 5, 7):
            moves = axial_plan(channels, shift_size, "width")
            covered = [c for move in moves for c in range(channels)[move.source]]
            assert covered == list(range(channels))
            assert all(abs(move.right) <= shift_size // 2 and move.down == 0 for move in moves)


@pytest.mark.parametrize("axis", AXES)
def test_layer_is_shift_and_product(axis: Axis) -> None:
    layer = AxialFC(10, 4, axis=axis)
    x = torch.randn(2, 5, 6, 10)
    expected = axial_shift_reference(x, 5, axis) @ layer.weight.T + layer.bias
    assert torch.allclose(layer(x), expected, atol=1e-6)
    assert f"shift_size=5, axis='{axis}'" in repr(layer)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shift_size": 4}, "shift_size is 4; it must be odd"),
        ({"shift_size": -1}, "shift_size is -1"),
        ({"dilation": 0}, "dilation is 0"),
        ({"axis": "depth"}, "axis is 'depth'; allowed are 'height' and 'width'"),
    ],
)
def test_wrong_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        axial_shift(torch.zeros(1, 2, 2, 5), **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        AxialFC(5, 5, **options)  # type: ignore[arg-type]


def test_traced_by_the_compiler() -> None:
    layer = AxialFC(6, 6, shift_size=3)
    x = torch.randn(1, 4, 5, 6)
    exported = torch.export.export(layer, (x,)).module()
    assert torch.allclose(exported(x), layer(x), atol=1e-6)
