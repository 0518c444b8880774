"""From options by name, as a script, a recipe or an earlier run gives them, to the config of a run."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, TypeVar

from cyclopts import App, ArgumentCollection, CycloptsError, MissingArgumentError, Parameter, Token, UnknownOptionError
from cyclopts.config import Dict

from cyclemlp.errors import ConfigError
from cyclemlp.option_checks import refuse_fractions
from cyclemlp.tasks.option_names import own_spellings, unknown_option
from cyclemlp.tasks.options import RunConfig
from cyclemlp.tasks.recipes import read_recipe, read_run_config
from cyclemlp.tasks.registry import get_task
from cyclemlp.tasks.run_names import folder_to_resume

OptionsT = TypeVar("OptionsT")
OptionValue = str | int | float | bool | Path | Sequence[str] | Sequence[float] | None


def build_config(task: str, options: Mapping[str, OptionValue], recipe: str | None = None) -> RunConfig:
    """The config of a run of `task` with these options.

    Options go before those of the recipe, and before those of the run that `resume` continues. Raises ConfigError as
    `parse_options` does, and for a missing `data`.
    """
    return parse_options(get_task(task).config, options, partial(fill_in, task, recipe))


def parse_options(
    kind: type[OptionsT],
    options: Mapping[str, OptionValue],
    config: Callable[..., None] | None = None,
    default: OptionsT | None = None,
) -> OptionsT:
    """The `kind` of options with these values, by their names on the command line with - or _, in either spelling.

    Raises ConfigError for an unknown name, with the nearest one, and for values of the wrong type or out of range.
    `config` gives values to further options, as one of cyclopts does. Where no option is required, `default` is needed.
    """

    def collect(*, run: OptionsT) -> OptionsT:
        return run

    if default is not None:
        collect.__kwdefaults__ = {"run": default}
    checks = (refuse_fractions, *([] if config is None else [config]))
    app = App(config=checks, default_parameter=Parameter(negative=(), consume_multiple=True), help_format="plaintext")
    app.default(takes_options_of(kind, collect))
    tokens = [token for name, value in options.items() for token in _tokens(name.replace("_", "-"), value)]
    try:
        command, bound, _ = app.parse_args(own_spellings(tokens), exit_on_error=False, print_error=False)
    except CycloptsError as error:
        raise ConfigError(in_one_line(error)) from error
    parsed: OptionsT = command(*bound.args, **bound.kwargs)
    return parsed


def takes_options_of(kind: type, function: Callable[..., object]) -> Callable[..., object]:
    """`function` itself; its parameter `run` is then parsed as options of this kind."""
    function.__annotations__["run"] = Annotated[kind, Parameter(name="*")]
    return function


def fill_in(task: str, recipe: str | None, app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Give the options that were left out the values of the recipe, or of the run to be resumed."""
    given = {argument.name: argument.tokens[-1].value for argument in arguments if argument.tokens}
    if "--resume" in given:
        if recipe is not None:
            raise ConfigError("--config and --resume were both given: a run keeps its own options, leave --config out")
        resume, out = given["--resume"], given.get("--out")
        run_dir = folder_to_resume(task, Path(resume) if resume else True, None if out is None else Path(out))
        options, source = read_run_config(run_dir) | {"out": str(run_dir)}, "the run to resume"
    elif recipe is not None:
        names = {argument.name.removeprefix("--") for argument in arguments} - {"config", "json"}
        options, source = read_recipe(recipe, names, task), recipe
    else:
        return
    values: dict[str, object] = {
        name: value for name, value in options.items() if value is not None and f"--{name}" not in given
    }
    # Under the commands' names: an option with the name of a verb, like `data`, would else be read as that verb's.
    for command in reversed(commands):
        values = {command: values}
    Dict(values, source=source)(app, commands, arguments)


def in_one_line(error: CycloptsError) -> str:
    """What is wrong with the options. Where one is missing, it may be one that is misspelt: that is named then."""
    if isinstance(error, MissingArgumentError) and error.app is not None:
        error = _unknown_option(error.unused_tokens or (), error.app) or error
    if isinstance(error, UnknownOptionError) and error.argument_collection is not None:
        known = {name for option in error.argument_collection for name in option.names}
        if hint := unknown_option(error.token.keyword or "", known):
            return f"Unknown option: {error.token.keyword}.{hint}"
    return " ".join(str(error).split())


def _unknown_option(tokens: Sequence[str], command: App) -> CycloptsError | None:
    options = command.assemble_argument_collection()
    known = {name for option in options for name in option.names}
    given = (token.split("=")[0] for token in tokens if token.startswith("--"))
    unknown = next((token for token in given if token not in known), None)
    if unknown is None:
        return None
    return UnknownOptionError(token=Token(keyword=unknown, source="cli"), argument_collection=options, verbose=False)


def _tokens(name: str, value: OptionValue) -> list[str]:
    """The option as it is typed; nothing for what is left out."""
    if value is None or value is False:
        return []
    if value is True:
        return [f"--{name}"]
    values = [value] if isinstance(value, str | int | float | Path) else value
    return [f"--{name}", *map(str, values)]
