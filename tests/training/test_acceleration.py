from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.fx import GraphModule
from torch.nn.modules.batchnorm import _BatchNorm

from cyclemlp.errors import ConfigError
from cyclemlp.heads.detection import HEADS as DETECTORS
from cyclemlp.heads.detection import build_detector
from cyclemlp.heads.detector import Detector
from cyclemlp.heads.segmentation import SegmentationModel, build_segmentation_model
from cyclemlp.models.classifiers import create_classifier
from cyclemlp.models.forms.lean import lean_
from cyclemlp.models.pyramid import Stage
from cyclemlp.tasks.options import Machine, RunConfig
from cyclemlp.tasks.segmentation.train import SegmentationLoss
from cyclemlp.training.fabric import accelerate, checkpoint_activations, compile_parts


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


def normed() -> nn.Sequential:
    frozen = nn.BatchNorm2d(4).requires_grad_(False)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.BatchNorm2d(4), nn.GroupNorm(2, 4)), frozen)


@pytest.mark.parametrize(("device", "devices", "wanted"), [("cuda", 2, 1), ("cuda", 1, 0), ("cpu", 2, 0)])
def test_batch_norm_of_several_gpus_is_synchronised(
    device: str, devices: int, wanted: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("cyclemlp.training.fabric.available_device", lambda _wanted: device)
    torch.manual_seed(0)
    model = normed()
    names, images = list(model.state_dict()), torch.randn(2, 3, 5, 5)
    before = model.eval()(images)
    accelerate(model, RunConfig(data=Path("d"), machine=Machine(devices=devices, sync_batchnorm=True)))
    found = [type(module) for module in model.modules() if isinstance(module, _BatchNorm)]
    assert found.count(nn.SyncBatchNorm) == wanted
    assert len(found) == 2
    assert type(model[2]) is nn.BatchNorm2d  # frozen: it keeps its statistics
    assert list(model.state_dict()) == names
    assert torch.equal(model(images), before)
    said = "--sync-batchnorm: torch can do that on CUDA GPUs alone; each process keeps its own statistics"
    assert caplog.messages == ([said] if device == "cpu" else [])


HEADS = {
    "semantic-fpn": ["backbone", "head"],
    "upernet": ["backbone", "head", "auxiliary"],
    "retinanet": ["backbone", "pyramid", "head"],
    "mask-rcnn": ["backbone", "pyramid", "rpn.head"]
    + [f"roi_heads.{part}" for part in ("box_head", "box_predictor", "mask_head", "mask_predictor")],
}


def dense_loss(model: nn.Module, head: str) -> Tensor:
    """What training computes from two images, by the methods that it calls."""
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    if isinstance(model, SegmentationModel):
        loss = SegmentationLoss(auxiliary=0.4 if head == "upernet" else 0.0)
        return loss(model, images, torch.ones(2, 64, 64, dtype=torch.int64))["loss"]
    assert isinstance(model, Detector)
    target = {"boxes": torch.tensor([[8.0, 8.0, 48.0, 48.0]]), "labels": torch.tensor([1])}
    masks = {"masks": torch.ones(1, 64, 64, dtype=torch.uint8)} if head == "mask-rcnn" else {}
    return torch.stack(list(model.losses(images, [(64, 64)] * 2, [target | masks] * 2).values())).sum()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch hides it itself, but not as an error
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("head", HEADS)
def test_every_part_of_a_dense_network_is_one_compiled_graph_that_training_runs(head: str) -> None:
    torch.manual_seed(0)
    backbone = "cyclemlp_nano" if head == "retinanet" else "resnet18"  # the latter is traced in a third of the time
    if head in DETECTORS:
        model: nn.Module = build_detector(backbone, head, 2, head_width=16)
    else:
        model = build_segmentation_model(backbone, head, 2, head_width=16, auxiliary=head == "upernet")
    lean_(model).train()
    names, graphs, computed = list(model.state_dict()), list[GraphModule](), set[int]()

    def backend(graph: GraphModule, _inputs: list[Tensor]) -> Callable[..., Any]:
        graphs.append(graph)

        def run(*inputs: Tensor) -> Any:
            computed.update(map(id, inputs))
            return graph.forward(*inputs)

        return run

    torch.compiler.reset()
    counters.clear()
    torch.manual_seed(1)
    plain = dense_loss(model, head)
    compile_parts(model, backend)
    torch.manual_seed(1)
    compiled = dense_loss(model, head)
    assert {id(parameter) for parameter in model.parameters()} <= computed
    assert len(HEADS[head]) <= len(graphs) <= len(HEADS[head]) + 2  # Mask R-CNN's casts to float32 are two more
    assert not counters["graph_break"]
    for part in HEADS[head]:
        assert model.get_submodule(part)._compiled_call_impl is not None
    assert compiled.item() == pytest.approx(plain.item(), rel=1e-5)  # float32: BatchNorm's and the lean form's order
    compiled.backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert list(model.state_dict()) == names


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
