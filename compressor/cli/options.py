"""Options that several commands share, as dataclasses whose fields are command-line options.

It must never hold what is done with a value. A command's own options are a subclass in the command's file. What is
asked of a library function is declared there, in `compressor.asking`; a class names such requests in `asks`, and their
options become its own. `commands.add` turns all of them into command-line options, and `config` knows them as keys of
compress.toml.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import typer

from compressor.architectures import BUNDLED, LIBRARIES
from compressor.asking import Recipe, build
from compressor.asking.presets import Preset
from compressor.cli.config import config_callback
from compressor.cli.printing import Printing, read_printing, table_forms
from compressor.data_reference import DATA_KINDS

T = TypeVar("T")

MODEL_HELP = (
    "Checkpoint of compress, state dict (.pt .pth .safetensors, with --arch), .onnx; '-' reads standard "
    "input; the word 'init' with --arch takes the architecture's initial weights."
)
_MODEL = "The model"
_RUN = "The run"


def complete_architecture(incomplete: str) -> list[str]:
    """Bundled names, libraries, and files of source beside."""
    return _starting(incomplete, (*BUNDLED, *(f"{name}:" for name in LIBRARIES)), ("*.py",))


def complete_data(incomplete: str) -> list[str]:
    """Kinds of data, and what is beside that may be some."""
    return _starting(incomplete, tuple(f"{kind}:" for kind in DATA_KINDS), ("*.npz", "*.py", "*/"))


def _starting(incomplete: str, names: tuple[str, ...], files: tuple[str, ...]) -> list[str]:
    """Names first, then paths below the folder that was typed so far."""
    folder = Path(incomplete).parent if "/" in incomplete else Path()
    found = [f"{path}/" if path.is_dir() else str(path) for form in files for path in sorted(folder.glob(form))]
    return [text for text in (*names, *found) if text.startswith(incomplete)]


def option(*names: str, help: str, panel: str | None = None, **more: Any) -> Any:
    """A typer option with the house's defaults."""
    return typer.Option(*names, help=help, rich_help_panel=panel, **more)


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How the command runs and talks; every command has these.

    `said` holds what was said about the requests in `asks`, by option name, as text or plain values.
    """

    asks: ClassVar[tuple[type[Any], ...]] = ()
    said: Mapping[str, Any] = field(default_factory=dict)

    device: Annotated[
        str, option(metavar="NAME", panel=_RUN, help="auto (the best there is), cpu, cuda, cuda:N or mps.")
    ] = "auto"
    seed: Annotated[
        int, option(metavar="N", panel=_RUN, min=0, max=2**63 - 1, help="Same seed, same result (on one CPU process).")
    ] = 0
    config: Annotated[
        str | None,
        option(
            metavar="FILE",
            panel=_RUN,
            is_eager=True,
            callback=config_callback,
            help="Take options from this file, not from the compress.toml or pyproject.toml found upwards.",
        ),
    ] = None
    allow_config: Annotated[
        bool,
        option(
            "--allow-config",
            panel=_RUN,
            help="Let the compress.toml or pyproject.toml found upwards name code (arch, data, task, plugin), now and "
            "until the file changes.",
        ),
    ] = False
    print_config: Annotated[
        bool,
        option(
            "--print-config",
            panel=_RUN,
            help="Print every option as it would be used, and where it comes from, as a compress.toml; run nothing.",
        ),
    ] = False
    json: Annotated[bool, option("--json", panel=_RUN, help="One JSON object on stdout, no table.")] = False
    table: Annotated[
        str | None,
        option(
            metavar="FORM",
            panel=_RUN,
            autocompletion=table_forms,
            help="Result as text, markdown, csv (the main table, raw numbers) or csv:NAME (another one).",
        ),
    ] = None
    quiet: Annotated[bool, option("--quiet", "-q", panel=_RUN, help="No progress, no notes.")] = False
    verbose: Annotated[
        bool, option("--verbose", "-v", panel=_RUN, help="Every row of every table; tracebacks of bugs.")
    ] = False

    @property
    def printing(self) -> Printing:
        """In which form the result goes out. Raises: UsageError as `read_printing`."""
        return read_printing(self.table, json=self.json, output=getattr(self, "output", None))

    def request(self, kind: type[T], **more: Any) -> T:
        """What was asked, as the value that the library takes; `more` is said by the command itself.

        Raises:  UsageError for a value that cannot be read or is out of range.
        """
        return build(kind, {**self.said, **more})


@dataclass(frozen=True, kw_only=True)
class SourceOptions(RunOptions):
    """How a MODEL is opened and what it is measured on; a checkpoint remembers these once given."""

    arch: Annotated[
        str | None,
        option(
            metavar="NAME",
            panel=_MODEL,
            autocompletion=complete_architecture,
            help="Architecture of a state dict: lenet5, resnet56 …, torchvision:NAME, timm:NAME, "
            "ultralytics:NAME, file.py:Net, package.module:callable.",
        ),
    ] = None
    arch_arg: Annotated[
        list[str] | None,
        option("--arch-arg", metavar="K=V", panel=_MODEL, help="Argument of the architecture; repeat."),
    ] = None
    input: Annotated[
        list[str] | None,
        option(
            "--input",
            metavar="SHAPE",
            panel=_MODEL,
            help="Input without the batch: 3x224x224, ids:int64:128<30522; repeat.",
        ),
    ] = None
    until: Annotated[
        list[str] | None,
        option(
            "--until",
            metavar="LAYER",
            panel=_MODEL,
            help="End the network where this layer returns; what follows (decoding, NMS) stays outside; repeat.",
        ),
    ] = None
    data: Annotated[
        str | None,
        option(
            metavar="REF",
            panel=_MODEL,
            autocompletion=complete_data,
            help="mnist:DIR, fashion-mnist:DIR, cifar10:DIR, file.npz, a folder with train/ and val/, text: or images: "
            "and a table (CSV, JSON lines, Parquet, tar) or directory of datasets, file.py:function.",
        ),
    ] = None
    task: Annotated[
        str | None,
        option(metavar="REF", panel=_MODEL, help="file.py:Task for anything but classification."),
    ] = None
    weights: Annotated[
        str | None,
        option(metavar="KEY", panel=_MODEL, help="Key of the state dict in a file that holds several, as ema."),
    ] = None
    plugin: Annotated[
        list[str] | None,
        option(
            "--plugin",
            metavar="FILE.py",
            panel=_MODEL,
            help="Python file or module to import first, as one that registers axis rules; repeat.",
        ),
    ] = None
    trust_code: Annotated[
        bool,
        option(
            "--trust-code",
            panel=_MODEL,
            help="Run the code that the checkpoint remembers as its data, task or arch, without repeating it.",
        ),
    ] = False
    trust_pickle: Annotated[
        bool,
        option("--trust-pickle", panel=_MODEL, help="Open files that can run code when they are opened."),
    ] = False


@dataclass(frozen=True, kw_only=True)
class ModelOptions(SourceOptions):
    """One MODEL."""

    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP, show_default=False)]


@dataclass(frozen=True, kw_only=True)
class OverwriteOptions:
    """Whether a file that is there may be overwritten."""

    force: Annotated[bool, option("--force", "-f", panel=_RUN, help="Overwrite what is there.")] = False


@dataclass(frozen=True, kw_only=True)
class OutputOptions(OverwriteOptions):
    """Where the result goes."""

    output: Annotated[
        str | None,
        option(
            "--output",
            "-o",
            metavar="PATH",
            panel=_RUN,
            help="Where to write; '-' is standard output. Default: beside MODEL.",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class ResumeOptions:
    """Whether a run that was interrupted goes on."""

    resume: Annotated[bool, option("--resume", help="Go on where an interrupted run stopped.")] = False


@dataclass(frozen=True, kw_only=True)
class GateOptions:
    """What the result must reach to be written."""

    require: Annotated[
        list[str] | None,
        option(
            "--require",
            metavar="GATE",
            panel=_RUN,
            help="accuracy>=0.98, ratio>=10, size<=1MiB …; repeat. Where one is not met nothing is written: exit 3.",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class RecipeOptions(RunOptions):
    """How the network is trained."""

    asks = (Recipe,)

    preset: Annotated[
        Preset | None,
        option(help="Epochs, distillation and rounding by one word, where nothing else says them."),
    ] = None
