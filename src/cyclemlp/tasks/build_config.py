"""From options by name, as a script, a recipe or an earlier run gives them, to the config of a run."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import App, ArgumentCollection, CycloptsError, Parameter
from cyclopts.config import Dict

from cyclemlp.errors import ConfigError
from cyclemlp.tasks.options import RunConfig
from cyclemlp.tasks.recipes import read_recipe
from cyclemlp.tasks.registry import get_task

OptionValue = str | int | float | bool | Path | Sequence[str] | Sequence[float] | None


def build_config(task: str, options: Mapping[str, OptionValue], recipe: str | None = None) -> RunConfig:
    """The config of a run of `task` with these options, by their names on the command line with - or _.

    Options go before those of the recipe. Raises ConfigError for an unknown name, with the nearest one, for a missing
    `data`, and for values of the wrong type or out of range.
    """

    def fill_in(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
        if recipe is not None:
            fill_from(read_recipe(recipe, option_names(arguments), task), recipe, app, commands, arguments)

    def collect(*, run: RunConfig) -> RunConfig:
        return run

    app = App(config=fill_in, default_parameter=Parameter(negative=(), consume_multiple=True), help_format="plaintext")
    app.default(takes_options_of(get_task(task).config, collect))
    tokens = [token for name, value in options.items() for token in _tokens(name.replace("_", "-"), value)]
    try:
        _, bound, _ = app.parse_args(tokens, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        raise ConfigError(" ".join(str(error).split())) from error
    return bound.arguments["run"]


def takes_options_of(config: type[RunConfig], function: Callable[..., object]) -> Callable[..., object]:
    """`function` itself; its parameter `run` is then parsed as the options of `config`."""
    function.__annotations__["run"] = Annotated[config, Parameter(name="*")]
    return function


def option_names(arguments: ArgumentCollection) -> set[str]:
    """The names of the options that a command takes, without dashes; a recipe may hold all but these two."""
    return {argument.name.removeprefix("--") for argument in arguments} - {"config", "json"}


def fill_from(
    options: Mapping[str, object], source: str, app: App, commands: tuple[str, ...], arguments: ArgumentCollection
) -> None:
    """Give the options that were left out the values of `source`."""
    given = {argument.name for argument in arguments if argument.tokens}
    values: dict[str, object] = {
        name: value for name, value in options.items() if value is not None and f"--{name}" not in given
    }
    # Under the commands' names: an option with the name of a verb, like `data`, would else be read as that verb's.
    for command in reversed(commands):
        values = {command: values}
    Dict(values, source=source)(app, commands, arguments)


def _tokens(name: str, value: OptionValue) -> list[str]:
    """The option as it is typed; nothing for what is left out."""
    if value is None or value is False:
        return []
    if value is True:
        return [f"--{name}"]
    values = [value] if isinstance(value, str | int | float | Path) else value
    return [f"--{name}", *map(str, values)]
