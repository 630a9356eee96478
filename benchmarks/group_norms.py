"""Networks with wide group norms down the whole road: `python -m benchmarks.group_norms [--only GLOB]`.

Small configurations of diffusers (a package that is needed only here) and ResNets of timm, with random weights, none of
them 0. Each is cut to half of its parameters by magnitude, in widths that kernels like, compacted, compared with the
masked network and written as ONNX, which is compared with onnxruntime. It prints the table of docs/axes.md.
"""

from __future__ import annotations

import argparse
import fnmatch
import importlib
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from benchmarks.zoo import make_difficult, pinned_reasons
from compressor.asking import PruneSettings, WalkOptions
from compressor.axes import find_units
from compressor.compaction import compact
from compressor.exporting import export_onnx
from compressor.models.external import imported_beside_any_torch
from compressor.program import InputSpec, Program, arguments, capture, families
from compressor.pruning import prune

RATIO = 2.0
COLUMNS = (
    "network", "parameters", "group norms", "in units", "with `exact`", "units", "walk s", "at 2x: parameters, MACs",
    "groups", "compact − masked", "ONNX agrees",
)  # fmt: skip

IMAGE, LATENT = InputSpec("x", (None, 3, 16, 16)), InputSpec("x", (None, 4, 16, 16))
STEP, TEXT = InputSpec("t", (None,), "int64"), InputSpec("c", (None, 7, 32))
CROSS = {
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 32, "attention_head_dim": 8, "sample_size": 16,
}  # fmt: skip
ATTENTION = {
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": 8, "sample_size": 16, "layers_per_block": 1,
}  # fmt: skip
CODER = {
    "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2, "sample_size": 16,
}  # fmt: skip
TRANSFORMER = {"num_attention_heads": 4, "attention_head_dim": 16, "num_layers": 2}

Made: TypeAlias = "tuple[nn.Module, tuple[InputSpec, ...]]"


class Answer(nn.Module):
    """A module of diffusers that returns its sample alone, of what it is given by position."""

    def __init__(self, net: nn.Module, *names: str) -> None:
        super().__init__()
        self.net, self.names = net, names

    def forward(self, *given: Tensor) -> Tensor:
        return self.net(**dict(zip(self.names, given, strict=True)), return_dict=False)[0]


class Coded(nn.Module):
    """An autoencoder from image to image, by the middle of what it draws from."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net.decode(self.net.encode(x).latent_dist.mode(), return_dict=False)[0]


def _diffusers(kind: str, **given: Any) -> nn.Module:
    imported_beside_any_torch("torchvision")  # which diffusers imports when its classes are asked for
    return getattr(importlib.import_module("diffusers"), kind)(**given)


def _conditional(**given: Any) -> Made:
    net = _diffusers("UNet2DConditionModel", layers_per_block=2, **CROSS, **given)
    return Answer(net, "sample", "timestep", "encoder_hidden_states"), (LATENT, STEP, TEXT)


def _unconditional() -> Made:
    net = _diffusers("UNet2DModel", block_out_channels=(32, 64, 64), norm_num_groups=8, **ATTENTION)
    return Answer(net, "sample", "timestep"), (IMAGE, STEP)


def _autoencoder() -> Made:
    net = _diffusers("AutoencoderKL", block_out_channels=(32, 64), norm_num_groups=8, **CODER)
    return Coded(net), (IMAGE,)


def _transformer() -> Made:
    net = _diffusers("Transformer2DModel", in_channels=64, norm_num_groups=16, cross_attention_dim=32, **TRANSFORMER)
    maps = InputSpec("x", (None, 64, 8, 8))
    return Answer(net, "hidden_states", "encoder_hidden_states"), (maps, TEXT)


def _dit() -> Made:
    sizes = {"in_channels": 4, "out_channels": 8, "sample_size": 8, "patch_size": 2, "num_embeds_ada_norm": 10}
    net = _diffusers("DiTTransformer2DModel", **sizes, **TRANSFORMER)
    inputs = (InputSpec("x", (None, 4, 8, 8)), STEP, InputSpec("y", (None,), "int64", high=10))
    return Answer(net, "hidden_states", "timestep", "class_labels"), inputs


def _timm(name: str) -> Made:
    net = imported_beside_any_torch("timm").create_model(name, num_classes=10)
    return net, (InputSpec("x", (None, 3, 64, 64)),)


NETWORKS: dict[str, Callable[[], Made]] = {
    "UNet2DModel": _unconditional,
    "UNet2DConditionModel": lambda: _conditional(block_out_channels=(32, 64, 128), norm_num_groups=16),
    "the same, scale and shift by time, 32 groups": lambda: _conditional(
        block_out_channels=(64, 128, 256), norm_num_groups=32, resnet_time_scale_shift="scale_shift"
    ),
    "AutoencoderKL": _autoencoder,
    "Transformer2DModel": _transformer,
    "DiTTransformer2DModel": _dit,
    "resnet50_gn": lambda: _timm("resnet50_gn"),
    "resnetv2_50x1_bit": lambda: _timm("resnetv2_50x1_bit"),
}


def groups_of(program: Program) -> list[int]:
    """How many groups each group norm has."""
    nodes = (node for node in program.module.graph.nodes if node.target in families.GROUP_NORM)
    return [arguments(node)["num_groups"] for node in nodes]


def share(program: Program, options: WalkOptions) -> float:
    """Of the parameters, how many are in a unit."""
    pinned = pinned_reasons(program, find_units(program, options))
    return 1 - sum(pinned.values()) / program.n_parameters


def row(name: str) -> str:
    torch.manual_seed(0)
    net, inputs = NETWORKS[name]()
    program = capture(net.eval(), inputs)
    make_difficult(program, zero_biases=False)
    started = time.perf_counter()
    units = find_units(program)
    walked_s = time.perf_counter() - started
    norms = groups_of(program)
    shares = f"{share(program, WalkOptions()):.1%} | {share(program, WalkOptions(through_norm='exact')):.1%}"
    about = f"{name} | {program.n_parameters:,} | {len(norms)} | {shares} | {units.n_units:,} | {walked_s:.2f}"
    if not units.n_units:
        (reason, _), *_ = pinned_reasons(program, units).most_common(1)
        return f"| {about} | – | – | – | {reason} |"
    masked, _ = prune(program, PruneSettings(ratio=RATIO, method="magnitude"))
    small, report = compact(masked, lowering="dense")
    with tempfile.TemporaryDirectory() as folder:
        export_onnx(small, Path(folder) / "small.onnx")
    assert report.agreement is not None
    got = f"{report.dense_params / report.compact_params:.2f}x, {report.dense_macs / report.compact_macs:.2f}x"
    counts = f"{sum(norms)} → {sum(groups_of(small))}" if norms else "–"
    return f"| {about} | {got} | {counts} | {report.agreement.float64_relative:.0e} | yes |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="*")
    only = parser.parse_args().only
    warnings.filterwarnings("ignore")
    print(f"| {' | '.join(COLUMNS)} |\n|---|{'--:|' * (len(COLUMNS) - 2)}---|")
    for name in fnmatch.filter(NETWORKS, only):
        print(row(name), flush=True)


if __name__ == "__main__":
    main()
