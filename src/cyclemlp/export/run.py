"""`export_run`: a run folder in, a checked file out."""

import logging
import re
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import nn
from torch.export import ExportedProgram
from tqdm import tqdm

from cyclemlp.errors import ConfigError, did_you_mean
from cyclemlp.export.formats import FORMATS, IR_VERSIONS
from cyclemlp.export.program import MAX_EDGE, RawNetwork, export_program, raw_network
from cyclemlp.export.verify import LIMIT, as_report, check, differences, report_path
from cyclemlp.files import JsonObject, atomic_write, check_writable, write_json
from cyclemlp.heads.network import STRIDE
from cyclemlp.inference.runtimes.pt2_archive import check_torch
from cyclemlp.inference.runtimes.registry import load_network
from cyclemlp.machine import versions
from cyclemlp.tasks.card import ModelCard, load_model
from cyclemlp.tasks.recipes import read_run_config

_PACKAGES = ("cyclemlp", "torch", "timm", "onnx", "onnxscript", "onnxruntime", "openvino")

WRITING_OVER_TRACING = 2.0
"""Time of what follows tracing, over its own: about 1.8 for RetinaNet to ONNX, on CycleMLP as on a small ResNet."""

_logger = logging.getLogger(__name__)


def export_run(
    run: Path,
    out: Path,
    file_format: str,
    *,
    limit: float = LIMIT,
    for_size: str | None = None,
    raw: bool = False,
    opset: int | None = None,
) -> JsonObject:
    """Write the network of a run folder to `out`, with a parity report next to it, and return the report.

    The file appears only when its values are those of the network, in the runtime it is for, within `limit`; an
    OpenVINO file is two, `NAME.xml` and `NAME.bin`. `for_size` (`480x640`) is the height and width, in network pixels,
    at which the graph is to be fastest, by default that of the run's training crops. `raw` leaves decoding out of a
    detector's file, and `opset` is the version of ONNX's operator set, by default the exporter's.

    Raises ConfigError for an unknown format or size, a suffix of another format, a network that cannot be exported, or
    values that differ, CheckpointError where `run` is no run folder, MissingExtraError where the extra `export` is
    missing.
    """
    check_request(out, file_format, limit, opset)
    check_writable(out.parent)
    size = None if for_size is None else parse_size(for_size)
    model, card = load_model(run)
    network = raw_network(model, card, size or trained_size(run, card), raw=raw)
    pixels = "x".join(map(str, network.fastest_size))
    _logger.info("exporting %s with its %s head, arranged for %s pixels", card.model, card.head, pixels)
    _logger.info("tracing the network: seconds, for a detector up to a minute on a slow machine")
    started = time.monotonic()
    program = export_program(network)
    left = tqdm.format_interval(WRITING_OVER_TRACING * (time.monotonic() - started))
    _logger.info("traced; writing the file and comparing its values: about %s left", left)
    return write_checked(program, network, model, out, file_format, limit, opset)


def write_checked(
    program: ExportedProgram,
    raw: RawNetwork,
    model: nn.Module,
    out: Path,
    file_format: str,
    limit: float = LIMIT,
    opset: int | None = None,
) -> JsonObject:
    """Write `program`, which was exported from `raw`, where the file has the values of `model`; else raise.

    Returns the report, which is written next to the file. Raises as `export_run`.
    """
    kind = FORMATS[file_format]
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{out.stem}-", dir=out.parent) as folder:
        part = Path(folder) / out.name
        graph = kind.write(program, raw.facts, part, opset)
        _logger.info("comparing values")
        found = differences(model, raw, load_network(part, "cpu")[0])
        check(found, limit, file_format)
        if raw.objects and kind.finish is not None:
            kind.finish(part, replace(raw.facts, outputs=raw.objects))
        report = {
            "file": out.name,
            "format": file_format,
            "task": raw.facts.card.task,
            "model": raw.facts.card.model,
            "sizes": _sizes(raw),
            "for_size": list(raw.fastest_size),
            "graph": graph,
            "parity": as_report(found, limit),
            "versions": versions(_PACKAGES),
        }
        write_json(report_path(out), report)
        for written, place in zip(kind.files(part), kind.files(out), strict=True):
            with atomic_write(place) as unnamed:
                written.replace(unnamed)
    return report


def check_request(out: Path, file_format: str, limit: float, opset: int | None = None) -> None:
    """Raise ConfigError for what can be refused before any work."""
    if file_format not in FORMATS:
        near = did_you_mean(file_format, FORMATS)
        raise ConfigError(f"--format {file_format!r} is not known: one of {', '.join(FORMATS)}.{near}")
    if file_format == "pt2":
        check_torch()
    kind = FORMATS[file_format]
    if out.is_dir():
        raise ConfigError(f"--out {out} is a folder: give a file in it, such as {out / f'model{kind.suffix}'}")
    if out.suffix != kind.suffix:
        raise ConfigError(f"--out {out}: files of --format {file_format} end in {kind.suffix}")
    for path in (report_path(out), *kind.files(out)):
        if path.is_dir():
            raise ConfigError(f"{path} is a folder where a file of --out {out} goes: remove it, or give another --out")
    if opset is not None and file_format != "onnx":
        raise ConfigError(f"--opset {opset} is for --format onnx alone: leave it out for {file_format}")
    if opset is not None and opset not in IR_VERSIONS:
        raise ConfigError(f"--opset {opset} is not allowed: from {min(IR_VERSIONS)} to {max(IR_VERSIONS)}")
    if not limit > 0:
        raise ConfigError(f"--limit {limit} is not allowed: more than 0")


def parse_size(text: str) -> tuple[int, int]:
    """Height and width of `480x640`, or of `512` alone. Raises ConfigError for anything else."""
    match = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text.strip().lower())
    height, width = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not STRIDE <= min(height, width) <= max(height, width) <= MAX_EDGE:
        raise ConfigError(
            f"--for-size {text!r} is no size: HEIGHTxWIDTH in network pixels, such as 480x640,"
            f" from {STRIDE} to {MAX_EDGE}"
        )
    return height, width


def trained_size(run: Path, card: ModelCard) -> tuple[int, int] | None:
    """Height and width of what the network of a run was trained on, None where nothing says.

    Those are the run's crops, or without crops the size that its images were resized to.
    """
    if card.image_size is not None:
        return None
    try:
        edge = read_run_config(run if run.is_dir() else run.parent).get("crop-size")
    except ConfigError:  # weights and card alone
        edge = None
    edge = edge or card.window
    if edge is None and card.short_side is not None:
        return card.short_side, card.long_side or card.short_side
    return None if edge is None else (edge, edge)


def _sizes(raw: RawNetwork) -> JsonObject:
    if raw.objects:
        return {"batch": 1, "height": "any", "width": "any"}
    if raw.fixed_size is not None:
        return {"batch": "any", "height": raw.fixed_size, "width": raw.fixed_size}
    rule = raw.facts.size_rule
    edge = f"{rule.least} and more" + (f", multiples of {rule.multiple}" if rule.multiple > 1 else "")
    return {"batch": "any", "height": edge, "width": edge}
