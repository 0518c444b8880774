"""Names of options as people write them: American spellings, and the names that other tools use."""

from collections.abc import Collection

_SPELLINGS = {"color": "colour"}
"""American spellings in names of options, and ours."""
_NAMES_ELSEWHERE = {
    "lr": ("learning-rate", "lr0", "base-lr", "init-lr", "learningrate"),
    "batch-size": ("batch", "bs", "batchsize", "per-device-train-batch-size", "train-batch-size", "samples-per-gpu"),
    "crop-size": ("imgsz", "img", "img-size", "imgsize", "image-size", "input-size", "resolution"),
    "image-size": ("imgsz", "img", "img-size", "imgsize", "input-size", "crop-size", "resolution"),
    "init": ("weights", "pretrained", "checkpoint", "finetune", "load-from", "resume-from"),
    "out": ("output", "output-dir", "save-dir", "project", "work-dir", "name"),
    "model": ("arch", "backbone", "encoder", "encoder-name"),
    "epochs": ("max-epochs", "num-epochs", "num-train-epochs"),
    "steps": ("max-steps", "iters", "max-iters", "iterations"),
    "weight-decay": ("wd",),
    "clip-norm": ("clip-grad", "max-grad-norm", "grad-clip"),
    "accumulate": ("gradient-accumulation-steps", "accumulate-grad-batches", "grad-accum-steps"),
    "drop-path": ("drop-path-rate",),
    "optimizer": ("optimiser", "opt", "optim"),
    "precision": ("amp", "fp16", "bf16", "half"),
    "warmup": ("warmup-epochs", "warmup-ratio"),
    "workers": ("num-workers",),
    "flip": ("fliplr", "hflip", "horizontal-flip"),
    "rotate90": ("rot90", "random-rotate90", "rotation"),
    "brightness": ("colour-jitter", "colorjitter"),
    "contrast": ("colour-jitter", "colorjitter"),
    "saturation": ("colour-jitter", "colorjitter"),
    "vertical-flip": ("flipud", "vflip"),
    "val-share": ("val-split", "validation-split", "test-size"),
    "freeze": ("freeze-backbone", "frozen-stages", "freeze-layers"),
    "logger": ("loggers", "report-to", "log-with", "tracker", "trackers"),
    "patience": ("early-stopping-patience", "early-stopping", "early-stop"),
}
"""Options of other tools by their names here."""
_FIXED = {
    "values are normalised as ImageNet's are, and those of other bit depths by --value-range": (
        *("normalization", "normalisation", "normalize", "normalise", "mean", "std"),
    ),
}
"""What is the same in every run, and options of other tools that change it."""


def own_spelling(option: str) -> str:
    """The name of an option, or an argument of the command line, as it is spelt here: `--colour-x` for `--color-x`."""
    name, equals, value = option.partition("=")
    if option.startswith("-") and not name.startswith("--"):
        return option
    for theirs, ours in _SPELLINGS.items():
        name = name.replace(theirs, ours)
    return name + equals + value


def own_spellings(arguments: Collection[str]) -> list[str]:
    """Arguments of a command line with its options as they are spelt here; all else stays."""
    return [own_spelling(each) if each.startswith("--") else each for each in arguments]


def unknown_option(option: str, known: Collection[str]) -> str:
    """A sentence after a space: what the option of another tool is among the `known` ones, or why there is none.

    Names have the dashes that they have in `known`. Empty for options that no other tool is known to have.
    """
    given = option.removeprefix("--").replace("_", "-").lower()
    dashes = "--" if option.startswith("--") else ""
    here = [ours for ours, theirs in _NAMES_ELSEWHERE.items() if given in theirs and dashes + ours in known]
    if here:
        return f" Here it is {' or '.join(dashes + name for name in here)}."
    return next((f" There is none: {reason}." for reason, names in _FIXED.items() if given in names), "")
