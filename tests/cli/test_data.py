import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cyclemlp.cli import main


@pytest.fixture
def lakes(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            folder = tmp_path / "lakes" / kind / split
            folder.mkdir(parents=True)
            pixels = np.zeros((32, 40, 3) if kind == "images" else (32, 40), np.uint8)
            pixels[:8] = len(split) if kind == "images" else 1
            Image.fromarray(pixels).save(folder / "a.png")
    return tmp_path / "lakes"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of the command line."""
    with pytest.raises(SystemExit) as stopped:
        main(["data", *arguments])
    code = stopped.value.code
    captured = capsys.readouterr()
    return (code if isinstance(code, int) else 0), captured.out, captured.err


def test_sound_data_set_is_counted(lakes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, str(lakes))
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        f"{lakes}: format masks, 2 classes",
        "pairs: the same place and name in images and masks, such as images/train/a.png with masks/train/a.png",
        "classes: by the numbers in masks: 0 is class0, 1 is class1; 255 is ignored; nothing names them, so they are"
        " counted",
        "splits: as the data has them: train 1, val 1",
        "",
        "train: 1 images, 1,280 pixels",
        "  class0                 960   75.000%",
        "  class1                 320   25.000%",
        "  (ignored)                0    0.000%",
        "",
        "val: 1 images, 1,280 pixels",
        "  class0                 960   75.000%",
        "  class1                 320   25.000%",
        "  (ignored)                0    0.000%",
        "",
        "no problems found",
    ]


def test_json_is_one_object(lakes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, str(lakes), "--json")
    assert (status, err, out.count("\n")) == (0, "", 1)
    report = json.loads(out)
    assert report["splits"]["train"]["class_pixels"] == {"class0": 960, "class1": 320}
    assert report["problems"] == []


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_problems_are_listed_and_end_with_status_2(
    lakes: Path, capsys: pytest.CaptureFixture[str], option: list[str]
) -> None:
    (lakes / "masks/val/a.png").unlink()
    status, out, err = run(capsys, str(lakes), *option)
    assert status == 2
    assert err == f"cyclemlp: {lakes} has 1 problem, listed on standard output with what to do about each\n"
    if option:
        assert [problem["what"] for problem in json.loads(out)["problems"]] == ["has no mask"]
    else:
        fix = f"add {lakes}/masks/val/a.png or remove the image"
        assert out.splitlines()[-2:] == ["problems:", f"  {lakes}/images/val/a.png has no mask; {fix}"]


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_folder_that_is_no_data_set_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: list[str]
) -> None:
    status, out, err = run(capsys, str(tmp_path / "none"), *option)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"cyclemlp: {tmp_path}/none is missing; give a folder with images/{{train,val}}")


def test_a_contact_sheet_is_written(lakes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = tmp_path / "made" / "sheet.png"
    status, out, _ = run(capsys, str(lakes), "--sheet", str(sheet), "--sheet-images", "1")
    assert (status, out.splitlines()[-1]) == (0, f"contact sheet: {sheet}")
    with Image.open(sheet) as image:
        assert image.width == 340
    _, out, _ = run(capsys, str(lakes), "--sheet", str(sheet), "--json")
    assert json.loads(out)["sheet"] == str(sheet)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--sheet", "sheet.gif"), "--sheet sheet.gif is not an image file: give a name that ends in .png or .jpg"),
        (("--sheet", "s.png", "--sheet-images", "0"), "--sheet-images 0 is not allowed: give 1 to 600"),
    ],
)
def test_wrong_options_of_the_sheet(
    options: tuple[str, ...], message: str, lakes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = run(capsys, str(lakes), *options)
    assert (status, err.count("\n")) == (2, 1)
    assert message in err


def test_images_without_objects_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (tmp_path / kind / split).mkdir(parents=True)
        for name in "ab":
            Image.new("RGB", (30, 20), (len(split), 0, ord(name))).save(tmp_path / f"images/{split}/{name}.png")
        (tmp_path / f"labels/{split}/a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "classes.txt").write_text("boat\n")
    status, out, _ = run(capsys, str(tmp_path))
    assert status == 0
    assert "train: 2 images, 1,200 pixels, 1 images without objects\n" in out
