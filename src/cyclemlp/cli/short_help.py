"""The help of `cyclemlp train TASK`: the options that people need first; all of them with --help-all."""

from collections.abc import Callable

from cyclopts import App
from cyclopts.help import DefaultFormatter, HelpEntry, HelpPanel
from rich.console import Console, ConsoleOptions

FIRST = ("--data", "--val-share", "--classes", "--model", "--max-time", "--init", "--out", "--resume")
_FURTHER = "--fit, --config (recipes), --overwrite, --patience, --freeze and --logger"


class FirstOptions(DefaultFormatter):
    """Shows the options of FIRST, in its order, and leaves out the others."""

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        """Print the panel, if anything of it is left."""
        shown = {name: entry for entry in panel.entries for name in entry.positive_names if name in FIRST}
        if shown:
            super().__call__(console, options, panel.copy(entries=sorted(shown.values(), key=_place)))


def _place(entry: HelpEntry) -> int:
    return min(FIRST.index(name) for name in entry.positive_names if name in FIRST)


def with_short_help(name: str, command: Callable[..., object], usage: str) -> App:
    """An app for `command` whose --help shows the first options and whose --help-all shows every one."""
    app = App(
        name=name,
        help_formatter=FirstOptions(),
        help_epilogue=f"{usage} --help-all lists all options, such as {_FURTHER}.",
    )
    app.default(command)

    def print_all() -> None:
        whole = App(name=usage, help_format="plaintext", help_flags=(), version_flags=())
        whole.default(command)
        whole.help_print([])

    app.command(print_all, name="--help-all", show=False)
    return app
