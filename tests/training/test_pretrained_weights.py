"""`--init pretrained` and files of timm's weights, for every task and number of bands; without a network."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from cyclemlp.errors import CheckpointError
from cyclemlp.tasks.card import ModelCard, build_model, save_model
from cyclemlp.training.initial_weights import load_initial_weights

NAME = "test_convnext"
"""The smallest feature pyramid of which timm has weights."""
CARDS = {
    "classification": ModelCard("classification", NAME, "linear", ("a", "b"), image_size=64, crop_pct=0.875),
    "segmentation": ModelCard("segmentation", NAME, "semantic-fpn", ("a", "b"), head_width=16),
    "detection": ModelCard("detection", NAME, "retinanet", ("a", "b"), head_width=16),
    "instance-segmentation": ModelCard("instance-segmentation", NAME, "mask-rcnn", ("a", "b"), head_width=16),
}
PRETRAINED = Path("pretrained")


def with_bands(card: ModelCard, bands: int) -> ModelCard:
    return card if bands == 3 else replace(card, in_chans=bands, mean=(0.5,) * bands, std=(0.2,) * bands)


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    weights: dict[str, torch.Tensor] = timm.create_model(NAME).state_dict()
    return weights


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an empty cache on a machine without a network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def cache(offline: Path, published: dict[str, torch.Tensor]) -> Path:
    """The cache after the weights were downloaded, in the layout that the hub's library documents."""
    repository = offline / f"models--timm--{NAME}.r160_in1k"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    save_file(published, snapshot / "model.safetensors")
    return offline


def backbone_of(network: Any) -> dict[str, torch.Tensor]:
    trunk = network.backbone.trunk if hasattr(network, "backbone") else network
    return {
        key.replace("stem_", "stem.").replace("stages_", "stages."): each for key, each in trunk.state_dict().items()
    }


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("bands", [1, 3, 4])
@pytest.mark.parametrize("task", CARDS)
def test_weights_from_the_cache(
    task: str, bands: int, published: dict[str, torch.Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    card = with_bands(CARDS[task], bands)
    network = build_model(card)
    with caplog.at_level(logging.INFO):
        load_initial_weights(network, card, PRETRAINED)
    assert f"timm/{NAME}.r160_in1k, which is downloaded unless it is in " in caplog.text
    check_loaded(backbone_of(network), published, bands)


def check_loaded(found: dict[str, torch.Tensor], published: dict[str, torch.Tensor], bands: int) -> None:
    shared = [key for key in found if key in published and key.startswith(("stem.", "stages."))]
    assert len(shared) > 30
    for key in shared:
        if key != "stem.0.weight":
            assert torch.equal(found[key], published[key]), key
    stem = published["stem.0.weight"]
    if bands == 1:
        stem = stem.sum(dim=1, keepdim=True)
    elif bands != 3:
        stem = stem[:, [place % 3 for place in range(bands)]] * (3 / bands)
    torch.testing.assert_close(found["stem.0.weight"], stem)


@pytest.mark.parametrize("task", ["classification", "segmentation"])
@pytest.mark.parametrize("bands", [3, 4])
def test_a_file_of_timms(task: str, bands: int, published: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file(published, tmp_path / "model.safetensors")
    card = with_bands(CARDS[task], bands)
    network = build_model(card)
    load_initial_weights(network, card, tmp_path / "model.safetensors")
    check_loaded(backbone_of(network), published, bands)


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    save_file(timm.create_model("test_vit").state_dict(), tmp_path / "vit.safetensors")
    network = build_model(CARDS["segmentation"])
    with pytest.raises(CheckpointError, match=rf"vit\.safetensors: weights do not fit {NAME}, nothing was loaded: "):
        load_initial_weights(network, CARDS["segmentation"], tmp_path / "vit.safetensors")


def test_without_a_network_one_line_says_what_was_looked_for(offline: Path) -> None:
    card = CARDS["segmentation"]
    with pytest.raises(CheckpointError) as refused:
        load_initial_weights(build_model(card), card, PRETRAINED)
    message = str(refused.value)
    assert message.startswith(
        f"--init pretrained: the weights of {NAME} could not be loaded; looked for in {offline} and at"
        f" https://huggingface.co/timm/{NAME}.r160_in1k: download model.safetensors there on another machine and give"
        " --init FILE ("
    )
    assert "\n" not in message


def test_models_without_weights_are_named() -> None:
    nano = replace(CARDS["classification"], model="cyclemlp_nano")
    with pytest.raises(CheckpointError, match="no weights are published for model 'cyclemlp_nano'"):
        load_initial_weights(build_model(nano), nano, PRETRAINED)
    bare = next(name for name in timm.list_models("convnext_*") if not timm.get_pretrained_cfg(name).has_weights)
    with pytest.raises(CheckpointError, match=f"--init pretrained: timm has no weights for {bare}: give --init FILE"):
        load_initial_weights(torch.nn.Identity(), replace(CARDS["classification"], model=bare), PRETRAINED)


def test_a_run_on_other_bands_starts_with_its_first_convolution_adapted(tmp_path: Path) -> None:
    torch.manual_seed(1)
    theirs = replace(CARDS["segmentation"], model="cyclemlp_nano")
    source = build_model(theirs)
    save_model(tmp_path, source, theirs)
    ours = with_bands(theirs, 4)
    network = build_model(ours)
    load_initial_weights(network, ours, tmp_path)
    (key,) = (key for key in source.state_dict() if key.endswith("stem.weight") or key.endswith("stem.conv.weight"))
    expected = source.state_dict()[key][:, [0, 1, 2, 0]] * (3 / 4)
    torch.testing.assert_close(network.state_dict()[key], expected)
