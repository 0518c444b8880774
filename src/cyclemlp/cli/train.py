"""`cyclemlp train`: from a folder of labelled images to a network of your own; one command per task."""

import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from json import dumps
from pathlib import Path

from cyclopts import App, ArgumentCollection, Parameter

from cyclemlp.errors import ConfigError
from cyclemlp.files import JsonMapping
from cyclemlp.tasks.build_config import fill_from, option_names, takes_options_of
from cyclemlp.tasks.options import RunConfig
from cyclemlp.tasks.recipes import read_recipe
from cyclemlp.tasks.registry import AnyTask, get_task, task_names

_logger = logging.getLogger(__name__)

FAMILIES: Mapping[str, str] = {
    "cyclemlp": "cyclemlp_nano",
    "asmlp": "asmlp_tiny",
    "mixer": "mixer_s32_224",
    "resmlp": "resmlp_12_224",
    "gmlp": "gmlp_ti16_224",
    "swin": "swin_tiny_patch4_window7_224",
    "convnext": "convnext_tiny",
    "resnet": "resnet18",
    "pvt": "pvt_v2_b0",
}
"""Names of families, as `--model` takes them: each stands for the smallest usual model of the family."""

_HELP = """{purpose}

The run folder gets the network (model.safetensors, model.json), checkpoints, metrics.csv, TensorBoard events and
report.html. Only --data is needed; options on the command line go before those of a recipe.

Parameters
----------
run
    What is trained, and how.
config
    Recipe: a YAML file of options, or the name of one that comes with cyclemlp.
json
    Print one JSON object with the run folder and its metrics on standard output.
"""


def full_name(model: str) -> str:
    """The model a family's name stands for, with a line in the log; any other name as it is."""
    if model not in FAMILIES:
        return model
    _logger.info("model %s is taken as %s", model, FAMILIES[model])
    return FAMILIES[model]


def _fill_in(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Give options left out on the command line the values of the recipe, or of the run to be resumed."""
    given = {argument.name: argument.tokens[-1].value for argument in arguments if argument.tokens}
    task = commands[-1]
    if "--resume" in given:
        if "--config" in given:
            raise ConfigError("--config and --resume were both given: a run keeps its own options, leave --config out")
        from cyclemlp.training.run_folder import read_run_config

        run_dir = Path(given.get("--out", get_task(task).config.out))
        fill_from(read_run_config(run_dir), "the run to resume", app, commands, arguments)
    elif "--config" in given:
        recipe = read_recipe(given["--config"], option_names(arguments), task)
        fill_from(recipe, given["--config"], app, commands, arguments)


app = App(
    name="train",
    help="Train a network on your own data.",
    help_format="plaintext",
    config=_fill_in,
    default_parameter=Parameter(negative=(), consume_multiple=True),
)


def _command(task: AnyTask) -> Callable[..., object]:
    """The function behind `cyclemlp train TASK`."""

    def command(*, run: RunConfig, config: str | None = None, json: bool = False) -> None:
        del config  # read by _fill_in
        _train(task, replace(run, model=full_name(run.model)), json)

    command.__doc__ = _HELP.format(purpose=task.purpose)
    return takes_options_of(task.config, command)


for _name in task_names():
    app.command(_command(get_task(_name)), name=_name)


def _train(task: AnyTask, config: RunConfig, json: bool) -> None:
    from cyclemlp.api import train_with
    from cyclemlp.training.stopping import TrainingHelped, TrainingStopped

    try:
        run = train_with(task.name, config)
    except TrainingStopped as stopped:
        _logger.info("stopped at step %d; to continue:", stopped.step)
        _logger.info("cyclemlp train %s --resume --out %s", task.name, stopped.run_dir)
        sys.exit(128 + stopped.signum)
    except TrainingHelped:
        return
    _logger.info("%s", _summary(task, run.metrics))
    _logger.info("the model and report.html are in %s", config.out)
    if json:
        result = {"task": task.name, "run": str(config.out), "data": str(config.data), "metrics": run.metrics}
        sys.stdout.write(dumps(result) + "\n")


def _summary(task: AnyTask, metrics: JsonMapping) -> str:
    names = task.scores
    return ", ".join(
        f"{name.rpartition('/')[2].replace('_', ' ')} {'absent' if value is None else f'{value:.4f}'}"
        for name, value in names.columns(metrics).items()
        if value is not None or name not in names.optional
    )
