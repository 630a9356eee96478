"""Options that several commands share, as dataclasses whose fields are command-line options.

It must never hold what is done with a value. A command's own options are a subclass in the command's file;
`commands.add` turns the fields into command-line options, and `config` knows them as keys of compress.toml.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from compressor.cli.config import config_callback
from compressor.cli.printing import table_forms
from compressor.errors import UsageError

if TYPE_CHECKING:
    from compressor.pruning import Recovery

MODEL_HELP = (
    "Checkpoint of compress, state dict (.pt .pth .safetensors, with --arch), .onnx; '-' reads standard "
    "input; the word 'init' with --arch takes the architecture's initial weights."
)
_MODEL = "The model"
_RUN = "The run"
_TRAINING = "Training"


def option(*names: str, help: str, panel: str | None = None, **more: Any) -> Any:
    """A typer option with the house's defaults."""
    return typer.Option(*names, help=help, rich_help_panel=panel, **more)


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How the command runs and talks; every command has these."""

    device: Annotated[
        str, option(metavar="NAME", panel=_RUN, help="auto (the best there is), cpu, cuda, cuda:N or mps.")
    ] = "auto"
    seed: Annotated[
        int, option(metavar="N", panel=_RUN, min=0, help="Same seed, same result (on one CPU process).")
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


@dataclass(frozen=True, kw_only=True)
class SourceOptions(RunOptions):
    """How a MODEL is opened and what it is measured on; a checkpoint remembers these once given."""

    arch: Annotated[
        str | None,
        option(
            metavar="NAME",
            panel=_MODEL,
            help="Architecture of a state dict: lenet5, resnet56 …, torchvision:NAME, timm:NAME, "
            "file.py:Net, package.module:callable.",
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
    data: Annotated[
        str | None,
        option(
            metavar="REF",
            panel=_MODEL,
            help="mnist:DIR, fashion-mnist:DIR, cifar10:DIR, file.npz, a folder with train/ and val/, "
            "file.py:function.",
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
    trust_pickle: Annotated[
        bool,
        option("--trust-pickle", panel=_MODEL, help="Open files that can run code when they are opened."),
    ] = False


@dataclass(frozen=True, kw_only=True)
class ModelOptions(SourceOptions):
    """One MODEL."""

    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP, show_default=False)]


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
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
    force: Annotated[bool, option("--force", "-f", panel=_RUN, help="Overwrite what is there.")] = False


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


def _recipe(metavar: str | None, default: str | None, help: str, *names: str) -> Any:
    """An option of the training; the default is `Recipe`'s, written out: asking it would import torch."""
    text = help if default is None else f"{help} Default: {default}."
    return option(*names, metavar=metavar, show_default=False, panel=_TRAINING, help=text)


@dataclass(frozen=True, kw_only=True)
class RecipeOptions:
    """How is trained. None leaves a value to the default of `compressor.training.Recipe`."""

    batch_size: Annotated[int | None, _recipe("N", "64", "Samples per step.", "--batch-size", "-b")] = None
    optimizer: Annotated[Literal["adam", "adamw", "sgd"] | None, _recipe(None, "adam", "What takes the steps.")] = None
    lr: Annotated[float | None, _recipe("RATE", "0.001, for sgd 0.02", "Peak learning rate.")] = None
    lr_schedule: Annotated[
        Literal["cosine", "linear", "constant", "step"] | None,
        _recipe(None, "cosine", "Course of the learning rate."),
    ] = None
    lr_step_epochs: Annotated[
        float | None, _recipe("N", "a third of the cycle", "Epochs between two falls of --lr-schedule step.")
    ] = None
    lr_step_factor: Annotated[
        float | None, _recipe("X", "0.1", "What --lr-schedule step multiplies the rate by at every fall.")
    ] = None
    warmup_epochs: Annotated[int | None, _recipe("N", "0", "Epochs of linear warm-up.")] = None
    momentum: Annotated[float | None, _recipe("M", "0.9", "Momentum of sgd.")] = None
    weight_decay: Annotated[float | None, _recipe("X", "0.0", "L2 on weights, not on biases.")] = None
    l1: Annotated[float | None, _recipe("X", "0.0", "L1 on weights.")] = None
    clip_norm: Annotated[
        float | None, _recipe("X", None, "Largest norm of the gradient; longer ones are scaled down.")
    ] = None
    distill: Annotated[
        float | None, _recipe("SHARE", "0.0", "Share of the loss that comes from the teacher, 0 to 1.")
    ] = None
    temperature: Annotated[float | None, _recipe("T", "4.0", "Temperature of distillation.")] = None
    label_smoothing: Annotated[float | None, _recipe("X", "0.0", "Label smoothing, 0 to below 1.")] = None
    augment: Annotated[bool, _recipe(None, None, "Augment training images.", "--augment")] = False
    precision: Annotated[
        Literal["fp32", "bf16", "fp16"] | None, _recipe(None, "fp32", "Precision of forward and backward.")
    ] = None
    keep_best: Annotated[bool, _recipe(None, None, "Keep the best epoch, not the last.", "--keep-best")] = False
    patience: Annotated[int | None, _recipe("N", None, "Stop after N epochs without a better one.")] = None


_HEALING = "Healing"


@dataclass(frozen=True, kw_only=True)
class HealingOptions:
    """What heals a cut beside plain training; each can be switched on alone."""

    recalibrate: Annotated[
        int,
        option(metavar="N", panel=_HEALING, help="Batch norm statistics anew from N training batches after a cut."),
    ] = 0
    reconstruct: Annotated[
        int,
        option(
            metavar="N",
            panel=_HEALING,
            help="Weights left after a cut fitted by least squares to the dense outputs on N training batches.",
        ),
    ] = 0
    alternate: Annotated[
        bool,
        option("--alternate", panel=_HEALING, help="Retrain convolutions and linear layers by turns, epoch by epoch."),
    ] = False
    freeze: Annotated[
        list[str] | None,
        option("--freeze", metavar="GLOB", panel=_HEALING, help="Layers that training leaves as they are; repeat."),
    ] = None


def recovery_of(options: HealingOptions) -> Recovery:
    """The part of healing that needs no training.

    Raises:  UsageError for negative numbers.
    """
    from compressor.pruning import Recovery

    return Recovery(reconstruct=options.reconstruct, recalibrate=options.recalibrate)


_RENAMED = {"lr_schedule": "schedule", "lr_step_epochs": "step_epochs", "lr_step_factor": "step_factor"}
"""Options that are called differently in a recipe: `--schedule` of prune is that of the ratio."""


def recipe_values(options: RecipeOptions) -> dict[str, Any]:
    """What was asked of the training, by the field names of `Recipe`; what was left open is left out."""
    values: dict[str, Any] = {}
    for field in fields(RecipeOptions):
        value = getattr(options, field.name)
        if field.name == "keep_best":
            values |= {"keep": "best"} if value else {}
        elif value is not None and value is not False:
            values[_RENAMED.get(field.name, field.name)] = value
    return values


def option_types(options: type[Any]) -> dict[str, Any]:
    """Annotation of every field, the command's own before those it inherits: the order of --help."""
    hints = get_type_hints(options, include_extras=True)
    ordered: list[str] = []
    for kind in options.__mro__:
        own = [name for name in inspect.get_annotations(kind) if name in hints]
        ordered += [name for name in own if name not in ordered]
    return {name: hints[name] for name in ordered}


def multiple_of(text: str) -> int:
    """N of --round-to, 0 for `auto`.

    Raises:  UsageError if it is neither.
    """
    if text == "auto":
        return 0
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--round-to {text}: a whole number from 1, or auto for the multiple that is measured")
    return int(text)
