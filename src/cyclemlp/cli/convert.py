"""`cyclemlp convert`: weight files from the authors' layout into ours and back."""

import logging
from pathlib import Path
from typing import Literal

_logger = logging.getLogger(__name__)


def convert(
    source: Path,
    target: Path,
    *,
    to: Literal["authors", "safetensors"] | None = None,
    model: str | None = None,
    stepsize: int = 3,
) -> None:
    """Write the weights of SOURCE to TARGET in the other layout: the authors' or ours; every key is checked.

    Parameters
    ----------
    source
        The authors' file (CycleMLP_B1.pth), or one of ours (.safetensors, .pth), of a whole classifier.
    target
        The file to write: .safetensors for our layout, .pth for the authors'.
    to
        Decides instead of TARGET's suffix.
    model
        Name of the model, if it should not be found out from the shapes; an error then says how the file differs.
    stepsize
        Step size of a CycleMLP; all published ones have 3.
    """
    from cyclemlp.models import conversion

    name = conversion.convert(source, target, to=to, model=model, stepsize=stepsize)
    _logger.info("%s written: weights of %s", target, name)
