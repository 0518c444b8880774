"""Looks at parts, at other sizes and in the mirror find what one look at the whole image finds.

The network is a function that knows the answer: it finds bright squares on black and gives their boxes and shapes.
"""

import numpy as np
import numpy.typing as npt
import pytest
from square_finder import SquareFinder, card, drawn_squares

from cyclemlp.data.measured_images import MeasuredImage
from cyclemlp.heads.detection_options import DetectionHead
from cyclemlp.heads.network import Network
from cyclemlp.inference import network_image
from cyclemlp.inference.network_image import ImageThroughNetwork, WindowRule
from cyclemlp.inference.views import Views
from cyclemlp.tasks.card import ModelCard
from cyclemlp.tasks.detection.decoding import Detections, detect
from cyclemlp.tasks.detection.predict import DetectionResult, find_objects, merged
from cyclemlp.tasks.looks import Look

Image = npt.NDArray[np.uint8]


def detect_in_views(network: Network, described: ModelCard, image: Image, views: Views) -> Detections:
    return find_objects(ImageThroughNetwork(network, described, MeasuredImage(image), views)).detections


def looks(described: ModelCard, height: int, width: int) -> list[Look]:
    image = MeasuredImage(np.zeros((height, width, 3), dtype=np.uint8))
    return ImageThroughNetwork(SquareFinder(), described, image, Views()).looks()[0]


def assert_same(ours: Detections, theirs: Detections) -> None:
    assert len(ours.scores) == len(theirs.scores) > 10
    for found in (ours, theirs):
        assert found.mask_probabilities is not None
    a, b = (np.lexsort((*found.boxes_xyxy.T, -found.scores)) for found in (ours, theirs))
    np.testing.assert_allclose(ours.boxes_xyxy[a], theirs.boxes_xyxy[b], atol=1e-3)
    np.testing.assert_array_equal(ours.labels[a], theirs.labels[b])
    np.testing.assert_allclose(ours.scores[a], theirs.scores[b], atol=1e-6)
    np.testing.assert_array_equal(ours.select(a).mask_probabilities, theirs.select(b).mask_probabilities)


@pytest.mark.parametrize("size", [(150, 230), (64, 300), (63, 65), (200, 40)])
@pytest.mark.parametrize("seed", [0, 1])
def test_windows_find_what_one_look_finds(size: tuple[int, int], seed: int) -> None:
    image = drawn_squares(*size, most=8, seed=seed)  # overlap 16, less 2 margins of 4
    whole = detect(SquareFinder(), card(), image)
    assert_same(detect_in_views(SquareFinder(), card(window=64), image, Views()), whole)


@pytest.mark.parametrize("views", [Views((1.0,), flip=True), Views((2.0,)), Views((1.0, 2.0), flip=True)])
@pytest.mark.parametrize("window", [None, 64])
def test_views_together_find_what_one_look_finds(views: Views, window: int | None) -> None:
    image = drawn_squares(96, 150, most=6)
    # Enlarged edges are soft: only at a low limit of overlap are boxes that differ by a pixel merged into one.
    found = detect_in_views(SquareFinder(), card(window, nms=0.2), image, views)
    whole = detect(SquareFinder(), card(), image)
    assert len(found.scores) == len(whole.scores)
    np.testing.assert_allclose(np.sort(found.scores), np.sort(whole.scores), atol=0.05)
    order = [int(np.abs(found.boxes_xyxy - box).sum(1).argmin()) for box in whole.boxes_xyxy]
    assert sorted(order) == list(range(len(order)))
    np.testing.assert_allclose(found.boxes_xyxy[order], whole.boxes_xyxy, atol=1.01)
    np.testing.assert_array_equal(found.labels[order], whole.labels)


def test_what_the_mirror_shows_is_turned_back() -> None:
    image = np.zeros((40, 64, 3), dtype=np.uint8)
    image[10:30, 4:24] = 255
    found = detect_in_views(SquareFinder(), card(), image, Views((1.0,), flip=True))
    # The finder sees the left half in both looks; of the two equal boxes the first stays, the plain one.
    np.testing.assert_array_equal(found.boxes_xyxy, [[4, 10, 24, 30]])
    mirrored = detect(SquareFinder(), card(), image[:, ::-1]).mirrored(64)
    np.testing.assert_array_equal(mirrored.boxes_xyxy, found.boxes_xyxy)
    ours, theirs = (DetectionResult(each, ("grey", "white"), image).mask(0) for each in (found, mirrored))
    assert ours[10:30, 4:14].all()
    assert theirs[10:30, 14:24].all()
    assert ours.sum() == theirs.sum() == 200


def test_one_look_is_plain_detection_bit_for_bit() -> None:
    image = drawn_squares(100, 140, most=12)
    ours = detect_in_views(SquareFinder(), card(input_scale=1.3), image, Views())
    theirs = detect(SquareFinder(), card(input_scale=1.3), image)
    np.testing.assert_array_equal(ours.boxes_xyxy, theirs.boxes_xyxy)
    np.testing.assert_array_equal(ours.scores, theirs.scores)


@pytest.mark.parametrize("short_side", [None, 100])
def test_only_images_that_are_large_for_the_network_go_through_windows(
    monkeypatch: pytest.MonkeyPatch, short_side: int | None
) -> None:
    monkeypatch.setattr(network_image, "MAX_WHOLE_PIXELS", 100 * 150)
    monkeypatch.setattr(network_image, "OBJECT_WINDOWS", WindowRule(64, None))
    finder = SquareFinder()
    described = ModelCard(**{**vars(card()), "short_side": short_side})
    detect_in_views(finder, described, drawn_squares(150, 225), Views())
    assert finder.largest == (64 * 64 if short_side is None else 100 * 150)


def test_windows_of_an_image_that_the_network_sees_enlarged() -> None:
    (first, second, *_) = looks(card(window=64, input_scale=2.0), 30, 100)
    assert (first.rows.start, first.rows.stop, first.columns.start, first.columns.stop) == (0, 30, 0, 32)
    assert second.columns.start <= 32 - 8  # a fourth of the window, in pixels of the image
    assert first.columns.seen_after == second.columns.start
    assert second.columns.seen_before == first.columns.stop


def test_an_object_larger_than_the_overlap_stays_in_pieces_and_a_look_at_the_whole_replaces_them() -> None:
    image = np.zeros((64, 200, 3), dtype=np.uint8)
    image[20:40, 30:170] = 255
    pieces = detect_in_views(SquareFinder(), card(window=64), image, Views())
    assert len(pieces.scores) > 1
    both = detect_in_views(SquareFinder(), card(window=64), image, Views((0.25, 1.0)))
    np.testing.assert_allclose(both.boxes_xyxy, [[30, 20, 170, 40]], atol=4)


def test_a_piece_gives_way_only_to_a_whole_object_of_its_class() -> None:
    boxes = np.array([[0, 0, 100, 50], [60, 0, 98, 50], [60, 0, 99, 50], [0, 60, 9, 69]], dtype=np.float32)
    scores, labels = np.array([0.5, 0.9, 0.8, 0.7], dtype=np.float32), np.array([0, 0, 1, 0])
    found = merged(Detections(boxes, scores, labels), np.array([False, True, True, True]), 0.5, 10)
    np.testing.assert_array_equal(found.boxes_xyxy, boxes[[2, 3, 0]])
    assert merged(Detections(boxes, scores, labels), np.zeros(4, dtype=bool), 0.5, 2).scores.tolist() == [
        pytest.approx(0.9),
        pytest.approx(0.8),
    ]


def test_the_card_limits_what_each_window_gives() -> None:
    image = drawn_squares(150, 230, most=8)
    every = len(detect(SquareFinder(), card(), image).scores)
    described = ModelCard(**{**vars(card(window=64)), "detection": DetectionHead(detections=2)})
    count = len(looks(described, 150, 230))
    assert len(detect_in_views(SquareFinder(), described, image, Views()).scores) == min(every, 2 * count)


def test_masks_of_a_large_image_are_made_where_the_objects_are() -> None:
    image = np.zeros((3000, 3000, 3), dtype=np.uint8)
    image[2000:2010, 2500:2520] = 255
    found = detect_in_views(SquareFinder(), card(window=512), image, Views())
    result = DetectionResult(found, ("grey", "white"), image)
    assert result.patch(0).bitmap.shape == (10, 20)
    assert result.to_dict()["objects"][0]["area"] == 100
    painted = np.array(result.draw(scores=False))
    assert (painted[2003:2008, 2503:2508] != 255).any()
