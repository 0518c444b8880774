import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from cyclemlp.errors import CheckpointError
from cyclemlp.files import verified
from cyclemlp.tasks.card import ModelCard, build_model, load_model, read_card, save_model

CARD = ModelCard(
    task="segmentation",
    model="cyclemlp_nano",
    head="semantic-fpn",
    classes=("ocean", "land", "lake"),
    input_scale=2.0,
    window=256,
    metrics={"mIoU": 0.5, "IoU": {"ocean": 0.5, "land": None, "lake": 0.5}},
    licence="MIT",
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.nn.Module]:
    torch.manual_seed(0)
    model = build_model(CARD)
    folder = tmp_path_factory.mktemp("saved") / "run"
    save_model(folder, model, CARD)
    return folder, model


@pytest.fixture
def folder(saved: tuple[Path, torch.nn.Module], tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    for file in saved[0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def test_weights_and_card_come_back_as_they_were(saved: tuple[Path, torch.nn.Module]) -> None:
    folder, model = saved
    for path in (folder, folder / "model.safetensors"):
        loaded, card = load_model(path)
        assert not loaded.training
        assert card.versions.keys() == {"cyclemlp", "torch", "timm"}
        assert dataclasses.replace(card, versions={}, weights_sha256="") == CARD
        expected = model.state_dict()
        assert loaded.state_dict().keys() == expected.keys()
        assert all(torch.equal(value, expected[key]) for key, value in loaded.state_dict().items())


def test_card_is_readable_json_without_the_weights(folder: Path) -> None:
    values = json.loads((folder / "model.json").read_text())
    assert values["format"] == 1
    assert values["classes"] == ["ocean", "land", "lake"]
    (folder / "model.safetensors").rename(folder / "elsewhere.safetensors")
    assert read_card(folder / "model.json").window == 256


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "format 2: this version of cyclemlp reads format 1; update it"),
        ({"windows": 3}, "unknown key 'windows'.* Did you mean 'window'"),
        ({"task": "knitting"}, "task 'knitting': allowed are segmentation"),
        ({"task": 3}, "task has the wrong type: 3"),
        ({"classes": "abc"}, "classes has the wrong type"),
        ({"classes": []}, "0 classes: allowed are 1 to 255"),
        ({"classes": [str(i) for i in range(256)]}, "256 classes: allowed are 1 to 255"),
        ({"classes": ["a", "a"]}, "two have the same name"),
        ({"in_chans": 4}, "mean and std must have in_chans=4 numbers"),
        ({"std": [0.1, 0.0, 0.1]}, "std .* must be above 0"),
        ({"input_scale": 0}, "input_scale 0: must be above 0 and at most 16"),
        ({"window": 8}, "window 8: allowed are 32 to 65536"),
        ({"window": 10**9}, "window 1000000000: allowed are 32 to 65536"),
        ({"head_width": 10**9}, "head_width 1000000000: allowed are 8 to 16384"),
        ({"long_side": 10**9}, "long_side 1000000000: allowed are 1 to 65536"),
        ({"image_size": 10**9}, "image_size 1000000000: allowed are 1 to 65536"),
        ({"in_chans": 0, "mean": [], "std": []}, "in_chans 0: allowed are 1 to 1024"),
        ({"in_chans": 10**5, "mean": [0.5] * 10**5, "std": [0.5] * 10**5}, "in_chans 100000: allowed are 1 to 1024"),
        ({"model_options": {"stepsize": 10**9}}, "model_options: .1000000000. is more than 16384"),
        ({"model_options": {"branches": [1, {"a": 1e300}]}}, "model_options: .1e.300. is more than 16384"),
        ({"window": 64.5}, "window has the wrong type"),
        ({"short_side": 0}, "short_side 0: allowed are 1 to 65536, or none"),
        ({"long_side": 2.5}, "long_side has the wrong type"),
        ({"metrics": []}, "metrics has the wrong type"),
        ({"mean": [float("nan"), 0.4, 0.4]}, "mean has the wrong type: .nan, 0.4, 0.4."),
        ({"input_scale": float("inf")}, "input_scale has the wrong type: inf"),
        ({"input_scale": 10**400}, "input_scale has the wrong type: 1000"),
        ({"window": 10**400}, "window has the wrong type: 1000"),
        ({"model": "cyclemlp_nanno"}, "cyclemlp_nanno.*cyclemlp_nano"),
        ({"head": "semantic-fnp"}, "semantic-fnp.*semantic-fpn"),
    ],
)
def test_unusable_cards_are_refused_in_one_line(folder: Path, changes: dict[str, Any], message: str) -> None:
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(CheckpointError, match=message) as caught:
        load_model(folder)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_network_too_large_for_memory_is_compared_before_it_is_built(folder: Path) -> None:
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "head_width": 16000}))  # 60 GB of weights
    with pytest.raises(CheckpointError, match="shapes differ: head") as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


def test_missing_key_is_named(folder: Path) -> None:
    path = folder / "model.json"
    values = json.loads(path.read_text())
    del values["head"], values["task"]
    path.write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match="missing task, head"):
        load_model(folder)


@pytest.mark.parametrize(
    ("content", "message"), [("{", "not a readable model card"), ("[]", "must hold one JSON object")]
)
def test_broken_card_is_refused(folder: Path, content: str, message: str) -> None:
    (folder / "model.json").write_text(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


def rename_a_key(state: dict[str, torch.Tensor]) -> None:
    state["head.classifier.wait"] = state.pop("head.classifier.weight")


def change_a_shape(state: dict[str, torch.Tensor]) -> None:
    state["head.classifier.bias"] = torch.zeros(4)


def drop_all_but_one(state: dict[str, torch.Tensor]) -> None:
    for key in list(state)[1:]:
        del state[key]


def drop_all(state: dict[str, torch.Tensor]) -> None:
    state.clear()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (rename_a_key, "nothing was loaded: missing head.classifier.weight; not in the model head.classifier.wait"),
        (change_a_shape, r"shapes differ: head.classifier.bias \(4,\) in the file, \(3,\) in the model"),
        (drop_all_but_one, r"missing .*, .* and \d+ more"),
        (drop_all, "holds no state dict"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    folder: Path, spoil: Callable[[dict[str, torch.Tensor]], None], message: str
) -> None:
    path = folder / "model.safetensors"
    state = safetensors.torch.load_file(path)
    spoil(state)
    safetensors.torch.save_file(state, path)
    with pytest.raises(CheckpointError, match="is damaged"):
        load_model(folder)
    with verified(False), pytest.raises(CheckpointError, match=message):
        load_model(folder)


def test_truncated_weights_are_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with verified(False), pytest.raises(CheckpointError, match="not a readable weight file"):
        load_model(folder)


def test_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is not a run folder: it has no model.safetensors and no model.json"):
        load_model(tmp_path)


def test_weights_without_card_are_refused(folder: Path) -> None:
    (folder / "model.json").unlink()
    with pytest.raises(CheckpointError, match=r"it has no model.json; give a folder written by `cyclemlp train`"):
        load_model(folder / "model.safetensors")


def test_missing_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere does not exist: give a folder"):
        load_model(tmp_path / "nowhere")


def test_other_kind_of_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").touch()
    with pytest.raises(CheckpointError, match=r"last.ckpt is not a model: give a folder"):
        load_model(tmp_path / "last.ckpt")
