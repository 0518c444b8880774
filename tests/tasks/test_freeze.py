"""`--freeze` in networks for dense tasks: what is frozen stays as it came, to the bit, also over a stop."""

import signal
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from command_line import refused
from mask_folders import write_mask_folder
from safetensors.torch import load_file
from torch import Tensor, nn
from training_runs import train_segmentation

from cyclemlp.errors import ConfigError
from cyclemlp.heads.detection import build_detector
from cyclemlp.heads.pyramid import PyramidNetwork
from cyclemlp.heads.segmentation import build_segmentation_model
from cyclemlp.models.cyclemlp import SIZES, CycleMLPSizes
from cyclemlp.tasks.options import Length, Machine, Optimisation, Recording
from cyclemlp.tasks.parameter_groups import decay_groups, freeze
from cyclemlp.tasks.segmentation.config import SegmentationConfig
from cyclemlp.training.state import Objective
from cyclemlp.training.stopping import TrainingStopped

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", autouse=True)
def one_block_a_stage() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "cyclemlp_nano", CycleMLPSizes((16, 32, 48, 64), (1, 1, 1, 1), (2, 2, 2, 2)))
        yield


def frozen_names(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if not parameter.requires_grad}


@pytest.mark.parametrize("task", ["segmentation", "detection"])
@pytest.mark.parametrize("backbone", ["cyclemlp_nano", "resnet10t"])
def test_a_backbone_is_frozen_and_what_a_dense_network_adds_is_not(task: str, backbone: str) -> None:
    if task == "segmentation":
        model: PyramidNetwork = build_segmentation_model(backbone, "semantic-fpn", 3, head_width=16)
    else:
        model = build_detector(backbone, "retinanet", 3, head_width=16)
    kept = freeze(model, ("backbone",))
    trunk = {name for name, _ in model.named_parameters() if name.startswith("backbone.trunk.")}
    assert len(trunk) > 20
    assert frozen_names(model) == trunk
    norms = [part for part in model.backbone.trunk.modules() if isinstance(part, nn.BatchNorm2d)]
    assert (len(norms) > 10) == (backbone == "resnet10t")
    assert {id(norm) for norm in norms} <= {id(part) for part in kept}
    optimised = {id(each) for group in decay_groups(model, 0.1) for each in group["params"]}
    assert optimised == {id(each) for name, each in model.named_parameters() if name not in trunk}


def test_parts_have_the_names_that_the_backbone_alone_gives_them() -> None:
    model = build_segmentation_model("cyclemlp_nano", "semantic-fpn", 3, head_width=16)
    kept = freeze(model, ("stem", "stages.0", "head.fpn"))
    parts = ("backbone.trunk.model.stem.", "backbone.trunk.model.stages.0.", "head.fpn.")
    assert frozen_names(model) == {name for name, _ in model.named_parameters() if name.startswith(parts)}
    assert model.get_submodule("head.fpn") in kept
    assert model.get_submodule("head.branches") not in kept
    with pytest.raises(ConfigError) as caught:
        freeze(model, ("neck",))
    assert str(caught.value) == (
        "--freeze neck: the network has no such part; it has stem, stages, backbone, head; or give backbone"
    )


def configured(folder: Path, **options: Any) -> SegmentationConfig:
    torch.manual_seed(1)
    given = timm.create_model("cyclemlp_nano", num_classes=5)
    torch.save(given.state_dict(), folder / "given.pth")
    return SegmentationConfig(
        data=write_mask_folder(folder / "data"),
        out=folder / "run",
        init=folder / "given.pth",
        length=Length(steps=3),
        optimisation=Optimisation(batch_size=2, lr=0.01, drop_path=0.2, freeze=("backbone",)),
        recording=Recording(evaluations=2, log_every=1),
        machine=Machine(device="cpu", workers=0, **options),
    )


@pytest.mark.parametrize("recompute", [False, True])
def test_a_frozen_backbone_stays_as_it_came_also_over_a_stop(
    recompute: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = configured(tmp_path, checkpoint_activations=recompute)
    whole = train_segmentation(config)
    assert "random weights as they are" not in caplog.text
    given, saved = torch.load(tmp_path / "given.pth", weights_only=True), load_file(whole / "model.safetensors")
    trunk = "backbone.trunk.model."
    assert len([name for name in saved if name.startswith(trunk)]) > 20
    for name, value in saved.items():
        if name.startswith(trunk):
            assert torch.equal(value, given[name.removeprefix(trunk)]), name
    state = torch.load(whole / "checkpoints" / "last.ckpt", weights_only=True)
    trained = [name for name in state["model"] if not name.startswith(trunk) and "running" not in name]
    assert 0 < len(state["optimizer"]["state"]) <= len(trained)

    usual, calls = Objective.forward, count()

    def interrupted(self: Objective, images: Tensor, targets: Any) -> dict[str, Tensor]:
        if next(calls) == 1:
            signal.raise_signal(signal.SIGTERM)
        return usual(self, images, targets)

    stopped = replace(config, out=tmp_path / "stopped")
    with monkeypatch.context() as patch:
        patch.setattr(Objective, "forward", interrupted)
        with pytest.raises(TrainingStopped):
            train_segmentation(stopped)
    train_segmentation(replace(stopped, resume=True))
    assert (stopped.run_dir / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_frozen_norms_keep_their_statistics(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Those of a frozen head, whose BatchNorm would move in every step; random weights are worth a word."""
    config = replace(configured(tmp_path), init=None)
    moving = Optimisation(batch_size=2, lr=0.01)
    still = replace(moving, freeze=("head.fpn", "head.branches"))
    for number, (options, same) in enumerate(((moving, False), (still, True))):
        run = train_segmentation(replace(config, out=tmp_path / str(number), optimisation=options))
        saved = load_file(run / "model.safetensors")
        means = [value for name, value in saved.items() if name.endswith("running_mean")]
        assert len(means) > 3
        assert all(bool((mean == 0).all()) == same for mean in means)
        assert ("--freeze keeps random weights as they are: give trained ones with --init" in caplog.text) == same


def test_what_is_frozen_cannot_change_within_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = replace(configured(tmp_path), length=Length(steps=1), recording=Recording(evaluations=1))
    train_segmentation(config)
    words = refused(capsys, "train", "segmentation", "--resume", "--out", config.run_dir, "--freeze", "stem")
    assert words == (
        f"cyclemlp: --freeze stem cannot be changed within a run ({config.run_dir} has backbone): leave it out, or"
        " begin a new run with another --out\n"
    )
