"""A detector keeps nothing from one call to the next, so that threads can share it."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from cyclemlp.heads.detection import build_detector
from cyclemlp.heads.detection_options import DetectionHead


@pytest.mark.parametrize("head", ["retinanet", "mask-rcnn"])
def test_two_threads_with_two_sizes(head: str) -> None:
    torch.manual_seed(0)
    options = DetectionHead(head_convs=1, head_norm="group", candidates=50)
    model = build_detector("resnet18", head, 2, head_width=16, options=options).eval()
    images = [torch.rand(1, 3, 64, 96), torch.rand(1, 3, 160, 64)]

    def outputs(image: Tensor) -> list[tuple[Tensor, ...]]:
        with torch.inference_mode():
            return [model(image) for _ in range(8)]

    alone = [outputs(image)[0] for image in images]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(outputs, images))
    for expected, calls in zip(alone, together, strict=True):
        for found in calls:
            for ours, theirs in zip(found, expected, strict=True):
                assert torch.equal(ours, theirs)


def test_the_first_image_does_not_decide_the_scales_of_the_maps() -> None:
    torch.manual_seed(0)
    options = DetectionHead(head_convs=1, head_norm="group", candidates=50)
    model = build_detector("resnet18", "mask-rcnn", 2, head_width=16, options=options).eval()
    image = torch.rand(1, 3, 64, 96)
    after_a_low_one = copy.deepcopy(model)
    with torch.inference_mode():
        after_a_low_one(torch.rand(1, 3, 40, 96))  # padded to 64 rows: a map of 16, nearer to half of 40 than a quarter
        for ours, theirs in zip(model(image), after_a_low_one(image), strict=True):
            assert torch.equal(ours, theirs)
