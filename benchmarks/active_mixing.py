"""ActiveFC against the authors' operator: a deformable convolution, whose offsets are learned."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks import peak
from benchmarks.operators import PASSES, SHAPES, SUITE, Shape, backward_too, by_direction, case_name, forward_only
from benchmarks.records import command_line, heading, ratio, shown_ratio, summary
from cyclemlp.cli.bench_output import Json, Out, Rounds, Threads, check_out, deliver, milliseconds
from cyclemlp.inference.rounds import DEFAULT_THREADS, Measurement, Plan, Suite, measure

if TYPE_CHECKING:
    from torch import Tensor

    from cyclemlp.inference.rounds import Case

SHARES = dict(zip(SHAPES, (2, 4, 4, 8), strict=True))
"""Neighbouring channels with one offset in common, for each stage of xT and T."""
TARGET = 2.0
"""How many times faster than the deformable convolution the forward pass should be."""
OPERATORS = ("active_mix", "deform_conv2d")


def active(*, rounds: Rounds = 15, threads: Threads = DEFAULT_THREADS, out: Out = None, json: Json = False) -> None:
    """Time ActiveFC against the authors' deformable convolution, at the sizes of ActiveMLP xT and T."""
    check_out(out, "bench-active.json")
    record = bench_active(Plan(rounds, threads=threads), command_line())
    deliver(record, _table(record), out, json)


def bench_active(plan: Plan, command: str = "", shares: Mapping[Shape, int] = SHARES) -> dict[str, Any]:
    """Measure and return the record for JSON: environment, peak, one entry for each shape and pass.

    Args:
        plan: rounds and threads.
        command: noted in the record.
        shares: for each input shape, how many channels have one offset in common.
    """
    measured = measure([peak.SUITE, Suite(SUITE, active_cases, (dict(shares),))], plan)
    return {
        "bench": "active",
        **summary([measured], plan, command),
        "cases": [_entry(measured, shape, share, direction) for direction in PASSES for shape, share in shares.items()],
    }


def _entry(measured: Measurement, shape: Shape, share: int, direction: str) -> dict[str, Any]:
    timings = {each: measured.timings[SUITE, case_name(shape, direction, each)] for each in OPERATORS}
    return {
        "shape_nhwc": list(shape),
        "share": share,
        "pass": direction,
        "operators": {name: timing.to_dict() for name, timing in timings.items()},
        "times_faster_than_deform_conv2d": ratio(timings["deform_conv2d"], timings["active_mix"]),
        "target_times_faster": TARGET if direction == PASSES[0] else None,
    }


def active_cases(shares: Mapping[Shape, int]) -> "Mapping[str, Case]":
    """The cases, built in the process that measures them."""
    cases: dict[str, Case] = {}
    for shape, share in shares.items():
        for operator, (function, inputs) in mixings_and_inputs(shape, share).items():
            cases[case_name(shape, PASSES[0], operator)] = partial(forward_only, function, inputs)
            cases[case_name(shape, PASSES[1], operator)] = partial(backward_too, function, inputs)
    return cases


def mixings_and_inputs(shape: Shape, share: int) -> "dict[str, tuple[Callable[..., Tensor], list[Tensor]]]":
    """Both operators along the width, with the same values as inputs (x, offsets, weight, bias), each in its layout."""
    import torch

    generator = torch.Generator().manual_seed(0)
    channels = shape[-1]
    sizes = (shape, (*shape[:3], channels // share), (channels, channels), (channels,))
    x_nhwc, offset_nhwg, weight, bias = (torch.randn(size, generator=generator).requires_grad_() for size in sizes)
    x_nchw, offset_nghw = (each.detach().permute(0, 3, 1, 2).contiguous() for each in (x_nhwc, offset_nhwg))
    theirs = [x_nchw, offset_nghw, weight.detach()[:, :, None, None].clone(), bias.detach().clone()]
    return {
        "active_mix": (_ours, [x_nhwc, offset_nhwg, weight, bias]),
        "deform_conv2d": (partial(authors_active_mix, share), [each.requires_grad_() for each in theirs]),
    }


def _ours(x_nhwc: "Tensor", offset_nhwg: "Tensor", weight_oc: "Tensor", bias_o: "Tensor") -> "Tensor":
    from cyclemlp.ops import active_mix, read_places

    return active_mix(x_nhwc, read_places(offset_nhwg, "width"), weight_oc, bias_o)


def authors_active_mix(
    share: int, x_nchw: "Tensor", offset_nghw: "Tensor", weight_oihw: "Tensor", bias: "Tensor"
) -> "Tensor":
    """As `ATMOp` of github.com/microsoft/TokenMixers: a pair (down, right) for every channel at every position."""
    import torch
    from torchvision.ops import deform_conv2d

    right = offset_nghw.repeat_interleave(share, 1)
    pairs = torch.stack([torch.zeros_like(right), right], 2).flatten(1, 2)
    return deform_conv2d(x_nchw, pairs, weight_oihw, bias)


def _table(record: dict[str, Any]) -> str:
    return by_direction(record, heading(record), ("input NHWC", "share", *OPERATORS, "deform / ours"), _row)


def _row(case: dict[str, Any]) -> tuple[str, ...]:
    times = map(milliseconds, case["operators"].values())
    faster = shown_ratio(case["times_faster_than_deform_conv2d"], ">=", case["target_times_faster"])
    return ("x".join(map(str, case["shape_nhwc"])), str(case["share"]), *times, faster)
