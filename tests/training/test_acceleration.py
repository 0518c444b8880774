from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cyclemlp.errors import ConfigError
from cyclemlp.heads.segmentation import build_segmentation_model
from cyclemlp.models.classifiers import create_classifier
from cyclemlp.models.pyramid import Stage
from cyclemlp.tasks.options import Machine, RunConfig
from cyclemlp.training.fabric import accelerate, checkpoint_activations


def losses_of_two_steps(checkpointing: bool) -> list[float]:
    torch.manual_seed(0)
    model = create_classifier("cyclemlp_nano", 3, drop_path_rate=0.5)
    if checkpointing:
        checkpoint_activations(model, "cyclemlp_nano")
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.01)
    images, losses = torch.randn(3, 3, 64, 64), []
    for _ in range(3):  # the third shows the second step
        loss = F.cross_entropy(model(images), torch.arange(3))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(loss.item())
    return losses


def test_recomputed_activations_train_alike() -> None:
    plain = losses_of_two_steps(checkpointing=False)
    assert losses_of_two_steps(checkpointing=True) == pytest.approx(plain, rel=1e-5)  # float32 rounding
    assert len(set(plain)) == 3


def test_the_backbone_of_a_segmenter_recomputes() -> None:
    model = build_segmentation_model("cyclemlp_nano", "semantic-fpn", 2)
    accelerate(model, RunConfig(data=Path("d"), machine=Machine(checkpoint_activations=True)))
    stages = [module for module in model.modules() if isinstance(module, Stage)]
    assert len(stages) == 4
    assert all(stage.grad_checkpointing for stage in stages)


def test_a_network_that_cannot_recompute() -> None:
    with pytest.raises(ConfigError, match="--checkpoint-activations: model 'mine' cannot do that; leave it out, or"):
        checkpoint_activations(nn.Linear(1, 1), "mine")


@pytest.mark.parametrize("there", [True, False])
def test_compiled_where_there_is_a_compiler(
    there: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("cyclemlp.training.fabric.has_compiler", lambda: there)
    model = nn.Linear(1, 1)
    accelerate(model, RunConfig(data=Path("d"), machine=Machine(compile=True)))
    assert (model._compiled_call_impl is not None) == there
    said = [record.getMessage() for record in caplog.records]
    assert said == (
        [] if there else ["--compile: torch.compile finds no C++ compiler here; training goes on without it"]
    )
