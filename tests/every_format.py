"""A network's file in each format, as several tests want it, from one tracing and one translation to ONNX."""

from pathlib import Path

import pytest
from torch import nn

from cyclemlp.export import formats
from cyclemlp.export.formats import FORMATS
from cyclemlp.export.program import export_program, raw_network
from cyclemlp.export.run import write_checked
from cyclemlp.tasks.card import ModelCard


def file_of(folder: Path, name: str) -> Path:
    """The file of a format, in a folder of its own, under the name that docs/export.md has for it."""
    return folder / name / f"model{FORMATS[name].suffix}"


def write_every_format(model: nn.Module, card: ModelCard, folder: Path) -> None:
    """Write the files; each was compared with `model`, as `cyclemlp export` does."""
    raw = raw_network(model, card)
    program = export_program(raw)
    # Two formats go by way of ONNX, and translation takes seconds.
    translated = formats._to_onnx(program, raw.facts, 18)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(formats, "_to_onnx", lambda *_: translated)
        for name in ("openvino", "onnx", "pt2"):  # the last two take out of what they are given what names folders
            write_checked(program, raw, model, file_of(folder, name), name)
