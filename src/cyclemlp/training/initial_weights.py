"""Starting from weights that exist: a backbone's, or a whole network of an earlier run."""

import logging
from pathlib import Path

from torch import nn

from cyclemlp.errors import CheckpointError
from cyclemlp.models.checkpoints import load_checkpoint, load_pretrained
from cyclemlp.models.weights import fetch_weights
from cyclemlp.tasks.card import CARD_NAME, WEIGHTS_NAME, ModelCard, load_model, read_card

AUTHORS = "authors"
"""Stands for the weights that the authors of the model published."""

_logger = logging.getLogger(__name__)


def load_initial_weights(model: nn.Module, card: ModelCard, path: Path) -> None:
    """Load `path` into `model`, which `card` describes, and log what was taken and what was not.

    `path` is a run folder, its model.safetensors, a weight file of the backbone alone, or `authors`. Between different
    classes only the last layer stays as it is; of a run of another task only the backbone is taken. Raises
    CheckpointError, with nothing loaded, where the weights do not fit.
    """
    if str(path) == AUTHORS:
        path = fetch_weights(card.model)
    is_run = path.is_dir() or path.with_name(CARD_NAME).is_file()
    if is_run and read_card(path if path.is_dir() else path.with_name(CARD_NAME)).task == card.task:
        _load_network(model, card, path)
    else:
        path = path / WEIGHTS_NAME if path.is_dir() else path
        backbone = getattr(model, "backbone", model)
        trunk = getattr(backbone, "trunk", backbone)
        # timm wraps a network whose features it collects. A classifier of other classes stays new.
        load = load_pretrained if card.task == "classification" else load_checkpoint
        load(getattr(trunk, "model", trunk), path)
        _logger.info("backbone starts from %s; the head starts from random weights", path)


def _load_network(model: nn.Module, card: ModelCard, path: Path) -> None:
    source, theirs = load_model(path)
    for what in ("model", "head", "head_width"):
        given, wanted = getattr(theirs, what), getattr(card, what)
        if given != wanted:
            option = "--" + what.replace("_", "-")
            fix = f"train with {option} {given}" if given is not None else f"leave {option} out"
            raise CheckpointError(f"--init {path} has {option} {given}, the new run {wanted}: {fix}")
    if _options(theirs) != _options(card):
        raise CheckpointError(
            f"--init {path} was trained with {_options(theirs) or 'no options of the model'}, the new run has"
            f" {_options(card) or 'none'}: give --stepsize and --branches alike"
        )
    state, own = source.state_dict(), model.state_dict()
    other = sorted(key for key in state if state[key].shape != own[key].shape)
    if other and len(theirs.classes) == len(card.classes):
        raise CheckpointError(f"--init {path} does not fit: other shapes in {', '.join(other)}")
    model.load_state_dict({key: value for key, value in state.items() if key not in other}, strict=False)
    if other:
        counts = f"{len(theirs.classes)} classes there, {len(card.classes)} here"
        _logger.info("starts from %s, but %s from random weights: %s", path, ", ".join(other), counts)
        return
    _logger.info("starts from %s", path)
    if theirs.classes != card.classes:
        _logger.warning("classes were %s and are %s", ", ".join(theirs.classes), ", ".join(card.classes))


def _options(card: ModelCard) -> str:
    """The options of the model as words, alike whether they come from JSON or not."""
    words = (
        f"{name} {' '.join(value) if isinstance(value, list | tuple) else value}"
        for name, value in sorted(card.model_options.items())
    )
    return ", ".join(words)
