"""`eval` takes the images that a run held out, whatever link names their folder, and says where it cannot."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import command, refused

import cyclemlp
from cyclemlp.data.datasets import ClassifiedDataset
from cyclemlp.data.formats.registry import find_dataset
from cyclemlp.data.held_out import HoldOut, held_limits
from cyclemlp.data.masks import MaskDataset
from cyclemlp.data.problems import DataRequest
from cyclemlp.errors import DataError
from cyclemlp.tasks.card import ModelCard, build_model, save_model
from cyclemlp.tasks.registry import get_task
from cyclemlp.tasks.split_of_run import trained_on

CLASSES = ("field", "wood")
CARD: dict[str, Any] = {
    "model": "cyclemlp_nano",
    "classes": CLASSES,
    "source": "trained by cyclemlp on tiles",
    "val_share": 0.3,
}


def write_tiles(root: Path, of: str = "") -> Path:
    for number, name in enumerate(CLASSES):
        (root / of / name).mkdir(parents=True)
        for image in range(20):
            np.save(root / of / name / f"{image}.npy", np.full((8, 8), 100 * number + image, np.uint8))
    return root


def write_masks(root: Path) -> Path:
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
        for image in range(10):
            np.save(root / kind / f"{image}.npy", np.eye(32, dtype=np.uint8))
    return root


def write_boxes(root: Path) -> Path:
    for kind in ("images", "labels"):
        (root / kind / "train").mkdir(parents=True)
    for image in range(10):
        np.save(root / f"images/train/{image}.npy", np.eye(32, dtype=np.uint8))
        (root / f"labels/train/{image}.txt").write_text("0 0.5 0.5 0.5 0.5")
    (root / "classes.txt").write_text("\n".join(CLASSES))
    return root


def write_model(folder: Path, task: str) -> Path:
    own: dict[str, dict[str, Any]] = {"classification": {"head": "linear", "image_size": 32, "crop_pct": 0.875}}
    own |= {"segmentation": {"head": "semantic-fpn", "head_width": 8}, "detection": {"head": "retinanet"}}
    card = ModelCard(task=task, **CARD, **own[task])
    save_model(folder, build_model(card), card)
    return folder


@pytest.mark.parametrize(("write", "kind"), [(write_tiles, ClassifiedDataset), (write_masks, MaskDataset)])
def test_images_that_are_added_or_removed_move_no_other(
    tmp_path: Path, write: Callable[[Path], Path], kind: Any
) -> None:
    """With twice the images, and one that validated gone, images that trained would validate: 30 % are others."""
    root, how = write(tmp_path), HoldOut(0.3, seed=44)
    first = find_dataset(root, kind, DataRequest(hold_out=how))
    trained, (gone, *held) = set(first.splits["train"].images), first.splits["val"].images
    for path in root.rglob(gone.name):
        path.unlink()
        trained.discard(path)
    for path in sorted(root.rglob("*.npy")):
        np.save(path.with_name(f"new-{path.name}"), np.load(path))
    again = find_dataset(root, kind, DataRequest(hold_out=how)).splits["val"].images
    assert trained.intersection(again)
    limits = held_limits(first, how)
    now = find_dataset(root, kind, DataRequest(hold_out=replace(how, limits=limits))).splits["val"].images
    assert not trained.intersection(now)
    assert {path for path in held if path.exists()} <= set(now)
    with pytest.raises(DataError, match="has none of the images that the run held out: restore them"):
        find_dataset(root, kind, DataRequest(hold_out=replace(how, limits={"": -1.0})))


def test_a_run_through_a_link_is_evaluated_on_the_images_that_it_held_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_tiles(tmp_path / "tiles_v2")
    (tmp_path / "data").symlink_to(root)
    monkeypatch.chdir(tmp_path)
    options = {"steps": 1, "batch_size": 2, "workers": 0, "device": "cpu", "image_size": 32, "val_share": 0.3}
    run = cyclemlp.train("classification", data="data", out="run", **options)  # type: ignore[arg-type]
    val = find_dataset(root, ClassifiedDataset, DataRequest(hold_out=HoldOut(0.3))).splits["val"].images
    for data in ((), ("--data", "data"), ("--data", root)):
        capsys.readouterr()
        assert command("eval", run.folder, *data, "--device", "cpu", "--json") == 0
        report = json.loads(capsys.readouterr().out)
        assert report["metrics"] == {**run.metrics}
        assert report["images"] == len(val)
    card = ModelCard.from_dict(json.loads(Path("run/model.json").read_text()))
    assert card.val_limits.keys() == set(CLASSES)
    monkeypatch.chdir(root)
    found = get_task("classification").find_evaluation_data(Path(), "val", card)
    assert [path.resolve() for path in found.splits["val"].images] == list(val)


@pytest.mark.parametrize("task", ["classification", "segmentation", "detection"])
@pytest.mark.parametrize("split", ["val", "train"])
def test_data_of_another_name_has_no_split_of_the_run(
    task: str, split: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    write = {"classification": write_tiles, "segmentation": write_masks, "detection": write_boxes}[task]
    run, other = write_model(tmp_path / "run", task), write(tmp_path / "renamed")
    if split == "train" and task != "classification":  # the only way to ask for all images
        assert "train" in get_task(task).find_evaluation_data(other, "train", ModelCard(task=task, **own(run))).splits
        assert "held out some of 'tiles' in training; of" in caplog.text
        return
    line = refused(capsys, "eval", run, "--data", other, "--split", split, "--device", "cpu")
    instead = "all" if task == "classification" else "train"
    expected = f"has no {split}, and that of the run was held out of 'tiles': give that folder as --data, or"
    assert f"{other} {expected} --split {instead}" in line
    assert len(line.replace(str(tmp_path), "")) <= 200


def own(run: Path) -> dict[str, Any]:
    """What the card of a run says, but for the task."""
    card = json.loads((run / "model.json").read_text())
    return {**CARD, "head": card["head"], "head_width": card.get("head_width")}


def test_a_split_of_other_data_is_its_own(tmp_path: Path) -> None:
    other = write_tiles(write_tiles(tmp_path / "other", "train"), "val")
    card = ModelCard(task="classification", head="linear", image_size=32, crop_pct=0.875, **CARD)
    assert len(get_task("classification").find_evaluation_data(other, "val", card).splits["val"].images) == 40


def test_a_name_that_ends_alike_is_another(tmp_path: Path) -> None:
    assert trained_on(tmp_path / "my tiles") != trained_on(tmp_path / "tiles")
    assert trained_on(tmp_path / "tiles" / ".." / "tiles") == "trained by cyclemlp on tiles"
