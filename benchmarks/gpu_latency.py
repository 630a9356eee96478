"""Dense against compact on an NVIDIA GPU, a part of benchmarks/gpu.py: `python -m benchmarks.gpu_latency --out FILE`.

CaffeNet with conv2-conv5 at 13.2x and ResNet-50 at half and a quarter of its MACs, cut by magnitude without training
(latency does not depend on what the weights are), compacted by the tool, and timed beside the dense network by the
device's own clock, both in turn in every round:

- each of the four convolutions by itself and all four, at batch 1 and 256 (the published case: 7.5x on a GPU);
- the whole network in torch, in float32 and bfloat16; at batch 1 as a CUDA graph too, for there the launches of the
  kernels are what takes time, and those a smaller network has just as many of;
- the whole network in onnxruntime's CUDA provider, where that is installed, through `compressor.timing.bench`;
- a training step under ADMM against a plain one.

Only torch, numpy and this repository are needed. Without a GPU everything runs small on the CPU, which checks the
script and measures nothing that counts; the JSON file says so. It is written after every part.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from benchmarks.resnet50 import ResNet50
from compressor.asking import Admm, Cut, PruneSettings
from compressor.atomic import atomic_write
from compressor.axes import find_units
from compressor.compaction import compact
from compressor.models import build
from compressor.program import InputSpec, Program, capture, find_layers
from compressor.pruning import prune
from compressor.pruning.admm import AdmmHook
from compressor.sparsity import Choice, make_selector

CONVOLUTIONS = ("conv2", "conv3", "conv4", "conv5")
Call = Callable[[], Any]


@dataclass(frozen=True)
class Setting:
    """Where and how long is measured."""

    device: torch.device
    batches: tuple[int, ...]
    dtypes: tuple[torch.dtype, ...]
    rounds: int
    seconds: float
    is_small: bool

    @property
    def is_cuda(self) -> bool:
        return self.device.type == "cuda"


def main() -> None:
    parser = argparse.ArgumentParser(description="Dense against compact on an NVIDIA GPU.")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/gpu_latency.json"))
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 256])
    parser.add_argument("--ratio", type=float, default=13.2, help="dense ÷ kept weights of CaffeNet's conv2-conv5")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=0.02, help="least time of one timed block")
    parser.add_argument("--cpu", action="store_true", help="run small on the CPU even where there is a GPU")
    options = parser.parse_args()
    on_gpu = torch.cuda.is_available() and not options.cpu
    setting = Setting(
        torch.device("cuda" if on_gpu else "cpu"),
        tuple(options.batches) if on_gpu else (1,),
        # The CPU has no pooling over channels in bfloat16, which CaffeNet's response normalisation needs.
        (torch.float32, torch.bfloat16) if on_gpu else (torch.float32,),
        options.rounds if on_gpu else 3,
        options.seconds,
        not on_gpu,
    )
    result: dict[str, Any] = {"options": {k: str(v) for k, v in vars(options).items()}, "machine": machine(setting)}
    if setting.is_small:
        print("no CUDA device: everything runs small on the CPU, which checks the script and measures nothing")
    for name in options.parts:
        began = time.perf_counter()
        try:
            result[name] = PARTS[name](setting, options)
        except Exception as error:  # one part that fails must not take the others' numbers with it
            result[name] = {"failed": f"{type(error).__name__}: {error}"[:1000]}
            print(f"{name}: failed: {error}", file=sys.stderr)
        result.setdefault("seconds", {})[name] = time.perf_counter() - began
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(options.out, force=True) as path:
            path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"wrote {options.out}")
    if any(isinstance(part, dict) and "failed" in part for part in result.values()):
        raise SystemExit(1)


def machine(setting: Setting) -> dict[str, Any]:
    gpu = torch.cuda.get_device_properties(setting.device) if setting.is_cuda else None
    return {
        "gpu": gpu.name if gpu is not None else None,
        "memory_bytes": gpu.total_memory if gpu is not None else None,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "small": setting.is_small,
    }


def part_caffenet(setting: Setting, options: argparse.Namespace) -> dict[str, Any]:
    """The four convolutions, and the whole network."""
    side = 227
    built = build("caffenet", {}, seed=0)
    dense = capture(built.module.eval(), [InputSpec("image", (None, 3, side, side))])
    compacted = cut_convolutions(dense, options.ratio)
    rows = [
        row
        for batch in setting.batches
        for dtype in setting.dtypes
        for row in convolutions(dense, compacted, batch, dtype, setting)
    ]
    return {
        "widths": {name: list(compacted.parameters[f"{name}.weight"].shape) for name in CONVOLUTIONS},
        "ratio": weights_in(dense) / weights_in(compacted),
        "convolutions": rows,
        "networks": networks("caffenet", dense, compacted, setting),
        "onnxruntime": in_onnxruntime(dense, compacted, setting),
    }


def part_resnet50(setting: Setting, options: argparse.Namespace) -> dict[str, Any]:
    """Half and a quarter of the MACs."""
    side = 64 if setting.is_small else 224
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = ResNet50().eval()
    dense = capture(net, [InputSpec("image", (None, 3, side, side))])
    found: dict[str, Any] = {}
    for ratio in (2.0,) if setting.is_small else (2.0, 4.0):
        pruned, _ = prune(
            dense, PruneSettings(ratio=ratio, method="magnitude", pattern="channel", of="macs", round_to=16)
        )
        small, _ = compact(pruned)
        found[f"{ratio:g}x"] = {
            "params": [dense.n_parameters, small.n_parameters],
            "networks": networks(f"resnet50 {ratio:g}x", dense, small, setting),
            "onnxruntime": in_onnxruntime(dense, small, setting),
        }
    return found


def weights_in(program: Program) -> int:
    return sum(program.parameters[f"{name}.weight"].numel() for name in CONVOLUTIONS)


def cut_convolutions(dense: Program, ratio: float) -> Program:
    """CaffeNet compacted so that conv2-conv5 have 1/ratio of their weights: what is asked of the scope is adjusted."""
    asked, best = ratio, None
    for _ in range(5):
        settings = PruneSettings(
            ratio=asked, method="magnitude", pattern="channel", round_to=8, scope=("conv1", *CONVOLUTIONS)
        )
        small, _ = compact(prune(dense, settings)[0])
        got = weights_in(dense) / weights_in(small)
        if got >= ratio and (best is None or weights_in(small) > weights_in(best)):
            best = small
        if ratio <= got <= 1.03 * ratio:
            break
        asked *= 1.015 * ratio / got
    if best is None:
        raise RuntimeError(f"found no cut that takes conv2-conv5 to {ratio:g}x")
    return best


class Listening(fx.Interpreter):
    """Runs a program and keeps the arguments of its convolutions, by the layer's name."""

    def __init__(self, program: Program) -> None:
        super().__init__(program.module)
        self._names = {layer.node: layer.name for layer in find_layers(program) if layer.name in CONVOLUTIONS}
        self.calls: dict[str, Call] = {}

    def run_node(self, n: fx.Node) -> Any:
        if n.name in self._names:
            args, kwargs = self.fetch_args_kwargs_from_env(n)
            target: Any = n.target
            self.calls[self._names[n.name]] = lambda: target(*args, **kwargs)
        return super().run_node(n)


def convolutions(
    dense: Program, small: Program, batch: int, dtype: torch.dtype, setting: Setting
) -> list[dict[str, Any]]:
    """Each of the four by itself, then one after the other."""
    calls = [layer_calls(program, batch, dtype, setting) for program in (dense, small)]
    pairs: dict[str, tuple[Call, Call]] = {name: (calls[0][name], calls[1][name]) for name in CONVOLUTIONS}

    def together(own: dict[str, Call]) -> Call:
        return lambda: [own[name]() for name in CONVOLUTIONS]

    pairs["conv2-conv5"] = together(calls[0]), together(calls[1])
    rows = []
    for name, pair in pairs.items():
        rows.append({"what": name, "batch": batch, "dtype": str(dtype), **compared(pair, setting)})
        tell(f"caffenet {name}", batch, dtype, "torch", rows[-1])
    return rows


def layer_calls(program: Program, batch: int, dtype: torch.dtype, setting: Setting) -> dict[str, Call]:
    moved = program.replace(module=program.module.clone().to(setting.device, dtype).eval())
    listening = Listening(moved)
    with torch.inference_mode():
        listening.run(*example(program, batch, dtype, setting))
    return listening.calls


def example(program: Program, batch: int, dtype: torch.dtype, setting: Setting) -> list[Tensor]:
    return [x.to(setting.device, dtype) for x in program.example_inputs(batch)]


def networks(name: str, dense: Program, small: Program, setting: Setting) -> list[dict[str, Any]]:
    """The whole networks in torch, in both types; at batch 1 on CUDA as graphs too."""
    rows: list[dict[str, Any]] = []
    for batch in setting.batches:
        for dtype in setting.dtypes:
            modules = [program.module.clone().to(setting.device, dtype).eval() for program in (dense, small)]
            inputs = example(dense, batch, dtype, setting)
            ways = {"torch": [eager(module, inputs) for module in modules]}
            if setting.is_cuda and batch == 1:
                ways["cuda graph"] = [cuda_graph(module, inputs) for module in modules]
            for way, (a, b) in ways.items():
                row = {"batch": batch, "dtype": str(dtype), "way": way, **compared((a, b), setting)}
                tell(name, batch, dtype, way, row)
                rows.append(row)
    return rows


def eager(module: nn.Module, inputs: Sequence[Tensor]) -> Call:
    return lambda: module(*inputs)


def cuda_graph(module: nn.Module, inputs: Sequence[Tensor]) -> Call:
    """The recorded kernels of one inference: replaying them launches all at once."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.inference_mode(), torch.cuda.stream(stream):
        for _ in range(3):
            module(*inputs)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.inference_mode(), torch.cuda.graph(graph):
        module(*inputs)
    return graph.replay


def compared(pair: tuple[Call, Call], setting: Setting) -> dict[str, Any]:
    """Medians of both over rounds in which they take turns, and the median of the rounds' ratios with quartiles."""
    counts = [calibrated(call, setting) for call in pair]
    rounds: list[tuple[float, float]] = []
    for i in range(setting.rounds):
        seconds = [0.0, 0.0]
        for which in (0, 1) if i % 2 == 0 else (1, 0):
            block_s(pair[which], 1, setting)
            seconds[which] = block_s(pair[which], counts[which], setting) / counts[which]
        rounds.append((seconds[0], seconds[1]))
    ratios = sorted(a / b for a, b in rounds)
    return {
        "dense_s": statistics.median(a for a, _ in rounds),
        "compact_s": statistics.median(b for _, b in rounds),
        "speedup": statistics.median(ratios),
        "quartiles": [ratios[len(ratios) // 4], ratios[(3 * len(ratios)) // 4]],
        "rounds": len(rounds),
    }


def calibrated(call: Call, setting: Setting) -> int:
    """Inferences per block; the first ones choose kernels and warm up."""
    for _ in range(3 if setting.is_small else 10):
        once = block_s(call, 1, setting)
    return 1 if setting.is_small else max(1, int(setting.seconds / max(once, 1e-6)))


def block_s(call: Call, n: int, setting: Setting) -> float:
    """Seconds of n calls, by the device's clock on CUDA."""
    with torch.inference_mode():
        if not setting.is_cuda:
            began = time.perf_counter()
            for _ in range(n):
                call()
            return time.perf_counter() - began
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        begin.record()
        for _ in range(n):
            call()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3


def tell(name: str, batch: int, dtype: torch.dtype, way: str, row: dict[str, Any]) -> None:
    kind = str(dtype).removeprefix("torch.")
    times = f"{1e3 * row['dense_s']:9.3f} ms ÷ {1e3 * row['compact_s']:9.3f} ms"
    print(f"{name:22} batch {batch:3} {kind:9} {way:10} {times} = {row['speedup']:.2f}x", flush=True)


def in_onnxruntime(dense: Program, small: Program, setting: Setting) -> Any:
    """The bench's own rows on the CUDA provider, or why there are none."""
    if importlib.util.find_spec("onnxruntime") is None or importlib.util.find_spec("onnxscript") is None:
        return "onnxruntime or onnxscript is not installed"
    import onnxruntime

    provider = "cuda" if setting.is_cuda else "cpu"
    if setting.is_cuda and "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return "this onnxruntime has no CUDA provider"
    from compressor.exporting import export_onnx
    from compressor.report.jsonable import plain
    from compressor.timing import bench

    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, "dense.onnx"), Path(folder, "compact.onnx")]
        for program, file in zip((dense, small), files, strict=True):
            export_onnx(program, file, batch_sizes=(1,))
        lengths = {"min_runs": 2, "min_seconds": 0.0, "max_seconds": 5.0} if setting.is_small else {}
        told = plain(bench(files, provider=provider, batches=setting.batches, **lengths))
        return json.loads(json.dumps(told).replace(f"{folder}/", ""))  # the folder will be gone


def part_admm(setting: Setting, options: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds of a plain and of an ADMM step, and of an update of Z and U."""
    arch, batch = ("resnet20", 16) if setting.is_small else ("resnet56", 256)
    program = capture(build(arch, {}, seed=0).module, [InputSpec("image", (None, 3, 32, 32))])
    selector = make_selector(program, find_units(program), Choice(Cut(round_to=1)))
    module = program.module.to(setting.device).train()
    hook = AdmmHook(module, selector, 2.0, Admm(), n_steps=10**9)  # no update among the steps
    images = torch.randn(batch, 3, 32, 32, device=setting.device)
    target = torch.randint(0, 10, (batch,), device=setting.device)
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-4, momentum=0.9)

    def step(with_admm: bool) -> float:
        settle(setting)
        began = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(module(images), target).backward()
        if with_admm:
            hook.on_gradients()
        optimizer.step()
        settle(setting)
        return time.perf_counter() - began

    for _ in range(3):
        step(True)
    pairs = [(step(False), step(True)) for _ in range(3 if setting.is_small else 50)]
    settle(setting)
    began = time.perf_counter()
    hook.renew()
    settle(setting)
    update_s = time.perf_counter() - began
    ratio = statistics.median(b / a for a, b in pairs)
    print(f"admm: a step of {arch} at batch {batch} takes {ratio:.3f} of a plain one; an update {update_s:.3f} s")
    plain_s, admm_s = (statistics.median(times) for times in zip(*pairs, strict=True))
    return {"arch": arch, "batch": batch, "plain_s": plain_s, "admm_s": admm_s, "ratio": ratio, "update_s": update_s}


def settle(setting: Setting) -> None:
    """Waits until the device has done what it was given."""
    if setting.is_cuda:
        torch.cuda.synchronize()


PARTS: dict[str, Callable[[Setting, argparse.Namespace], dict[str, Any]]] = {
    "caffenet": part_caffenet,
    "resnet50": part_resnet50,
    "admm": part_admm,
}


if __name__ == "__main__":
    main()
