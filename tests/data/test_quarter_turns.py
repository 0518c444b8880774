"""Samples are turned with their boxes, outlines and masks, by default where images have no up and down."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from geotiffs import write_geotiff
from PIL import Image

from cyclemlp.data.augmentation import BoxAugmentation, MaskAugmentation
from cyclemlp.data.box_transforms import BoxTrainTransform
from cyclemlp.data.directions import has_no_direction
from cyclemlp.data.mask_transforms import MaskTrainTransform
from cyclemlp.data.objects import Record
from cyclemlp.data.outlines import rle_of_mask
from cyclemlp.data.transforms import Normalisation
from cyclemlp.errors import ConfigError
from cyclemlp.tasks.card import ModelCard
from cyclemlp.tasks.classification.band_transform import BandsTrainTransform
from cyclemlp.tasks.classification.config import ClassificationConfig, LabelAugmentation
from cyclemlp.tasks.classification.train import LabelTrainTransform
from cyclemlp.tasks.detection.config import DetectionConfig
from cyclemlp.tasks.quarter_turns import EVENLY, with_quarter_turns
from cyclemlp.tasks.segmentation.config import SegmentationConfig

UNCHANGED = Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
PLAIN: dict[str, Any] = {"scale": (1.0, 1.0), "flip": 0.0, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0}
SEEDS = range(24)


def numbered(height: int, width: int, bands: int = 3) -> np.ndarray:
    """An image in which every pixel has a value of its own."""
    return (np.arange(height * width).reshape(height, width, 1) % 251).astype(np.uint8).repeat(bands, axis=2)


def turns_of(found: np.ndarray, image: np.ndarray) -> int:
    """By how many quarter turns a sample (H, W) is turned; its values are those of the image."""
    (turns,) = [k for k in range(4) if np.array_equal(np.rot90(image, k), found)]
    return turns


@pytest.mark.parametrize(("probability", "expected"), [(None, {0}), (0.0, {0}), (1.0, {1, 2, 3}), (0.75, {0, 1, 2, 3})])
def test_masks_turn_with_their_image(probability: float | None, expected: set[int]) -> None:
    image = numbered(32, 32)
    options = MaskAugmentation(crop_size=32, rare_class_crops=0.0, rotate90=probability, **PLAIN)
    seen = set()
    for seed in SEEDS:
        torch.manual_seed(seed)
        pixels, mask = MaskTrainTransform(options, UNCHANGED)(image, image[..., 0])
        assert torch.equal((pixels[0] * 255).round().long(), mask)
        seen.add(turns_of(mask.numpy(), image[..., 0]))
    assert seen == expected


def test_boxes_outlines_and_ignored_regions_turn_with_their_image() -> None:
    image = numbered(10, 20)
    boxes = np.array([[1, 2, 6, 4], [11, 3, 19, 9]], np.float32)
    masks = [np.zeros((10, 20), np.uint8) for _ in boxes]
    for mask, (left, top, right, bottom) in zip(masks, boxes.astype(int).tolist(), strict=True):
        mask[top:bottom, left:right] = 1
    outlines, areas = tuple(map(rle_of_mask, masks)), np.array([10.0, 48.0])
    record = Record(1, (10, 20), boxes, np.array([3, 1]), np.array([False, True]), areas, outlines)
    options, seen = BoxAugmentation(crop_size=None, rotate90=1.0, **PLAIN), set()
    for seed in SEEDS:
        torch.manual_seed(seed)
        pixels, target = BoxTrainTransform(options, UNCHANGED, masks=True)(image, record)
        turns = turns_of((pixels[0] * 255).round().numpy(), image[..., 0])
        seen.add(turns)
        drawn = [np.rot90(mask, turns) for mask in masks]
        assert np.array_equal(target["masks"][0].numpy(), drawn[0])
        assert target["boxes"].tolist() == [around(drawn[0])]
        assert target["ignored"].tolist() == [around(drawn[1])]
        assert target["labels"].tolist() == [3]
    assert seen == {1, 2, 3}


def around(mask: np.ndarray) -> list[float]:
    rows, columns = np.nonzero(mask)
    return [float(each) for each in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]


@pytest.mark.parametrize("bands", [3, 4])
def test_classifiers_see_turned_images(bands: int) -> None:
    image = np.zeros((32, 32, bands), np.uint8)
    image[:8, 8:24] = 255  # a bar at the top
    options = LabelAugmentation(scale=(1.0, 1.0), flip=0.0, colour_jitter=0.0, rotate90=1.0)
    if bands == 3:
        transform: Any = LabelTrainTransform(32, options, "squash")
    else:
        card = ModelCard("classification", "cyclemlp_nano", "linear", ("a", "b"), image_size=32, crop_pct=1.0)
        card = replace(card, in_chans=bands, mean=(0.5,) * bands, std=(0.5,) * bands)
        transform = BandsTrainTransform(32, options, card, "squash")
    seen = set()
    for seed in SEEDS:
        torch.manual_seed(seed)
        sample, label = transform(image, 1)
        edges = [sample[0, :4].mean(), sample[0, :, :4].mean(), sample[0, -4:].mean(), sample[0, :, -4:].mean()]
        seen.add(int(torch.stack(edges).argmax()))
        assert int(label) == 1
    assert seen == {1, 2, 3}  # left, bottom and right, after as many quarter turns to the left


@pytest.mark.parametrize("options", [MaskAugmentation, BoxAugmentation, LabelAugmentation])
def test_probability(options: Any) -> None:
    with pytest.raises(ConfigError, match=r"--rotate90 1\.5 is not allowed: from 0 to 1"):
        options(rotate90=1.5)


def test_what_has_no_direction(tmp_path: Path) -> None:
    values = numbered(8, 9)
    tifffile.imwrite(tmp_path / "fiji.tif", values[..., 0], imagej=True)
    tifffile.imwrite(tmp_path / "cells.ome.tif", values[..., 0], ome=True)
    tifffile.imwrite(tmp_path / "plain.tif", values, photometric="rgb")
    Image.fromarray(values).save(tmp_path / "photo.tiff")
    Image.fromarray(values).save(tmp_path / "photo.png")
    Image.fromarray(values).save(tmp_path / "called.png", format="TIFF")
    (tmp_path / "damaged.tif").write_bytes((tmp_path / "plain.tif").read_bytes()[:20])
    (tmp_path / "empty.tif").touch()
    found = {path.name for path in tmp_path.iterdir() if has_no_direction(path)}
    assert found == {"fiji.tif", "cells.ome.tif"}
    assert not has_no_direction(tmp_path / "missing.tif")


def test_scenes_have_no_direction(tmp_path: Path) -> None:
    pytest.importorskip("rasterio", reason="rasterio is not installed")
    assert has_no_direction(write_geotiff(tmp_path / "scene.tif", numbered(8, 9)))


def test_the_default_is_chosen_from_the_training_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cells, photo = [tmp_path / f"{number}.tif" for number in range(2)], tmp_path / "photo.png"
    for path in cells:
        tifffile.imwrite(path, numbered(8, 9)[..., 0], imagej=True)
    Image.fromarray(numbered(8, 9)).save(photo)
    caplog.set_level(logging.INFO)

    def chosen(config: Any, images: list[Path]) -> Any:
        caplog.clear()
        return with_quarter_turns(config, images).augmentation.rotate90

    for kind in (SegmentationConfig, DetectionConfig, ClassificationConfig):
        assert chosen(kind(data=tmp_path), cells) == EVENLY
        assert caplog.messages == [
            "training images are scenes or of microscopes, so samples are turned by 90, 180 and 270 degrees, too:"
            " --rotate90 0.75 (0 turns none)"
        ]
    config = SegmentationConfig(data=tmp_path)
    assert (chosen(config, [photo]), caplog.messages) == (0.0, [])
    assert chosen(config, [*cells, photo]) == 0.0
    assert caplog.messages == [
        "2 of 3 training images are scenes or of microscopes, the others may be photographs: samples are not turned by"
        " 90 degrees; --rotate90 0.75 turns them"
    ]
    assert chosen(replace(config, resume=True), cells) == 0.0
    given = replace(config, augmentation=MaskAugmentation(rotate90=0.25))
    assert (chosen(given, [photo]), caplog.messages) == (0.25, [])
