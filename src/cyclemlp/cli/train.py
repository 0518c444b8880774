"""`cyclemlp train`: from a folder of labelled images to a network of your own; one command per task."""

import logging
import sys
from collections.abc import Callable
from json import dumps

from cyclopts import App, ArgumentCollection, Parameter

from cyclemlp.cli.short_help import with_short_help
from cyclemlp.files import JsonMapping
from cyclemlp.option_checks import refuse_fractions
from cyclemlp.tasks.build_config import fill_in, takes_options_of
from cyclemlp.tasks.options import RunConfig
from cyclemlp.tasks.registry import AnyTask, get_task, task_names

_logger = logging.getLogger(__name__)

_HELP = """{purpose}

Only --data is needed. The run folder gets the network, checkpoints, metrics.csv and report.html.

Parameters
----------
run
    What is trained, and how.
config
    Recipe: a YAML file of options, or the name of one that comes with cyclemlp; options given here go before its own.
json
    Print one JSON object with the run folder and its metrics on standard output.
"""


def _fill_in(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    recipes = [token.value for argument in arguments if argument.name == "--config" for token in argument.tokens]
    fill_in(commands[-1], recipes[-1] if recipes else None, app, commands, arguments)


app = App(
    name="train",
    help="Train a network on your own data.",
    help_format="plaintext",
    config=(refuse_fractions, _fill_in),
    default_parameter=Parameter(negative=(), consume_multiple=True),
)


def _command(task: AnyTask) -> Callable[..., object]:
    """The function behind `cyclemlp train TASK`."""

    def command(*, run: RunConfig, config: str | None = None, json: bool = False) -> None:
        del config  # read by _fill_in
        _train(task, run, json)

    command.__doc__ = _HELP.format(purpose=task.purpose)
    return takes_options_of(task.config, command)


for _name in task_names():
    app.command(with_short_help(_name, _command(get_task(_name)), f"cyclemlp train {_name}"))


def _train(task: AnyTask, config: RunConfig, json: bool) -> None:
    from cyclemlp.api import train_with
    from cyclemlp.training.stopping import TrainingHelped, TrainingStopped

    try:
        run = train_with(task.name, config)
    except TrainingStopped as stopped:
        if stopped.replaced_run_is_back:
            _logger.info("%s", stopped)
        else:
            _logger.info("stopped at step %d; to continue:", stopped.step)
            _logger.info("cyclemlp train %s --resume %s", task.name, stopped.run_dir)
        sys.exit(128 + stopped.signum)
    except TrainingHelped:
        return
    _logger.info("%s", _summary(task, run.metrics))
    if run.doubts:
        _logger.warning("the network is %s", run.doubts)
    _logger.info("the model and report.html are in %s", run)
    if json:
        result = {"task": task.name, "run": str(run), "data": str(config.data), "metrics": run.metrics}
        result |= {"doubts": run.doubts} if run.doubts else {}
        result |= {"early_end": run.early_end} if run.early_end else {}
        sys.stdout.write(dumps(result) + "\n")


def _summary(task: AnyTask, metrics: JsonMapping) -> str:
    names = task.scores
    return ", ".join(
        f"{name.rpartition('/')[2].replace('_', ' ')} {'absent' if value is None else f'{value:.4f}'}"
        for name, value in names.columns(metrics).items()
        if value is not None or name not in names.optional
    )
