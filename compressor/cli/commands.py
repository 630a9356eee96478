"""The list of commands, and how a function of options becomes one; it must never hold what a command does."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Annotated, Any, get_type_hints

import typer

from compressor.asking.presets import PRESETS
from compressor.cli.declared import options_of, read_options
from compressor.cli.effective import PRESET_KEY, config_shower
from compressor.cli.help import HELP_ALL, PanelledCommand, show_all
from compressor.cli.options import RunOptions
from compressor.cli.origins import Origins
from compressor.printable import printable
from compressor.terminal import prefix

CommandFunction = Callable[[Any, Any], None]
Runner = Callable[[str, CommandFunction, RunOptions, Origins], None]


def command_functions() -> dict[str, CommandFunction]:
    """Every command by name, in the order of --help, which is the order of the work."""
    from compressor.cli import analyze, bench, compact, export, prune, retrain

    return {
        "analyze": analyze.analyze,
        "prune": prune.prune,
        "retrain": retrain.retrain,
        "compact": compact.compact,
        "export": export.export,
        "bench": bench.bench,
    }


@cache
def option_table() -> dict[str, dict[str, Any]]:
    """Annotation of every option by command: what compress.toml may say."""
    return {
        command: {name: option.annotation for name, option in options_of(options_class(function)).items()}
        for command, function in command_functions().items()
    }


def options_class(function: CommandFunction) -> type[RunOptions]:
    """The dataclass that the command's function takes."""
    return get_type_hints(function)["options"]


def add(app: typer.Typer, name: str, function: CommandFunction, runner: Runner) -> None:
    """Adds `function(options, session)` to the app; `runner` calls it and turns its end into an exit code."""
    options = options_class(function)

    def command(context: typer.Context, **values: Any) -> None:
        given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k != HELP_ALL}
        chosen = read_options(options, {**given, **_preset(context, name, given)})
        shown = config_shower(context) if chosen.print_config else None
        runner(name, shown or function, chosen, _origins(context, chosen, remember=shown is None))

    command.__signature__ = _signature(options)  # type: ignore[attr-defined]
    command.__annotations__ = {}
    command.__doc__ = function.__doc__
    app.command(name, cls=PanelledCommand)(command)


def _preset(context: typer.Context, command: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What --preset fills in: options that nobody said anything about, here, in a variable or in a file."""
    preset = given.get("preset")
    if preset is None:
        return {}
    filled = PRESETS[command][preset]
    chosen = {option: value for option, value in filled.items() if _source(context, option) == "DEFAULT"}
    context.meta[PRESET_KEY] = (preset, frozenset(chosen))
    return chosen


def _origins(context: typer.Context, chosen: RunOptions, *, remember: bool) -> Origins:
    """Who wrote the options. Leave on the command line is remembered, that of a variable is for this run."""
    given: Origins = context.meta.get(Origins.KEY, Origins())
    stood_in = {name for name in given.options if _source(context, name) == "DEFAULT_MAP"}
    trusts_models = bool(getattr(chosen, "trust_code", False))
    origins = replace(given, options=frozenset(stood_in), trusts_models=trusts_models)
    if not chosen.allow_config:
        return origins
    by_hand = _source(context, "allow_config") == "COMMANDLINE"
    origins, told = origins.allowing(from_now_on=by_hand and remember)
    if told is not None:
        typer.echo(f"{prefix('note:', 'yellow', sys.stderr)} {printable(told)}", err=True)
    return origins


def _source(context: typer.Context, name: str) -> str:
    return getattr(context.get_parameter_source(name), "name", "DEFAULT")


def _signature(options: type[RunOptions]) -> inspect.Signature:
    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    all_options = typer.Option("--help-all", is_eager=True, callback=show_all, help="Show every option and exit.")
    help_all = inspect.Parameter(
        HELP_ALL, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Annotated[bool, all_options]
    )
    return inspect.Signature(
        [
            context,
            *(
                inspect.Parameter(
                    name, inspect.Parameter.KEYWORD_ONLY, default=option.default, annotation=option.annotation
                )
                for name, option in options_of(options).items()
            ),
            help_all,
        ]
    )
