import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cyclemlp.data.augmentation import MaskAugmentation
from cyclemlp.data.class_choice import ClassChoice
from cyclemlp.data.held_out import ValidationOptions
from cyclemlp.errors import ConfigError
from cyclemlp.tasks.classification.config import ClassificationConfig
from cyclemlp.tasks.detection.config import DetectionConfig
from cyclemlp.tasks.instance_segmentation.task import InstanceSegmentationConfig
from cyclemlp.tasks.options import (
    Length,
    Machine,
    Optimisation,
    Recording,
    RunConfig,
    flat,
    parse_duration,
    resumable_options,
)
from cyclemlp.tasks.recipes import packaged, read_recipe
from cyclemlp.tasks.segmentation.config import Loss, SegmentationConfig


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Length(epochs=1, steps=2), "--epochs and --steps were both given: give one of them"),
        (lambda: Length(steps=0), "--steps 0 is not allowed: more than 0"),
        (lambda: Length(max_time="soon"), "--max-time 'soon' is not a time: write 90s, 5m or 1h30m"),
        (lambda: Optimisation(batch_size=0), "--batch-size 0 is not allowed: more than 0"),
        (lambda: Optimisation(lr=float("nan")), "--lr nan is not allowed: more than 0"),
        (lambda: Optimisation(ema=1.0), "--ema 1.0 is not allowed: from 0 below 1"),
        (lambda: Optimisation(schedule="step"), "--schedule 'step' is not allowed: one of poly, cosine, multistep"),  # type: ignore[arg-type]
        (
            lambda: Optimisation(lr_drops=(0.5, 8.0)),
            "--lr-drops 0.5 8: shares of the run above 0 and below 1, such as 0.67 0.92",
        ),
        (lambda: MaskAugmentation(largest_class=0.0), "--largest-class 0.0 is not allowed: more than 0"),
        (lambda: MaskAugmentation(scale_draw="log"), "--scale-draw 'log' is not allowed: one of log-uniform, uniform"),  # type: ignore[arg-type]
        (lambda: MaskAugmentation(colour_probability=2), "--colour-probability 2 is not allowed: from 0 to 1"),
        (lambda: SegmentationConfig(data=Path("d"), short_side=0), "--short-side 0 is not allowed: more than 0"),
        (lambda: MaskAugmentation(crop_size=16), "--crop-size 16 is too small: 32 or more"),
        (lambda: MaskAugmentation(scale=(2.0, 1.0)), "--scale 2.0 1.0: two factors above 0, smaller first"),
        (lambda: MaskAugmentation(flip=1.5), "--flip 1.5 is not allowed: from 0 to 1"),
        (lambda: MaskAugmentation(hue=0.7), "--hue 0.7 is not allowed: from 0 to 0.5"),
        (lambda: Loss(dice=-1.0), "--dice -1.0 is not allowed: 0 or more"),
        (lambda: Recording(checkpoint_every=0), "--checkpoint-every 0 is not allowed: more than 0"),
        (lambda: Machine(workers=-1), "--workers -1 is not allowed: 0 or more"),
        (lambda: Machine(device="gpu"), "--device 'gpu' is not allowed: one of auto, cpu, cuda, mps"),  # type: ignore[arg-type]
        (lambda: SegmentationConfig(data=Path("d"), window=8), "--window 8 is too small: 32 or more"),
    ],
)
def test_refusals_name_option_and_allowed_values(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        make()
    assert str(refused.value) == message


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("5m", 300), ("1h30m", 5400), ("300", 300), (" 2h ", 7200)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "m", "-5m", "5 m", "30m1h", "1.5h"])
def test_durations_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a time"):
        parse_duration(text)


def test_total_steps() -> None:
    assert Length(steps=7).total_steps(100, 8) == 7
    assert Length(epochs=3).total_steps(100, 8) == 38
    assert Length(epochs=0.01).total_steps(10, 8) == 1
    assert Length(max_time="5m").total_steps(100, 8) is None
    assert Length(max_time="5m", steps=9).total_steps(100, 8) == 9
    assert Length().total_steps(100, 8) == 3000
    assert Length().total_steps(16000, 8) == 100_000


def test_flat_has_every_option_once_in_plain_values() -> None:
    options = flat(SegmentationConfig(data=Path("d")))
    parts = [ValidationOptions, ClassChoice, Length, Optimisation, MaskAugmentation, Loss, Recording, Machine]
    fields = [field.name for part in parts for field in dataclasses.fields(part)]
    own = [field.name for field in dataclasses.fields(SegmentationConfig)]
    assert len(set(fields) | set(own)) == len(fields) + len(own), "two options of the same name"
    assert len(options) == len(fields) + len(own) - len(parts)
    assert yaml.safe_load(yaml.safe_dump(options)) == options


RESUMABLE = [
    *(
        "data",
        "allow-outside",
        "no-verify",
        "out",
        "resume",
        "overwrite",
        "init",
        "logger",
        "epochs",
        "steps",
        "max-time",
        "fit",
        "evaluations",
        "evaluation-images",
        "patience",
    ),
    *("checkpoint-every", "log-every", "device", "strategy", "workers", "precision", "checkpoint-activations"),
    "compile",
]


@pytest.mark.parametrize(
    ("config", "own"), [(SegmentationConfig, ["window"]), (ClassificationConfig, ["crop"]), (DetectionConfig, [])]
)
def test_options_that_may_change_within_a_run(config: type[RunConfig], own: list[str]) -> None:
    assert resumable_options(config) == {*RESUMABLE, *own}
    assert flat(config(data=Path("d"))).keys() >= resumable_options(config)


def test_recipe_names_may_use_underscores(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("crop_size: 64\nlr: 1e-3\n", encoding="utf-8")
    assert read_recipe(str(path), ["crop-size", "lr"]) == {"crop-size": 64, "lr": "1e-3"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch: 3", "unknown option 'epoch'. Did you mean 'epochs'? See --help"),
        ("- 3", "must hold lines such as `lr: 0.001`"),
        ("a: [", "is not readable YAML"),
        ("lr: &a [*a]", "is not readable YAML: it has a value that is part of itself"),
        ("lr: " + "[" * 5000, "is not readable YAML"),
        ("lr: " + "9" * 5000, "is not readable YAML: it has a number of 5000 characters"),
        ("lr: !!binary aGVsbG8=", "is not readable YAML"),
        ("lr: " + "x" * 5000, "'lr' has more than 1000 characters"),
        ("lr: 2024-13-45\nep: 1", "unknown option 'ep'"),
    ],
)
def test_recipe_refusals(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        read_recipe(str(path), ["epochs", "lr"])
    assert message in str(refused.value)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_missing_recipe_proposes_one() -> None:
    with pytest.raises(ConfigError, match=r"--config sample-segmentatoin: no such file. Did you mean"):
        read_recipe("sample-segmentatoin", [])


@pytest.mark.parametrize("name", packaged())
def test_packaged_recipes_hold_known_options(name: str) -> None:
    configs = {"ablations": ClassificationConfig, "imagenet": ClassificationConfig, "coco": InstanceSegmentationConfig}
    configs |= {"blood-cells": DetectionConfig, "nuclei-outlines": InstanceSegmentationConfig}
    configs |= {"sample-detection": DetectionConfig, "sample-instance-segmentation": InstanceSegmentationConfig}
    config = configs.get(name.partition("/")[0], SegmentationConfig)
    assert read_recipe(name, flat(config(data=Path("d"))))
