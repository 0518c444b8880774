"""The paper's ablation of the branches, and that what is ablated trains, is saved, and comes back."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.utils import reparameterize_model

from cyclemlp.errors import ConfigError
from cyclemlp.models.branches import BranchedMixer
from cyclemlp.models.classifiers import create_classifier
from cyclemlp.models.cyclemlp import CycleMixer
from cyclemlp.models.flops import count_flops
from cyclemlp.tasks.card import ModelCard, load_model, save_model
from cyclemlp.tasks.classification.config import Architecture
from cyclemlp.tasks.recipes import FOLDER, read_recipe

FULL = ("1x3", "3x1", "1x1")
# The six rows of the paper's Table 4, in its order.
ABLATIONS = (
    ("1x3", "1x1"),
    ("3x1", "1x1"),
    ("1x3", "3x1"),
    ("1x3", "1x3", "1x1"),
    ("3x1", "3x1", "1x1"),
    FULL,
)
PUBLISHED = [(24.5, 3.6)] * 3 + [(26.8, 3.9)] * 3  # M parameters and G FLOPs, Table 4
RECIPES = sorted((FOLDER / "ablations").glob("branches-*.yaml"))


@pytest.mark.parametrize(("branches", "published"), list(zip(ABLATIONS, PUBLISHED, strict=True)))
def test_counts_of_table_4(branches: tuple[str, ...], published: tuple[float, float]) -> None:
    with torch.device("meta"):
        model = timm.create_model("cyclemlp_b2", branches=branches)
    params = sum(each.numel() for each in model.parameters())
    assert (round(params / 1e6, 1), round(count_flops(model, 224, 224) / 1e9, 1)) == published


def test_the_full_set_is_the_papers_mixer() -> None:
    torch.manual_seed(0)
    plain, branched = CycleMixer(12), BranchedMixer(12, FULL)
    for ours, theirs in zip(
        branched.branches, (plain.along_width, plain.along_height, plain.along_channels), strict=True
    ):
        ours.load_state_dict(theirs.state_dict())
    branched.proj.load_state_dict(plain.proj.state_dict())
    branched.reweight.load_state_dict(plain.reweight.state_dict())
    x_nhwc = torch.randn(2, 5, 7, 12)
    with torch.no_grad():
        # the logits of a channel stand together in the authors' layout, and so in both
        torch.testing.assert_close(branched(x_nhwc), plain(x_nhwc))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipes_build_step_and_come_back(recipe: Path, tmp_path: Path) -> None:
    options = read_recipe(str(recipe), [*_keys(recipe), "config"], "classification")
    architecture = Architecture(branches=tuple(options["branches"]))
    card = ModelCard(
        task="classification",
        model="cyclemlp_nano",
        head="linear",
        classes=("a", "b"),
        image_size=32,
        crop_pct=1.0,
        model_options=architecture.options,
    )
    model = create_classifier("cyclemlp_nano", 2, image_size=32, model_options=card.model_options)
    model(torch.randn(2, 3, 32, 32)).square().mean().backward()
    assert all(each.grad is not None for each in model.parameters())
    save_model(tmp_path, model, card)
    loaded, again = load_model(tmp_path)
    assert again.model_options == card.model_options
    images = torch.randn(1, 3, 40, 33)
    with torch.no_grad():
        expected = model.eval()(images)
        torch.testing.assert_close(loaded(images), expected)
        torch.testing.assert_close(reparameterize_model(loaded)(images), expected)  # it has no fused form


def _keys(recipe: Path) -> list[str]:
    return [line.split(":")[0] for line in recipe.read_text().splitlines() if not line.startswith("#")]


def test_there_is_a_recipe_for_each_row() -> None:
    rows = [tuple(read_recipe(str(path), _keys(path))["branches"]) for path in RECIPES]
    assert rows == list(ABLATIONS)


@pytest.mark.parametrize("name", ["cyclemlp_nano", "cyclemlp_tiny"])
def test_any_step_size(name: str) -> None:
    with torch.device("meta"):
        model: Any = create_classifier(name, 2, model_options={"stepsize": 5})
    assert model.stages[0].blocks[0].token_mixer.along_width.stepsize == (1, 5)


def test_a_step_along_both_axes() -> None:
    mixer: Any = BranchedMixer(9, ("3x3", "1x1"))
    assert mixer.branches[0].stepsize == (3, 3)
    assert mixer(torch.randn(1, 4, 4, 9)).shape == (1, 4, 4, 9)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cyclemlp_nano", {"branches": ["1x0"]}, "branch '1x0' is not known: write HxW, such as 1x3, 3x1, 1x1 or 3x3"),
        ("resnet18", {"stepsize": 5}, "model 'resnet18' has no option 'stepsize': cyclemlp_\\* have options"),
        ("cyclemlp_tiny", {"branches": ["1x3"]}, "has no option 'branches': it takes stepsize"),
        ("cyclemlp_nano", {"branches": ["1x3"], "stepsize": 5}, "stepsize and branches were both given"),
    ],
)
def test_refusals(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        create_classifier(name, 2, model_options=options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stepsize": 4}, "--stepsize 4 is not allowed: an odd number"),
        ({"stepsize": 3, "branches": ("1x1",)}, "--stepsize and --branches were both given"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Architecture(**options)
