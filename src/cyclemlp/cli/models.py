"""`cyclemlp models`: the backbones by name, with parameters and FLOPs."""

import sys
from json import dumps
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from cyclemlp.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from torch import nn


def models(
    *names: str,
    pattern: Annotated[str | None, Parameter(name="--filter")] = None,
    head: str | None = None,
    classes: int | None = None,
    json: bool = False,
) -> None:
    """List the models: parameters, FLOPs of one image by the paper's rule, source and licence of the weights.

    Without options these are the models of this package. timm's other models work in every command under their names:
    give names such as resnet50, or --filter 'swin_*' for those that match.

    Parameters
    ----------
    names
        List these models alone.
    pattern
        List the models of timm's registry that match this shell pattern, ours among them, such as 'swin_*'.
    head
        Count the whole network with this head on the backbone: semantic-fpn, upernet (with its auxiliary head),
        retinanet or mask-rcnn.
    classes
        Outputs of the classifier (1000 unless given), or of the head (150, for detectors 80, unless given).
    json
        Print one JSON object instead of a table; parameters and FLOPs are whole numbers there.
    """
    if classes is not None and classes < 1:
        raise ConfigError(f"--classes is {classes}; it must be 1 or more")
    if names and pattern is not None:
        raise ConfigError("names and --filter were both given: give one of them")
    listed = [_describe(name, head, classes) for name in names or _names(pattern)]
    sys.stdout.write(dumps({"models": listed}) + "\n" if json else _table(listed))


def _names(pattern: str | None) -> list[str]:
    """Names that match, or this package's own: those whose entry point lives in it."""
    import timm

    import cyclemlp.models  # noqa: F401  registers the models

    if pattern is None:
        return [name for name in timm.list_models() if timm.model_entrypoint(name).__module__.startswith("cyclemlp.")]
    if names := timm.list_models(pattern):
        return list(names)
    near = did_you_mean(pattern.strip("*"), timm.list_models())
    raise ConfigError(f"no model matches --filter {pattern!r}; a shell pattern such as 'swin_*' is wanted.{near}")


def _describe(name: str, head: str | None, classes: int | None) -> dict[str, Any]:
    import timm

    from cyclemlp.heads.detection_options import MASK_RCNN
    from cyclemlp.models.backbones import check_model_name
    from cyclemlp.models.flops import count_flops
    from cyclemlp.models.weights import WEIGHTS

    check_model_name(name)
    cfg = timm.get_pretrained_cfg(name)
    model = _build(name, head, classes)
    _, height, width = cfg.input_size
    return {
        "name": name,
        "params": sum(parameter.numel() for parameter in model.parameters()),
        # What a Mask R-CNN computes depends on how many proposals an image has.
        "flops": None if head == MASK_RCNN else count_flops(model, height, width),
        "input_size": list(cfg.input_size),
        "source": cfg.origin_url or cfg.paper_ids or "timm",
        "weights": cfg.url or cfg.hf_hub_id,
        "license": cfg.license if cfg.has_weights else None,
        "weights_note": (WEIGHTS[name].note or None) if name in WEIGHTS else None,
        "head": head,
    }


def _build(name: str, head: str | None, classes: int | None) -> "nn.Module":
    """The network with shapes only: no weight is allocated or drawn."""
    import timm
    import torch

    from cyclemlp.heads import detection, segmentation

    if head is not None and head not in (known := [*segmentation.HEADS, *detection.HEADS]):
        raise ConfigError(f"head {head!r} is not known; allowed: {', '.join(known)}.{did_you_mean(head, known)}")
    with torch.device("meta"):
        if head in detection.HEADS:
            return detection.build_detector(name, head, classes or 80)
        if head is not None:
            return segmentation.build_segmentation_model(name, head, classes or 150, auxiliary=True)
        return timm.create_model(name, num_classes=classes or 1000)


def _table(listed: list[dict[str, Any]]) -> str:
    width = max(len(each["name"]) for each in listed)
    lines = [f"{'model':{width}}  params (M)  FLOPs (G)  image    weights"]
    for each in listed:
        size = "x".join(str(edge) for edge in each["input_size"][1:])
        weights = f"{each['source']} ({each['license']})" if each["license"] else "none published"
        weights = each["weights_note"] or weights
        flops = "-" if each["flops"] is None else f"{each['flops'] / 1e9:.1f}"
        lines.append(f"{each['name']:{width}}  {each['params'] / 1e6:10.1f}  {flops:>9}  {size:7}  {weights}")
    return "\n".join(lines) + "\n"
