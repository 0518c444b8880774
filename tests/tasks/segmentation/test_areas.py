"""Areas with their errors: a published example, a simulation, and the way from training to the area of a scene."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import command
from geotiffs import write_geotiff

import cyclemlp
from cyclemlp.errors import CheckpointError, ConfigError
from cyclemlp.tasks.card import ModelCard, read_card
from cyclemlp.tasks.segmentation.area_table import area_tables
from cyclemlp.tasks.segmentation.areas import ValidationCounts, _student
from cyclemlp.tasks.segmentation.metrics import ConfusionMatrix

CLASSES = ("deforestation", "forest gain", "stable forest", "stable non-forest")
SAMPLE = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
MAPPED = (200_000, 150_000, 3_200_000, 6_450_000)


def test_the_example_of_olofsson_et_al_2014() -> None:
    """Section 5 of the paper: 640 single pixels by mapped and reference class, of 0.09 ha each, with its results."""
    units = [
        np.eye(4, dtype=np.int64)[:, [reference]] * np.eye(4, dtype=np.int64)[mapped]
        for (mapped, reference), count in np.ndenumerate(SAMPLE)
        for _ in range(count)
    ]
    found = ValidationCounts.of_units(units).areas(MAPPED, CLASSES)
    hectares = sum(MAPPED) * 0.09
    expected = ((21_158, 6_158), (11_686, 3_756), (285_770, 15_510), (581_386, 16_282))
    for name, (area, margin) in zip(CLASSES, expected, strict=True):
        row = found["classes"][name]
        assert row["share"] * hectares == pytest.approx(area, abs=0.5)
        # Theirs divides by n - 1 in each stratum, and has 1.96 where Student's t for 639 is 1.964.
        assert (row["high"] - row["share"]) * hectares == pytest.approx(margin, rel=0.01)


def draw_images(random: np.random.Generator, number: int) -> np.ndarray[Any, Any]:
    """Confusion matrices (number, 3, 3) of images of 10,000 pixels, each with shares and errors of its own."""
    shares = random.dirichlet((4, 2, 1), number)
    errors = np.stack([random.dirichlet(row, number) for row in ((20, 1, 1), (6, 10, 1), (3, 1, 4))], axis=1)
    counts = np.rint(10_000 * shares[:, :, None] * errors).astype(np.int64)
    assert counts.shape == (number, 3, 3)
    return counts


@pytest.mark.parametrize("size", [8, 60])
def test_intervals_cover_the_truth_and_areas_are_unbiased(size: int) -> None:
    """Validation images drawn at random from the images of a scene, many times over."""
    random = np.random.default_rng(0)
    scene = draw_images(random, 4000)
    truth = scene.sum(axis=(0, 2)) / scene.sum()
    mapped = scene.sum(axis=(0, 1))
    covered, shares = [], []
    for _ in range(400):
        chosen = random.choice(len(scene), size, replace=False)
        found = ValidationCounts.of_units(list(scene[chosen])).areas(mapped.tolist(), ("a", "b", "c"))["classes"]
        rows = [found[name] for name in "abc"]
        shares.append([row["share"] for row in rows])
        covered.append([row["low"] <= share <= row["high"] for row, share in zip(rows, truth, strict=True)])
    assert np.mean(shares, axis=0) == pytest.approx(truth, abs=0.004)
    counted = mapped / mapped.sum()
    assert np.abs(counted - truth).max() > 0.02  # what counting pixels of the mask would be wrong by
    assert np.mean(covered, axis=0) == pytest.approx(0.95, abs=0.035)


def test_students_t() -> None:
    table = {1: 12.706, 2: 4.303, 4: 2.776, 5: 2.571, 8: 2.306, 10: 2.228, 30: 2.042, 120: 1.980}
    assert {n: _student(n) for n in table} == pytest.approx(table, rel=1.5e-3)


def test_where_there_is_no_interval() -> None:
    one = np.array([[5, 1], [2, 8]])
    for units, mapped, words in (
        ([one], (1, 1), "no second validation image"),
        ([np.array([[5, 0], [2, 0]])] * 2, (1, 1), "b was never predicted on validation images"),
        ([one, one], (0, 0), "no pixel was measured"),
    ):
        assert words in ValidationCounts.of_units(units).areas(mapped, ("a", "b"))["reason"]
    never = ValidationCounts.of_units([np.array([[5, 0], [2, 0]])] * 2).areas((1, 0), ("a", "b"))
    assert never["classes"]["a"]["share"] == pytest.approx(5 / 7)


def test_units_of_several_processes_add_up() -> None:
    random = np.random.default_rng(0)
    whole, parts = ConfusionMatrix(3), [ConfusionMatrix(3), ConfusionMatrix(3)]
    for number in range(6):
        prediction, target = (torch.from_numpy(random.integers(0, 3, 50)) for _ in range(2))
        unit = str(number // 2)
        whole.update(prediction, target, unit)
        parts[number % 2].update(prediction, target, unit)
    parts[0].merge(parts[1])
    found, expected = parts[0].validation_counts(), whole.validation_counts()
    assert found is not None
    assert expected is not None
    assert (found.units, found.confusion.tolist()) == (3, whole.counts.tolist())
    assert found.to_dict() == expected.to_dict()
    read = ValidationCounts.from_dict(json.loads(json.dumps(found.to_dict())), 3)
    assert read.covariances == pytest.approx(found.covariances, rel=1e-5)
    many = ConfusionMatrix(40)
    many.update(torch.zeros(1), torch.zeros(1), "a")
    assert many.validation_counts() is None


@pytest.mark.parametrize(
    "values",
    [
        {"units": 2},
        {"units": 2, "confusion": [[1, 2], [3, 4]], "covariances": [[[0, 0]] * 2]},
        {"units": 2, "confusion": [[1, 2], [3, -4]], "covariances": [[[0, 0]] * 2] * 2},
        {"units": 2.5, "confusion": [[1, 2], [3, 4]], "covariances": [[[0, 0]] * 2] * 2},
        {"units": 2, "confusion": [[1, 2], [3, "x"]], "covariances": [[[0, 0]] * 2] * 2},
    ],
)
def test_damaged_counts_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="validation_counts"):
        ValidationCounts.from_dict(values, 2)
    card = ModelCard("segmentation", "cyclemlp_nano", "semantic-fpn", ("a", "b"))
    with pytest.raises(CheckpointError, match="validation_counts"):
        ModelCard.from_dict({**card.to_dict(), "validation_counts": values})


@pytest.mark.usefixtures("one_thread")
def test_from_training_to_the_area_of_a_scene(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One scene, of which blocks of the ground validate, and are the units of the intervals."""
    pytest.importorskip("rasterio", reason="rasterio is not installed")
    mask = (np.add.outer(np.arange(96), np.arange(96)) // 9 % 2).astype(np.uint8)
    image = np.repeat(mask[..., None] * 120 + 50, 3, axis=2)
    write_geotiff(tmp_path / "data/images/a.tif", image)
    write_geotiff(tmp_path / "data/masks/a.tif", mask)
    options: dict[str, Any] = {"steps": 12, "batch_size": 2, "crop_size": 48, "workers": 0, "head_width": 8, "lr": 3e-3}
    options |= {"data": tmp_path / "data", "out": tmp_path / "run", "val_share": 0.3, "device": "cpu", "ema": 0}
    run = cyclemlp.train("segmentation", **options)
    card = read_card(run.folder)
    known = ValidationCounts.from_dict(card.validation_counts, 2)
    assert known.units >= 3
    scores = cyclemlp.evaluate(run, device="cpu")
    assert scores["confusion"] == known.confusion.tolist()
    scene = write_geotiff(tmp_path / "scene.tif", image[:, :60])
    assert command("predict", run, scene, "--out", tmp_path / "out", "--device", "cpu", "--json") == 0
    (entry,) = json.loads(capsys.readouterr().out)["images"]
    areas = entry["estimated_areas"]
    assert areas["units"] == known.units
    assert areas["assumes"].startswith("the validation images are a random sample")
    rates = known.confusion / np.maximum(known.confusion.sum(axis=0), 1)
    expected = rates @ list(entry["shares"].values())
    for row, share in zip(areas["classes"].values(), expected, strict=True):
        assert row["share"] == pytest.approx(share)
        assert row["hectares"] == pytest.approx(share * 96 * 60 * 0.01)
        assert row["hectares_low"] <= row["hectares"] <= row["hectares_high"]
    report = (run.folder / "report.html").read_text(encoding="utf-8")
    cells = re.findall(r"<tr><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td></tr>", report)
    assert [name for name, *_ in cells] == list(card.classes)
    for number, (_, *shown) in enumerate(cells):
        predicted, labelled = known.confusion[:, number].sum() * 0.01, known.confusion[number].sum() * 0.01
        assert [float(cell) for cell in shown] == pytest.approx([predicted, labelled, predicted - labelled], rel=1e-3)
    assert command("predict", run, scene, "--out", tmp_path / "again", "--device", "cpu") == 0
    assert "; corrected, with 95 % intervals: class" in capsys.readouterr().out
    assert command("predict", run, scene, "--out", tmp_path / "windows", "--device", "cpu", "--window", "64") == 0
    assert "areas are not corrected: --window was not used on the validation images" in capsys.readouterr().out


def test_areas_of_a_report_need_one_size_of_pixels(tmp_path: Path) -> None:
    pytest.importorskip("rasterio", reason="rasterio is not installed")
    counts = ValidationCounts(np.array([[30.0, 10.0], [0.0, 60.0]]), np.zeros((2, 2, 2)), 3)
    values = np.zeros((8, 8), np.uint8)
    same = [write_geotiff(tmp_path / f"{name}.tif", values, step=2.0) for name in "ab"]
    (table,) = area_tables(same, counts, ("a", "b"))
    assert table.title == "area of each class on the labelled pixels of the validation images, in m\u00b2"
    assert table.head == ("class", "predicted", "labelled", "difference")
    assert table.rows == [("a", "120", "160", "-40"), ("b", "280", "240", "+40")]
    other = write_geotiff(tmp_path / "c.tif", values, step=3.0)
    degrees = write_geotiff(tmp_path / "d.tif", values, step=1e-4, origin=(10.0, 50.0), crs="EPSG:4326")
    np.save(tmp_path / "e.npy", values)
    for extra in (other, degrees, tmp_path / "e.npy"):
        assert area_tables([*same, extra], counts, ("a", "b")) == []
    assert area_tables(same, None, ("a", "b")) == []
