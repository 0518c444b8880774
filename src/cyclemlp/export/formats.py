"""The file formats: ONNX, OpenVINO (the graph in .xml, the weights in .bin) and torch.export archives (.pt2)."""

import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.export import ExportedProgram

from cyclemlp.errors import MissingExtraError
from cyclemlp.heads.decoded_mask_rcnn import OBJECT_NAMES
from cyclemlp.inference.runtimes.facts import INPUT_NAME, PREFIX, Facts
from cyclemlp.inference.runtimes.openvino import FACTS_SECTION, core
from cyclemlp.inference.runtimes.pt2_archive import FACTS_FILE

if TYPE_CHECKING:
    import onnx_ir as ir
    import openvino

Graph = Mapping[str, object]
"""What the report says of the written graph: number of nodes, operators, version of the operator set."""


@dataclass(frozen=True)
class Format:
    """A kind of file that some runtime opens."""

    suffix: str
    """Of the file; the runtime that is registered for it runs the file."""
    write: Callable[[ExportedProgram, Facts, Path, int | None], Graph]
    """Writes the file with the facts in it, with ONNX's operators of a version or None. Raises MissingExtraError."""
    finish: Callable[[Path, Facts], None] | None = None
    """Drops the outputs of a file that its new facts do not name; None where its runtime cannot drop any."""
    companions: tuple[str, ...] = ()
    """Suffixes of the other files that belong to it."""

    def files(self, path: Path) -> list[Path]:
        """All that is written for the file `path`, which comes last."""
        return [*(path.with_suffix(suffix) for suffix in self.companions), path]


def write_onnx(program: ExportedProgram, facts: Facts, path: Path, opset: int | None = None) -> Graph:
    """Write an ONNX file with the weights in it, in the oldest form of file that its operators allow."""
    onnx_program = _to_onnx(program, facts, opset)
    model = onnx_program.model
    for node in model.graph:
        node.metadata_props.clear()  # stack traces, which name folders of the machine that exported
    model.metadata_props.update(facts.to_entries())
    model.ir_version = IR_VERSIONS[model.opset_imports[""]]
    for value in (*model.graph.inputs, *model.graph.outputs):
        _name_axes(value)
    onnx_program.save(path, external_data=False)
    operators = {domain or "ai.onnx": number for domain, number in model.opset_imports.items()}
    return {
        "opset": operators,
        "ir_version": model.ir_version,
        **_operator_counts(node.op_type for node in model.graph),
    }


def finish_onnx(path: Path, facts: Facts) -> None:
    """Drop the outputs that `facts` do not name, and write the facts again."""
    import onnx

    model = onnx.load(path)
    kept = [output for output in model.graph.output if output.name in facts.outputs]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    onnx.helper.set_model_props(model, facts.to_entries())
    onnx.save(model, path)


def write_openvino(program: ExportedProgram, facts: Facts, path: Path, _opset: int | None = None) -> Graph:
    """Write the two files, by way of ONNX, whose graph OpenVINO understands best."""
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), "export") from error
    between = path.with_suffix(".onnx")
    try:
        _to_onnx(program, facts).save(between, external_data=False)
        model = core().read_model(between)
        _state(model, facts)
        openvino.save_model(model, path, compress_to_fp16=False)
    finally:
        between.unlink(missing_ok=True)
    return _operator_counts(node.get_type_name() for node in model.get_ops())


def finish_openvino(path: Path, facts: Facts) -> None:
    """Drop the outputs that `facts` do not name, and write the facts again."""
    import openvino

    model = core().read_model(path)
    for result in model.get_results():
        if not result.output(0).get_names() & set(facts.outputs):
            model.remove_result(result)
    _state(model, facts)
    # Under another name: the weights are read from the file while they are written.
    finished = path.with_stem(f"{path.stem}-finished")
    openvino.save_model(model, finished, compress_to_fp16=False)
    for suffix in (".xml", ".bin"):
        finished.with_suffix(suffix).replace(path.with_suffix(suffix))


def _state(model: "openvino.Model", facts: Facts) -> None:
    for key, text in facts.to_entries().items():
        model.set_rt_info(text, [FACTS_SECTION, key.removeprefix(PREFIX)])


def write_pt2(program: ExportedProgram, facts: Facts, path: Path, _opset: int | None = None) -> Graph:
    """Write a torch.export archive."""
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # names folders of the machine that exported
    with _quiet():
        torch.export.save(program, path, extra_files={FACTS_FILE: json.dumps(facts.to_entries())})
    return _operator_counts(str(node.target) for node in program.graph.nodes if node.op == "call_function")


FORMATS = {
    "onnx": Format(".onnx", write_onnx, finish_onnx),
    "openvino": Format(".xml", write_openvino, finish_openvino, companions=(".bin",)),
    "pt2": Format(".pt2", write_pt2),
}
"""All that can be written, by name."""


IR_VERSIONS = {18: 8, 19: 9, 20: 9, 21: 10, 22: 10, 23: 11}
"""The oldest version of ONNX's file form that has the operators of a version of the operator set."""
_AXES = {
    "boxes": {1: ("objects",), 2: ("objects", None), 3: ("objects", None, None)},
    "": {2: ("batch", None), 3: ("batch", "anchors", None), 4: ("batch", None, "height", "width")},
}
"""Names of the free axes of inputs and outputs, by number of axes."""


def _name_axes(value: "ir.Value") -> None:
    """Give the free axes of an input or output names that a person can read, in place of torch's symbols."""
    import onnx_ir as ir

    shape = value.shape
    assert shape is not None
    kind = "boxes" if value.name in OBJECT_NAMES else ""
    names = _AXES[kind][len(shape)]
    value.shape = ir.Shape([each if isinstance(each, int) else name for each, name in zip(shape, names, strict=True)])


def _to_onnx(program: ExportedProgram, facts: Facts, opset: int | None = None) -> torch.onnx.ONNXProgram:
    try:
        with _quiet():
            exported = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                input_names=[INPUT_NAME],
                output_names=list(facts.outputs),
                opset_version=opset,
            )
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), "export") from error
    assert exported is not None  # it is None where a file is written at once
    return exported


def _operator_counts(operators: Iterable[str]) -> dict[str, object]:
    """The number of nodes of a graph, and of each operator, from the operators of its nodes."""
    listed = sorted(operators)
    return {"nodes": len(listed), "operators": {name: listed.count(name) for name in dict.fromkeys(listed)}}


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the exporters, which write on standard output and warn of their own code."""
    talkers = [logging.getLogger(name) for name in ("torch.onnx", "onnx_ir", "onnxscript")]
    levels = [talker.level for talker in talkers]
    for talker in talkers:
        talker.setLevel(logging.ERROR)
    try:
        with redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for talker, level in zip(talkers, levels, strict=True):
            talker.setLevel(level)
