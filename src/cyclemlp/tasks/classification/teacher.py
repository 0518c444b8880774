"""The network from which a student learns in addition to the labels."""

from dataclasses import replace
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from cyclemlp.errors import ConfigError
from cyclemlp.models.classifiers import check_image_size, create_classifier
from cyclemlp.tasks.aside import settle
from cyclemlp.tasks.card import ModelCard, load_model


class Teacher:
    """A trained classifier on images normalised for the student, kept out of the student's checkpoints."""

    def __init__(self, model: nn.Module, own: ModelCard, student: ModelCard) -> None:
        self._model = model.eval().requires_grad_(False)
        mean, std, their_mean, their_std = (
            torch.tensor(values)[:, None, None] for values in (own.mean, own.std, student.mean, student.std)
        )
        self._scale, self._shift = their_std / std, (their_mean - mean) / std

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Logits (N, K) of images (N, 3, H, W) normalised as the student's card says."""
        device = images.device
        model = self._model.to(device)  # no copy where it is already there
        return model(images * self._scale.to(device) + self._shift.to(device))


def load_teacher(given: str, student: ModelCard) -> Teacher:
    """The teacher that `given` names: a run folder, its model.safetensors, or a timm name whose weights timm fetches.

    Raises ConfigError where it does not know the student's classes or does not take its image size, CheckpointError
    where its weights are not usable.
    """
    settle(Path(given))
    if Path(given).exists():
        model, card = load_model(Path(given))
        if (card.task, card.classes) != (student.task, student.classes):
            raise ConfigError(
                f"--teacher {given} does {card.task} of {len(card.classes)} classes, the new run {student.task} of"
                f" {len(student.classes)}: train the teacher on the same classes"
            )
    else:
        model, card = _from_timm(given, student)
    check_image_size(model, card.model, student.image_size or 224)
    return Teacher(model, card, student)


def _from_timm(name: str, student: ModelCard) -> tuple[nn.Module, ModelCard]:
    if not timm.is_model(name.split(".")[0]):
        raise ConfigError(f"--teacher {name} is no run folder, no file and no timm model")
    cfg = timm.get_pretrained_cfg(name)
    if cfg is None or not cfg.has_weights:
        raise ConfigError(f"--teacher {name}: there are no weights for it; give a run folder, or another name")
    if cfg.num_classes != len(student.classes):
        raise ConfigError(
            f"--teacher {name} knows {cfg.num_classes} classes, the data has {len(student.classes)}: fine-tune it on"
            " this data first, and give its run folder"
        )
    try:
        model = create_classifier(name, cfg.num_classes, image_size=student.image_size or 224, pretrained=True)
    except OSError as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"--teacher {name}: its weights could not be fetched ({reason})") from error
    return model, replace(student, model=name, mean=tuple(cfg.mean), std=tuple(cfg.std))
