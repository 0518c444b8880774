"""The rate of a large matrix product: the most the machine achieves, measured in the rounds that are judged by it."""

from collections.abc import Mapping

from cyclemlp.inference.rounds import Case, Measurement, Suite, Timing

EDGE = 1024
FLOPS = 2 * EDGE**3
"""Multiplications and additions of one product."""
NAME = f"matrix product {EDGE}"


def cases() -> Mapping[str, Case]:
    """One float32 product of two square matrices in PyTorch, by its name."""
    import torch

    left, right = torch.randn(EDGE, EDGE), torch.randn(EDGE, EDGE)
    out = torch.empty(EDGE, EDGE)
    return {NAME: lambda: torch.mm(left, right, out=out)}


SUITE = Suite(NAME, cases)


def timing(measured: Measurement) -> Timing:
    """The product of these rounds."""
    return measured.timings[NAME, NAME]


def gflops_per_second(timing: Timing) -> float:
    """Rate of the product, multiplications and additions counted separately, in 1e9 per second."""
    return FLOPS / timing.median / 1e9
