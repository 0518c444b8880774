"""How the models of this package are registered with timm, and built by it."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from timm.models import build_model_with_cfg
from timm.models._builder import _resolve_pretrained_source, resolve_pretrained_cfg  # private: timm is below 1.1
from torch import nn

from cyclemlp.models.checkpoints import adapt_pretrained, load_pretrained
from cyclemlp.models.fetch import fetch
from cyclemlp.models.pyramid import PyramidFeatures
from cyclemlp.models.weights import WEIGHTS, cache_folder, check_weights, fetch_weights

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def default_cfg(name: str, first_conv: str = "stem.conv") -> dict[str, Any]:
    """The configuration that timm keeps of model `name`; its weights are those of the table, if there are any."""
    cfg = {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": (7, 7),
        "crop_pct": 0.9,
        "interpolation": "bicubic",
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "first_conv": first_conv,
        "classifier": "head.fc",
        "origin_url": "https://github.com/ShoufaChen/CycleMLP",  # where the idea comes from, for models of our own
        "paper_ids": "arXiv:2107.10224",
    }
    if published := WEIGHTS.get(name):
        cfg |= {"url": published.url, "crop_pct": published.crop_pct, "license": published.licence}
        cfg |= {"origin_url": published.origin, "paper_ids": f"arXiv:{published.paper}"}
    return cfg


def build(cls: type[nn.Module], name: str, pretrained: bool, options: Mapping[str, Any]) -> nn.Module:
    """What each registered function returns: the network, or its feature maps with `features_only`.

    timm fetches and loads weights itself only from the Hugging Face hub, from a folder in that format, and where the
    caller gives a state dict. A file, or the authors' weights of the table, come through ours: resumed and checked on
    the way, then strict even where timm is not (`num_classes`, `features_only`).

    Raises:
        CheckpointError: with `pretrained`, weights that could not be fetched or do not fit.
    """
    overlay = options.get("pretrained_cfg_overlay")
    cfg = resolve_pretrained_cfg(name, options.get("pretrained_cfg"), overlay).to_dict()
    source, place = _resolve_pretrained_source(cfg) if pretrained else ("", "")
    by_timm = source in ("hf-hub", "local-dir", "state_dict")
    model: nn.Module = build_model_with_cfg(
        cls,
        name,
        pretrained and by_timm,
        pretrained_filter_fn=adapt_pretrained,
        feature_cfg={"out_indices": (0, 1, 2, 3), "feature_cls": PyramidFeatures},
        **options,
    )
    if pretrained and not by_timm:
        load_pretrained(model, Path(place) if source == "file" else _fetched(name, place, options.get("cache_dir")))
    return model


def _fetched(name: str, url: str, cache_dir: str | Path | None) -> Path:
    cache = Path(cache_dir) if cache_dir else cache_folder()
    if not url or (name in WEIGHTS and url == WEIGHTS[name].url):
        return fetch_weights(name, cache=cache)
    return fetch(url, cache / PurePosixPath(urlsplit(url).path).name, check_weights)  # the caller's own
