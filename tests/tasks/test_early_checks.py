"""What is refused before torch is imported and before any work: data of other tasks, places that cannot be written."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mask_folders import write_mask_folder
from PIL import Image

import cyclemlp
from cyclemlp.errors import ConfigError, DataError
from cyclemlp.files import check_writable
from cyclemlp.tasks.recipes import packaged, read_recipe


@pytest.fixture(autouse=True)
def without_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """What needs torch cannot be imported."""
    monkeypatch.setitem(sys.modules, "cyclemlp.training.run", None)


def coco(folder: Path) -> Path:
    for split in ("train", "val"):
        (folder / split).mkdir(parents=True)
        Image.new("RGB", (40, 30)).save(folder / split / "a.png")
        image = {"id": 1, "file_name": "a.png", "width": 40, "height": 30}
        cell = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 5, 10, 10], "area": 100, "iscrowd": 0}
        content = {"images": [image], "annotations": [cell], "categories": [{"id": 1, "name": "cell"}]}
        (folder / f"{split}.json").write_text(json.dumps(content))
    return folder


def class_folders(folder: Path) -> Path:
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (folder / split / name).mkdir(parents=True)
            Image.new("RGB", (40, 30)).save(folder / split / name / "a.png")
    return folder


DATA: dict[str, tuple[Callable[[Path], Path], str]] = {
    "segmentation": (write_mask_folder, "images/{train,val} with masks/{train,val}"),
    "detection": (coco, "COCO"),
    "classification": (class_folders, "class folders"),
}


@pytest.mark.parametrize("given", DATA)
@pytest.mark.parametrize("task", [*DATA, "instance-segmentation"])
def test_data_for_another_task_is_answered_with_its_command(task: str, given: str, tmp_path: Path) -> None:
    write, what = DATA[given]
    folder = write(tmp_path / "d")
    if task == given or (task, given) == ("instance-segmentation", "detection"):
        with pytest.raises(ModuleNotFoundError, match="training"):  # it would begin now
            cyclemlp.train(task, data=folder, out=tmp_path / "run")
        return
    with pytest.raises(DataError) as caught:
        cyclemlp.train(task, data=folder, out=tmp_path / "run")
    message = str(caught.value).replace(str(folder), "DIR")
    assert message == f"DIR has labels for another task than {task} ({what}): cyclemlp train {given} --data DIR"
    assert len(message) < 200
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("task", [*DATA, "instance-segmentation"])
def test_what_is_no_data_set_is_refused_in_few_words(task: str, tmp_path: Path) -> None:
    for folder in (tmp_path / "none", tmp_path):
        with pytest.raises(DataError) as caught:
            cyclemlp.train(task, data=folder)
        assert len(str(caught.value).replace(str(tmp_path), "DIR")) < 200


def test_a_recipe_that_does_not_exist_is_refused_in_few_words() -> None:
    with pytest.raises(ConfigError) as caught:
        read_recipe("none", ())
    assert len(str(caught.value)) < 250
    assert "imagenet/*" in str(caught.value)
    assert len(packaged()) > 40


@pytest.mark.parametrize(
    ("task", "option", "name"),
    [
        ("segmentation", "learning_rate", "--lr"),
        ("detection", "lr0", "--lr"),
        ("detection", "batch", "--batch-size"),
        ("segmentation", "imgsz", "--crop-size"),
        ("classification", "imgsz", "--image-size"),
        ("instance-segmentation", "weights", "--init"),
        ("segmentation", "colour_jitter", "--brightness or --contrast or --saturation"),
        ("detection", "report_to", "--logger"),
    ],
)
def test_options_of_other_tools_get_the_name_that_they_have_here(task: str, option: str, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        cyclemlp.train(task, data="d", **{option: "1"})
    assert str(caught.value) == f"Unknown option: --{option.replace('_', '-')}. Here it is {name}."


def test_a_recipe_with_an_option_of_another_tool(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("learning_rate: 0.1\n")
    with pytest.raises(ConfigError, match=r"unknown option 'learning-rate'\. Here it is lr\. See --help"):
        cyclemlp.train("segmentation", data="d", config=str(tmp_path / "r.yaml"))


def test_a_place_that_cannot_be_written_is_found_before_the_work(tmp_path: Path) -> None:
    data = write_mask_folder(tmp_path / "d")
    with pytest.raises(ConfigError, match=r"--out /proc/run: cannot write in /proc \(.*\); choose another --out"):
        cyclemlp.train("segmentation", data=data, out="/proc/run")


def test_a_limit_on_the_size_of_files_is_found(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")  # not on Windows
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, before[1]))
    try:
        with pytest.raises(ConfigError, match=r"cannot write in .* \(file too large\)"):
            check_writable(tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    check_writable(tmp_path / "run")
    assert not list(tmp_path.iterdir())
