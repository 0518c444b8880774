from pathlib import Path
from typing import Any

import pytest
import torch

from cyclemlp.errors import ConfigError
from cyclemlp.tasks.options import Machine, Optimisation, Precision, RunConfig
from cyclemlp.training.fabric import any_process, build_fabric, choose_precision


def config(precision: Precision = "32-true", **machine: Any) -> RunConfig:
    return RunConfig(data=Path("d"), optimisation=Optimisation(precision=precision), machine=Machine(**machine))


@pytest.mark.parametrize(
    ("wanted", "device", "computes_bf16", "chosen"),
    [
        ("auto", "cuda", True, "bf16-mixed"),
        ("auto", "cuda", False, "16-mixed"),
        ("auto", "cpu", True, "32-true"),
        ("auto", "mps", True, "32-true"),
        ("32-true", "cuda", True, "32-true"),
        ("bf16-mixed", "cuda", False, "bf16-mixed"),
        ("16-mixed", "cuda", True, "16-mixed"),
        ("16-mixed", "cpu", True, "bf16-mixed"),
    ],
)
def test_precision(
    wanted: Precision, device: str, computes_bf16: bool, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU that only emulates bfloat16 says yes where it is not asked to leave emulation out."""
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or computes_bf16
    )
    assert choose_precision(wanted, device) == chosen


def test_mixed_precision_leaves_the_batch_as_it_is() -> None:
    fabric = build_fabric(config("bf16-mixed", device="cpu"))
    boxes = torch.tensor([[1000.25, 3.0]])
    assert torch.equal(fabric.strategy.precision.convert_input(boxes), boxes)
    with fabric.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16


@pytest.mark.parametrize("strategy", ["fast", "fsdp", "deepspeed"])
def test_a_strategy_that_cannot_be_used_is_refused_in_one_line(strategy: str) -> None:
    with pytest.raises(ConfigError, match=f"--strategy {strategy}") as refused:
        build_fabric(config(device="cpu", strategy=strategy))
    assert "\n" not in str(refused.value)


def test_one_process_decides_alone() -> None:
    fabric = build_fabric(config(device="cpu"))
    assert any_process(fabric, here=True)
    assert not any_process(fabric, here=False)
