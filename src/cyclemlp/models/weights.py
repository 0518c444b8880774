"""The weights that the authors published: where they are, what they scored, and how they are downloaded.

This is the only table of them: timm's configurations are made from it. Files are kept in `$CYCLEMLP_CACHE/weights`, or
`~/.cache/cyclemlp/weights`; a file put there by hand under the right name is used as it is.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from cyclemlp.errors import CheckpointError, did_you_mean
from cyclemlp.files import user_cache
from cyclemlp.models.checkpoints import read_state_dict
from cyclemlp.models.fetch import fetch

CROP_PCT = 0.875
"""Share of the resized image's edge that the authors evaluate: 224 of 256 pixels, for every model (their datasets.py).

CycleMLP's `default_cfgs` say 0.9 for B1 to B3, which the authors' evaluation does not read; ports that do read it score
with that.
"""


@dataclass(frozen=True)
class PublishedWeights:
    """A file of the authors' with weights trained on ImageNet-1K at 224x224."""

    url: str
    file: str
    """Its name in the cache."""
    top1: float
    """Accuracy on ImageNet-1K as published by the authors, in percent; not measured by us."""
    origin: str
    """The repository whose README names file and accuracy."""
    paper: str
    licence: str = "mit"
    note: str = ""
    """Shown in lists instead of the licence, where there is something to know about the file."""
    by_hand: bool = False
    """Whether the host shows a page with a button instead of the file, so that a browser has to download it."""
    sha256: str = ""
    """If the publisher states one; otherwise a file is complete when all its tensors can be read."""


_WITHOUT_CODE = "files named by the authors, code never published; fit only if this reconstruction equals theirs"
_CYCLEMLP = "https://github.com/ShoufaChen/CycleMLP"
_ASMLP = "https://github.com/svip-lab/AS-MLP"
_ACTIVEMLP = "https://github.com/microsoft/TokenMixers"
_DRIVE = "https://shanghaitecheducn-my.sharepoint.com/:u:/g/personal/liandz_shanghaitech_edu_cn/"


def _cyclemlp(variant: str, top1: float) -> PublishedWeights:
    file = f"CycleMLP_{variant}.pth"
    return PublishedWeights(f"{_CYCLEMLP}/releases/download/v0.1/{file}", file, top1, _CYCLEMLP, "2107.10224")


def _without_code(variant: str, top1: float) -> PublishedWeights:
    return replace(_cyclemlp(variant, top1), licence="", note=_WITHOUT_CODE)


def _asmlp(size: str, top1: float, share: str) -> PublishedWeights:
    return PublishedWeights(f"{_DRIVE}{share}&download=1", f"asmlp_{size}.pth", top1, _ASMLP, "2107.08391")


def _activemlp(size: str, top1: float, share: str) -> PublishedWeights:
    url, file = f"https://1drv.ms/u/s!AjKVODXuNei2{share}", f"activemlp_{size}.pth"
    return PublishedWeights(url, file, top1, _ACTIVEMLP, "2203.06108", by_hand=True)


WEIGHTS = {
    "cyclemlp_b1": _cyclemlp("B1", 78.9),
    "cyclemlp_b2": _cyclemlp("B2", 81.6),
    "cyclemlp_b3": _cyclemlp("B3", 82.4),
    "cyclemlp_b4": _cyclemlp("B4", 83.0),
    "cyclemlp_b5": _cyclemlp("B5", 83.2),
    # These three fit if our reconstruction equals theirs; otherwise the error says how the two differ.
    "cyclemlp_tiny": _without_code("tiny", 81.3),
    "cyclemlp_small": _without_code("small", 82.9),
    "cyclemlp_base": _without_code("base", 83.4),
    "asmlp_tiny": _asmlp("tiny", 81.3, "Eb2lPJI2BshEjJxf9CmRkCUBnB63Wj25-FVVc6zJvgRg6w?e=dEQd5q"),
    "asmlp_small": _asmlp("small", 83.1, "EVIbw8xHKk1Aq9MBQL-cRbIBVJA_hJE-HEVNf_GVgkw2iQ?e=QIIp2e"),
    "asmlp_base": _asmlp("base", 83.3, "EZVBFW_LKctLqgrnnINy88wBRtGFava9wp_65emsvVW2KQ?e=clNjuw"),
    "activemlp_xtiny": _activemlp("xtiny", 79.7, "gURnyKmplFDprQKN?e=ASnyhY"),
    "activemlp_tiny": _activemlp("tiny", 82.0, "gU0rtxn6X4OYXNk_?e=NK0na9"),
    "activemlp_small": _activemlp("small", 83.1, "gUfauQWGx-Van6Jm?e=dhhAuY"),
    "activemlp_base": _activemlp("base", 83.5, "gUlrARMxjRm7NXl-?e=EtIhf8"),
    "activemlp_large": _activemlp("large", 83.8, "gUx7dqh6RmoXuawu?e=6LrtCa"),
}


def cache_folder() -> Path:
    """Where weight files are kept."""
    return user_cache() / "weights"


def fetch_weights(name: str, *, cache: Path | None = None) -> Path:
    """The authors' file for model `name`, downloaded unless it is in the cache or can be fetched by hand alone.

    Args:
        name: a model's name, such as 'cyclemlp_b2'.
        cache: a folder to use instead of `cache_folder()`.

    Raises:
        CheckpointError: nothing is published for this model, its file has to be fetched by hand, the download failed,
            or it is not a weight file.
    """
    published = WEIGHTS.get(name)
    if published is None:
        raise CheckpointError(
            f"no weights are published for model {name!r}.{did_you_mean(name, WEIGHTS)} "
            f"Published are those of {', '.join(WEIGHTS)}; train the others, or load a file of your own"
        )
    target = (cache or cache_folder()) / published.file
    if published.by_hand and not target.is_file():
        raise CheckpointError(
            f"the weights of {name} lie on a host that needs a browser: open {published.url} in one, download the file,"
            f" and put it at {target}"
        )
    return fetch(published.url, target, read_state_dict, sha256=published.sha256)
