"""Every recipe for ADE20K and COCO makes its network; one of each kind makes a step on tiny images.

The command line reads them here, as it does for a user.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cyclemlp.cli.train import app
from cyclemlp.tasks.base import TrainingParts
from cyclemlp.tasks.recipes import FOLDER, packaged
from cyclemlp.tasks.registry import get_task
from cyclemlp.tasks.segmentation.config import SegmentationConfig

# Published with each recipe: millions of parameters (counted in tests/heads) and scores. arXiv 2107.10224.
PUBLISHED: dict[str, tuple[float, ...]] = {
    "coco/retinanet-b1": (24.9, 38.6),
    "coco/retinanet-b2": (36.5, 40.9),
    "coco/retinanet-b3": (48.1, 42.5),
    "coco/retinanet-b4": (61.5, 43.2),
    "coco/retinanet-b5": (85.9, 42.7),
    "coco/mask-rcnn-b1": (34.8, 39.4, 36.8),
    "coco/mask-rcnn-b2": (46.5, 41.7, 38.2),
    "coco/mask-rcnn-b3": (58.0, 43.4, 39.5),
    "coco/mask-rcnn-b4": (71.5, 44.1, 40.2),
    "coco/mask-rcnn-b5": (95.3, 44.1, 40.1),
    "ade20k/fpn-b1": (18.9, 39.5),
    "ade20k/fpn-b2": (30.6, 42.4),
    "ade20k/fpn-b3": (42.1, 44.5),
    "ade20k/fpn-b4": (55.6, 45.1),
    "ade20k/fpn-b5": (79.4, 45.6),
}
# CycleMLP's own UperNet results were not found: at several scales those of Swin and AS-MLP. arXiv 2107.08391.
RIVALS = {
    "ade20k/upernet-tiny": (45.8, 46.5),
    "ade20k/upernet-small": (49.5, 49.2),
    "ade20k/upernet-base": (49.7, 49.5),
}
# ActiveMLP's repository: millions of parameters (counted in tests/heads), and mIoU, for UperNet also at several scales.
ACTIVE: dict[str, tuple[str, ...]] = {
    "ade20k/fpn-active-xtiny": ("19.1", "43.03"),
    "ade20k/fpn-active-tiny": ("30.9", "45.84"),
    "ade20k/fpn-active-small": ("42.4", "47.30"),
    "ade20k/fpn-active-base": ("55.9", "47.73"),
    "ade20k/fpn-active-large": ("79.8", "48.05"),
    "ade20k/upernet-active-xtiny": ("45.3", "44.27", "45.44"),
    "ade20k/upernet-active-tiny": ("57.1", "46.46", "47.55"),
    "ade20k/upernet-active-small": ("68.6", "48.42", "49.49"),
    "ade20k/upernet-active-base": ("82.1", "48.63", "49.86"),
    "ade20k/upernet-active-large": ("107.9", "50.05", "51.10"),
}
STEPPED = ("coco/retinanet-b1", "coco/mask-rcnn-b1", "ade20k/fpn-b1", "ade20k/upernet-tiny", "ade20k/fpn-active-xtiny")
BASES = {"coco/1x", "ade20k/fpn", "ade20k/upernet"}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that is both kinds of data set: two images of noise, each with a square of class 1."""
    root = tmp_path_factory.mktemp("dense")
    numbers = np.random.default_rng(0)
    mask = np.zeros((64, 64), dtype=np.uint8)
    mask[10:50, 20:60] = 1
    square = {"category_id": 1, "bbox": [20, 10, 40, 40], "area": 1600, "iscrowd": 0}
    square["segmentation"] = [[20, 10, 60, 10, 60, 50, 20, 50]]
    for split in ("train", "val"):
        for name in ("a", "b"):
            pixels = numbers.integers(0, 256, (64, 64, 3), dtype=np.uint8)
            for folder, values in ((split, pixels), (f"images/{split}", pixels), (f"masks/{split}", mask)):
                (root / folder).mkdir(parents=True, exist_ok=True)
                Image.fromarray(values).save(root / folder / f"{name}.png")
        images = [{"id": i, "file_name": f"{name}.png", "width": 64, "height": 64} for i, name in ((1, "a"), (2, "b"))]
        objects = [{"id": i, "image_id": i, **square} for i in (1, 2)]
        content = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "square"}]}
        (root / f"{split}.json").write_text(json.dumps(content))
    return root


def task_name(recipe: str) -> str:
    if recipe.startswith("ade20k/"):
        return "segmentation"
    return "instance-segmentation" if "mask-rcnn" in recipe else "detection"


def config_of(recipe: str, data: Path) -> Any:
    """What the command line makes of a recipe."""
    _, bound, _ = app.parse_args([task_name(recipe), "--config", recipe, "--data", str(data)], exit_on_error=False)
    return bound.arguments["run"]


def task_of(recipe: str, data: Path) -> TrainingParts:
    """The recipe on images of 64 pixels."""
    task, config = get_task(task_name(recipe)), replace(config_of(recipe, data), short_side=64)
    if isinstance(config, SegmentationConfig):
        config = replace(config, augmentation=replace(config.augmentation, crop_size=64))
    return task.training_parts(config, task.find_dataset(data))


def test_every_recipe_is_known_here() -> None:
    names = {name for name in packaged() if name.startswith(("coco/", "ade20k/"))}
    assert names == BASES | set(PUBLISHED) | set(RIVALS) | set(ACTIVE)


@pytest.mark.parametrize("recipe", sorted({*PUBLISHED, *RIVALS, *ACTIVE} - set(STEPPED)))
def test_builds(recipe: str, data: Path) -> None:
    with torch.device("meta"):
        task = task_of(recipe, data)
    family = "activemlp_" if recipe in ACTIVE else "cyclemlp_"
    assert task.card.model == family + recipe.rpartition("-")[2]
    assert task.card.task == task_name(recipe)


@pytest.mark.parametrize("recipe", STEPPED)
def test_a_step(recipe: str, data: Path) -> None:
    torch.manual_seed(0)
    task = task_of(recipe, data)
    images, targets = task.collate([task.samples[index] for index in (0, 1)])
    assert images.shape == (2, 3, 64, 64)
    terms = task.loss(task.model.train(), images, targets)
    assert set(terms) == {"loss", *task.loss.terms}
    terms["loss"].backward()
    trained = [parameter for parameter in task.model.parameters() if parameter.grad is not None]
    assert len(trained) == len(list(task.model.parameters()))
    before = trained[0].detach().clone()
    torch.optim.AdamW(task.groups(task.model), lr=1e-3).step()
    assert all(bool(parameter.isfinite().all()) for parameter in trained)
    assert not torch.equal(trained[0], before)


@pytest.mark.parametrize("recipe", [*PUBLISHED, *RIVALS, *ACTIVE])
def test_says_how_to_run_it_and_what_was_published(recipe: str) -> None:
    text = (FOLDER / f"{recipe}.yaml").read_text(encoding="utf-8")
    notes = dict(
        line.removeprefix("# ").split(": ", 1) for line in text.splitlines() if line.startswith("# ") and ": " in line
    )
    assert notes["command"].strip().startswith(f"cyclemlp train {task_name(recipe)} --config {recipe} --data ")
    assert notes["hardware"].strip()
    assert notes["result"].strip() == "not run"
    published = " " + notes["published"]
    table = {"coco": "Table 5", "ade20k": "Table 6"}[recipe.partition("/")[0]]
    if recipe in PUBLISHED:
        assert f"(arXiv 2107.10224, {table})" in published
        assert all(f" {number:.1f}" in published for number in PUBLISHED[recipe])
    elif recipe in ACTIVE:
        words = " ".join(text.replace("#", " ").split())
        assert "repository of ActiveMLP's authors" in words
        assert all(f" {number}" in words for number in ACTIVE[recipe])
    else:
        swin, asmlp = RIVALS[recipe]
        assert published.strip().startswith("not found for CycleMLP")
        assert "at several scales" in published
        assert f"{swin}, AS-MLP-" in published
        assert f" {asmlp} (arXiv 2107.08391)" in published


def test_detectors_are_trained_as_the_paper_does() -> None:
    """Paper, section 4.3; decay and clipping from PVT's configurations, warm-up and drops from mmdetection's."""
    for recipe in (name for name in PUBLISHED if name.startswith("coco/")):
        config = config_of(recipe, Path("d"))
        options, images = config.optimisation, config.augmentation
        assert (options.lr, options.batch_size * config.machine.devices, config.length.epochs) == (1e-4, 16, 12)
        assert (options.weight_decay, options.clip_norm, options.ema) == (1e-4, 0.0, 0.0)
        assert options.schedule == "multistep"
        assert [drop * 12 for drop in options.lr_drops] == pytest.approx([8, 11], abs=1e-5)
        steps = 12 * 117266 / 16  # the training images of COCO with an object
        assert options.warmup * steps == pytest.approx(500, rel=0.01)
        assert options.scaled_lr(4) == options.lr / 4  # on fewer devices
        assert (config.short_side, config.long_side, images.crop_size) == (800, 1333, None)
        assert (images.scale, images.flip, images.brightness) == ((1.0, 1.0), 0.5, 0.0)
        assert (config.head_width, config.detector.head_norm, config.detector.candidates) == (256, "none", 1000)


def test_semantic_fpn_is_trained_as_the_paper_does() -> None:
    """Paper, section 4.4; decay, clipping and crops from PVT's configuration."""
    for recipe in (name for name in (*PUBLISHED, *ACTIVE) if name.startswith("ade20k/fpn")):
        config = config_of(recipe, Path("d"))
        options, images = config.optimisation, config.augmentation
        assert (options.lr, options.batch_size * config.machine.devices, config.length.steps) == (2e-4, 32, 40000)
        assert (options.weight_decay, options.clip_norm, options.ema) == (1e-4, 0.0, 0.0)
        assert (options.schedule, options.poly_power, options.warmup, options.final_lr) == ("poly", 0.9, 0.0, 0.0)
        assert options.scaled_lr(8) == options.lr / 4
        assert config.machine.sync_batchnorm
        assert (config.short_side, config.long_side, images.crop_size) == (512, 2048, 512)
        assert (images.scale, images.largest_class, images.flip) == ((0.5, 2.0), 0.75, 0.5)


def test_upernet_is_trained_as_its_peers() -> None:
    """AS-MLP's configurations, which are Swin's."""
    for size, drop_path in (("tiny", 0.3), ("small", 0.3), ("base", 0.5)):
        config = config_of(f"ade20k/upernet-{size}", Path("d"))
        options = config.optimisation
        assert (options.lr, options.batch_size * config.machine.devices, config.length.steps) == (6e-5, 16, 160000)
        assert (options.weight_decay, options.clip_norm, options.ema) == (0.01, 0.0, 0.0)
        assert (options.schedule, options.poly_power, options.final_lr) == ("poly", 1.0, 0.0)
        assert options.warmup * config.length.steps == 1500
        assert options.scaled_lr(4) == options.lr / 4
        assert options.drop_path == drop_path
        assert config.machine.sync_batchnorm
        assert (config.head_width, config.loss.auxiliary, config.augmentation.crop_size) == (512, 0.4, 512)


@pytest.mark.parametrize("words", ["smooth L1 with beta 1/9", "2000, not 1000", "2x2 samples", "a ReLU stands before"])
def test_the_coco_recipes_say_how_they_differ_from_mmdetection(words: str) -> None:
    text = (FOLDER / "coco/1x.yaml").read_text(encoding="utf-8")
    assert "mmdetection 2.11" in text
    assert words in " ".join(text.replace("#", " ").split())
