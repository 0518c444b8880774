from dataclasses import replace

import pytest

from benchmarks.heads import BACKBONE, NETWORK, SIZES, TARGET, Step, multiply_adds, step_cases
from cyclemlp.heads.widths import PAPER_WIDTHS, default_width


@pytest.mark.parametrize("task", SIZES)
def test_a_network_costs_little_more_than_its_backbone(task: str) -> None:
    counts = multiply_adds(Step(task, "cyclemlp_nano", SIZES[task], batch=1))
    assert counts[f"{BACKBONE}_multiply_adds"] <= counts[f"{NETWORK}_multiply_adds"]
    assert counts[f"{NETWORK}_multiply_adds"] <= TARGET * counts[f"{BACKBONE}_multiply_adds"]


def test_the_papers_width_is_counted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the check above can fail."""
    monkeypatch.setattr("cyclemlp.heads.widths.default_width", lambda _, head: PAPER_WIDTHS[head])
    counts = multiply_adds(Step("segmentation", "cyclemlp_nano", 64, batch=1))
    assert counts["head_width"] == 256
    assert counts[f"{NETWORK}_multiply_adds"] > 5 * counts[f"{BACKBONE}_multiply_adds"]


def test_both_steps_leave_gradients() -> None:
    for case in step_cases(replace(Step("detection", "cyclemlp_nano", 64, 1))).values():
        case()


@pytest.mark.parametrize(
    ("backbone", "head", "width"),
    [
        ("cyclemlp_nano", "semantic-fpn", 64),
        ("cyclemlp_nano", "mask-rcnn", 48),
        ("cyclemlp_b1", "retinanet", 128),
        ("cyclemlp_b5", "upernet", 144),
        ("resnet18", "semantic-fpn", 128),
        ("resnet50", "semantic-fpn", 256),
    ],
)
def test_width_follows_the_backbone(backbone: str, head: str, width: int) -> None:
    assert default_width(backbone, head) == width
