"""Registration of the models of this package with timm, which then builds them."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model, resolve_pretrained_cfg
from torch import nn

from cyclemlp.errors import ConfigError
from cyclemlp.models.checkpoints import adapt_pretrained, load_checkpoint, read_state_dict
from cyclemlp.models.fetch import fetch
from cyclemlp.models.pyramid import PyramidFeatures
from cyclemlp.models.timm_internals import resolve_pretrained_source
from cyclemlp.models.weights import CROP_PCT, WEIGHTS, cache_folder, fetch_weights


def register_models(
    cls: type[nn.Module], sizes: Mapping[str, Any], options: Sequence[str] = (), first_conv: str = "stem.conv"
) -> None:
    """Register a function with timm for each name in `sizes`, in the module of `cls`, which it builds.

    Args:
        cls: a network whose first argument is an entry of `sizes`.
        sizes: a frozen dataclass for each model.
        options: fields of it, one of which `timm.create_model(name, field=...)` may set.
        first_conv: name of the first convolution inside the network.
    """
    module = vars(sys.modules[cls.__module__])
    tagged = {f"{name}.in1k" if name in WEIGHTS else name: _default_cfg(name, first_conv) for name in sizes}
    module["default_cfgs"] = generate_default_cfgs(tagged)
    for name in sizes:
        module[name] = register_model(_entrypoint(cls, name, sizes, options))


def _entrypoint(
    cls: type[nn.Module], name: str, sizes: Mapping[str, Any], options: Sequence[str]
) -> Callable[..., nn.Module]:
    def create(pretrained: bool = False, **arguments: Any) -> nn.Module:
        given = {option: arguments.pop(option) for option in options if option in arguments}
        if len(given) > 1:
            raise ConfigError(f"{' and '.join(given)} were both given: leave one of them out")
        return build(cls, name, pretrained, {"sizes": replace(sizes[name], **given), **arguments})

    create.__module__, create.__name__, create.__qualname__ = cls.__module__, name, name
    vars(create)["options"] = tuple(options)  # what `create_classifier` may pass
    create.__doc__ = f"The model {name}, a `{cls.__name__}`; `timm.create_model` calls this."
    return create


def _default_cfg(name: str, first_conv: str) -> dict[str, Any]:
    """The configuration that timm keeps of a model; its weights are those of the table, if there are any."""
    cfg = {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": (7, 7),
        "crop_pct": CROP_PCT,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": first_conv,
        "classifier": "head.fc",
        "origin_url": "https://github.com/ShoufaChen/CycleMLP",  # also for models of our own: the origin of the idea
        "paper_ids": "arXiv:2107.10224",
    }
    if published := WEIGHTS.get(name):
        cfg |= {"url": published.url, "license": published.licence}
        cfg |= {"origin_url": published.origin, "paper_ids": f"arXiv:{published.paper}"}
    return cfg


def build(cls: type[nn.Module], name: str, pretrained: bool, options: Mapping[str, Any]) -> nn.Module:
    """The network that a registered function returns, or with `features_only` the network of its feature maps.

    timm itself loads weights only from the Hugging Face hub, from a folder in that format, or from a state dict that
    the caller passes; where there are no weights at all, the error is timm's. A file and the authors' weights are
    loaded by our own code, which resumes and checks downloads and stays strict where timm is not (`num_classes`,
    `features_only`).

    Raises:
        CheckpointError: with `pretrained`, the weights could not be fetched or do not fit.
        RuntimeError: with `pretrained`, there are none for this model.
    """
    overlay = options.get("pretrained_cfg_overlay")
    cfg = resolve_pretrained_cfg(name, options.get("pretrained_cfg"), overlay).to_dict()
    source, place = resolve_pretrained_source(cfg) if pretrained else ("", "")
    by_timm = source in ("hf-hub", "local-dir", "state_dict") or (not source and name not in WEIGHTS)
    model: nn.Module = build_model_with_cfg(
        cls,
        name,
        pretrained and by_timm,
        pretrained_filter_fn=adapt_pretrained,
        feature_cfg={"out_indices": (0, 1, 2, 3), "feature_cls": PyramidFeatures, "output_fmt": "NCHW"},
        **options,
    )
    if pretrained and not by_timm:
        file = Path(place) if source == "file" else _fetched(name, place, options.get("cache_dir"))
        load_checkpoint(model, file, other_classes=True)
    return model


def _fetched(name: str, url: str, cache_dir: str | Path | None) -> Path:
    cache = Path(cache_dir) if cache_dir else cache_folder()
    if not url or (name in WEIGHTS and url == WEIGHTS[name].url):
        return fetch_weights(name, cache=cache)
    return fetch(url, cache / PurePosixPath(urlsplit(url).path).name, read_state_dict)  # the caller's own
