"""What has to stay in float32 where autocast makes the rest half as wide."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from cyclemlp.models.branches import BranchedMixer
from cyclemlp.models.cyclemlp import CycleMixer
from cyclemlp.models.forms.lean import lean_


class OutputTypes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The types of the outputs of every operation, by its name."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.of: defaultdict[str, set[torch.dtype]] = defaultdict(set)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.of[func.overloadpacket.__name__].add(out.dtype)
        return out


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("lean", [False, True])
def test_means_over_positions_and_the_softmax_are_in_float32(dtype: torch.dtype, lean: bool) -> None:
    mixer, x_nhwc = CycleMixer(16), torch.randn(2, 12, 12, 16).to(dtype)
    with torch.autocast("cpu", dtype), OutputTypes() as types:
        out = (lean_(mixer) if lean else mixer)(x_nhwc)
    assert out.dtype == dtype
    assert types.of["_softmax"] == {torch.float32}
    assert types.of["mean"] | types.of["sum"] == {torch.float32}


def test_the_same_holds_for_any_branches() -> None:
    mixer, x_nhwc = BranchedMixer(16, ("1x3", "3x1", "1x1")), torch.randn(2, 12, 12, 16).bfloat16()
    with torch.autocast("cpu", torch.bfloat16), OutputTypes() as types:
        mixer(x_nhwc)
    assert types.of["_softmax"] == types.of["mean"] == {torch.float32}
