"""A network's file in each format, as several tests want it, from one tracing and one translation to ONNX."""

from pathlib import Path

import pytest
import torch
from packaging.version import Version
from torch import nn

from cyclemlp.export import formats
from cyclemlp.export.formats import FORMATS
from cyclemlp.export.program import export_program, raw_network
from cyclemlp.export.run import write_checked
from cyclemlp.inference.runtimes.pt2_archive import OLDEST_TORCH
from cyclemlp.tasks.card import ModelCard

HAS_PT2 = Version(torch.__version__) >= Version(OLDEST_TORCH)
needs_pt2 = pytest.mark.skipif(not HAS_PT2, reason=f".pt2 files without pickles need torch {OLDEST_TORCH}")
follows_every_size = pytest.mark.skipif(not HAS_PT2, reason=f"torch.export does so from torch {OLDEST_TORCH} on")
EVERY_FORMAT = [pytest.param(name, marks=needs_pt2) if name == "pt2" else name for name in FORMATS]
"""For tests with one case for each format."""


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
        # The last two take out of what they are given what names folders.
        for name in ("openvino", "onnx", "pt2") if HAS_PT2 else ("openvino", "onnx"):
            write_checked(program, raw, model, file_of(folder, name), name)
