from dataclasses import replace

import pytest
import torch

from cyclemlp.tasks.segmentation.metrics import ConfusionMatrix
from cyclemlp.training.verdict import Outcome, in_words, verdict

LEVEL = [1.0 - step / 1000 for step in range(100)]
GOOD = Outcome(steps=2000, passes=20.0, losses=LEVEL, score=0.8, constant=0.4)


def test_a_whole_run_is_not_doubted() -> None:
    assert verdict(GOOD, "mIoU") == []
    assert in_words([]) == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"score": 0.405}, "mIoU is 0.4050, and 0.4000 needs no network"),
        ({"steps": 20}, "only 20 steps"),
        ({"passes": 0.25}, "only 25 % of the training images"),
        ({"losses": [2.0 * 0.97**step for step in range(100)]}, "still falling: by 46 %"),
    ],
)
def test_each_doubt(change: dict[str, object], words: str) -> None:
    (reason,) = verdict(replace(GOOD, **change), "mIoU")  # type: ignore[arg-type]
    assert words in reason
    assert "\n" not in in_words([reason])


def test_scores_and_losses_may_be_missing() -> None:
    assert verdict(replace(GOOD, score=None, losses=[1.0, 0.1]), "mAP") == []
    assert verdict(replace(GOOD, constant=None), "mAP") == []


def test_the_best_mask_of_one_class_by_hand() -> None:
    """Of 10 pixels 6 are class 1 and 4 class 0; class 2 is absent. All 1: IoU 6/10 and 0, so the mean is 0.3."""
    counts, target = ConfusionMatrix(3), torch.tensor([1] * 6 + [0] * 4)
    counts.update(torch.full_like(target, 1), target)
    assert counts.constant_miou() == pytest.approx(0.3)
    assert counts.metrics(["a", "b", "c"])["mIoU"] == pytest.approx(0.3)
    assert ConfusionMatrix(3).constant_miou() is None
