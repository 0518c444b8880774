"""What a classifier minimises: mixed labels, and the distance from a teacher."""

import random
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclemlp.errors import ConfigError
from cyclemlp.tasks.card import ModelCard, build_model, save_model
from cyclemlp.tasks.classification.config import (
    ClassificationConfig,
    ClassificationOptimisation,
    LabelAugmentation,
    LabelLoss,
)
from cyclemlp.tasks.classification.metrics import distillation_loss
from cyclemlp.tasks.classification.teacher import Teacher, load_teacher
from cyclemlp.tasks.classification.train import LabelLoss as LossOfRun

CLASSES = 4
LABELS = torch.arange(CLASSES)
# Image k is k everywhere, so whatever is mixed into it can be read off.
IMAGES = LABELS[:, None, None, None].float().expand(-1, 3, 16, 16).contiguous()


class Seeing(nn.Module):
    """Keeps the images it was given; its logits depend on them alone."""

    def forward(self, images: Tensor) -> Tensor:
        self.images = images
        return images.mean((1, 2, 3))[:, None] * torch.tensor([0.5, -1.0, 0.25, 2.0])


def loss_of(augmentation: LabelAugmentation, smoothing: float = 0.1) -> LossOfRun:
    config = ClassificationConfig(data=Path("d"), augmentation=augmentation, loss=LabelLoss(label_smoothing=smoothing))
    return LossOfRun(config, CLASSES)


def expected(logits: Tensor, own_share: float, smoothing: float) -> Tensor:
    """Cross entropy by its definition: image k goes with image 3 - k."""
    smooth = F.one_hot(LABELS, CLASSES) * (1 - smoothing) + smoothing / CLASSES
    shares = own_share * smooth + (1 - own_share) * smooth.flip(0)
    return -(shares * logits.log_softmax(1)).sum(1).mean()


def own_share(images: Tensor) -> float:
    """The share of the first image, 0 everywhere, in its mixture with the last one."""
    return 1 - float(images[0].mean()) / (CLASSES - 1)


@pytest.mark.parametrize("seed", range(4))
def test_mixup_blends_images_and_labels_alike(seed: int) -> None:
    torch.manual_seed(seed)
    model = Seeing()
    loss = loss_of(LabelAugmentation(mixup=0.8))(model, IMAGES.clone(), LABELS)["loss"]
    assert all(float(image.std()) == pytest.approx(0, abs=1e-6) for image in model.images)
    share = own_share(model.images)
    assert 0 < share < 1
    torch.testing.assert_close(loss, expected(model(model.images), share, 0.1))


@pytest.mark.parametrize("seed", range(4))
def test_cutmix_pastes_and_weighs_labels_by_area(seed: int) -> None:
    torch.manual_seed(seed)
    model = Seeing()
    loss = loss_of(LabelAugmentation(cutmix=1.0), smoothing=0.0)(model, IMAGES.clone(), LABELS)["loss"]
    assert set(model.images[0].flatten().tolist()) <= {0.0, 3.0}
    torch.testing.assert_close(loss, expected(model(model.images), own_share(model.images), 0.0))


def test_mixing_follows_from_torch_s_seed_alone() -> None:
    seen = []
    for other in (1, 2):
        random.seed(other)
        torch.manual_seed(5)
        model = Seeing()
        loss_of(LabelAugmentation(mixup=0.8, cutmix=1.0))(model, IMAGES.clone(), LABELS)
        seen.append(model.images)
    assert torch.equal(*seen)


def test_a_batch_that_cannot_be_paired_is_refused() -> None:
    with pytest.raises(ConfigError) as refused:
        ClassificationConfig(
            data=Path("d"),
            augmentation=LabelAugmentation(mixup=0.8),
            optimisation=ClassificationOptimisation(batch_size=3),
        )
    assert str(refused.value) == "--batch-size 3: --mixup and --cutmix pair the images of a batch; give an even number"


def test_distance_from_the_teacher_is_the_divergence_by_its_definition() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 5, CLASSES)
    p, q = (teacher / 3).softmax(1), (student / 3).softmax(1)
    wanted = 9 * (p * (p / q).log()).sum(1).mean()
    torch.testing.assert_close(distillation_loss(student, teacher, 3.0), wanted)
    assert float(distillation_loss(teacher, teacher, 3.0)) == pytest.approx(0, abs=1e-6)


def card_of(classes: tuple[str, ...] = ("a", "b", "c", "d"), mean: float = 0.5, std: float = 0.25) -> ModelCard:
    return ModelCard(
        task="classification",
        model="cyclemlp_nano",
        head="linear",
        classes=classes,
        mean=(mean, mean, mean),
        std=(std, std, std),
        image_size=32,
        crop_pct=1.0,
    )


def test_a_teacher_has_its_share_of_the_loss_and_sees_images_its_own_way() -> None:
    own = Seeing()
    teacher = Teacher(own, card_of(mean=0.25, std=0.5), card_of())
    config = ClassificationConfig(data=Path("d"), loss=LabelLoss(label_smoothing=0.0, teacher_weight=0.25))
    terms = LossOfRun(config, CLASSES, teacher)(Seeing(), IMAGES, LABELS)
    torch.testing.assert_close(own.images, (IMAGES * 0.25 + 0.5 - 0.25) / 0.5)
    torch.testing.assert_close(terms["loss"], 0.75 * terms["cross_entropy"] + 0.25 * terms["distillation"])


def test_a_run_teaches(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build_model(card_of()).eval()
    save_model(tmp_path, model, card_of())
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(load_teacher(str(tmp_path), card_of())(images), model(images))
    with pytest.raises(ConfigError, match=r"does classification of 4 classes, the new run classification of 2: train"):
        load_teacher(str(tmp_path), card_of(("a", "b")))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet17", "--teacher resnet17 is no run folder, no file and no timm model"),
        ("mixer_s32_224", "--teacher mixer_s32_224: there are no weights for it; give a run folder, or another name"),
        ("resnet18", "--teacher resnet18 knows 1000 classes, the data has 4: fine-tune it on this data first"),
    ],
)
def test_teachers_that_are_none(name: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_teacher(name, card_of())
    assert str(refused.value).startswith(message)


def test_a_teacher_is_not_replaced_by_its_student(tmp_path: Path) -> None:
    loss = LabelLoss(teacher=str(tmp_path / "run" / "model.safetensors"))
    with pytest.raises(ConfigError, match="is the run that --overwrite replaces"):
        ClassificationConfig(data=tmp_path, out=tmp_path / "other" / ".." / "run", overwrite=True, loss=loss)
    ClassificationConfig(data=tmp_path, out=tmp_path / "run2", overwrite=True, loss=loss)
