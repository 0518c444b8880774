import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks import loading
from benchmarks.fresh import pinned_cores
from benchmarks.loading import _table, loader
from cyclemlp.data.images import read_image
from cyclemlp.errors import ConfigError, DataError
from cyclemlp.inference.rounds import Plan


def test_images_are_those_of_a_data_set(tmp_path: Path) -> None:
    loading.write_images(tmp_path, 4)
    paths = sorted(tmp_path.rglob("*.jpg"))
    assert [str(path.relative_to(tmp_path)) for path in paths] == [
        "train/class0/0.jpg", "train/class0/2.jpg", "train/class1/1.jpg", "train/class1/3.jpg",
        "val/class0/0.jpg", "val/class1/1.jpg",
    ]  # fmt: skip
    assert read_image(paths[0]).shape == (375, 500, 3)
    # Between 1 and 3 bits a pixel, as photographs of this quality have.
    assert 500 * 375 / 8 < paths[0].stat().st_size < 3 * 500 * 375 / 8


@pytest.fixture
def unpinned(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is measured in this process pins it; the tests after it run as before."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # restored to what it was
    cores, threads = pinned_cores(), torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    if cores:
        os.sched_setaffinity(0, cores)


@pytest.mark.usefixtures("unpinned")
def test_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading.write_images, "__defaults__", (6,))
    record = loading.bench_loading(Plan(rounds=2, threads=1), size=32, batch=2, workers=(1,), batches=1)
    record = json.loads(json.dumps(record))
    assert record["pictures"] == {"count": 6, "kind": "JPEG of 500x375, made up"}
    found = record["workers"]["1"]
    assert found["alone"]["images_per_s"] > 0
    assert found["over_step"] == pytest.approx(found["alone"]["images_per_s"] / record["step"]["images_per_s"])
    assert len(found["training"]["samples_s"]) == 2
    lines = _table(record).splitlines()
    assert lines[2].split()[:3] == ["workers", "reading", "alone"]
    assert lines[3].split()[0] == "1"


def test_numbers_below_one_are_refused() -> None:
    with pytest.raises(ConfigError, match="--workers 0 is not allowed: 1 or more"):
        loader(workers=(1, 0))


def test_a_folder_that_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"class folders \(train/CLASS"):
        loader(tmp_path)
