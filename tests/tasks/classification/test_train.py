"""The pieces of a classification recipe other than its loss: samples, groups, frozen parts, and rivals' networks."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from predictions import classified
from torch import nn
from training_runs import train_classification

from cyclemlp.errors import ConfigError
from cyclemlp.inference.predictor import Predictor
from cyclemlp.models.backbones import create_backbone
from cyclemlp.models.classifiers import create_classifier
from cyclemlp.tasks.card import ModelCard, build_model, load_model, save_model
from cyclemlp.tasks.classification.config import ClassificationConfig, ClassificationOptimisation, LabelAugmentation
from cyclemlp.tasks.classification.train import LabelTrainTransform
from cyclemlp.tasks.options import Length, Machine, Recording
from cyclemlp.tasks.parameter_groups import freeze, layer_groups
from cyclemlp.training.loader import SampleStream

GREY = np.full((40, 40, 3), 128, dtype=np.uint8)


@pytest.mark.parametrize("length", [9, 10])
def test_repeated_augmentation_takes_fewer_samples_in_several_versions(length: int) -> None:
    stream = SampleStream(length, seed=0, repeats=3)
    drawn = [stream[number] for number in range(2 * length)]
    for one_pass in (drawn[:length], drawn[length:]):
        times = Counter(index for index, _ in one_pass)
        assert sorted(times.values()) == [*([length % 3] if length % 3 else []), 3, 3, 3]
        assert [index for index, _ in one_pass[:3]] == [one_pass[0][0]] * 3
    assert len({seed for _, seed in drawn}) == 2 * length
    assert [index for index, _ in drawn[:length]] != [index for index, _ in drawn[length:]]


@pytest.mark.parametrize(("erasing", "erased"), [(0.0, False), (1.0, True)])
def test_erasing_replaces_one_rectangle_by_noise(erasing: float, erased: bool) -> None:
    torch.manual_seed(0)
    options = LabelAugmentation(scale=(1.0, 1.0), colour_jitter=0.0, erasing=erasing)
    sample, _ = LabelTrainTransform(32, options)(GREY, 0)
    changed = (sample - sample.median(1).values.median(1).values[:, None, None]).abs().amax(0) > 1e-4
    assert bool(changed.any()) is erased
    if erased:
        rows, columns = changed.any(1).nonzero().flatten(), changed.any(0).nonzero().flatten()
        assert changed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert int(changed.sum()) < 32 * 32 / 2
        assert float(sample[:, changed].std()) > 0.5


@pytest.fixture(scope="module")
def nano() -> nn.Module:
    return create_classifier("cyclemlp_nano", 3, image_size=32)


def test_layer_decay_falls_from_the_classifier_to_the_stem(nano: nn.Module) -> None:
    groups = layer_groups(nano, weight_decay=0.05, layer_decay=0.5)
    scale = {id(parameter): group["lr_scale"] for group in groups for parameter in group["params"]}
    parameters = dict(nano.named_parameters())
    assert set(scale) == {id(parameter) for parameter in parameters.values()}
    stages = [max(scale[id(p)] for name, p in parameters.items() if name.startswith(f"stages.{i}.")) for i in range(4)]
    stem = max(scale[id(parameter)] for name, parameter in parameters.items() if name.startswith("stem"))
    head = [scale[id(parameter)] for name, parameter in parameters.items() if name.startswith("head")]
    assert set(head) == {1.0}
    assert stem < stages[0] < stages[1] < stages[2] < stages[3] <= 1.0
    decays = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    assert all((decays[id(parameter)] > 0) == (parameter.ndim > 1) for parameter in parameters.values())


def test_freeze_takes_the_named_parts() -> None:
    model = create_classifier("cyclemlp_nano", 3, image_size=32)
    idle = freeze(model, ("stem", "stages.0"))
    names = {name.partition(".")[0] for name, p in model.named_parameters() if not p.requires_grad}
    assert names == {"stem", "stages"}
    assert all(p.requires_grad for name, p in model.named_parameters() if name.startswith("stages.1"))
    assert model.get_submodule("stages.0") in idle
    assert model.get_submodule("stages.1") not in idle
    assert freeze(create_classifier("cyclemlp_nano", 3, image_size=32), ()) == []


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("neck", "--freeze neck: the network has no such part; it has stem, stages, "),
        ("*", "--freeze *: nothing is left to train; freeze less"),
    ],
)
def test_freeze_refusals(nano: nn.Module, pattern: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        freeze(nano, (pattern,))
    nano.requires_grad_(True)
    assert str(refused.value).startswith(message)


def card_of(model: str, size: int, classes: tuple[str, ...] = ("a", "b")) -> ModelCard:
    return ModelCard(task="classification", model=model, head="linear", classes=classes, image_size=size, crop_pct=1.0)


def test_fine_tuning_a_new_classifier_leaves_the_frozen_backbone_as_it_came(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for number, name in enumerate(("a", "b")):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            pixels = GREY // (1 + number) + (split == "val")  # no image in two splits
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "data" / split / name / "0.png")
    card = card_of("cyclemlp_nano", 32, ("x", "y", "z"))
    torch.manual_seed(1)
    before = build_model(card)
    save_model(tmp_path / "before", before, card)
    config = ClassificationConfig(
        data=tmp_path / "data",
        model="cyclemlp_nano",
        init=tmp_path / "before",
        out=tmp_path / "run",
        image_size=32,
        length=Length(steps=2),
        optimisation=ClassificationOptimisation(batch_size=2, freeze=("backbone",), drop_path=0.2),
        recording=Recording(evaluations=1),
        machine=Machine(device="cpu", workers=0),
    )
    after, _ = load_model(train_classification(config))
    kept, given = after.state_dict(), before.state_dict()
    classifier = {name for name in kept if kept[name].shape != given[name].shape}
    assert {name.split(".")[0] for name in classifier} == {"head"}
    for name in kept.keys() - classifier:
        assert torch.equal(kept[name], given[name]), name


@pytest.mark.parametrize(
    ("model", "size"),
    [
        ("gmlp_ti16_224", 32),
        ("mixer_s32_224", 64),
        ("resmlp_12_224", 32),
        ("swin_tiny_patch4_window7_224", 64),
        ("convnext_tiny", 32),
        ("pvt_v2_b0", 32),
    ],
)
def test_rivals_take_a_step_and_predict(model: str, size: int) -> None:
    torch.manual_seed(0)
    card = card_of(model, size)
    network = build_model(card).train()
    optimiser = torch.optim.AdamW(layer_groups(network, weight_decay=0.05, layer_decay=0.75), lr=1e-4)
    loss = nn.functional.cross_entropy(network(torch.randn(2, 3, size, size)), torch.tensor([0, 1]))
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    found = classified(Predictor.of_model(network, card, "cpu").predict(GREY))
    assert found.label in card.classes
    assert float(found.probabilities.sum()) == pytest.approx(1)


@pytest.mark.parametrize("model", ["gmlp_ti16_224", "mixer_s32_224", "resmlp_12_224"])
def test_networks_without_a_pyramid_are_no_backbone(model: str) -> None:
    with pytest.raises(ConfigError) as refused:
        create_backbone(model)
    assert f"model {model!r} has no feature pyramid at strides 4, 8, 16, 32" in str(refused.value)
    assert "\n" not in str(refused.value)
