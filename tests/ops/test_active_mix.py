"""The active mix against a naive loop, against the authors' deformable convolution, and under torch's transforms."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import deform_conv2d

from cyclemlp.ops import ActiveFC, active_mix, active_mix_reference, read_places
from cyclemlp.ops.places import AXES, Axis, Taps, read

Arguments = tuple[Tensor, Tensor, Tensor, Tensor]


def arguments(shape: tuple[int, int, int], groups: int, share: int, seed: int = 0, spread: float = 2.0) -> Arguments:
    """Input, offsets, weight and bias in double precision; some offsets are whole numbers, many lead outside."""
    generator = torch.Generator().manual_seed(seed)
    channels = groups * share
    shapes = ((*shape, channels), (*shape, groups), (3, channels), (3,))
    x, offset, weight, bias = (torch.randn(size, generator=generator, dtype=torch.float64) for size in shapes)
    offset *= spread
    return x, torch.where(offset.abs() > spread, offset.round(), offset), weight, bias


def leaves(x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor) -> Arguments:
    """The same, to be differentiated."""
    return x.requires_grad_(), offset.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()


def mixed(x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None, axis: Axis, dilation: int = 1) -> Tensor:
    return active_mix(x, read_places(offset, axis, dilation), weight, bias)


def deformed(x_nhwc: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, axis: Axis) -> Tensor:
    """As the authors' code: the offsets repeated for every channel, zero along the other axis."""
    along = offset.repeat_interleave(x_nhwc.shape[-1] // offset.shape[-1], -1).permute(0, 3, 1, 2)
    still = torch.zeros_like(along)
    pairs = torch.stack([along, still] if axis == "height" else [still, along], 2).flatten(1, 2)
    out: Tensor = deform_conv2d(x_nhwc.permute(0, 3, 1, 2), pairs, weight[:, :, None, None], bias)
    return out.permute(0, 2, 3, 1)


shapes = st.tuples(st.integers(1, 2), st.integers(1, 5), st.integers(1, 5))


@settings(deadline=None, max_examples=40)
@given(
    shape=shapes, groups=st.integers(1, 3), share=st.integers(1, 3), axis=st.sampled_from(AXES), seed=st.integers(0, 99)
)
@example((2, 1, 1), 2, 2, "width", 0)
@example((1, 1, 4), 1, 3, "height", 0)
def test_equals_the_loop_and_the_deformable_convolution(
    shape: tuple[int, int, int], groups: int, share: int, axis: Axis, seed: int
) -> None:
    given = arguments(shape, groups, share, seed)
    out = mixed(*given, axis)
    torch.testing.assert_close(out, active_mix_reference(*given, axis), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(out, deformed(*given, axis), rtol=1e-12, atol=1e-12)


@settings(deadline=None, max_examples=30)
@given(shape=shapes, groups=st.integers(1, 3), share=st.integers(1, 3), axis=st.sampled_from(AXES))
def test_gradients_equal_those_of_the_deformable_convolution(
    shape: tuple[int, int, int], groups: int, share: int, axis: Axis
) -> None:
    """Also at whole numbers, where there is a slope on either side, and at the borders."""
    tensors = leaves(*arguments(shape, groups, share))
    grad = torch.randn(*shape, 3, dtype=torch.float64)
    ours = torch.autograd.grad(mixed(*tensors, axis), tensors, grad)
    theirs = torch.autograd.grad(deformed(*tensors, axis), tensors, grad)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("size", [(1, 3, 4), (2, 1, 1)])
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:FutureWarning")  # torch's own forward derivatives use it
def test_gradcheck(axis: Axis, size: tuple[int, int, int]) -> None:
    x, offset, weight, bias = arguments(size, 2, 2)
    offset = offset.floor() + 0.3 + 0.4 * torch.rand_like(offset)  # away from whole numbers, where there is a kink
    tensors = leaves(x, offset, weight, bias)

    def function(x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return mixed(x, offset, weight, bias, axis)

    assert torch.autograd.gradcheck(function, tensors, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(function, tensors)


def test_dilation_multiplies_offsets() -> None:
    x, offset, weight, bias = arguments((1, 4, 5), 2, 2)
    assert torch.equal(mixed(x, offset, weight, bias, "width", 3), mixed(x, 3 * offset, weight, bias, "width"))


@pytest.mark.parametrize("axis", AXES)
def test_offsets_far_outside_or_not_a_number(axis: Axis) -> None:
    x, offset, weight, bias = arguments((1, 3, 3), 1, 2)
    for far in (1e30, -1e30, 1e9):
        assert torch.equal(mixed(x, torch.full_like(offset, far), weight, bias, axis), bias.expand(1, 3, 3, 3))
    offset[0, 1, 1] = torch.nan
    out = mixed(x, offset, weight, bias, axis)
    assert out[0, 1, 1].isnan().all()
    assert out.isnan().sum() == 3


@pytest.mark.parametrize("axis", AXES)
def test_input_that_is_not_contiguous(axis: Axis) -> None:
    x, offset, weight, bias = arguments((2, 4, 3), 2, 2)
    view = x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    assert not view.is_contiguous()
    assert torch.equal(mixed(view, offset, weight, bias, axis), mixed(x, offset, weight, bias, axis))


def test_empty_batch() -> None:
    tensors = leaves(*arguments((0, 4, 4), 2, 2))
    out = mixed(*tensors, "width")
    assert out.shape == (0, 4, 4, 3)
    gradients = torch.autograd.grad(out.sum(), tensors, allow_unused=True)
    assert all(each is None or not each.any() for each in gradients)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_places_keep_their_digits_in_half_precision(dtype: torch.dtype) -> None:
    x = torch.zeros(1, 1, 600, 1)
    x[0, 0, 500] = 1
    offset = torch.full((1, 1, 600, 1), 0.25)
    out = mixed(x.to(dtype), offset.to(dtype), torch.ones(1, 1, dtype=dtype), None, "width")
    assert out.dtype == dtype
    assert out[0, 0, 499:501, 0].tolist() == [0.25, 0.75]  # bfloat16 alone could not tell 499.25 from 500
    assert int(out.count_nonzero()) == 2


@pytest.mark.parametrize("grad", [True, False])
def test_autocast(grad: bool) -> None:
    layer = ActiveFC(4, 3)
    x, offset, *_ = (each.float() for each in arguments((2, 5, 5), 2, 2))
    with torch.set_grad_enabled(grad), torch.autocast("cpu", torch.bfloat16):
        out = layer(x.requires_grad_(grad), read_places(offset, "width"))
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), layer(x, read_places(offset, "width")), rtol=2**-6, atol=2**-5)
    if grad:
        (gradient,) = torch.autograd.grad(out.float().sum(), x)
        assert gradient.dtype == torch.float32


def test_vmap_over_layers_and_images() -> None:
    x, offset, weight, _ = arguments((2, 3, 4), 2, 2)
    weights = torch.stack([weight, 2 * weight])
    out = torch.vmap(lambda w: mixed(x, offset, w, None, "width"))(weights)
    torch.testing.assert_close(out[1], 2 * out[0])

    def loss(image: Tensor, by: Tensor) -> Tensor:
        return mixed(image[None], by[None], weight, None, "height").square().sum()

    each = torch.vmap(torch.func.grad(loss, (0, 1)))(x, offset)
    alone = torch.func.grad(loss, (0, 1))(x[1], offset[1])
    torch.testing.assert_close((each[0][1], each[1][1]), alone)


def test_compiled_without_graph_breaks() -> None:
    torch.compiler.reset()
    tensors = leaves(*arguments((2, 4, 5), 2, 2))
    compiled: Any = torch.compile(mixed, backend="aot_eager", fullgraph=True)
    out, expected = compiled(*tensors, "width"), mixed(*tensors, "width")
    torch.testing.assert_close(out, expected)
    grad = torch.ones_like(out)
    torch.testing.assert_close(torch.autograd.grad(out, tensors, grad), torch.autograd.grad(expected, tensors, grad))


@pytest.mark.parametrize("axis", AXES)
def test_recorded_graph_for_any_size(axis: Axis) -> None:
    layer = ActiveFC(6, 4).double()

    class Module(torch.nn.Module):
        def forward(self, x: Tensor, offset: Tensor) -> Tensor:
            return F.linear(read(x, read_places(offset, axis)), layer.weight.detach(), layer.bias.detach())

    free = {0: torch.export.Dim("b"), 1: torch.export.Dim("h", min=2), 2: torch.export.Dim("w", min=2)}
    x, offset, *_ = arguments((2, 8, 11), 3, 2)
    graph = torch.export.export(Module(), (x, offset), dynamic_shapes=(free, free)).module()
    assert "grid_sampler" in graph.code
    for size in ((1, 5, 7), (3, 9, 2)):
        x, offset, *_ = arguments(size, 3, 2)
        expected = layer(x, read_places(offset, axis))
        torch.testing.assert_close(graph(x, offset), expected, rtol=1e-10, atol=1e-10)


def test_one_computation_serves_several_layers() -> None:
    x, offset, *_ = arguments((1, 3, 4), 2, 2)
    places = read_places(offset, "width")
    assert isinstance(places, Taps)
    assert torch.equal(read(2 * x, places), 2 * read(x, places))


def test_wrong_arguments() -> None:
    x, offset, weight, bias = arguments((1, 3, 4), 2, 2)
    with pytest.raises(ValueError, match="axis is 'depth', dilation 1; allowed are 'height' or 'width'"):
        mixed(x, offset, weight, bias, "depth")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="dilation 0"):
        mixed(x, offset, weight, bias, "width", 0)
    with pytest.raises(ValueError, match=r"needs \(batch, height, width, in\) and \(out, in\)"):
        mixed(x, offset, weight[:, :-1], bias, "width")
    with pytest.raises(ValueError, match=r"input \(1, 2, 4, 4\) does not fit offsets of 24 positions and groups"):
        mixed(x[:, :2], offset, weight, bias, "width")
