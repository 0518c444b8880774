"""From files of other bands and bit depths to a trained model, its predictions and its exported files."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

import cyclemlp
from cyclemlp import api
from cyclemlp.errors import DataError
from cyclemlp.tasks.build_config import OptionValue, build_config
from cyclemlp.tasks.card import read_card
from cyclemlp.training.run import Run

pytestmark = pytest.mark.usefixtures("one_thread")
EDGE = 64
SHORT: dict[str, OptionValue] = {
    "batch_size": 4,
    "crop_size": 32,
    "scale": (1.0, 1.0),
    "workers": 0,
    "evaluations": 1,
    "ema": 0.0,
    "lr": 3e-3,
    "saturation": 0.0,
}


def train(data: Path, out: Path, **options: OptionValue) -> Run:
    return api.train_with("segmentation", build_config("segmentation", {"data": data, "out": out, **SHORT, **options}))


def squares(random: np.random.Generator) -> np.ndarray:
    return np.kron(random.integers(0, 2, (4, 4)), np.ones((16, 16))).astype(np.uint8)


@pytest.fixture(scope="module")
def four_bands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16-bit TIFFs of four bands; the class shows only in the last."""
    root, random = tmp_path_factory.mktemp("four"), np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 2)):
        images, masks = root / "images" / split, root / "masks" / split
        images.mkdir(parents=True)
        masks.mkdir(parents=True)
        for number in range(count):
            mask = squares(random)
            values = random.integers(100, 3000, (EDGE, EDGE, 4)).astype(np.uint16)
            values[..., 3] = np.where(mask, 2500, 600) + random.integers(0, 300, mask.shape)
            tifffile.imwrite(images / f"{number}.tif", values, photometric="rgb", extrasamples=["unspecified"])
            Image.fromarray(mask).save(masks / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def run_of_four(four_bands: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "run"
    return train(four_bands, out, steps=30).folder


def test_a_class_that_shows_in_the_fourth_band_alone(four_bands: Path, run_of_four: Path, tmp_path: Path) -> None:
    card = read_card(run_of_four)
    assert card.metrics["mIoU"] > 0.9
    assert (card.in_chans, card.bands, card.value_range) == (4, (1, 2, 3, 4), (0, 4095))
    blind = train(four_bands, tmp_path / "run", steps=10, bands=(1, 2, 3))
    assert blind.metrics["mIoU"] < 0.6


def test_an_image_with_other_bands_is_refused_and_every_prediction_is_drawn(
    four_bands: Path, run_of_four: Path, tmp_path: Path
) -> None:
    done = cyclemlp.predict(run_of_four, four_bands / "images/val", out=tmp_path / "out")
    assert len(done.images) == 2
    tifffile.imwrite(tmp_path / "three.tif", np.zeros((EDGE, EDGE, 3), np.uint16), photometric="rgb")
    with pytest.raises(DataError, match=r"three\.tif has 3 bands, but the model was trained on images of 4"):
        cyclemlp.predict(run_of_four, tmp_path / "three.tif", out=tmp_path / "out")
