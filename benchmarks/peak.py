"""The rate of a large matrix product: what the machine can do at best, measured in the run that is judged by it."""

from collections.abc import Mapping

from benchmarks.timing import Timing
from benchmarks.worker import Case

EDGE = 1024
FLOPS = 2 * EDGE**3
"""Multiplications and additions of one product."""
NAME = f"matrix product {EDGE}"


def cases(threads: int) -> Mapping[str, Case]:
    """One float32 product of two square matrices in PyTorch, by its name."""
    import torch

    torch.set_num_threads(threads)
    left, right = torch.randn(EDGE, EDGE), torch.randn(EDGE, EDGE)
    out = torch.empty(EDGE, EDGE)
    return {NAME: lambda: torch.mm(left, right, out=out)}


def gflops_per_second(timing: Timing) -> float:
    """Rate of the product, multiplications and additions counted apart, in 1e9 a second."""
    return FLOPS / timing.median / 1e9
