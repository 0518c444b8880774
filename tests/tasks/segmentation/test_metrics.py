import math

import pytest
import torch
import torch.nn.functional as F

from cyclemlp.errors import ConfigError, DataError
from cyclemlp.tasks.segmentation.metrics import ConfusionMatrix, class_weights_from_counts, segmentation_loss


def counted(prediction: list[int], target: list[int], num_classes: int = 3) -> ConfusionMatrix:
    confusion = ConfusionMatrix(num_classes)
    confusion.update(torch.tensor(prediction, dtype=torch.uint8), torch.tensor(target, dtype=torch.uint8))
    return confusion


def test_scores_of_a_case_worked_by_hand() -> None:
    # pixel:      0  1  2  3  4  5    6
    prediction = [0, 0, 1, 1, 2, 0, 1]
    target = [0, 1, 1, 1, 2, 2, 255]
    # class 0: 1 right, union {0, 1, 5} = 3; class 1: 2 right, union {1, 2, 3}; class 2: 1 right, union {4, 5}
    metrics = counted(prediction, target).metrics(("a", "b", "c"))
    assert metrics["IoU"] == pytest.approx({"a": 1 / 3, "b": 2 / 3, "c": 1 / 2}, rel=1e-15)
    assert metrics["mIoU"] == pytest.approx(0.5, rel=1e-15)
    assert metrics["pixel_accuracy"] == pytest.approx(4 / 6, rel=1e-15)


def test_rows_are_targets_and_columns_predictions() -> None:
    assert counted([1, 1, 0], [0, 0, 2]).counts.tolist() == [[0, 2, 0], [0, 0, 0], [1, 0, 0]]


def test_class_in_neither_is_left_out_of_the_mean() -> None:
    metrics = counted([0, 0, 1], [0, 1, 1]).metrics(("a", "b", "never"))
    assert metrics["IoU"]["never"] is None
    assert metrics["mIoU"] == pytest.approx(0.5)


def test_class_only_predicted_counts_as_zero() -> None:
    metrics = counted([0, 2], [0, 0]).metrics(("a", "b", "c"))
    assert metrics["IoU"] == {"a": 0.5, "b": None, "c": 0.0}
    assert metrics["mIoU"] == pytest.approx(0.25)


def test_nothing_counted_has_no_scores() -> None:
    metrics = counted([0, 1], [255, 255]).metrics(("a", "b", "c"))
    assert metrics == {"mIoU": None, "IoU": {"a": None, "b": None, "c": None}, "pixel_accuracy": None}


def test_merging_equals_counting_at_once() -> None:
    generator = torch.Generator().manual_seed(0)
    prediction = torch.randint(0, 4, (2, 50, 40), generator=generator)
    target = torch.randint(0, 4, (2, 50, 40), generator=generator)
    whole, first, second = ConfusionMatrix(4), ConfusionMatrix(4), ConfusionMatrix(4)
    whole.update(prediction, target)
    first.update(prediction[0], target[0])
    second.update(prediction[1], target[1])
    first.merge(second)
    assert torch.equal(first.counts, whole.counts)
    assert int(whole.counts.sum()) == prediction.numel()


def test_update_leaves_its_arguments_alone() -> None:
    prediction, target = torch.tensor([0, 1]), torch.tensor([1, 1])
    ConfusionMatrix(2).update(prediction, target)
    assert prediction.tolist() == [0, 1]
    assert target.tolist() == [1, 1]


def test_target_outside_the_classes_is_named() -> None:
    with pytest.raises(DataError, match=r"mask value 7 is not a class: allowed are 0 to 2, and 255"):
        counted([0], [7])


def test_prediction_outside_the_classes_is_refused() -> None:
    with pytest.raises(ValueError, match="0 to 2"):
        counted([3], [0])


def test_unequal_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="differ"):
        counted([0, 1], [0])


def test_merging_other_classes_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot merge 2 classes into 3"):
        ConfusionMatrix(3).merge(ConfusionMatrix(2))


def test_names_must_fit_the_classes() -> None:
    with pytest.raises(ValueError, match="2 names for 3 classes"):
        ConfusionMatrix(3).metrics(("a", "b"))


def example() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    target = torch.randint(0, 3, (2, 8, 9), generator=generator)
    target[0, :3] = 255
    return torch.randn(2, 3, 8, 9, generator=generator), target


@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 1.0, 1.5])])
def test_cross_entropy_is_the_weighted_mean(weights: torch.Tensor | None) -> None:
    logits, target = example()
    losses = segmentation_loss(logits, target, weights)
    torch.testing.assert_close(losses["loss"], F.cross_entropy(logits, target, weights, ignore_index=255))
    assert set(losses) == {"loss", "cross_entropy"}


def test_dice_of_a_case_worked_by_hand() -> None:
    # probabilities of class 1: 1/2 everywhere; targets 1, 0, 0 and one ignored pixel
    losses = segmentation_loss(torch.zeros(1, 2, 1, 4), torch.tensor([[[1, 0, 0, 255]]]), dice_weight=2.0)
    # overlap of class 0: 2 * 1 / (1.5 + 2); of class 1: 2 * 0.5 / (1.5 + 1)
    dice = 1 - (2 / 3.5 + 1 / 2.5) / 2
    assert losses["dice"].item() == pytest.approx(dice, rel=1e-6)
    assert losses["loss"].item() == pytest.approx(math.log(2) + 2 * dice, rel=1e-6)


def test_dice_leaves_absent_classes_out() -> None:
    target = torch.tensor([[[0, 1]]])
    logits = torch.zeros(1, 3, 1, 2).scatter_(1, target.unsqueeze(1), 50.0)
    assert segmentation_loss(logits, target, dice_weight=1.0)["dice"].item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 1.0, 1.5])])
def test_nothing_but_ignored_pixels_gives_zero_and_zero_gradients(weights: torch.Tensor | None) -> None:
    logits, target = example()
    logits.requires_grad_()
    loss = segmentation_loss(logits, torch.full_like(target, 255), weights, dice_weight=1.0)["loss"]
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.item() == 0
    assert not gradient.any()


def test_loss_is_computed_in_float32() -> None:
    logits, target = example()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = segmentation_loss(logits.bfloat16(), target, dice_weight=1.0)
    assert {term.dtype for term in losses.values()} == {torch.float32}


def test_class_weights_have_mean_one_and_the_right_ratios() -> None:
    inverse = class_weights_from_counts([400, 100, 100], "inverse")
    torch.testing.assert_close(inverse, torch.tensor([1.0, 4.0, 4.0]) / 3)
    fourth = class_weights_from_counts([1600, 100, 100], "fourth-root-inverse")  # 1/2 to 1 to 1, over their mean
    assert fourth.tolist() == pytest.approx([0.6, 1.2, 1.2])
    root = class_weights_from_counts([400, 100, 100], "sqrt-inverse")
    torch.testing.assert_close(root, torch.tensor([1.0, 2.0, 2.0]) * 3 / 5)
    assert class_weights_from_counts([400, 100], "none").tolist() == [1.0, 1.0]


def test_class_without_pixels_weighs_one() -> None:
    assert class_weights_from_counts([10, 0, 10], "inverse").tolist() == [1.0, 1.0, 1.0]
    assert class_weights_from_counts([0, 0], "inverse").tolist() == [1.0, 1.0]


def test_unknown_class_weight_mode_proposes_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'invers': allowed are none, .*Did you mean 'inverse'\?"):
        class_weights_from_counts([1], "invers")
