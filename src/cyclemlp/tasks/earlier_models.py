"""Networks whose sizes changed under their name: runs of before are read under another. Light, without torch."""

from collections.abc import Iterable
from pathlib import Path

from cyclemlp.documents import DocumentError, read_json

WIDE_NANO = "cyclemlp_nano_mlp4"
"""`cyclemlp_nano` as it was while `run.json` had format 1: its channel MLPs were four times as wide as the stage."""
_FIRST_WIDTHS = "stages.0.blocks.0.channel_mlp.fc1.weight", "stages_0.blocks.0.channel_mlp.fc1.weight"


def model_of_weights(name: str, shapes: Iterable[tuple[str, tuple[int, ...]]]) -> str:
    """The name of the network that weights of `name` belong to, by their names and shapes."""
    if name != "cyclemlp_nano":
        return name
    wide = any(key.endswith(_FIRST_WIDTHS) and shape[0] == 4 * shape[1] for key, shape in shapes)
    return WIDE_NANO if wide else name


def model_of_run(name: object, record_path: Path) -> object:
    """The same by the record of a run that may not have weights yet."""
    if name != "cyclemlp_nano":
        return name
    try:
        record = read_json(record_path)
    except (DocumentError, OSError):
        return name
    return WIDE_NANO if isinstance(record, dict) and record.get("format") == 1 else name
