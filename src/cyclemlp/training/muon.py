"""Muon: an optimiser that moves each matrix along its momentum with all singular values made about equal.

Jordan et al. 2024, kellerjordan.github.io/posts/muon; rates as Liu et al. 2025, arXiv 2502.16982, so that rates and
decay of AdamW fit. Steps of AdamW follow the few directions that explain most of the gradient; these follow all alike.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import groupby
from typing import Any

import torch
from timm.optim.muon import zeropower_via_newtonschulz
from torch import Tensor

from cyclemlp.tasks.base import ParameterGroups

MOMENTUM = 0.95
BETAS = (0.9, 0.95)
"""Of AdamW for all that is no matrix."""
STEP_RMS = 0.4
"""Root mean square of a matrix's step at learning rate 1. That of AdamW's steps is between 0.2 and 0.4 by Liu et al.;
0.4 learns more than 0.2 on development parts of BCCD and DSB2018."""
_SMALLEST_EDGE = 4
# The first three Newton-Schulz steps of Amsel et al. 2025, "The Polar Express", arXiv 2505.16932; more of them make the
# singular values more alike and teach no more.
_COEFFICIENTS = [
    (8.237312490495555, -23.157747414558198, 16.680568411445915),
    (4.082441999064835, -2.893047735332586, 0.5252849256975648),
    (3.9263479922546582, -2.8547468034765298, 0.5318022422894988),
]


class Muon(torch.optim.AdamW):
    """Muon for matrices and kernels, AdamW for norms, biases, and what is too narrow to be orthogonalised.

    Args:
        groups: as for AdamW, with a `weight_decay` each.
        lr: learning rate of both.
        kept: parameters that are tables rather than matrices, such as those of positions; AdamW moves them.
    """

    def __init__(self, groups: ParameterGroups, lr: float, kept: Iterable[Tensor] = ()) -> None:
        super().__init__(_split(groups, {id(parameter) for parameter in kept}), lr=lr, betas=BETAS)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; the gradients of matrices are dropped."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if group["orthogonal"]:
                self._move_matrices(group)
        super().step()
        return loss

    def _move_matrices(self, group: dict[str, Any]) -> None:
        moved = [parameter for parameter in group["params"] if parameter.grad is not None]
        for _, same in groupby(sorted(moved, key=_matrix_shape), _matrix_shape):
            parameters = list(same)
            steps = orthogonalised([self._direction(parameter) for parameter in parameters])
            for parameter, step in zip(parameters, steps, strict=True):
                parameter.mul_(1.0 - group["lr"] * group["weight_decay"])
                parameter.add_(step.view_as(parameter), alpha=-group["lr"])
                parameter.grad = None  # AdamW's step passes it over

    def _direction(self, parameter: Tensor) -> Tensor:
        assert parameter.grad is not None
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
            state["step"] = torch.zeros(())  # read where AdamW loads its state, and by nothing else
        momentum: Tensor = state["momentum"].lerp_(parameter.grad, 1.0 - MOMENTUM)
        ahead = parameter.grad.lerp(momentum, MOMENTUM)  # as Nesterov's
        return ahead.reshape(_matrix_shape(parameter))


def orthogonalised(matrices: Sequence[Tensor]) -> Tensor:
    """Matrices of one shape, (rows, columns) each -> (number, rows, columns) with singular values about 1, scaled.

    The scale gives the steps a root mean square of `STEP_RMS`. In float32, since most processors are slow in bfloat16.
    """
    rows, columns = matrices[0].shape
    stacked = torch.stack([matrix.float() for matrix in matrices])
    steps: Tensor = zeropower_via_newtonschulz(stacked, len(_COEFFICIENTS), _COEFFICIENTS, dtype=torch.float32)
    return steps * (STEP_RMS * max(rows, columns) ** 0.5)


def is_matrix(parameter: Tensor) -> bool:
    """Whether Muon moves it: as a matrix of outputs and inputs it is not narrower than four; depthwise kernels are."""
    return parameter.ndim > 1 and parameter.shape[1] > 1 and min(_matrix_shape(parameter)) >= _SMALLEST_EDGE


def _matrix_shape(parameter: Tensor) -> tuple[int, int]:
    return parameter.shape[0], parameter.numel() // parameter.shape[0]


def _split(groups: ParameterGroups, kept: Collection[int]) -> ParameterGroups:
    """The groups with matrices and all else apart, and `orthogonal` set in each."""
    split = []
    for group in groups:
        matrices = [each for each in group["params"] if is_matrix(each) and id(each) not in kept]
        chosen = {id(each) for each in matrices}
        rest = [each for each in group["params"] if id(each) not in chosen]
        split += [group | {"params": rest, "orthogonal": False}, group | {"params": matrices, "orthogonal": True}]
    return [group for group in split if group["params"]]
