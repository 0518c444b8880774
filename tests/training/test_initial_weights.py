import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from cyclemlp.errors import CheckpointError
from cyclemlp.heads.segmentation import SegmentationModel, build_segmentation_model
from cyclemlp.tasks.card import ModelCard, build_model, save_model
from cyclemlp.training.initial_weights import load_initial_weights

NAME = "cyclemlp_nano"


def card(*classes: str, model: str = NAME) -> ModelCard:
    return ModelCard(task="segmentation", model=model, head="semantic-fpn", classes=classes)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(1)
    save_model(folder, build_model(card("a", "b")), card("a", "b"))
    return folder


def fresh(num_classes: int) -> SegmentationModel:
    torch.manual_seed(2)
    return build_segmentation_model(NAME, "semantic-fpn", num_classes)


@pytest.mark.parametrize("name", ["", "model.safetensors"])
def test_a_run_with_the_same_classes_is_taken_whole(run: Path, name: str) -> None:
    model = fresh(2)
    load_initial_weights(model, card("a", "b"), run / name)
    torch.manual_seed(1)
    for key, value in build_model(card("a", "b")).state_dict().items():
        assert torch.equal(model.state_dict()[key], value), key


def test_with_other_classes_only_the_last_layer_stays(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, before = fresh(3), fresh(3).state_dict()
    with caplog.at_level(logging.INFO):
        load_initial_weights(model, card("a", "b", "c"), run)
    unchanged = {key for key, value in model.state_dict().items() if torch.equal(value, before[key])}
    assert "head.classifier.weight" in unchanged
    assert "head.fpn.inner_blocks.0.0.weight" not in unchanged
    assert "head.classifier.bias, head.classifier.weight from random weights: 2 classes there, 3 here" in caplog.text


def test_other_names_for_the_classes_are_said(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    load_initial_weights(fresh(2), card("a", "c"), run)
    assert "classes were a, b and are a, c" in caplog.text


def test_a_backbone_file(tmp_path: Path) -> None:
    classifier = timm.create_model(NAME, num_classes=5)
    path = tmp_path / "backbone.pth"
    torch.save(classifier.state_dict(), path)
    model = fresh(2)
    load_initial_weights(model, card("a", "b"), path)
    loaded = {key.split("backbone.trunk.")[-1]: value for key, value in model.state_dict().items()}
    shared = [key for key in classifier.state_dict() if f"model.{key}" in loaded]
    assert len(shared) > 50
    for key in shared:
        assert torch.equal(loaded[f"model.{key}"], classifier.state_dict()[key]), key


CARDS = {
    "classification": ModelCard("classification", NAME, "linear", ("a", "b"), image_size=32, crop_pct=0.875),
    "segmentation": ModelCard("segmentation", NAME, "semantic-fpn", ("a", "b"), head_width=16),
    "detection": ModelCard("detection", NAME, "retinanet", ("a", "b"), head_width=16),
}


@pytest.mark.parametrize("model", [NAME, "resnet18", "convnext_atto"])
@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("segmentation", "detection"),
        ("detection", "segmentation"),
        ("classification", "detection"),
        ("segmentation", "classification"),
    ],
)
def test_the_backbone_of_a_run_of_another_task(theirs: str, ours: str, model: str, tmp_path: Path) -> None:
    source_card, card = replace(CARDS[theirs], model=model), replace(CARDS[ours], model=model)
    torch.manual_seed(1)
    source = build_model(source_card)
    save_model(tmp_path, source, source_card)
    torch.manual_seed(2)
    network = build_model(card)
    load_initial_weights(network, card, tmp_path)
    image = torch.randn(1, 3, 64, 64)
    found, expected = (last_map(each.eval(), image) for each in (network, source))
    assert torch.equal(found, expected)


def last_map(network: Any, image: torch.Tensor) -> Any:
    """What the backbone gives at stride 32, before any norm."""
    if hasattr(network, "backbone"):
        found = network.backbone.trunk(image)[-1]
        return found.permute(0, 3, 1, 2) if network.backbone._nhwc else found
    return network.forward_intermediates(image, norm=False, intermediates_only=True)[-1]


def test_parts_of_another_network_are_refused(tmp_path: Path) -> None:
    deeper = timm.create_model("cyclemlp_b2")
    torch.save(deeper.state_dict(), tmp_path / "b2.pth")
    torch.save({"conv1.weight": torch.zeros(2)}, tmp_path / "other.pth")
    model = build_segmentation_model("cyclemlp_b1", "semantic-fpn", 2)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"not in the model stages\.1\.blocks\.2"):
        load_initial_weights(model, card("a", "b", model="cyclemlp_b1"), tmp_path / "b2.pth")
    with pytest.raises(CheckpointError, match="nothing was loaded: missing"):
        load_initial_weights(model, card("a", "b", model="cyclemlp_b1"), tmp_path / "other.pth")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_file_with_a_classifier_of_another_name(tmp_path: Path) -> None:
    classifier = timm.create_model("resnet18")
    torch.save(classifier.state_dict(), tmp_path / "resnet.pth")
    model = build_segmentation_model("resnet18", "semantic-fpn", 2, head_width=16)
    load_initial_weights(model, card("a", "b", model="resnet18"), tmp_path / "resnet.pth")
    assert torch.equal(model.state_dict()["backbone.trunk.layer4.0.conv1.weight"], classifier.layer4[0].conv1.weight)


def test_refusals_load_nothing(run: Path, tmp_path: Path) -> None:
    model, before = fresh(2), fresh(2).state_dict()
    with pytest.raises(
        CheckpointError, match=r"has --model cyclemlp_nano, the new run cyclemlp_b1: train with --model"
    ):
        load_initial_weights(model, card("a", "b", model="cyclemlp_b1"), run)
    with pytest.raises(CheckpointError, match="no such weight file"):
        load_initial_weights(model, card("a", "b"), tmp_path / "none.pth")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_run_with_other_branches_or_step_size_is_refused_in_one_line(tmp_path: Path) -> None:
    plain = ModelCard("classification", NAME, "linear", ("a", "b"), image_size=32, crop_pct=0.875)
    branched = replace(plain, model_options={"branches": ["1x3", "1x1"]})
    save_model(tmp_path, build_model(branched), branched)
    with pytest.raises(CheckpointError) as refused:
        load_initial_weights(build_model(plain), plain, tmp_path)
    assert str(refused.value) == (
        f"--init {tmp_path} was trained with branches 1x3 1x1, the new run has none: give the same --stepsize and"
        " --branches"
    )
    same = replace(plain, model_options={"branches": ("1x3", "1x1")})  # as the command line gives them
    load_initial_weights(build_model(same), same, tmp_path)


def test_authors_are_fetched_by_the_name_of_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = timm.create_model(NAME, num_classes=1000)
    path = tmp_path / "authors.pth"
    torch.save(classifier.state_dict(), path)
    asked: list[str] = []

    def fetch(name: str) -> Path:
        asked.append(name)
        return path

    monkeypatch.setattr("cyclemlp.training.initial_weights.fetch_weights", fetch)
    model = fresh(2)
    load_initial_weights(model, card("a", "b"), Path("authors"))
    assert asked == [NAME]
    loaded = {key.split("backbone.trunk.model.")[-1]: value for key, value in model.state_dict().items()}
    assert torch.equal(loaded["stem.weight"], classifier.state_dict()["stem.weight"])
