"""Every ImageNet recipe makes its network and a step of its loss, on tiny images."""

import dataclasses
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from PIL import Image

from cyclemlp.data.datasets import ClassifiedDataset
from cyclemlp.data.formats.registry import find_dataset
from cyclemlp.models.cyclemlp import SIZES
from cyclemlp.tasks.classification.config import ClassificationConfig
from cyclemlp.tasks.classification.train import classification_parts
from cyclemlp.tasks.options import flat
from cyclemlp.tasks.recipes import packaged, read_recipe

RECIPES = [name for name in packaged() if name.startswith("imagenet/") and name != "imagenet/authors"]

Options = TypeVar("Options")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ClassifiedDataset:
    root = tmp_path_factory.mktemp("classes")
    numbers = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("n01", "n02"):
            (root / split / name).mkdir(parents=True)
            for i in range(2):
                pixels = numbers.integers(0, 256, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")
    return find_dataset(root, ClassifiedDataset)


def with_options(part: Options, options: dict[str, Any]) -> Options:
    """A config, or a part of one, with the options that it has by these names."""
    changes: dict[str, Any] = {}
    for entry in dataclasses.fields(part):  # type: ignore[arg-type]
        value, name = getattr(part, entry.name), entry.name.replace("_", "-")
        if dataclasses.is_dataclass(value):
            changes[entry.name] = with_options(value, options)
        elif name in options:
            changes[entry.name] = tuple(options[name]) if isinstance(value, tuple) else options[name]
    return dataclasses.replace(part, **changes)  # type: ignore[type-var]


def config_of(recipe: str, data: Path, **options: Any) -> ClassificationConfig:
    config = ClassificationConfig(data=data)
    return with_options(config, read_recipe(recipe, flat(config), "classification") | options)


def test_there_is_one_for_every_model() -> None:
    names = {*SIZES, *(f"{family}_{size}" for family in ("cyclemlp", "asmlp") for size in ("tiny", "small", "base"))}
    names |= {f"activemlp_{size}" for size in ("xtiny", "tiny", "small", "base", "large")}
    assert {recipe.partition("/")[2].replace("-", "_") for recipe in RECIPES} == names


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_step(recipe: str, dataset: ClassifiedDataset) -> None:
    config = config_of(recipe, dataset.root, **{"image-size": 32})
    assert config.model == recipe.partition("/")[2].replace("-", "_")
    torch.manual_seed(0)
    task = classification_parts(config, dataset)
    # AS-MLP's code, unlike CycleMLP's, has neither repeated augmentation nor a moving average.
    theirs = "asmlp" in recipe
    assert task.repeats == (1 if theirs else 3)
    assert config.optimisation.ema == (0.0 if theirs else 0.99996)
    assert config.recording.score_raw_weights
    images, labels = zip(*(task.samples[index] for index in (0, 3)), strict=True)
    terms = task.loss(task.model.train(), torch.stack(images), torch.tensor(labels))
    terms["loss"].backward()
    trained = [parameter for parameter in task.model.parameters() if parameter.grad is not None]
    assert len(trained) == len(list(task.model.parameters()))
    optimiser = torch.optim.SGD(task.groups(task.model), lr=1e-3)
    optimiser.step()
    assert all(bool(parameter.isfinite().all()) for parameter in trained)


def test_the_learning_rate_is_the_authors() -> None:
    options = config_of("imagenet/cyclemlp-b1", Path("d")).optimisation
    assert options.scaled_lr(1024) == pytest.approx(1e-3)
    assert options.warmup * 300 == pytest.approx(5, abs=1e-3)
