"""`cyclemlp export`: from a run folder to a file for ONNX Runtime, OpenVINO or torch."""

import sys
from json import dumps
from pathlib import Path


def export(
    run: Path,
    /,
    *,
    out: Path,
    format: str = "onnx",  # noqa: A002
    limit: float = 1e-4,
    for_size: str | None = None,
    raw: bool = False,
    opset: int | None = None,
    no_verify: bool = False,
    json: bool = False,
) -> None:
    """Write a trained network as a file that runs elsewhere, compare its values, and report the comparison.

    NAME.report.json next to the file has the sizes and batches tried, the largest differences, the operators and the
    versions. Where the values differ by more than the limit nothing is written. `cyclemlp predict`, `cyclemlp eval` and
    `cyclemlp.Predictor.load` take the file in place of the run; .onnx and .xml files need no torch.

    Parameters
    ----------
    run
        Run folder written by `cyclemlp train`, or its model.safetensors.
    out
        File to write: NAME.onnx, NAME.xml (OpenVINO; NAME.bin is written next to it) or NAME.pt2.
    format
        onnx, openvino or pt2.
    limit
        Largest difference from the network's values, as a share of the largest value.
    for_size
        Segmentation, detection: height and width in network pixels at which the file is fastest, such as 480x640; its
        values are right at every size. By default the size of the training crops.
    raw
        Of RetinaNet, leave out decoding and non-maximum suppression: the file returns logits and offsets for batches.
    opset
        Version of ONNX's operator set, 18 to 23, for old runtimes; by default the exporter's own.
    no_verify
        Load weights although they differ from the digest written with them.
    json
        Print the report as one JSON object.
    """
    from cyclemlp import api
    from cyclemlp.export.verify import report_path

    report = api.export(
        run, out=out, format=format, limit=limit, for_size=for_size, raw=raw, opset=opset, no_verify=no_verify
    )
    if json:
        sys.stdout.write(dumps(report) + "\n")
        return
    parity, graph = report["parity"], report["graph"]
    sys.stdout.write(
        f"{out}: {graph['nodes']} nodes, {len(graph['operators'])} operators; differs from the network by at most"
        f" {parity['max_abs']:.1e} ({parity['max_rel']:.1e} of the largest value); {report_path(out)}\n"
    )
