"""Backbones of dense heads: any feature pyramid that timm knows, ours included."""

from collections.abc import Sequence

import timm
from torch import nn

from cyclemlp.errors import ConfigError, did_you_mean
from cyclemlp.models import activemlp, asmlp, cyclemlp, cyclemlp_swin  # noqa: F401  registers the models
from cyclemlp.models.pyramid import REDUCTIONS


def check_model_name(name: str) -> None:
    """Raise ConfigError, with the nearest name, unless timm knows `name`."""
    if not timm.is_model(name.split(".")[0]):
        raise ConfigError(
            f"model {name!r} is not known.{did_you_mean(name, timm.list_models())} `cyclemlp models` lists the names"
        )


def create_backbone(
    name: str, *, in_chans: int = 3, drop_path_rate: float = 0.0, out_indices: Sequence[int] = (0, 1, 2, 3)
) -> nn.Module:
    """A timm model that returns a list of NCHW maps at strides 4, 8, 16, 32 (those of `out_indices`).

    Args:
        name: a name in timm's registry, such as 'cyclemlp_b2' or 'swin_tiny_patch4_window7_224'.
        in_chans: channels of the images.
        drop_path_rate: stochastic depth rate of the last block.
        out_indices: which of the four strides to return.

    Raises:
        ConfigError: an unknown name, or a model without feature maps at these strides (such as MLP-Mixer).
    """
    check_model_name(name)
    arguments = {"in_chans": in_chans, "features_only": True, "drop_path_rate": drop_path_rate}
    if name.startswith("swin"):  # which otherwise accepts only the size of its own configuration
        arguments["strict_img_size"] = False
    wanted = [REDUCTIONS[index] for index in out_indices]
    try:
        model = timm.create_model(name, **arguments)
        reductions = model.feature_info.reduction()
        if [r for r in reductions if r in wanted] != wanted:
            raise _no_pyramid(name, f"its maps have strides {reductions}")
        if reductions != wanted:  # some networks start with a map at stride 2, and the caller may want fewer
            indices = tuple(reductions.index(r) for r in wanted)
            model = timm.create_model(name, **arguments, out_indices=indices)
    except (RuntimeError, AssertionError, TypeError, AttributeError) as error:
        raise _no_pyramid(name, str(error).splitlines()[0] if str(error) else type(error).__name__) from error
    return model


def _no_pyramid(name: str, reason: str) -> ConfigError:
    return ConfigError(
        f"model {name!r} has no feature pyramid at strides 4, 8, 16, 32 ({reason}): "
        "dense tasks need one; cyclemlp_*, activemlp_*, asmlp_*, swin_*, convnext_*, resnet* and pvt_v2_* have it"
    )
