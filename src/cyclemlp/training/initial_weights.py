"""Initial weights of a run: those of a backbone, or of a whole network from an earlier run."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from cyclemlp.errors import CheckpointError
from cyclemlp.models.checkpoints import adapt_state_dict, check_fit, load_checkpoint, naming, read_state_dict
from cyclemlp.models.timm_weights import (
    adapt_first_convolution,
    classifier_names,
    classifier_with,
    is_of_timm,
    pretrained_classifier,
)
from cyclemlp.models.weights import fetch_weights
from cyclemlp.tasks.card import ModelCard, card_beside, load_model
from cyclemlp.tasks.head_width import head_width_of

AUTHORS, PRETRAINED = "authors", "pretrained"
"""Stand for the weights that the authors of the model published, and for those that timm has for it."""

_logger = logging.getLogger(__name__)


def load_initial_weights(model: nn.Module, card: ModelCard, path: Path) -> None:
    """Load `path` into `model`, which `card` describes, and log what was loaded and what was not.

    `path` is a run folder, its model.safetensors, a weight file of the backbone alone, `authors`, or `pretrained`,
    which is the same for models of this package. If the classes differ, the last layer keeps its random weights; from a
    run of another task only the backbone is loaded. A first convolution on three channels is adapted to the network's,
    by timm's rule. Raises CheckpointError, with nothing loaded, where the weights do not fit.
    """
    of_timm = is_of_timm(card.model)
    if str(path) == PRETRAINED and of_timm:
        source = pretrained_classifier(card.model, in_chans=card.in_chans, image_size=card.image_size)
        _load_classifier(model, card, source, path)
        return
    if str(path) in (AUTHORS, PRETRAINED):
        path = fetch_weights(card.model)
    described = card_beside(path)
    if described is not None and described.task == card.task:
        _load_network(model, card, path)
        return
    if described is not None:
        source, theirs = load_model(path)
        _require_same(path, theirs, card, ("model",))
        _load_backbone(_trunk(model), _trunk(source).state_dict(), path, whole=_trunk(model) is not model)
    elif of_timm:
        _load_file_of_timm(model, card, path)
        return
    elif _trunk(model) is model:  # with other classes, the last layer stays random
        load_checkpoint(_trunk(model), path, other_classes=True)
    else:
        _load_backbone(_trunk(model), read_state_dict(path), path, whole=True)
    _logger.info("backbone starts from %s; the head starts from random weights", path)


def _load_file_of_timm(model: nn.Module, card: ModelCard, path: Path) -> None:
    """Load a file for a model of timm's: one of this very backbone, or one of its classifier."""
    given, trunk = read_state_dict(path), _trunk(model)
    if trunk is not model and {_as_in(trunk.state_dict(), key) for key in given} >= trunk.state_dict().keys():
        _load_backbone(trunk, given, path, whole=True)
        _logger.info("backbone starts from %s; the head starts from random weights", path)
        return
    with naming(path):
        source = classifier_with(card.model, given, in_chans=card.in_chans, image_size=card.image_size)
    _load_classifier(model, card, source, path)


def _load_classifier(model: nn.Module, card: ModelCard, source: nn.Module, path: Path) -> None:
    """Load what a classifier of timm's has, without its last layer where that is for other classes."""
    trunk, given = _trunk(model), source.state_dict()
    own, last = trunk.state_dict(), tuple(f"{name}." for name in classifier_names(card.model))
    other = [key for key in own if key.startswith(last) and (key not in given or given[key].shape != own[key].shape)]
    for key in other:
        given[key] = own[key]
    _load_backbone(trunk, given, path, whole=True)
    if trunk is not model:
        _logger.info("backbone starts from %s; the head starts from random weights", path)
        return
    random = f", but {', '.join(other)} from random weights" if other else ""
    _logger.info("starts from %s%s", path, random)


def _trunk(model: nn.Module) -> nn.Module:
    """The backbone as timm made it, without the wrapper that collects its features."""
    backbone = getattr(model, "backbone", model)
    trunk = getattr(backbone, "trunk", backbone)
    inner: nn.Module = getattr(trunk, "model", trunk)
    return inner


def _load_backbone(trunk: nn.Module, given: Mapping[str, Tensor], path: Path, *, whole: bool) -> None:
    """Load the parts (stages, stem) that both have, each of which must fit; with `whole`, all parts of `trunk`.

    A part is a top-level module, the first word of a key. A feature extractor lacks two of them: the classifier and the
    norm before it.
    """
    own = trunk.state_dict()
    given = {_as_in(own, key): value for key, value in given.items()}
    with naming(path):
        given = adapt_first_convolution(adapt_state_dict(given, trunk, strict=False), own)
        shared = {_part(key) for key in own} & {_part(key) for key in given}
        known = {key: value for key, value in given.items() if _part(key) in shared}
        check_fit(known, {key: value for key, value in own.items() if whole or _part(key) in shared})
        if not shared:
            raise CheckpointError("weights do not fit, nothing was loaded: no part has the name of one of the model's")
    trunk.load_state_dict(known, strict=False)


def _part(key: str) -> str:
    return key.partition(".")[0]


def _as_in(own: Mapping[str, Tensor], key: str) -> str:
    """The key as `own` has it: some feature extractors of timm rename `stages.0` to `stages_0`."""
    forms = (key, key.replace(".", "_", 1), key.replace("_", ".", 1))
    return next((form for form in forms if form in own), key)


def _load_network(model: nn.Module, card: ModelCard, path: Path) -> None:
    source, theirs = load_model(path)
    theirs, card = (replace(each, head_width=head_width_of(each)) for each in (theirs, card))
    _require_same(path, theirs, card, ("model", "head", "head_width"))
    own = model.state_dict()
    state = adapt_first_convolution(source.state_dict(), own)
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


def _require_same(path: Path, theirs: ModelCard, card: ModelCard, names: Sequence[str]) -> None:
    for what in names:
        given, wanted = getattr(theirs, what), getattr(card, what)
        if given != wanted:
            option = "--" + what.replace("_", "-")
            fix = f"train with {option} {given}" if given is not None else f"leave {option} out"
            raise CheckpointError(f"--init {path} has {option} {given}, the new run {wanted}: {fix}")
    if _options(theirs) != _options(card):
        raise CheckpointError(
            f"--init {path} was trained with {_options(theirs) or 'no options of the model'}, the new run has"
            f" {_options(card) or 'none'}: give the same --stepsize and --branches"
        )


def _options(card: ModelCard) -> str:
    """The options of the model as text, the same for tuples and for the lists that JSON makes of them."""
    words = (
        f"{name} {' '.join(value) if isinstance(value, list | tuple) else value}"
        for name, value in sorted(card.model_options.items())
    )
    return ", ".join(words)
