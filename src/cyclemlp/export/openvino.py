"""OpenVINO files: the graph in .xml, the weights in .bin."""

from pathlib import Path

from torch.export import ExportedProgram

from cyclemlp.errors import MissingExtraError
from cyclemlp.export.format import Format, Graph, operator_counts
from cyclemlp.export.onnx import to_onnx
from cyclemlp.inference.runtimes.facts import PREFIX, Facts
from cyclemlp.inference.runtimes.openvino import FACTS_SECTION


def write(program: ExportedProgram, facts: Facts, path: Path) -> Graph:
    """The two files, by way of ONNX, whose graph OpenVINO understands best. Raises MissingExtraError."""
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), "export") from error
    between = path.with_suffix(".onnx")
    try:
        to_onnx(program, facts).save(between, external_data=False)
        model = openvino.Core().read_model(between)
        for key, text in facts.to_entries().items():
            model.set_rt_info(text, [FACTS_SECTION, key.removeprefix(PREFIX)])
        openvino.save_model(model, path, compress_to_fp16=False)
    finally:
        between.unlink(missing_ok=True)
    return operator_counts(node.get_type_name() for node in model.get_ops())


FORMAT = Format("openvino", ".xml", write, companions=(".bin",))
