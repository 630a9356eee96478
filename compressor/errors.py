"""Every error a user can meet, as one tree; it must never hold anything that catches or prints them.

    CompressError                exit 1   the tool could not do it
    ├── UsageError               exit 2   flags or values that make no sense
    │   ├── ConfigError          exit 2   compress.toml and friends
    │   └── UntrustedCodeError   exit 2   a reference to code that the user did not write
    ├── ModelError               exit 1   a file is no model, is damaged, or does not fit its architecture
    │   └── UnsafeFileError      exit 1   opening it could run code
    ├── DataError                exit 1   data set missing, damaged, or not fitting the model
    ├── PatternError             exit 1   a pattern cannot be applied where it was asked
    ├── RatioError               exit 1   the ratio cannot be reached; the message states the largest feasible one
    ├── TrainingError            exit 1   training diverged or could not run
    ├── ProviderError            exit 1   an execution provider or device is not there
    ├── OutputError              exit 1   a file cannot be written
    └── GateError                exit 3   a --require gate failed
        └── VerificationError    exit 3   two forms of one model disagree; nothing was written

A message says where, what, and what next, in at most three lines.
"""

from compressor.printable import printable

_LONGEST_LINE = 600


class CompressError(Exception):
    """Base of all errors that are the user's to read; `exit_code` is what the command line returns.

    A message may quote what a stranger wrote into a file: it is made fit for a terminal here, once, and its lines end.
    """

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__("\n".join(map(_bounded, printable(message).split("\n"))))


def _bounded(line: str) -> str:
    """The beginning and the end of a long line."""
    half = _LONGEST_LINE // 2
    return line if len(line) <= _LONGEST_LINE else f"{line[:half]} … {line[-half:]}"


class UsageError(CompressError):
    exit_code = 2


class ConfigError(UsageError):
    pass


class UntrustedCodeError(UsageError):
    """A reference to code, named by a file and not by the user."""

    def __init__(self, ref: str, field: str) -> None:
        self.ref, self.field = ref, field
        super().__init__(
            f"{field} is remembered as code ({ref}), and a file must not choose which code runs;\n"
            f"repeat it as --{field} {ref} to run that code, or give --trust-code (in Python: trust_code=True)"
        )


class ModelError(CompressError):
    pass


class UnsafeFileError(ModelError):
    pass


class DataError(CompressError):
    pass


class PatternError(CompressError):
    pass


class RatioError(CompressError):
    pass


class TrainingError(CompressError):
    pass


class ProviderError(CompressError):
    pass


class OutputError(CompressError):
    pass


class GateError(CompressError):
    exit_code = 3


class VerificationError(GateError):
    pass


def first_line(error: BaseException, most: int = 200) -> str:
    """The first line of what a library raised, short enough to quote; the error's class where it says nothing."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)[:most]


def named_line(error: BaseException, most: int = 200) -> str:
    """`ValueError: its first line`; the class alone where it says nothing."""
    name, line = type(error).__name__, first_line(error, most)
    return name if line == name else f"{name}: {line}"


def innermost_line(error: BaseException) -> str:
    """Class and first line of the error at the bottom of a chain: what torch's exporter says is a page of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return named_line(error)
