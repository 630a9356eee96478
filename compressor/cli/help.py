"""Help of a command: what most people need first, the rest behind --help-all, both in panels; it must never hold an
option.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import typer
from typer.core import TyperCommand

from compressor.printable import printable

HELP_ALL = "help_all"
_EVERYWHERE = (
    *("model", "models", "arch", "input", "data", "task", "trust_code", "output", "force", "require", "report"),
    *("preset", "dry_run", "resume", "device", "seed", "config", "print_config", "json", "quiet", "verbose", "help"),
    HELP_ALL,
)
_OF_COMMAND: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "analyze": ("explain", "sensitivity", "ratios", "pattern"),
        "prune": (
            *("ratio", "sparsity", "of", "scope", "keep", "round_to", "method", "pattern", "steps", "epochs"),
            *("retrain_epochs", "no_retrain", "distill", "lr", "batch_size", "optimizer", "augment"),
        ),
        "retrain": (
            *("epochs", "teacher", "distill", "lr", "batch_size", "optimizer", "augment", "keep_best", "recalibrate"),
        ),
        "compact": ("allow_noop", "lowering", "round_to"),
        "export": ("opset", "format", "batch", "fp16", "int8", "check_only"),
        "bench": ("provider", "threads", "batch", "accuracy", "profile", "plot"),
    }
)
"""Options that --help shows, by command; `--help-all` shows every one."""


def is_common(command: str, option: str) -> bool:
    """Whether --help shows it; a command that is not known here shows all."""
    return command not in _OF_COMMAND or option in _EVERYWHERE or option in _OF_COMMAND[command]


class PanelledCommand(TyperCommand):
    """A command whose help has panels in a pipe too, and keeps what few people need to itself until it is asked."""

    _only_common = False

    def get_params(self, ctx: Any) -> list[Any]:
        """All parameters; while help is written without --help-all, the common ones."""
        every = super().get_params(ctx)
        if not self._only_common:
            return every
        return [param for param in every if is_common(str(self.name), str(param.name))]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Common options, then how to see the rest; everything after --help-all."""
        wants_all = bool(ctx.meta.get(HELP_ALL))
        hidden = 0 if wants_all else sum(not is_common(str(self.name), str(p.name)) for p in super().get_params(ctx))
        self._only_common = hidden > 0
        try:
            super().format_help(ctx, formatter)
        finally:
            self._only_common = False
        if not hidden:
            return
        told = f"{hidden} more options: {ctx.command_path} --help-all"
        if self.rich_markup_mode is None:
            formatter.write(f"\n{told}\n")
        else:
            typer.echo(printable(f" {told}"))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Panel by panel, in the order in which they first come."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            usual = "Arguments" if param.param_type_name == "argument" else "Options"
            if (row := param.get_help_record(ctx)) is not None:
                panels.setdefault(getattr(param, "rich_help_panel", None) or usual, []).append(row)
        for name in sorted(panels, key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST)):
            with formatter.section(name):
                formatter.write_dl(panels[name])


_FIRST = ("Arguments", "Options")


def show_all(context: typer.Context, wanted: bool) -> None:
    """The callback of --help-all."""
    if wanted and not context.resilient_parsing:
        context.meta[HELP_ALL] = True
        typer.echo(printable(context.get_help()))
        raise typer.Exit
