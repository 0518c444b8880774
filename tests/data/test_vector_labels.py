"""Areas on a map become the masks that a naive loop draws, or are refused by name."""

import json
import re
import sys
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from rasterio.warp import transform

from cyclemlp.data.fingerprint import labels_digest
from cyclemlp.data.formats.registry import find_dataset
from cyclemlp.data.inspect import inspect_dataset
from cyclemlp.data.masks import MaskDataset
from cyclemlp.data.problems import DataRequest
from cyclemlp.errors import MissingExtraError

LEFT, TOP, METRES, SIZE = 500000.0, 5000000.0, 2.0, (40, 50)
Area = tuple[tuple[float, float, float, float], Any]
"""(left, top, right, bottom) in pixels of the scene, and the class."""
AREAS: list[Area] = [((5, 5, 20, 15), "house"), ((30, 10, 45, 35), "water")]


def scene(path: Path, crs: str | None = "EPSG:32633") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"height": SIZE[0], "width": SIZE[1], "count": 1, "dtype": "uint8"}
    if crs:
        options |= {"crs": crs, "transform": rasterio.Affine(METRES, 0, LEFT, 0, -METRES, TOP)}
    else:
        options["transform"] = rasterio.Affine(2, 0, 0, 0, -2, 0)
    with rasterio.open(path, "w", driver="GTiff", **options) as file:
        file.write(np.arange(2000, dtype=np.uint8).reshape(1, *SIZE))


def corners(area: tuple[float, float, float, float], crs: str) -> list[tuple[float, float]]:
    left, top, right, bottom = area
    columns, rows = [left, right, right, left, left], [top, top, bottom, bottom, top]
    xs, ys = [LEFT + METRES * column for column in columns], [TOP - METRES * row for row in rows]
    return list(zip(*transform("EPSG:32633", crs, xs, ys), strict=True))


def write(path: Path, areas: Iterable[Area] = AREAS, crs: str = "EPSG:4326", field: str = "class") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    areas = list(areas)
    shapes = np.array([shapely.Polygon(corners(box, crs)) for box, _ in areas], object)
    fields = [field] if field else []
    values = [np.array([value for _, value in areas])] if field else []
    pyogrio.raw.write(path, shapely.to_wkb(shapes), values, fields, geometry_type="Polygon", crs=crs, layer=path.stem)


def expected(areas: Iterable[Area], numbers: dict[Any, int]) -> np.ndarray[Any, Any]:
    target = np.zeros(SIZE, np.uint8)
    for (left, top, right, bottom), name in areas:
        for row in range(SIZE[0]):
            for column in range(SIZE[1]):
                if left < column + 0.5 < right and top < row + 0.5 < bottom:
                    target[row, column] = numbers[name]
    return target


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        scene(tmp_path / f"d/images/{split}/a.tif")
        write(tmp_path / f"d/masks/{split}/a.geojson")
    return tmp_path / "d"


def refusal(root: Path, request: DataRequest | None = None) -> str:
    report = inspect_dataset(root, request or DataRequest())
    assert report.problems
    return "\n".join(map(str, report.problems))


@pytest.mark.parametrize("suffix", [".geojson", ".gpkg", ".shp"])
@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:32633"])
def test_every_file_and_coordinate_system(root: Path, suffix: str, crs: str) -> None:
    for split in ("train", "val"):
        (root / f"masks/{split}/a.geojson").unlink()
        write(root / f"masks/{split}/a{suffix}", crs="EPSG:4326" if suffix == ".geojson" else crs)
    dataset = find_dataset(root, MaskDataset)
    assert (dataset.classes, dataset.named) == (("background", "house", "water"), True)
    target = dataset.splits["val"].target(0)
    np.testing.assert_array_equal(target, expected(AREAS, {"house": 1, "water": 2}))
    report = inspect_dataset(root)
    assert report.problems == ()
    assert [
        note.split for note in report.notes if "of train on the ground" not in note.what
    ] == []  # one place for both
    assert report.splits["val"].of_class == {"background": 2000 - 525, "house": 150, "water": 375}


def test_areas_next_to_their_images(tmp_path: Path) -> None:
    for split in ("train", "val"):
        scene(tmp_path / split / "a.tif")
        write(tmp_path / split / "a.geojson")
    assert find_dataset(tmp_path, MaskDataset).splits["val"].masks == (tmp_path / "val/a.geojson",)


def test_one_file_for_several_scenes_by_a_list_of_pairs(root: Path) -> None:
    write(root / "all.gpkg", [AREAS[0]])
    rows = [f"images/{split}/a.tif,all.gpkg,{split}" for split in ("train", "val")]
    (root / "pairs.csv").write_text("\n".join(["image,mask,split", *rows]))
    dataset = find_dataset(root, MaskDataset)
    assert dataset.classes == ("background", "house")
    np.testing.assert_array_equal(dataset.splits["train"].target(0), expected([AREAS[0]], {"house": 1}))


def test_a_class_has_one_number_in_all_splits(root: Path) -> None:
    """Also where a split lacks classes, and in an evaluation of that split alone."""
    write(root / "masks/val/a.geojson", [AREAS[1]])
    dataset = find_dataset(root, MaskDataset)
    assert dataset.splits["val"].target(0).max() == 2
    request = DataRequest("val", classes=("background", "boat", "house", "water"))
    assert find_dataset(root, MaskDataset, request).splits["val"].target(0).max() == 3


def test_classes_txt_orders_and_limits_the_classes(root: Path) -> None:
    (root / "classes.txt").write_text("water\nbackground\nhouse\n")
    target = find_dataset(root, MaskDataset).splits["val"].target(0)
    assert (target[0, 0], target[6, 6], target[20, 40]) == (1, 2, 0)
    (root / "classes.txt").write_text("background\nwater\n")
    assert "a.geojson has 1 objects of 'house', which is no class; correct them; the classes are backgr" in refusal(
        root
    )
    (root / "classes.txt").write_text("house\nwater\n")
    assert "classes.txt names no class 'background', which pixels outside of all objects have; add it" in refusal(root)


def test_numbers_are_names_in_their_order_and_void_is_ignored(root: Path) -> None:
    areas: list[Area] = [((5, 5, 9, 9), 10), ((15, 5, 19, 9), 2)]
    for split in ("train", "val"):
        write(root / f"masks/{split}/a.geojson", areas, field="DN")
    request = DataRequest(label_field="DN")
    dataset = find_dataset(root, MaskDataset, request)
    assert dataset.classes == ("background", "2", "10")
    np.testing.assert_array_equal(dataset.splits["val"].target(0), expected(areas, {2: 1, 10: 2}))
    write(root / "masks/val/a.geojson", [((5, 5, 9, 9), "Void"), ((15, 5, 19, 9), "2")], field="DN")
    assert np.unique(find_dataset(root, MaskDataset, request).splits["val"].target(0)).tolist() == [0, 1, 255]


def test_the_background_may_be_drawn(root: Path) -> None:
    write(root / "masks/val/a.geojson", [*AREAS, ((30, 10, 45, 20), "Background")])
    dataset = find_dataset(root, MaskDataset)
    assert dataset.classes == ("background", "house", "water")
    np.testing.assert_array_equal(
        dataset.splits["val"].target(0),
        expected([*AREAS, ((30, 10, 45, 20), "background")], {"house": 1, "water": 2, "background": 0}),
    )


def test_a_scene_that_is_turned(root: Path) -> None:
    """Its pixels are no north-up grid; the centre of each still decides."""
    turned = rasterio.Affine.translation(LEFT, TOP) @ rasterio.Affine.rotation(30) @ rasterio.Affine.scale(2, -2)
    with rasterio.open(root / "images/val/a.tif", "r+") as file:
        file.transform = turned
    box = (30.0, -15.0, 40.0, -5.0)  # in pixels of the scene that is north-up: above its first corner
    corner = turned @ (0, 0)
    write(root / "masks/val/a.geojson", [(box, "house")])
    target = find_dataset(root, MaskDataset).splits["val"].target(0)
    inside = np.zeros(SIZE, np.uint8)
    for row in range(SIZE[0]):
        for column in range(SIZE[1]):
            x, y = turned @ (column + 0.5, row + 0.5)
            place = (x - corner[0]) / METRES, (corner[1] - y) / METRES
            inside[row, column] = box[0] < place[0] < box[2] and box[1] < place[1] < box[3]
    assert inside.sum() == 100
    np.testing.assert_array_equal(target, inside)


def test_the_property_that_names_classes(root: Path) -> None:
    for split in ("train", "val"):
        write(root / f"masks/{split}/a.geojson", field="kind")
    assert "a.geojson has the properties kind; say which names the class with --label-field, or that all" in refusal(
        root
    )
    assert find_dataset(root, MaskDataset, DataRequest(label_field="kind")).classes == ("background", "house", "water")
    assert find_dataset(root, MaskDataset, DataRequest(label_field="none")).classes == ("background", "object")
    message = "has no property 'kid', but kind; give one of these as --label-field. Did you mean 'kind'?"
    assert message in refusal(root, DataRequest(label_field="kid"))
    one, other = (find_dataset(root, MaskDataset, DataRequest(label_field=name)) for name in ("kind", "none"))
    assert labels_digest(one, ("val",)) != labels_digest(other, ("val",))


def test_areas_without_properties_are_one_class(root: Path) -> None:
    for split in ("train", "val"):
        write(root / f"masks/{split}/a.geojson", field="")
    assert find_dataset(root, MaskDataset).classes == ("background", "object")


def test_a_scene_without_objects(root: Path) -> None:
    (root / "masks/val/a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": []}))
    assert inspect_dataset(root).problems == ()
    assert find_dataset(root, MaskDataset).splits["val"].target(0).max() == 0


def test_objects_outside_and_on_top_of_each_other_are_noted(root: Path) -> None:
    write(root / "masks/val/a.geojson", [*AREAS, ((90, 90, 99, 99), "house"), ((40, 10, 50, 20), "house")])
    report = inspect_dataset(root)
    notes = "\n".join(map(str, report.notes))
    assert report.problems == ()
    assert "a.geojson has 1 of 4 objects outside of its image a.tif; they are left out" in notes
    assert "has objects of different classes that overlap in 50 pixels; the last in the file counts" in notes
    assert find_dataset(root, MaskDataset).splits["val"].target(0)[12, 42] == 1


def test_labels_of_another_place_are_refused(root: Path) -> None:
    write(root / "masks/val/a.geojson", [((90, 90, 99, 99), "house")])
    assert "val/a.geojson has 1 objects, none of them on its image a.tif; give the labels of this place" in refusal(
        root
    )


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        ({"type": "Point", "coordinates": [15, 45]}, "has objects that are Point, not areas; draw areas, such as"),
        ({"type": "LineString", "coordinates": [[15, 45], [16, 45]]}, "has objects that are LineString, not areas"),
    ],
)
def test_objects_that_are_no_areas(root: Path, feature: dict[str, Any], message: str) -> None:
    entry = {"type": "Feature", "properties": {"class": "house"}, "geometry": feature}
    text = json.dumps({"type": "FeatureCollection", "features": [entry]})
    (root / "masks/val/a.geojson").write_text(text)
    assert message in refusal(root)


def test_an_object_without_its_class(root: Path) -> None:
    path = root / "masks/val/a.geojson"
    path.write_text(path.read_text().replace('"house"', "null"))
    assert "a.geojson has 1 objects without a value of class; give each its class" in refusal(root)


def test_files_that_are_no_vector_files(root: Path) -> None:
    (root / "masks/val/a.geojson").write_text("{")
    assert re.search(r"a\.geojson is damaged or incomplete \(", refusal(root))


@pytest.mark.parametrize("suffix", [".geojson", ".gpkg", ".shp"])
def test_a_text_that_names_another_file_opens_nothing(root: Path, suffix: str) -> None:
    write(root / "elsewhere.geojson")
    source = f"<SrcDataSource>{root / 'elsewhere.geojson'}</SrcDataSource><SrcLayer>elsewhere</SrcLayer>"
    text = f'<OGRVRTDataSource><OGRVRTLayer name="a">{source}</OGRVRTLayer></OGRVRTDataSource>'
    (root / "masks/val/a.geojson").unlink()
    (root / f"masks/val/a{suffix}").write_text(text)
    assert re.search(rf"a\{suffix} does not begin as a \w+ file does; save it as one", refusal(root))


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (
            [[15, 45], [16, 45], [16, 46]],
            "a.geojson is damaged or incomplete (IllegalArgumentException: Points of Linear",
        ),
        (
            [[100, 100], [200, 100], [200, 200], [100, 100]],
            "a.geojson has coordinates that do not exist in its EPSG:4326",
        ),
    ],
)
def test_areas_that_cannot_be(root: Path, points: list[list[float]], message: str) -> None:
    geometry = {"type": "Polygon", "coordinates": [points]}
    entry = {"type": "Feature", "properties": {"class": "house"}, "geometry": geometry}
    (root / "masks/val/a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [entry]}))
    assert message in refusal(root)


def test_an_image_without_a_place(root: Path) -> None:
    scene(root / "images/val/a.tif", crs=None)
    assert "a.tif does not say where it lies, so that the areas in a.geojson have no place on it; give it" in refusal(
        root
    )


def test_a_shapefile_without_its_coordinate_system(root: Path) -> None:
    (root / "masks/val/a.geojson").unlink()
    write(root / "masks/val/a.shp")
    (root / "masks/val/a.prj").unlink()
    assert "a.shp has no coordinate reference system; add it: a .prj next to a Shapefile" in refusal(root)


def test_the_attributes_of_a_shapefile_are_among_its_labels(root: Path) -> None:
    digests = set()
    for areas in (AREAS, [(box, "water") for box, _ in AREAS]):
        for split in ("train", "val"):
            (root / f"masks/{split}/a.geojson").unlink(missing_ok=True)
            write(root / f"masks/{split}/a.shp", areas)
        (root / "classes.txt").write_text("background\nhouse\nwater\n")
        digests.add(labels_digest(find_dataset(root, MaskDataset), ("train",)))
    assert len(digests) == 2


def test_the_extra_that_reads_them_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyogrio", None)
    with pytest.raises(MissingExtraError, match=r"needs pyogrio, which is not installed: pip install .cyclemlp\[geo\]"):
        find_dataset(root, MaskDataset)


def test_several_layers(root: Path) -> None:
    (root / "masks/val/a.geojson").unlink()
    path = root / "masks/val/a.gpkg"
    write(path)
    shapes = shapely.to_wkb(np.array([shapely.box(15, 45, 16, 46)]))
    pyogrio.raw.write(path, shapes, [], [], geometry_type="Polygon", crs="EPSG:4326", layer="more", append=True)
    assert "a.gpkg has 2 layers of areas (a, more); save the one that holds the classes" in refusal(root)


def test_areas_and_images_of_classes_do_not_mix(root: Path) -> None:
    (root / "masks/val/a.geojson").unlink()
    scene(root / "masks/val/a.tif")
    assert "a.geojson holds areas, but" in refusal(root)


def test_the_option_is_for_areas_alone(root: Path) -> None:
    for split in ("train", "val"):
        (root / f"masks/{split}/a.geojson").unlink()
        scene(root / f"masks/{split}/a.tif")
    assert "has no areas on a map, which --label-field is for; leave it out" in refusal(
        root, DataRequest(label_field="x")
    )


def test_a_name_in_two_unicode_forms_is_one_class(root: Path) -> None:
    for split, name in (("train", "for\u00eat"), ("val", unicodedata.normalize("NFD", "for\u00eat"))):
        write(root / f"masks/{split}/a.geojson", [(AREAS[0][0], name)])
    report = inspect_dataset(root)
    assert report.dataset.classes == ("background", "for\u00eat")
    assert report.splits["val"].of_class["for\u00eat"] == 150
