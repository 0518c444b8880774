"""CycleFC against the authors' operator, a deformable convolution, and against a plain linear layer of its size."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks import peak
from benchmarks.records import SPREAD_NOTE, command_line, heading, ratio, shown_ratio, summary
from cyclemlp.cli.bench_output import Json, Out, Rounds, Threads, aligned, check_out, deliver, milliseconds
from cyclemlp.errors import ConfigError
from cyclemlp.inference.rounds import DEFAULT_THREADS, Case, Measurement, Plan, Suite, measure

if TYPE_CHECKING:
    from torch import Tensor

    from cyclemlp.ops.cycle_fc import StepSize

SHAPES = ((8, 56, 56, 64), (8, 28, 28, 128), (8, 14, 14, 320), (8, 7, 7, 512))
"""(batch, height, width, channels) of the four stages of B1-B4 at 224x224."""
TARGETS = dict(zip(SHAPES, (15.0, 10.0, 6.0, 4.0), strict=True))
"""How many times faster than the deformable convolution the forward pass should be."""
LINEAR_TARGET = 1.5
"""Maximum forward time over that of the linear layer."""
PASSES = ("forward", "forward+backward")
OPERATORS = ("cycle_fc", "deform_conv2d", "linear")
SUITE = "pytorch"

Shape = tuple[int, int, int, int]


def operators(
    *,
    rounds: Rounds = 15,
    threads: Threads = DEFAULT_THREADS,
    stepsize: tuple[int, int] = (1, 3),
    out: Out = None,
    json: Json = False,
) -> None:
    """Time CycleFC against the authors' deformable convolution and a plain linear layer, at the sizes of B1-B4.

    Parameters
    ----------
    stepsize
        The cycle's length along height and width; one of the two is 1.
    """
    check_out(out, "bench-op.json")
    record = bench_operators(Plan(rounds, threads=threads), stepsize, command_line())
    deliver(record, _table(record), out, json)


def bench_operators(
    plan: Plan, stepsize: "StepSize" = (1, 3), command: str = "", shapes: tuple[Shape, ...] = SHAPES
) -> dict[str, Any]:
    """Measure and return the record for JSON: environment, peak, one entry for each shape and pass.

    Args:
        plan: rounds and threads.
        stepsize: (1, S) or (S, 1); the authors' operator knows no other.
        command: noted in the record.
        shapes: of the inputs.

    Raises:
        ConfigError: another step size.
    """
    _check_stepsize(stepsize)
    measured = measure([peak.SUITE, Suite(SUITE, operator_cases, (shapes, stepsize))], plan)
    return {
        "bench": "op",
        **summary([measured], plan, command),
        "stepsize": list(stepsize),
        "cases": [_entry(measured, shape, direction) for direction in PASSES for shape in shapes],
    }


def _check_stepsize(stepsize: "StepSize") -> None:
    from cyclemlp.ops.cycle_fc import check_stepsize

    try:
        check_stepsize(stepsize, 1)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if 1 not in stepsize:
        raise ConfigError(f"stepsize is {stepsize}; the authors' operator takes (1, S) and (S, 1) only")


def _entry(measured: Measurement, shape: Shape, direction: str) -> dict[str, Any]:
    timings = {each: measured.timings[SUITE, case_name(shape, direction, each)] for each in OPERATORS}
    forward = direction == PASSES[0]
    return {
        "shape_nhwc": list(shape),
        "pass": direction,
        "operators": {name: timing.to_dict() for name, timing in timings.items()},
        "times_faster_than_deform_conv2d": ratio(timings["deform_conv2d"], timings["cycle_fc"]),
        "target_times_faster": TARGETS.get(shape) if forward else None,
        "time_over_linear": ratio(timings["cycle_fc"], timings["linear"]),
        "target_time_over_linear": LINEAR_TARGET if forward else None,
    }


def case_name(shape: Shape, direction: str, operator: str) -> str:
    """Of a timing within the suite."""
    return f"{'x'.join(map(str, shape))} {direction} {operator}"


def operator_cases(shapes: tuple[Shape, ...], stepsize: "StepSize") -> Mapping[str, Case]:
    """The cases, built in the process that measures them."""
    cases: dict[str, Case] = {}
    for shape in shapes:
        for operator, (function, inputs) in operators_and_inputs(shape, stepsize).items():
            cases[case_name(shape, PASSES[0], operator)] = partial(forward_only, function, inputs)
            cases[case_name(shape, PASSES[1], operator)] = partial(backward_too, function, inputs)
    return cases


def operators_and_inputs(shape: Shape, stepsize: "StepSize") -> "dict[str, tuple[Callable[..., Tensor], list[Tensor]]]":
    """The three operators with the same values as inputs (x, weight, bias), each in the layout that suits it best."""
    import torch
    import torch.nn.functional as F

    from cyclemlp.ops import cycle_fc

    generator = torch.Generator().manual_seed(0)
    width = shape[-1]
    sizes = (shape, (width, width), (width,))
    x_nhwc, weight, bias = (torch.randn(size, generator=generator).requires_grad_() for size in sizes)
    x_nchw = x_nhwc.detach().permute(0, 3, 1, 2).contiguous().requires_grad_()
    weight_oihw = weight.detach()[:, :, None, None].clone().requires_grad_()
    authors = partial(authors_cycle_fc, authors_offsets(width, stepsize))
    return {
        "cycle_fc": (partial(cycle_fc, stepsize=stepsize), [x_nhwc, weight, bias]),
        "deform_conv2d": (authors, [x_nchw, weight_oihw, bias]),
        "linear": (F.linear, [x_nhwc, weight, bias]),
    }


def authors_offsets(channels: int, stepsize: "StepSize") -> "Tensor":
    """The buffer the authors' layer keeps: (1, 2 * channels, 1, 1), moves down and right of each channel."""
    import torch

    from cyclemlp.ops.cycle_fc import cycle_offsets

    offsets = torch.tensor([cycle_offsets(c, stepsize) for c in range(channels)], dtype=torch.float32)
    return offsets.reshape(1, 2 * channels, 1, 1)


def authors_cycle_fc(offset: "Tensor", x_nchw: "Tensor", weight_oihw: "Tensor", bias: "Tensor") -> "Tensor":
    """As `CycleFC.forward` of github.com/ShoufaChen/CycleMLP: the buffer expanded to every position of every image."""
    from torchvision.ops import deform_conv2d

    batch, _, height, width = x_nchw.shape
    return deform_conv2d(x_nchw, offset.expand(batch, -1, height, width), weight_oihw, bias)


def forward_only(function: "Callable[..., Tensor]", inputs: "list[Tensor]") -> None:
    """One pass without gradients."""
    import torch

    with torch.inference_mode():
        function(*inputs)


def backward_too(function: "Callable[..., Tensor]", inputs: "list[Tensor]") -> None:
    """One pass and its gradients by all inputs."""
    import torch

    out = function(*inputs)
    torch.autograd.grad(out, inputs, out)  # any gradient of the right shape will do


def _table(record: dict[str, Any]) -> str:
    columns = ("input NHWC", "cycle_fc", "deform_conv2d", "linear", "deform / ours", "ours / linear")
    return by_direction(record, f"{heading(record)}, stepsize {tuple(record['stepsize'])}", columns, _row)


def by_direction(
    record: dict[str, Any], title: str, columns: tuple[str, ...], row: Callable[[dict[str, Any]], tuple[str, ...]]
) -> str:
    """A table of cases for each direction, forward and with the backward pass."""
    lines = [title, SPREAD_NOTE]
    for direction in dict.fromkeys(case["pass"] for case in record["cases"]):
        rows = [row(case) for case in record["cases"] if case["pass"] == direction]
        lines += ["", direction, *aligned([columns, *rows])]
    return "\n".join(lines) + "\n"


def _row(case: dict[str, Any]) -> tuple[str, ...]:
    times = map(milliseconds, case["operators"].values())
    faster = shown_ratio(case["times_faster_than_deform_conv2d"], ">=", case["target_times_faster"])
    over_linear = shown_ratio(case["time_over_linear"], "<=", case["target_time_over_linear"])
    return ("x".join(map(str, case["shape_nhwc"])), *times, faster, over_linear)
