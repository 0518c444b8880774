"""Images of any bands and types in every task, through the command: trained, scored, predicted, drawn."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from band_folders import NAMES, noise, write_bands, write_data
from command_line import command, refused

from cyclemlp.data.images import image_size
from cyclemlp.models.cyclemlp import SIZES, CycleMLPSizes

pytestmark = pytest.mark.usefixtures("one_thread")
QUICK = ("--steps", "1", "--batch-size", "2", "--workers", "0", "--evaluations", "1", "--ema", "0")
CROP = ("--crop-size", "64", "--input-scale", "1")


@dataclass(frozen=True)
class Kind:
    """What the images of a data set are, and how a network is trained on them."""

    task: str
    bands: int
    dtype: str
    suffix: str
    options: tuple[str, ...]
    names: tuple[str, ...] = ()


KINDS = (
    Kind("classification", 4, "float32", ".tif", ("--image-size", "64"), NAMES),
    Kind("detection", 12, "int16", ".npy", CROP),
    Kind("instance-segmentation", 1, "uint16", ".tif", (*CROP, "--bands", "1")),
    Kind("segmentation", 12, "uint8", ".tif", ("--crop-size", "64")),
)


@pytest.fixture(scope="module", autouse=True)
def one_block_a_stage() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "cyclemlp_nano", CycleMLPSizes((16, 32, 48, 64), (1, 1, 1, 1), (2, 2, 2, 2)))
        yield


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.task)
def test_bands_are_trained_scored_predicted_and_drawn(
    kind: Kind, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_data(tmp_path / "data", kind.task, kind.bands, kind.dtype, kind.suffix, kind.names)
    run, out = tmp_path / "run", tmp_path / "out"
    assert command("data", data, "--sheet", tmp_path / "sheet.png") == 0
    assert command("train", kind.task, "--data", data, "--out", run, *QUICK, *kind.options) == 0
    card = json.loads((run / "model.json").read_text())
    assert (card["in_chans"], card["file_bands"]) == (kind.bands, kind.bands)
    assert card["bands"] == list(range(1, kind.bands + 1))
    assert tuple(card["band_names"]) == kind.names
    assert len(card["mean"]) == len(card["std"]) == kind.bands
    capsys.readouterr()
    assert command("eval", run, "--data", data, "--json") == 0
    assert json.loads(capsys.readouterr().out)["metrics"].keys() == card["metrics"].keys()
    image = next(path for path in sorted(data.rglob(f"*{kind.suffix}")) if "val" in path.parts)
    assert command("predict", run, image, "--out", out) == 0
    drawn = [path for path in out.iterdir() if path.suffix == ".png"]
    assert all(image_size(path)[1] >= 64 for path in drawn)
    assert drawn
    capsys.readouterr()
    values = noise(np.random.default_rng(1), kind.bands + 1, kind.dtype)
    other = write_bands(tmp_path / f"other{kind.suffix}", values)
    message = refused(capsys, "predict", run, other, "--out", out)
    noun = f"{kind.bands + 1} band" + "s" * (kind.bands > 0)
    assert f"other{kind.suffix} has {noun}, but the model was trained on images of {kind.bands}" in message
