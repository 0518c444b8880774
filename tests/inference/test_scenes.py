"""Scenes: read in windows, written where they lie, equal to the same image in memory, continued when interrupted."""

import json
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from predictions import segmented
from rasterio.enums import ColorInterp
from torch import Tensor, nn

from cyclemlp.cli import main
from cyclemlp.data.gdal import quiet
from cyclemlp.data.scenes import is_scene
from cyclemlp.errors import ConfigError, DataError
from cyclemlp.inference import predict_scenes
from cyclemlp.inference.predict_files import predict_files
from cyclemlp.inference.predictor import Predictor
from cyclemlp.tasks.card import ModelCard, build_model, save_model
from cyclemlp.tasks.options import PredictionOptions

rasterio = pytest.importorskip("rasterio", reason="rasterio is not installed")
pyogrio = pytest.importorskip("pyogrio", reason="pyogrio is not installed")
pytestmark = pytest.mark.usefixtures("one_thread")

CLASSES = ("background", "green", "blue")
CARD = ModelCard("segmentation", "cyclemlp_nano", "semantic-fpn", CLASSES, head_width=8, window=64, overlap=16)
UTM = "EPSG:32633"
ORIGIN, STEP = (500_000.0, 5_400_000.0), 10.0


class BrightestChannel(nn.Module):
    """Says the band that is brightest."""

    def forward(self, images: Tensor) -> Tensor:
        mean, std = (torch.tensor(numbers).view(-1, 1, 1) for numbers in (CARD.mean, CARD.std))
        return images * std + mean


def colours(height: int = 150, width: int = 170) -> np.ndarray:
    """Red, with a green ring around a red lake, and a blue strip that crosses all windows; (height, width, 3)."""
    numbers = np.zeros((height, width), np.uint8)
    numbers[20:110, 20:120] = 1
    numbers[50:80, 50:90] = 0
    numbers[130:140] = 2
    return (np.eye(3, dtype=np.uint8) * 255)[numbers]


def write_scene(path: Path, values: np.ndarray, crs: str | None = UTM, **more: Any) -> Path:
    """(height, width, bands) as a GeoTIFF of 10 metres a pixel."""
    height, width, bands = values.shape
    profile = {"driver": "GTiff", "height": height, "width": width, "count": bands, "dtype": values.dtype, "crs": crs}
    profile["transform"] = rasterio.Affine(STEP, 0, ORIGIN[0], 0, -STEP, ORIGIN[1])
    with rasterio.open(path, "w", **profile, **more) as target:
        target.write(np.moveaxis(values, -1, 0))
    return path


@pytest.fixture
def predictor() -> Predictor:
    return Predictor.of_model(BrightestChannel(), CARD, device="cpu")


def test_mask_and_probabilities_lie_where_the_scene_lies(predictor: Predictor, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", colours())
    done = predict_files(predictor, [scene], tmp_path / "out", PredictionOptions(probabilities=True))
    (entry,) = done.images
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["scene_mask.tif", "scene_probabilities.tif"]
    with rasterio.open(scene) as given, rasterio.open(entry["mask"]) as mask:
        assert (mask.crs, mask.transform, mask.shape) == (given.crs, given.transform, given.shape)
        assert np.array_equal(mask.read(1), colours().argmax(2))
        assert (mask.nodata, mask.profile["tiled"], mask.compression.value) == (255, True, "DEFLATE")
        assert mask.tags()["class_1"] == "green"
        assert mask.colorinterp == (ColorInterp.palette,)
        assert len({mask.colormap(1)[number] for number in range(3)}) == 3
    with rasterio.open(entry["probabilities"]) as found:
        assert (found.descriptions, found.crs, found.transform) == (CLASSES, given.crs, given.transform)
        assert np.array_equal(found.read().argmax(0), colours().argmax(2))
        assert found.read().sum(0) * found.scales[0] == pytest.approx(1, abs=0.01)
    assert entry["areas_m2"]["blue"] == 10 * 170 * STEP**2
    assert sum(entry["shares"].values()) == pytest.approx(1)


def test_a_real_network_sees_in_windows_what_it_sees_in_memory(tmp_path: Path) -> None:
    torch.manual_seed(0)
    card = replace(
        CARD,
        in_chans=2,
        values="fixed",
        bands=(4, 1),
        file_bands=4,
        value_range=(0.0, 4095.0),
        mean=(0.5, 0.5),
        std=(0.2, 0.2),
    )
    real = Predictor.of_model(build_model(card).eval(), card, device="cpu")
    values = np.random.default_rng(0).integers(0, 4096, (150, 170, 4), dtype=np.uint16)
    scene = write_scene(tmp_path / "scene.tif", values)
    np.save(tmp_path / "array.npy", values)
    found, whole = predict_files(real, [scene, tmp_path / "array.npy"], tmp_path / "out", PredictionOptions()).images
    with rasterio.open(found["mask"]) as mask:
        expected = segmented(real.predict(values)).mask
        assert np.array_equal(mask.read(1), expected)
        assert len(np.unique(expected)) > 1
    assert found["shares"] == whole["shares"]


def test_polygons_are_whole_and_as_large_as_their_pixels(predictor: Predictor, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", colours())
    for suffix in ("gpkg", "geojson"):
        options = PredictionOptions(vector="gpkg" if suffix == "gpkg" else "geojson")
        (entry,) = predict_files(predictor, [scene], tmp_path / suffix, options).images
        info, _, shapes, (names, _, area, square_metres) = pyogrio.raw.read(entry["polygons"])
        import shapely

        assert list(names) == ["green", "blue"]
        assert list(area) == list(square_metres) == [(90 * 100 - 30 * 40) * STEP**2, 10 * 170 * STEP**2]
        assert [len(shape.interiors) for shape in shapely.from_wkb(shapes)] == [1, 0]
        assert info["crs"] == {"gpkg": UTM, "geojson": "EPSG:4326"}[suffix]
    first = json.loads(Path(entry["polygons"]).read_text())["features"][0]["geometry"]["coordinates"][0][0]
    assert first == pytest.approx([15.0, 48.75], abs=0.1)
    options = PredictionOptions(vector="gpkg", simplify=200.0)
    (entry,) = predict_files(predictor, [scene], tmp_path / "simple", options).images
    assert list(pyogrio.raw.read(entry["polygons"])[3][2]) == list(area)


def test_missing_and_transparent_pixels_stay_so(predictor: Predictor, tmp_path: Path) -> None:
    values = colours()
    values[:40] = 7
    nodata = write_scene(tmp_path / "nodata.tif", values, nodata=7)
    alpha = np.full((*values.shape[:2], 1), 255, np.uint8)
    alpha[:40] = 0
    clear = write_scene(
        tmp_path / "clear.tif", np.concatenate([colours(), alpha], axis=2), photometric="RGB", alpha="YES"
    )
    for entry in predict_files(predictor, [nodata, clear], tmp_path / "out", PredictionOptions()).images:
        with rasterio.open(entry["mask"]) as mask:
            assert (mask.read(1)[:40] == 255).all()
            assert np.array_equal(mask.read(1)[40:], colours()[40:].argmax(2))
        assert entry["nodata_pixels"] == 40 * 170
        assert sum(entry["pixels"].values()) == 110 * 170


def test_an_interrupted_scene_goes_on_after_its_last_strip(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene, out = write_scene(tmp_path / "scene.tif", colours()), tmp_path / "out"
    computed: list[int] = []
    add = predict_scenes.Strips.add

    def stopping(self: predict_scenes.Strips, arrays: Any) -> None:
        if len(computed) == 1:
            raise KeyboardInterrupt
        add(self, arrays)
        computed.append(len(arrays["mask"]))

    with monkeypatch.context() as patch:
        patch.setattr(predict_scenes.Strips, "add", stopping)
        with pytest.raises(KeyboardInterrupt):
            predict_files(predictor, [scene], out, PredictionOptions())
    assert not (out / "scene_mask.tif").exists()
    rest: list[int] = []

    def counting(self: predict_scenes.Strips, arrays: Any) -> None:
        add(self, arrays)
        rest.append(len(arrays["mask"]))

    monkeypatch.setattr(predict_scenes.Strips, "add", counting)
    predict_files(predictor, [scene], out, PredictionOptions(), resume=True)
    assert sum(computed) + sum(rest) == 150
    with rasterio.open(out / "scene_mask.tif") as mask:
        assert np.array_equal(mask.read(1), colours().argmax(2))
    assert [path.name for path in out.iterdir()] == ["scene_mask.tif"]
    rest.clear()
    predict_files(predictor, [scene], out, PredictionOptions())  # without --resume from the start
    assert sum(rest) == 150


def test_a_killed_process_leaves_no_half_file_and_its_strips(tmp_path: Path) -> None:
    torch.manual_seed(0)
    run, out = tmp_path / "run", tmp_path / "out"
    save_model(run, build_model(CARD), CARD)
    blocks = np.random.default_rng(0).integers(0, 256, (10, 3, 3), np.uint8)
    scene = write_scene(tmp_path / "scene.tif", blocks.repeat(30, axis=0).repeat(30, axis=1))
    killed = f"""
import os, signal
from cyclemlp.inference import predict_scenes
add = predict_scenes.Strips.add
def killing(self, arrays):
    add(self, arrays)
    if len(self) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
predict_scenes.Strips.add = killing
import cyclemlp
cyclemlp.predict({str(run)!r}, {str(scene)!r}, out={str(out)!r}, vector="gpkg")
"""
    assert subprocess.run([sys.executable, "-c", killed], capture_output=True).returncode == -signal.SIGKILL
    assert [path.name for path in out.iterdir() if path.suffix in (".tif", ".gpkg")] == []
    assert len(list((out / ".scene_mask.parts").glob("*.npz"))) == 3
    predictor, options = Predictor.load(run), PredictionOptions(vector="gpkg")
    resumed = predict_files(predictor, [scene], out, options, resume=True).images[0]
    fresh = predict_files(predictor, [scene], tmp_path / "fresh", options).images[0]
    with rasterio.open(resumed["mask"]) as mask, rasterio.open(fresh["mask"]) as expected:
        assert np.array_equal(mask.read(1), expected.read(1))
    assert sorted(path.name for path in out.iterdir()) == ["scene_mask.tif", "scene_polygons.gpkg"]
    counts = [pyogrio.read_info(entry["polygons"])["features"] for entry in (resumed, fresh)]
    assert counts[0] == counts[1] > 0


def test_what_a_scene_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = tmp_path / "plain.tif"
    with quiet(), rasterio.open(plain, "w", driver="GTiff", height=9, width=9, count=3, dtype="uint8") as target:
        target.write(np.zeros((3, 9, 9), np.uint8))
    placed = write_scene(tmp_path / "placed.tif", colours(40, 40), crs=None)
    (tmp_path / "text.tif").write_text("no image")
    assert [is_scene(path) for path in (plain, placed, tmp_path / "text.tif")] == [False, True, False]
    monkeypatch.setattr("cyclemlp.data.scenes.MAX_PIXELS", 80)
    assert is_scene(plain)
    monkeypatch.setitem(sys.modules, "rasterio", None)
    assert not is_scene(placed)


def test_what_is_refused(predictor: Predictor, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", colours())
    four = write_scene(tmp_path / "four.tif", np.zeros((40, 40, 4), np.uint8), photometric="MINISBLACK")
    deep = write_scene(tmp_path / "deep.tif", np.zeros((40, 40, 3), np.uint16))
    for path, words in ((four, "4 bands of type uint8"), (deep, "3 bands of type uint16")):
        (failed,) = predict_files(predictor, [path], tmp_path / "out", PredictionOptions()).failed
        assert words in failed["error"]
    for options, words in (
        (PredictionOptions(objects=True), "--vector gpkg"),
        (PredictionOptions(flip=True), "in one view"),
        (PredictionOptions(simplify=1.0), "together with --vector"),
    ):
        with pytest.raises(ConfigError, match=words):
            predict_files(predictor, [scene], tmp_path / "out", options)
    np.save(tmp_path / "array.npy", colours())
    with pytest.raises(ConfigError, match="--vector is for scenes"):
        predict_files(predictor, [tmp_path / "array.npy"], tmp_path / "out", PredictionOptions(vector="gpkg"))
    damaged = tmp_path / "damaged.tif"
    damaged.write_bytes(scene.read_bytes()[:20_000])
    with pytest.raises(DataError, match=r"damaged\.tif"):
        predict_files(predictor, [damaged], tmp_path / "out", PredictionOptions()).raise_failures()


def test_a_band_of_values_that_is_marked_as_transparency_is_refused(predictor: Predictor, tmp_path: Path) -> None:
    """Near infrared, say: the three others alone would be predicted without a word."""
    infrared = np.random.default_rng(0).integers(0, 256, (150, 170, 1), dtype=np.uint8)
    values = np.concatenate([colours(), infrared], axis=2)
    scene = write_scene(tmp_path / "infrared.tif", values, photometric="RGB", alpha="YES")
    (failed,) = predict_files(predictor, [scene], tmp_path / "out", PredictionOptions()).failed
    assert "marked as transparency, but holds values" in failed["error"]
    assert not list((tmp_path / "out").glob(".*.parts"))


@pytest.mark.parametrize("content", [b"II*\0" + b"\xff" * 20, b"II*\0", b"II+\0\x08\0\0\0" + b"\x10" * 30])
def test_a_damaged_beginning_is_one_line(content: bytes, predictor: Predictor, tmp_path: Path) -> None:
    path = tmp_path / "damaged.tif"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"damaged\.tif") as caught:
        predict_files(predictor, [path], tmp_path / "out", PredictionOptions()).raise_failures()
    assert "\n" not in str(caught.value)


def test_a_damaged_number_of_bands_is_refused_before_decoding(predictor: Predictor, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", np.zeros((8, 8, 200), np.uint8), photometric="MINISBLACK")
    (failed,) = predict_files(predictor, [scene], tmp_path / "out", PredictionOptions()).failed
    assert "has 200 bands" in failed["error"]


def test_there_are_no_square_metres_where_coordinates_do_not_measure_them(predictor: Predictor, tmp_path: Path) -> None:
    """Web Mercator stretches lengths by 1 / cos(latitude): areas at 48 degrees would be twice what they are."""
    for crs in ("EPSG:3857", "EPSG:4326"):
        scene = write_scene(tmp_path / "scene.tif", colours(), crs=crs)
        options = PredictionOptions(vector="gpkg")
        (entry,) = predict_files(predictor, [scene], tmp_path / crs[-4:], options).images
        assert "areas_m2" not in entry
        assert "area_m2" not in pyogrio.read_info(entry["polygons"])["fields"]


PAGE = Path(__file__).parents[2] / "docs" / "scenes.md"


@pytest.mark.parametrize(
    "line", re.findall(r"^ {4}(cyclemlp predict RUN .*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
)
def test_the_commands_of_the_page_write_the_files_that_it_names(
    line: str, predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_scene(tmp_path / "scene.tif", colours())
    if "--exact" in line:
        predictor = Predictor.of_model(build_model(CARD).eval(), CARD, device="cpu")
    known = predictor.described_as(replace(CARD, ground_resolution=(10.0, 10.0, 10.0)))
    monkeypatch.setattr(Predictor, "load", lambda *_: known)
    with pytest.raises(SystemExit) as left:
        main(line.split()[1:])
    assert left.value.code in (0, None)
    written = {path.name.replace("scene", "NAME") for path in Path("predicted").iterdir()}
    assert "NAME_mask.tif" in written
    assert all(
        f"`{name}`" in PAGE.read_text(encoding="utf-8").replace("`.geojson`", "`NAME_polygons.geojson`")
        for name in written
    )
