"""CycleFC against a naive loop, against the authors' deformable convolution, and under everything torch does to it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import deform_conv2d

from cyclemlp.ops import CycleFC, cycle_fc, cycle_fc_reference
from cyclemlp.ops.cycle_fc import StepSize, cycle_offsets, cycle_plan
from cyclemlp.ops.shift import adjoint, shift

STEPSIZES: list[StepSize] = [(1, 1), (1, 3), (3, 1), (1, 7), (5, 1), (3, 3), (3, 5)]
AXIAL = [step for step in STEPSIZES if 1 in step]

Arguments = tuple[Tensor, Tensor, Tensor]


def arguments(
    shape: tuple[int, int, int, int], out_channels: int = 4, dtype: torch.dtype = torch.float64, seed: int = 0
) -> Arguments:
    """Input (batch, height, width, in), weight (out, in) and bias (out), normally distributed."""
    generator = torch.Generator().manual_seed(seed)
    shapes = (shape, (out_channels, shape[-1]), (out_channels,))
    x, weight, bias = (torch.randn(size, generator=generator, dtype=torch.float64).to(dtype) for size in shapes)
    return x, weight, bias


def leaves(shape: tuple[int, int, int, int], out_channels: int = 4, dtype: torch.dtype = torch.float64) -> Arguments:
    """The same, to be differentiated."""
    x, weight, bias = arguments(shape, out_channels, dtype)
    return x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()


def authors_offsets(channels: int, stepsize: StepSize) -> Tensor:
    """Transcribed from `CycleFC.gen_offset` of cycle_mlp.py: (1, 2 * channels, 1, 1), (down, right) per channel."""
    offset = torch.zeros(1, 2 * channels, 1, 1)
    start = stepsize[0] * stepsize[1] // 2
    axis, step = (1, stepsize[1]) if stepsize[0] == 1 else (0, stepsize[0])
    for i in range(channels):
        offset[0, 2 * i + axis] = (i + start) % step - step // 2
    return offset


def authors_cycle_fc(x_nhwc: Tensor, weight: Tensor, bias: Tensor | None, stepsize: StepSize, dilation: int) -> Tensor:
    batch, height, width, channels = x_nhwc.shape
    offset = dilation * authors_offsets(channels, stepsize).to(x_nhwc.dtype).expand(batch, -1, height, width)
    out: Tensor = deform_conv2d(x_nhwc.permute(0, 3, 1, 2), offset, weight[:, :, None, None], bias)
    return out.permute(0, 2, 3, 1)


@pytest.mark.parametrize(
    ("stepsize", "expected"),
    [
        ((1, 3), [(0, 0), (0, 1), (0, -1), (0, 0)]),
        ((3, 1), [(0, 0), (1, 0), (-1, 0), (0, 0)]),
        ((1, 5), [(0, 0), (0, 1), (0, 2), (0, -2), (0, -1), (0, 0)]),
        ((3, 3), [(-1, -1), (0, -1), (1, -1), (-1, 0), (0, 0), (1, 0), (-1, 1), (0, 1), (1, 1), (-1, -1)]),
        ((1, 1), [(0, 0), (0, 0)]),
    ],
)
def test_offsets_written_out(stepsize: StepSize, expected: list[tuple[int, int]]) -> None:
    assert [cycle_offsets(c, stepsize) for c in range(len(expected))] == expected


shapes = st.tuples(st.integers(0, 2), st.integers(1, 5), st.integers(1, 5), st.integers(1, 11))


@settings(deadline=None, max_examples=50)
@given(
    shape=shapes,
    out_channels=st.integers(1, 4),
    stepsize=st.sampled_from(STEPSIZES),
    dilation=st.integers(1, 3),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
    with_bias=st.booleans(),
    seed=st.integers(0, 99),
)
@example((0, 4, 4, 6), 3, (1, 3), 1, torch.float32, True, 0)
@example((2, 1, 1, 9), 3, (1, 7), 3, torch.float32, True, 0)
@example((1, 2, 1, 2), 3, (3, 5), 1, torch.float64, False, 0)
def test_equals_the_naive_loop(
    shape: tuple[int, int, int, int],
    out_channels: int,
    stepsize: StepSize,
    dilation: int,
    dtype: torch.dtype,
    with_bias: bool,
    seed: int,
) -> None:
    x, weight, bias = arguments(shape, out_channels, dtype, seed)
    given_bias = bias if with_bias else None
    out = cycle_fc(x, weight, given_bias, stepsize, dilation)
    # A sum of n rounded terms is off by at most about n * eps * sum of |terms|, whatever its order.
    wide_bias = None if given_bias is None else bias.double()
    expected = cycle_fc_reference(x.double(), weight.double(), wide_bias, stepsize, dilation)
    terms = cycle_fc_reference(x.double().abs(), weight.double().abs(), bias.double().abs(), stepsize, dilation)
    bound = (shape[-1] + 2) * torch.finfo(dtype).eps * terms
    assert out.dtype == dtype
    assert out.shape == (*shape[:3], out_channels)
    assert bool(((out.double() - expected).abs() <= bound).all())


@settings(deadline=None, max_examples=30)
@given(shape=shapes, stepsize=st.sampled_from(AXIAL), dilation=st.integers(1, 2), seed=st.integers(0, 99))
def test_equals_the_authors_deformable_convolution(
    shape: tuple[int, int, int, int], stepsize: StepSize, dilation: int, seed: int
) -> None:
    shape = (shape[0] + 1, *shape[1:])  # theirs refuses an empty batch
    x, weight, bias = arguments(shape, seed=seed)
    expected = authors_cycle_fc(x, weight, bias, stepsize, dilation)
    torch.testing.assert_close(cycle_fc(x, weight, bias, stepsize, dilation), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("stepsize", AXIAL)
def test_gradients_equal_those_of_the_deformable_convolution(stepsize: StepSize) -> None:
    tensors = leaves((2, 4, 5, 7))
    grad_out = torch.randn(2, 4, 5, 4, dtype=torch.float64)
    ours = torch.autograd.grad(cycle_fc(*tensors, stepsize), tensors, grad_out)
    theirs = torch.autograd.grad(authors_cycle_fc(*tensors, stepsize, 1), tensors, grad_out)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("stepsize", STEPSIZES)
def test_gradcheck(stepsize: StepSize, dilation: int) -> None:
    tensors = leaves((2, 3, 2, 4), 2)

    def function(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return cycle_fc(x, weight, bias, stepsize, dilation)

    assert torch.autograd.gradcheck(function, tensors)
    assert torch.autograd.gradgradcheck(function, tensors)


def test_gradcheck_without_bias_and_with_frozen_parts() -> None:
    x, weight, _ = arguments((1, 3, 3, 4))
    assert torch.autograd.gradcheck(lambda w: cycle_fc(x, w), weight.requires_grad_())
    weight.requires_grad_(False)
    assert torch.autograd.gradcheck(lambda given: cycle_fc(given, weight), x.requires_grad_())


def test_empty_batch_has_zero_gradients() -> None:
    tensors = leaves((0, 4, 4, 6))
    torch.autograd.backward(cycle_fc(*tensors).sum())
    assert all(each.grad is not None and not each.grad.any() for each in tensors)


@pytest.mark.parametrize("stepsize", STEPSIZES)
@pytest.mark.parametrize(
    "strided",
    [
        pytest.param(lambda x: x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1), id="channels first in memory"),
        pytest.param(lambda x: x.repeat_interleave(2, -1)[..., ::2], id="every second channel"),
        pytest.param(lambda x: F.pad(x, (0, 0, 1, 1, 2, 1))[:, 2:-1, 1:-1], id="a crop"),
        pytest.param(lambda x: x[:1].expand_as(x), id="an expanded batch"),
    ],
)
def test_any_strides(strided: Callable[[Tensor], Tensor], stepsize: StepSize) -> None:
    x, weight, bias = arguments((2, 4, 3, 9))
    view = strided(x)
    assert not view.is_contiguous()
    leaf, copy = view.detach().requires_grad_(), view.contiguous().detach().requires_grad_()
    out, expected = cycle_fc(leaf, weight, bias, stepsize), cycle_fc(copy, weight, bias, stepsize)
    torch.testing.assert_close(out, expected, rtol=1e-13, atol=1e-13)
    torch.autograd.backward([out.square().sum(), expected.square().sum()])
    torch.testing.assert_close(leaf.grad, copy.grad, rtol=1e-13, atol=1e-13)


def test_the_input_is_left_as_it_was() -> None:
    x, weight, bias = arguments((2, 4, 4, 6))
    before = x.clone()
    cycle_fc(x, weight, bias)
    assert torch.equal(x, before)


@pytest.mark.parametrize("stepsize", STEPSIZES)
def test_the_adjoint_shift_is_the_transpose(stepsize: StepSize) -> None:
    x, y = arguments((2, 4, 5, 8))[0], arguments((2, 4, 5, 8), seed=1)[0]
    forward = (shift(x, cycle_plan(8, stepsize, 2)) * y).sum()
    backward = (x * shift(y, adjoint(cycle_plan(8, stepsize, 2)))).sum()
    torch.testing.assert_close(forward, backward, rtol=1e-12, atol=1e-12)


def test_step_size_one_is_a_linear_layer() -> None:
    x, weight, bias = arguments((2, 4, 4, 6))
    assert torch.equal(cycle_fc(x, weight, bias, (1, 1)), F.linear(x, weight, bias))


@pytest.mark.parametrize("grad", [True, False])
def test_autocast_gives_bfloat16_and_float32_gradients(grad: bool) -> None:
    layer = CycleFC(12, 8)
    x = torch.randn(2, 5, 5, 12, requires_grad=grad)
    with torch.autocast("cpu", torch.bfloat16), torch.set_grad_enabled(grad):
        out = layer(x)
    assert out.dtype == torch.bfloat16
    # One rounding of input, weight, bias and sum each, 2^-9 relative; values here are below 4.
    torch.testing.assert_close(out.float(), layer(x), rtol=2**-6, atol=2**-5)
    if grad:
        torch.autograd.backward(out.float().sum())
        got = [p.grad for p in (x, layer.weight, layer.bias)]
        exact = torch.autograd.grad(layer(x).sum(), (x, layer.weight, layer.bias))
        for mine, expected in zip(got, exact, strict=True):
            assert mine is not None
            assert mine.dtype == torch.float32
            torch.testing.assert_close(mine, expected, rtol=2**-5, atol=2**-4)


def storages_kept_for_backward(function: Callable[[], Tensor]) -> dict[int, tuple[int, ...]]:
    """Address -> shape of the storages autograd keeps while `function` runs."""
    kept: dict[int, tuple[int, ...]] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tuple(tensor.shape)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        function()
    return kept


def test_two_branches_keep_one_input() -> None:
    x = torch.randn(1, 4, 4, 6, requires_grad=True)
    along_width, along_height = CycleFC(6, 6, stepsize=(1, 3)), CycleFC(6, 6, stepsize=(3, 1))
    kept = storages_kept_for_backward(lambda: along_width(x) + along_height(x))
    weights = {layer.weight.untyped_storage().data_ptr() for layer in (along_width, along_height)}
    assert set(kept) == {x.untyped_storage().data_ptr(), *weights}


def test_under_autocast_the_small_input_is_kept() -> None:
    x, layer = torch.randn(1, 4, 4, 6, requires_grad=True), CycleFC(6, 6)
    kept: list[torch.dtype] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor.dtype)
        return tensor

    with torch.autocast("cpu", torch.bfloat16), torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        layer(x)
    assert set(kept) == {torch.bfloat16}


@pytest.mark.parametrize("stepsize", [(1, 3), (3, 3)])
def test_compiled_without_graph_breaks(stepsize: StepSize) -> None:
    torch.compiler.reset()
    tensors = leaves((2, 4, 5, 9), dtype=torch.float32)
    compiled: Any = torch.compile(cycle_fc, backend="aot_eager", fullgraph=True)
    out, expected = compiled(*tensors, stepsize), cycle_fc(*tensors, stepsize)
    torch.testing.assert_close(out, expected, rtol=1e-6, atol=1e-6)
    grads = torch.autograd.grad(out.square().sum(), tensors)
    for mine, other in zip(grads, torch.autograd.grad(expected.square().sum(), tensors), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)


def test_exported_with_dynamic_sizes() -> None:
    layer = CycleFC(9, 4, stepsize=(1, 3)).eval()
    batch, height, width = (torch.export.Dim(name, min=1, max=64) for name in ("batch", "height", "width"))
    exported = torch.export.export(
        layer, (torch.randn(2, 6, 7, 9),), dynamic_shapes=({0: batch, 1: height, 2: width},)
    ).module()
    for shape in [(2, 6, 7, 9), (3, 9, 5, 9), (1, 1, 3, 9), (2, 2, 1, 9)]:
        x = torch.randn(shape)
        torch.testing.assert_close(exported(x), layer(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("grad", [True, False])
def test_vmap_over_images_and_over_weights(grad: bool) -> None:
    x, weight, bias = arguments((3, 4, 5, 6))
    with torch.set_grad_enabled(grad):
        one_image = torch.func.vmap(lambda image: cycle_fc(image[None], weight, bias)[0])(x)
        many_weights = torch.func.vmap(lambda w: cycle_fc(x, w, bias))(torch.stack([weight, 2 * weight]))
    torch.testing.assert_close(one_image, cycle_fc(x, weight, bias))
    torch.testing.assert_close(many_weights[1], cycle_fc(x, 2 * weight, bias))


def test_gradients_per_sample() -> None:
    x, weight, bias = arguments((3, 4, 5, 6))

    def loss(w: Tensor, image: Tensor) -> Tensor:
        return cycle_fc(image[None], w, bias).square().sum()

    per_sample = torch.func.vmap(torch.func.grad(loss), (None, 0))(weight, x)
    leaf = weight.clone().requires_grad_()
    (summed,) = torch.autograd.grad(cycle_fc(x, leaf, bias).square().sum(), leaf)
    torch.testing.assert_close(per_sample.sum(0), summed)


@pytest.mark.parametrize("stepsize", [(1, 2), (4, 1), (0, 3), (1, -3), (1, 3, 1)])
def test_refuses_step_sizes_that_are_not_odd_and_positive(stepsize: Any) -> None:
    x, weight, _ = arguments((1, 4, 4, 6))
    message = r"stepsize is \(.*\); both numbers must be odd and positive, such as \(1, 3\)"
    with pytest.raises(ValueError, match=message):
        cycle_fc(x, weight, stepsize=stepsize)
    with pytest.raises(ValueError, match=message):
        CycleFC(6, 6, stepsize=stepsize)


def test_refuses_a_dilation_below_one() -> None:
    with pytest.raises(ValueError, match="dilation is 0; it must be 1 or more"):
        CycleFC(6, 6, dilation=0)


def test_refuses_shapes_that_do_not_fit() -> None:
    x, weight, _ = arguments((1, 4, 4, 6))
    with pytest.raises(ValueError, match=r"input \(1, 4, 4, 6\) and weight \(4, 5\); it needs"):
        cycle_fc(x, weight[:, :5])
    with pytest.raises(ValueError, match=r"it needs \(batch, height, width, in\) and \(out, in\)"):
        cycle_fc(x[0], weight)


def test_module_equals_function_and_prints_its_sizes() -> None:
    layer = CycleFC(6, 4, stepsize=(3, 1), dilation=2)
    x = torch.randn(1, 5, 5, 6)
    assert torch.equal(layer(x), cycle_fc(x, layer.weight, layer.bias, (3, 1), 2))
    assert repr(layer) == "CycleFC(in_features=6, out_features=4, bias=True, stepsize=(3, 1), dilation=2)"


def test_module_without_bias() -> None:
    layer = CycleFC(6, 4, bias=False)
    x = torch.randn(1, 5, 5, 6)
    assert [name for name, _ in layer.named_parameters()] == ["weight"]
    assert torch.equal(layer(x), cycle_fc(x, layer.weight))
