from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from cyclemlp.data.blue_marble import is_held_out, read_earth, read_earth_mask
from cyclemlp.data.blue_marble_tiles import EDGE, PER_CLASS, prepare_blue_marble_tiles
from cyclemlp.data.folders import FolderDataset, find_folder_dataset
from cyclemlp.data.images import read_image


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> FolderDataset:
    return find_folder_dataset(prepare_blue_marble_tiles(tmp_path_factory.mktemp("cache")))


def test_an_ordinary_balanced_data_set(tiles: FolderDataset) -> None:
    assert tiles.classes == ("coast", "inland", "ocean")
    for name, count in PER_CLASS.items():
        assert Counter(tiles.splits[name].labels) == {0: count, 1: count, 2: count}
    assert [path.name for path in tiles.root.parent.iterdir()] == [tiles.root.name]  # nothing temporary is left


def test_tiles_show_what_their_class_says_and_keep_to_their_columns(tiles: FolderDataset) -> None:
    picture, mask = read_earth(), read_earth_mask()
    for name, split in tiles.splits.items():
        for number, (path, label) in enumerate(zip(split.images, split.labels, strict=True)):
            left, top = int(path.stem[1:5]), int(path.stem[7:11])
            place = np.s_[top : top + EDGE, left : left + EDGE]
            ocean = float((mask[place] == 0).mean())
            assert (0.02 <= ocean <= 0.98, ocean == 0, ocean == 1)[label], path
            assert {is_held_out(column) for column in range(left, left + EDGE)} == {name == "val"}
            if number % 50 == 0:
                np.testing.assert_array_equal(read_image(path), picture[place])


def test_a_second_call_only_finds_it(tiles: FolderDataset) -> None:
    made: Path = tiles.splits["val"].images[0]
    before = made.stat().st_mtime_ns
    assert prepare_blue_marble_tiles(tiles.root.parent) == tiles.root
    assert made.stat().st_mtime_ns == before
