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
from cyclemlp.tasks.segmentation.predict import SegmentationResult
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


def mask_of(predictor: cyclemlp.Predictor, image: Path) -> np.ndarray:
    result = predictor.predict(image)
    assert isinstance(result, SegmentationResult)
    return result.mask


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


@pytest.mark.parametrize("bands", [1, 4, 12])
def test_exported_files_see_the_same_bands(tmp_path: Path, bands: int) -> None:
    random = np.random.default_rng(bands)
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (tmp_path / "data" / kind / split).mkdir(parents=True)
        values = random.normal(size=(EDGE, EDGE, bands)).astype(np.float32)
        np.save(tmp_path / "data/images" / split / "a.npy", values)
        Image.fromarray(squares(random)).save(tmp_path / "data/masks" / split / "a.png")
    numbers = tuple(range(1, bands + 1))
    run = train(tmp_path / "data", tmp_path / "run", steps=1, bands=numbers, batch_size=1)
    cyclemlp.export(run, out=tmp_path / "model.onnx")
    image = tmp_path / "data/images/val/a.npy"
    ours, theirs = (mask_of(cyclemlp.Predictor.load(path), image) for path in (run.folder, tmp_path / "model.onnx"))
    np.testing.assert_array_equal(ours, theirs)
    exported = cyclemlp.Predictor.load(tmp_path / "model.onnx").card
    assert (exported.in_chans, exported.bands, len(exported.value_range)) == (bands, numbers, 2 * bands)


def test_a_strangers_folder_becomes_a_model_without_a_renamed_file(tmp_path: Path) -> None:
    """16-bit TIFFs with 12-bit values, masks of 0 and 255 with a suffix, and no validation split."""
    random, root = np.random.default_rng(0), tmp_path / "nuclei"
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for number in range(8):
        mask = squares(random)
        eight = np.where(mask, 170, 40) + random.integers(0, 60, mask.shape)
        tifffile.imwrite(root / f"images/{number}.tif", np.rint(eight * (4095 / 255)).astype(np.uint16))
        Image.fromarray(mask * np.uint8(255)).save(root / f"masks/{number}_mask.png")
        Image.fromarray(eight.astype(np.uint8)).save(tmp_path / f"{number}.png")
    run = train(root, tmp_path / "run", steps=20, val_share=0.25)
    assert run.metrics["mIoU"] > 0.8
    card = read_card(run.folder)
    assert (card.classes, card.val_share, card.value_range) == (("background", "object"), 0.25, (0, 4095))
    assert cyclemlp.evaluate(run)["metrics"]["mIoU"] == pytest.approx(card.metrics["mIoU"])
    predictor = cyclemlp.Predictor.load(run.folder)
    of_eight = mask_of(predictor.with_value_range(("0", "255")), tmp_path / "0.png")
    np.testing.assert_array_equal(mask_of(predictor, root / "images/0.tif"), of_eight)
