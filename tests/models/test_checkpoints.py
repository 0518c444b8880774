"""Weight files that do not fit: one line says which keys and shapes, and nothing is loaded."""

import argparse
import logging
import sys
import types
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

import cyclemlp
from cyclemlp.errors import CheckpointError
from cyclemlp.models.checkpoints import load_checkpoint, read_state_dict
from cyclemlp.models.layouts import is_authors_layout, to_authors_layout

pytestmark = pytest.mark.usefixtures("one_thread")
NAME = "cyclemlp_nano"
Weights = dict[str, Tensor]


@pytest.fixture(scope="module")
def ours() -> Weights:
    torch.manual_seed(1)
    state_dict: Weights = timm.create_model(NAME).state_dict()
    return state_dict


@pytest.fixture(scope="module")
def theirs(ours: Weights) -> Weights:
    return to_authors_layout(ours)


@pytest.fixture
def save(tmp_path: Path) -> Callable[[Any], Path]:
    def write(content: Any) -> Path:
        torch.save(content, tmp_path / "weights.pth")
        return tmp_path / "weights.pth"

    return write


def meta(**options: Any) -> Any:
    with torch.device("meta"):
        return timm.create_model(NAME, **options)


def refusal(path: Path, model: nn.Module | None = None) -> str:
    """The message of a load that must fail and change nothing."""
    model = model or timm.create_model(NAME)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(model, path)
    after = model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message


def same(model: nn.Module, weights: Weights) -> bool:
    own = model.state_dict()
    return own.keys() == weights.keys() and all(torch.equal(own[key], weights[key]) for key in own)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: weights,
        lambda weights: {"model": weights},
        lambda weights: {"state_dict": weights, "epoch": 300},
        lambda weights: {"model": {}, "model_ema": weights},
        lambda weights: {"model": weights, "args": argparse.Namespace(lr=1e-3)},
        lambda weights: {"model": {f"module.{key}": value for key, value in weights.items()}},
    ],
)
def test_every_wrapping_loads(ours: Weights, save: Any, wrap: Callable[[Weights], Any]) -> None:
    model = timm.create_model(NAME)
    load_checkpoint(model, save(wrap(ours)))
    assert same(model, ours)


def test_safetensors_and_the_authors_layout_load(ours: Weights, theirs: Weights, save: Any, tmp_path: Path) -> None:
    save_file({key: value.contiguous() for key, value in ours.items()}, tmp_path / "weights.safetensors")
    for path in (tmp_path / "weights.safetensors", save({"model": theirs})):
        model = timm.create_model(NAME)
        load_checkpoint(model, str(path))
        assert same(model, ours)


def test_of_the_authors_training_files_the_weights_that_they_score_are_read(
    ours: Weights, theirs: Weights, save: Any, caplog: pytest.LogCaptureFixture
) -> None:
    average = {key: value * 0.5 if value.is_floating_point() else value for key, value in theirs.items()}
    caplog.set_level(logging.INFO)
    model = timm.create_model(NAME)
    path = save({"model": theirs, "model_ema": average, "epoch": 300})
    load_checkpoint(model, path)
    assert same(model, ours)
    assert caplog.messages == [f"{path}: taking 'model', which its authors score, not the moving average next to it"]


def test_of_other_files_the_moving_average_is_read(ours: Weights, save: Any) -> None:
    raw = {key: value * 0.5 for key, value in ours.items()}
    model = timm.create_model(NAME)
    load_checkpoint(model, save({"model": raw, "model_ema": dict(ours)}))
    assert same(model, ours)


def test_configuration_objects_next_to_the_weights_are_ignored(ours: Weights, save: Any) -> None:
    module = types.ModuleType("yacs.config")
    config = type("CfgNode", (OrderedDict,), {"__module__": "yacs.config"})
    module.CfgNode = config  # type: ignore[attr-defined]
    sys.modules |= {"yacs": types.ModuleType("yacs"), "yacs.config": module}
    try:
        path = save({"model": ours, "config": config(lr=1e-3)})
    finally:
        del sys.modules["yacs"], sys.modules["yacs.config"]
    assert read_state_dict(path).keys() == ours.keys()


def test_missing_alien_and_misshapen_keys_are_named(ours: Weights, save: Any) -> None:
    weights = dict(ours)
    del weights["norm.weight"]
    weights["tail.bias"] = torch.zeros(3)
    weights["head.fc.bias"] = torch.zeros(10)
    message = refusal(save(weights))
    assert "missing norm.weight" in message
    assert "not in the model tail.bias" in message
    assert "head.fc.bias (10,) in the file, (1000,) in the model" in message
    assert "nothing was loaded" in message


def test_long_lists_are_cut(ours: Weights, save: Any) -> None:
    message = refusal(save({"stem.weight": ours["stem.weight"]}))
    assert "and " in message
    assert "more" in message
    assert len(message) < 500


def test_no_key_of_the_authors_may_be_missing(theirs: Weights) -> None:
    model = meta()
    for key in list(theirs)[::3]:
        if not key.endswith(".offset"):
            with pytest.raises(CheckpointError, match="missing"):
                model.load_state_dict({k: v for k, v in theirs.items() if k != key})


def test_offsets_of_another_step(theirs: Weights, save: Any) -> None:
    key = "network.0.1.attn.sfc_w.offset"
    path = save({"model": theirs | {key: -theirs[key]}})
    assert f"{key} does not hold the offsets of step size (3, 1)" in refusal(path)
    path = save({"model": theirs | {key: theirs[key][:, :10]}})
    assert f"{key} does not hold the offsets" in refusal(path)
    path = save({"model": theirs | {"network.0.1.attn.mlp_c.offset": theirs[key]}})
    assert "not in the model stages.0.blocks.1.token_mixer.along_channels.offset" in refusal(path)
    message = refusal(save({"model": theirs}), timm.create_model(NAME, stepsize=5))
    assert "does not hold the offsets of step size (1, 5)" in message


def test_files_that_are_none(tmp_path: Path, save: Any, ours: Weights) -> None:
    assert "no such weight file" in refusal(tmp_path / "absent.pth")
    assert "no such weight file" in refusal(tmp_path)
    for suffix in (".pth", ".safetensors"):
        path = tmp_path / f"page{suffix}"
        for content in (b"", b"<!DOCTYPE html><html></html>", b"\x80\x02", bytes(range(256))):
            path.write_bytes(content)
            assert "not a readable weight file" in refusal(path)
    path = save(ours)
    path.write_bytes(path.read_bytes()[:-1000])
    assert "not a readable weight file" in refusal(path)
    for other in ([1, 2], {}, {"model": {"a": 1}}, {"epoch": 3}, torch.zeros(3)):
        assert "holds no state dict" in refusal(save(other))


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=60))
def test_any_bytes_give_an_error_of_ours(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError):
        read_state_dict(path)


class Trap:
    """Runs when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("executed",))


def test_code_in_a_file_is_never_run(save: Any, ours: Weights, capsys: pytest.CaptureFixture[str]) -> None:
    message = refusal(save({"model": ours, "trap": Trap()}))
    assert "holds more than tensors: print" in message
    assert capsys.readouterr().out == ""


def test_feature_maps_take_a_classifiers_file(ours: Weights, theirs: Weights, save: Any) -> None:
    whole = timm.create_model(NAME, checkpoint_path=save(ours)).eval()
    x = torch.randn(1, 3, 33, 65)
    for content in (ours, theirs, {f"model.{key}": value for key, value in ours.items() if key.startswith("st")}):
        path = save({"model": content})
        for features in (
            timm.create_model(NAME, features_only=True, checkpoint_path=path),
            timm.create_model(NAME, features_only=True),
        ):
            if not features.model.state_dict()["stem.weight"].equal(ours["stem.weight"]):
                load_checkpoint(features, path)
            with torch.no_grad():
                expected = whole.forward_intermediates(x, intermediates_only=True)
                assert all(torch.equal(a, b) for a, b in zip(features.eval()(x), expected, strict=True))
    cut = timm.create_model(NAME, features_only=True, out_indices=(0, 1), checkpoint_path=save(theirs))
    assert len(cut.model.stages) == 2
    path = save({key: value for key, value in ours.items() if not key.startswith("stages.1.blocks.0.norm1")})
    assert "missing stages.1.blocks.0.norm1.bias" in refusal(path, cut)


def test_other_input_channels(ours: Weights, theirs: Weights, save: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    for content in (ours, theirs):
        model = timm.create_model(NAME, in_chans=4, checkpoint_path=save(content))
        # timm repeats the channels and scales them so that the sum over four is that over three
        expected = ours["stem.weight"][:, [0, 1, 2, 0]] * 3 / 4
        assert torch.equal(model.stem.weight, expected)
        assert "3 input channels in the file, adapted to 4" in caplog.text
    model = timm.create_model(NAME, in_chans=1, checkpoint_path=save(ours))
    assert torch.allclose(model.stem.weight, ours["stem.weight"].sum(1, keepdim=True))
    message = refusal(save({**ours, "stem.weight": torch.zeros(32, 4, 5, 5)}))  # four channels cannot become three
    assert "stem.weight (32, 4, 5, 5) in the file, (32, 3, 7, 7) in the model" in message


def test_another_number_of_classes(ours: Weights, theirs: Weights, save: Any) -> None:
    for content in (ours, theirs):
        message = refusal(save(content), timm.create_model(NAME, num_classes=10))
        assert "head.fc.weight (1000, 256) in the file, (10, 256) in the model" in message
    with pytest.raises(CheckpointError, match="Check the model's name and num_classes"):
        timm.create_model(NAME, num_classes=10, checkpoint_path=save(ours))
    headless = timm.create_model(NAME, num_classes=0, checkpoint_path=save(theirs))
    assert torch.equal(headless.norm.weight, ours["norm.weight"])


@pytest.mark.parametrize("options", [{}, {"num_classes": 10}, {"in_chans": 4}, {"features_only": True}])
def test_as_timm_loads_pretrained_weights(
    ours: Weights, theirs: Weights, save: Any, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    for content in (ours, theirs):
        path = save({"model": content})
        model = timm.create_model(NAME, pretrained=True, pretrained_cfg_overlay={"file": str(path)}, **options)
        inner = getattr(model, "model", model) if "features_only" in options else model
        own = inner.state_dict()
        loaded = {key for key in own if own[key].shape == ours[key].shape and torch.equal(own[key], ours[key])}
        adapted = {"num_classes": {"head.fc.weight", "head.fc.bias"}, "in_chans": {"stem.weight"}}
        assert own.keys() - loaded == adapted.get(next(iter(options), ""), set())
        assert [record for record in caplog.records if record.levelname == "WARNING"] == []
        bad = save(
            {"model": {key: value for key, value in content.items() if "norm1" not in key} | {"a.b": value_of(content)}}
        )
        with pytest.raises(CheckpointError, match=r"missing stages\.0\.blocks\.0\.norm1\.bias.*not in the model a\.b"):
            timm.create_model(NAME, pretrained=True, pretrained_cfg_overlay={"file": str(bad)}, **options)


def value_of(weights: Weights) -> Tensor:
    return next(iter(weights.values()))


def test_a_module_of_any_kind(tmp_path: Path, save: Any) -> None:
    layer = nn.Linear(3, 2)
    load_checkpoint(layer, save({"weight": torch.ones(2, 3), "bias": torch.zeros(2)}))
    assert torch.equal(layer.weight, torch.ones(2, 3))
    assert "missing weight" in refusal(save({"bias": torch.ones(2)}), layer)


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "vit_tiny_patch16_224"])
def test_networks_of_timm_with_keys_as_in_the_authors_files(name: str, save: Any) -> None:
    """`patch_embed.` begins keys of Swin, ViT and the authors' files: a file of the first two is loaded as it is."""
    torch.manual_seed(1)
    given = timm.create_model(name, num_classes=2)
    assert is_authors_layout(given.state_dict())
    model = timm.create_model(name, num_classes=2)
    load_checkpoint(model, save(given.state_dict()))
    assert same(model, given.state_dict())
    message = refusal(save(given.state_dict() | {"patch_embed.proj.bias": torch.zeros(3)}), model)
    assert "shapes differ: patch_embed.proj.bias (3,) in the file" in message


def test_keys_of_activemlp_are_named(parity: Any, save: Any) -> None:
    weights = dict(parity.state_dict("activemlp_xtiny"))
    model = timm.create_model("activemlp_xtiny")
    path = save({"model": {key: value for key, value in weights.items() if "pos_blocks.1" not in key}})
    with pytest.raises(CheckpointError, match=r"missing stages.1.position.conv.bias, stages.1.position.conv.weight"):
        load_checkpoint(model, path)
    path = save({"model": weights | {"blocks.0.1.offset_layer.1.bias": torch.zeros(64)}})
    with pytest.raises(CheckpointError, match=r"not in the model stages.0.blocks.1.offsets.linear.bias"):
        load_checkpoint(model, path)


def test_the_public_name() -> None:
    assert cyclemlp.load_checkpoint is load_checkpoint


def test_the_authors_layout_of_other_models() -> None:
    with pytest.raises(CheckpointError, match="B1-B5 and nano and AS-MLP"):
        to_authors_layout(nn.Linear(2, 2).state_dict())
