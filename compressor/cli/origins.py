"""Who wrote an option, and so whether the code that it names may run; it must never run any, nor read a file's options.

What stands on the command line, in a variable or in a file named with --config is the user's own word. A file that was
only found, in whatever folder the user happens to stand, chooses code once the user has allowed it as it is.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from compressor.cli.allowed import allow, is_allowed, was_allowed
from compressor.cli.config_file import ConfigFile, is_foreign, owner_of
from compressor.errors import ConfigError, OutputError, UntrustedCodeError
from compressor.reference import split_reference

_LONGEST_COMMAND = 300


class Origin(NamedTuple):
    """Whether the code that an option names may run, and where its modules and files are looked for first."""

    trust_code: bool
    base: Path | None = None


THE_USER = Origin(True)
A_MODEL_FILE = Origin(False)
"""What a checkpoint remembers."""


@dataclass(frozen=True)
class Origins:
    """The file that stood in for options, and which ones it gave. `allows`: the user lets it name code in this run,
    `trusts_models`: what a model file remembers as well."""

    KEY = "compressor.origins"

    file: ConfigFile | None = None
    options: frozenset[str] = frozenset()
    allows: bool = False
    trusts_models: bool = False

    def of(self, option: str, value: str | None) -> Origin:
        """The origin of an option's value; None is a value that no option gave."""
        if value is None:
            return THE_USER if self.trusts_models else A_MODEL_FILE
        if self.file is None or option not in self.options:
            return THE_USER
        return Origin(self._why_not(value) is None, self.file.path.parent)

    def refusal(self, error: UntrustedCodeError, words: Sequence[str]) -> ConfigError | None:
        """What to tell instead where it is the file that named the code; `words` are the command line."""
        if self.file is None or error.field not in self.options:
            return None
        why = self._why_not(error.ref) or "may not name code"
        if self.file.is_foreign or why == _FOREIGN_CODE:
            next_step = f"name the file if you trust it: {_command(words, '--config', str(self.file.path))}"
        else:
            next_step = f"look at it, then allow it until it changes: {_command(words, '--allow-config')}"
        return ConfigError(f"{self.file.path}: {why}: {error.field} = {error.ref[:120]}\n{next_step}")

    def allowing(self, *, from_now_on: bool) -> tuple[Origins, str | None]:
        """With leave for this run and, `from_now_on`, for those to come; and what is to be told about that."""
        allowed = replace(self, allows=True)
        if self.file is None or not self.file.found or self.file.is_foreign or not from_now_on:
            return allowed, None
        if is_allowed(self.file):
            return allowed, None
        try:
            allow(self.file)
        except OutputError as error:
            return allowed, f"allowed for this run only: {error}"
        return allowed, f"{self.file.path} may name code from now on, until it changes"

    def _why_not(self, value: str) -> str | None:
        assert self.file is not None
        if not self.file.found:
            return None
        if self.file.is_foreign:
            return "belongs to another user and was found, not named, so it does not choose which code runs"
        if _is_foreign_code(value):
            return _FOREIGN_CODE
        if self.allows or is_allowed(self.file):
            return None
        if was_allowed(self.file):
            return "has changed since it was allowed to name code"
        return "was found, not named, and does not choose which code runs before you allow it"


_FOREIGN_CODE = "names code that belongs to another user"


def _is_foreign_code(value: str) -> bool:
    source = (split_reference(value) or (value, ""))[0]
    try:
        return source.endswith(".py") and is_foreign(owner_of(Path(source).expanduser()))
    except (OSError, ValueError, RuntimeError):  # it is not there: whoever opens it says so
        return False


def _command(words: Sequence[str], *options: str) -> str:
    """The command line again with more options, right after the command's name; cut where it is long."""
    text = shlex.join(["compress", *words[:1], *options, *words[1:]])
    return text if len(text) <= _LONGEST_COMMAND else f"{shlex.join(['compress', *words[:1], *options])} …"
