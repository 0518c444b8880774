"""Train, evaluate, predict and export from Python; the commands are thin shells around these functions.

    run = cyclemlp.train("segmentation", data="folder", model="cyclemlp_b1", max_time="20m")
    scores = cyclemlp.evaluate(run)
    cyclemlp.predict(run, "photos/", out="predicted")
    cyclemlp.export(run, format="onnx", out="model.onnx")

Options have the names of the command line, with underscores. A misspelt one is refused with the nearest name.
"""

from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from cyclemlp.files import JsonObject, check_writable, verified
from cyclemlp.machine import is_first_process
from cyclemlp.tasks.aside import settle
from cyclemlp.tasks.build_config import OptionValue, build_config, parse_options
from cyclemlp.tasks.early_checks import check_run
from cyclemlp.tasks.model_families import full_name
from cyclemlp.tasks.options import EvaluationOptions, PredictionOptions, RunConfig
from cyclemlp.tasks.registry import get_task
from cyclemlp.tasks.run_names import folder_to_resume

if TYPE_CHECKING:
    from cyclemlp.inference.predict_files import Predictions
    from cyclemlp.tasks.classification.config import ClassificationConfig
    from cyclemlp.tasks.detection.config import DetectionConfig
    from cyclemlp.tasks.instance_segmentation.task import InstanceSegmentationConfig
    from cyclemlp.tasks.segmentation.config import SegmentationConfig
    from cyclemlp.training.run import Run

PathInput = str | PathLike[str]


def train(task: str, *, config: str | None = None, **options: OptionValue) -> "Run":
    """Train a network for `task`, and return its run folder and its scores on the validation images.

    Args:
        task: segmentation, classification, detection or instance-segmentation.
        config: a recipe: a YAML file of options, or the name of one that comes with the package.
        options: those of `cyclemlp train TASK --help`; only `data` is needed.

    Raises:
        ConfigError, DataError, CheckpointError: for what the caller can correct.
        TrainingStopped: after Ctrl-C (an interrupted notebook cell) or SIGTERM; `train(task, resume=run_folder)`
            continues the run.
    """
    return train_with(task, build_config(task, options, recipe=config))


def train_segmentation(config: "SegmentationConfig") -> "Run":
    """As `train`, from a typed config."""
    return train_with("segmentation", config)


def train_classification(config: "ClassificationConfig") -> "Run":
    """As `train`, from a typed config."""
    return train_with("classification", config)


def train_detection(config: "DetectionConfig") -> "Run":
    """As `train`, from a typed config."""
    return train_with("detection", config)


def train_instance_segmentation(config: "InstanceSegmentationConfig") -> "Run":
    """As `train`, from a typed config."""
    return train_with("instance-segmentation", config)


def train_with(task: str, config: RunConfig) -> "Run":
    """As `train`, for any task, from a config of its type."""
    if config.resume:
        config = replace(config, resume=True, out=folder_to_resume(task, config.resume, config.out))
    for path in (config.out, config.init):
        if path is not None:
            settle(path)
    check_run(get_task(task), config)

    from cyclemlp.training.run_folder import check_folder

    if config.out is not None and not config.resume and is_first_process():
        check_folder(config)

    from cyclemlp.training.run import run_training

    return run_training(get_task(task), replace(config, model=full_name(config.model)))


def evaluate(
    run: PathInput,
    *,
    data: PathInput | None = None,
    split: str = "val",
    out: PathInput | None = None,
    device: str = "auto",
    allow_outside: bool = False,
    no_verify: bool = False,
    trust: bool = False,
    **options: OptionValue,
) -> JsonObject:
    """The scores of a trained network on labelled images, as a report of JSON values.

    Args:
        run: a run, its folder or model.safetensors, or an exported file.
        data: a folder in the task's format; by default the one that the run was trained on.
        split: which part of the data.
        out: folder for scores.json and the further files of the task.
        device: auto, cpu, cuda, cuda:1 or mps.
        allow_outside: read images outside of `data` where its annotations name them.
        no_verify: load weights although they differ from the digest written with them.
        trust: load a .pt2 file that may run code.
        options: those of `cyclemlp eval --help`, such as `scales=(0.75, 1.0)` or `flip=True`.
    """
    given = parse_options(EvaluationOptions, options, default=EvaluationOptions())

    from cyclemlp.inference.evaluate import check_out, evaluate_predictor
    from cyclemlp.inference.predictor import Predictor
    from cyclemlp.inference.runtimes.pt2_archive import trusting
    from cyclemlp.training.run_folder import training_data

    run, folder = Path(run), None if out is None else Path(out)
    check_out(folder)
    if folder is not None:
        check_writable(folder)
    with verified(not no_verify), trusting(trust):
        predictor = Predictor.load(run, device)
    found = Path(data) if data else training_data(run)
    return evaluate_predictor(predictor, run, found, split, given, folder, allow_outside=allow_outside)


def predict(
    run: PathInput,
    images: PathInput | Sequence[PathInput],
    *,
    out: PathInput,
    recursive: bool = False,
    every: int = 1,
    device: str = "auto",
    resume: bool = False,
    no_verify: bool = False,
    trust: bool = False,
    **options: OptionValue,
) -> "Predictions":
    """Predict on images and videos, with the results in the folder `out`.

    Args:
        run: a run, its folder or model.safetensors, or an exported file.
        images: images, videos, folders of them, or patterns.
        out: folder for the results.
        recursive: read the folders in folders, too; results go into folders of the same names in `out`.
        every: of videos, use the first frame and every n-th frame after it.
        device: auto, cpu, cuda, cuda:1 or mps.
        resume: keep the results that an interrupted call with the same arguments has written.
        no_verify: load weights although they differ from the digest written with them.
        trust: load a .pt2 file that may run code.
        options: those of `cyclemlp predict --help`, such as `score_threshold=0.5`.

    Raises DataError where no image can be predicted; single failures are listed in `failed`.
    """
    from cyclemlp.inference.predict_files import check_request, predict_files

    given = parse_options(PredictionOptions, options, default=PredictionOptions())
    inputs = [images] if isinstance(images, str | PathLike) else images
    # Before torch is imported.
    sources = check_request([Path(path) for path in inputs], Path(out), every, recursive=recursive)
    check_writable(Path(out))

    from cyclemlp.inference.predictor import Predictor
    from cyclemlp.inference.runtimes.pt2_archive import trusting

    with verified(not no_verify), trusting(trust):
        predictor = Predictor.load(Path(run), device)
    done = predict_files(predictor, sources, Path(out), given, every, resume=resume)
    if not done.images and not done.videos:
        done.raise_failures()
    return done


def export(
    run: PathInput,
    *,
    out: PathInput,
    format: str = "onnx",  # noqa: A002
    limit: float = 1e-4,
    for_size: str | None = None,
    raw: bool = False,
    opset: int | None = None,
    no_verify: bool = False,
) -> JsonObject:
    """Write a trained network as a file for another runtime, and return the report of the comparison of its values.

    Args:
        run: a run, its folder or model.safetensors.
        out: NAME.onnx, NAME.xml (OpenVINO) or NAME.pt2.
        format: onnx, openvino or pt2.
        limit: largest difference from the network's values, as a share of the largest value.
        for_size: height and width in network pixels, as `480x640`, at which the file is fastest; it is right at every
            size. By default that of the training crops.
        raw: leave decoding and non-maximum suppression out of a detector's file.
        opset: version of ONNX's operator set, 18 to 23; None for the exporter's own.
        no_verify: load weights although they differ from the digest written with them.

    Raises ConfigError where the file cannot be written or its values differ by more than the limit.
    """
    from cyclemlp.export.run import export_run

    with verified(not no_verify):
        return export_run(Path(run), Path(out), format, limit=limit, for_size=for_size, raw=raw, opset=opset)
