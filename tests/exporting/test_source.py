"""Python source of a network: exact, trainable, read back by nothing but torch, and safe against names."""

from __future__ import annotations

import ast
import importlib.util
import json
import keyword
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

import compressor
from compressor.errors import GateError, OutputError, UsageError, VerificationError
from compressor.exporting import export_python, source_idioms, source_layers
from compressor.exporting.source_check import load_source
from compressor.exporting.source_text import attribute, class_name, quoted, variable
from compressor.program import InputSpec, Program, capture

Build = Callable[[str], Program]


class UNet(nn.Module):
    """Down, up by a transposed convolution and by interpolation, with a skip connection."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.deep = nn.Sequential(nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.GroupNorm(4, 16), nn.LeakyReLU(0.1))
        self.up = nn.ConvTranspose2d(16, 8, 3, stride=2, padding=1, output_padding=1)
        self.out = nn.Conv2d(24, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.down(x)
        b = self.deep(a)
        near = F.interpolate(b[:, :8], scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.out(torch.cat([a, self.up(b), near], 1))


class Tied(nn.Module):
    """One weight as an embedding and as the last layer, a shared layer, a buffer, a bare parameter, dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(13, 8)
        self.mixing = nn.Linear(8, 8)
        self.scale = nn.Parameter(torch.ones(8))
        self.register_buffer("offset", torch.arange(8.0))
        self.head = nn.Linear(8, 13, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids: Tensor) -> dict[str, Any]:
        x = self.table(ids) * self.scale + self.offset
        x = F.dropout(torch.tanh(self.mixing(x)), 0.3, self.training)
        x = self.mixing(x) - x
        return {"logits": self.head(x), "pair": (x.mean(1), x[:, -1])}


class Attention(nn.Module):
    """Batches folded into heads: sizes that follow from the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.norm = nn.LayerNorm(16)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.norm(x).softmax(-1)


class Cell(nn.Module):
    """A convolution, its norm and SiLU, as detectors have it."""

    def __init__(self, inputs: int, filters: int, size: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, filters, size, stride, size // 2, bias=False)
        self.bn = nn.BatchNorm2d(filters)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.bn(self.conv(x)))


class Split(nn.Module):
    """Half of the channels through a chain, every stage of it kept."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cv1, self.cv2 = Cell(width, width, 1), Cell(width * 2, width, 1)
        self.m = nn.ModuleList(nn.ModuleDict({"a": Cell(width // 2, width // 2)}) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.cv1(x).chunk(2, 1))
        for inner in self.m:
            parts.append(parts[-1] + inner["a"](parts[-1]))
        return self.cv2(torch.cat(parts, 1))


class Detector(nn.Module):
    """A numbered list of modules with connections across, two scales, boxes from a grid."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.ModuleList(
            [Cell(3, 8, 3, 2), Split(8), Cell(8, 16, 3, 2), Split(16), nn.Upsample(scale_factor=2), Cell(24, 8)]
        )
        self.heads = nn.ModuleList([nn.Sequential(Cell(8, 8), nn.Conv2d(8, 6, 1)), nn.Conv2d(16, 6, 1)])
        self.register_buffer("anchors", torch.rand(2, 8 * 8 + 4 * 4))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        fine = self.model[1](self.model[0](x))
        coarse = self.model[3](self.model[2](fine))
        mixed = self.model[5](torch.cat([self.model[4](coarse), fine], 1))
        flat = torch.cat(
            [head(y).view(x.shape[0], 6, -1) for head, y in zip(self.heads, (mixed, coarse), strict=True)], 2
        )
        box, score = flat.split((4, 2), 1)
        return torch.cat([self.anchors - box[:, :2].sigmoid(), self.anchors + box[:, 2:].sigmoid()], 1), score


class Recurrent(nn.Module):
    """A layer that is one operator with many weights."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(4, 6, 2, batch_first=True), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.lstm(x)[0][:, -1])


class InPlace(nn.Module):
    """Writes into a part of a value that is read as a whole afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x).clone()
        y[:, 1] = y[:, 0] * 2
        return self.inner(y)


def _net(make: Callable[[], nn.Module], *inputs: InputSpec) -> Callable[[], Program]:
    def build() -> Program:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return capture(make(), inputs)

    return build


def _arch(name: str, *inputs: str) -> Callable[[], Program]:
    def build() -> Program:
        library = name.partition(":")[0]
        if library != name and importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed")
        return compressor.load("init", inputs, arch=name)

    return build


def _compacted(build: Callable[[], Program]) -> Callable[[], Program]:
    def smaller() -> Program:
        program = build()
        settings = compressor.PruneSettings(ratio=1.5, of="params", method="magnitude")
        return compressor.compact(compressor.prune(program, settings)[0])[0]

    return smaller


def _bert() -> Program:
    pytest.importorskip("transformers")
    from compressor.models.huggingface import _transformers

    transformers = _transformers()
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
        num_labels=3,
    )
    with tempfile.TemporaryDirectory() as folder:
        transformers.AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
        return compressor.load(folder)


NETS: dict[str, Callable[[], Program]] = {
    "lenet5": _arch("lenet5"),
    "resnet20": _arch("resnet20"),
    "unet": _net(UNet, InputSpec("x", (None, 3, 16, 16))),
    "tied": _net(Tied, InputSpec("ids", (None, 5), "int64", 13)),
    "attention": _net(Attention, InputSpec("x", (None, 6, 16))),
    "detector": _net(Detector, InputSpec("x", (None, 3, 16, 16))),
    "recurrent": _net(Recurrent, InputSpec("x", (None, 5, 4))),
    "in-place": _net(InPlace, InputSpec("x", (None, 4))),
    "bert": _bert,
    "resnet18": _arch("torchvision:resnet18"),
    "mobilenet": _arch("torchvision:mobilenet_v2"),
    "densenet": _arch("torchvision:densenet121"),
    "shufflenet": _arch("torchvision:shufflenet_v2_x0_5"),
    "vit": _arch("timm:vit_tiny_patch16_224"),
    "resnet50": _arch("torchvision:resnet50", "3x64x64"),
    "yolo": _arch("ultralytics:yolov8n", "3x64x64"),
}
SMALLER = ("lenet5", "resnet20", "unet", "attention", "detector", "mobilenet", "vit", "resnet50", "yolo")
ONLY_SMALLER = ("resnet50", "yolo")


def _cases() -> list[Any]:
    whole = [pytest.param(build, id=name) for name, build in NETS.items() if name not in ONLY_SMALLER]
    return whole + [pytest.param(_compacted(NETS[name]), id=f"{name}-compact") for name in SMALLER]


@pytest.mark.parametrize("build", _cases())
def test_the_source_computes_and_trains_like_the_program(build: Callable[[], Program], tmp_path: Path) -> None:
    program = build()
    report = export_python(program, tmp_path / "m.py", batch_sizes=(1, 3))
    assert (report.format, report.external_data) == ("python", True)
    assert report.max_rel <= 1e-6
    made = load_source(tmp_path / "m.py")
    wanted = program.module.state_dict()
    assert {name for name in made.state_dict() if not name.endswith("num_batches_tracked")} == {
        name for name in wanted if not name.endswith("num_batches_tracked")
    }
    inputs = program.example_inputs(3)
    gradients = [_gradients(module.train(), inputs) for module in (program.module.clone(), made)]
    assert gradients[0].keys() == gradients[1].keys()
    for name, expected in gradients[0].items():
        limit = 1e-5 * float(expected.abs().max()) + 1e-7
        assert float((expected - gradients[1][name]).abs().max()) <= limit, name


def _gradients(module: nn.Module, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
    torch.manual_seed(0)
    leaves = [leaf for leaf in pytree.tree_leaves(module(*inputs)) if isinstance(leaf, Tensor)]
    sum((leaf * torch.arange(leaf.numel()).reshape(leaf.shape).cos()).sum() for leaf in leaves).backward()
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


def test_the_file_needs_neither_the_tool_nor_the_original(program_of: Build, tmp_path: Path) -> None:
    program = program_of("normalised")
    export_python(program, tmp_path / "m.py")
    script = """
        import sys
        class Refuse:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] == "compressor":
                    raise ImportError(name)
        sys.meta_path.insert(0, Refuse())
        sys.path.insert(0, sys.argv[1])
        import m, torch
        model = m.load()
        assert not model.training
        print(model(torch.ones(2, 1, 8, 8)).tolist())
    """
    done = subprocess.run(
        [sys.executable, "-I", "-c", textwrap.dedent(script), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = program.module.eval()(torch.ones(2, 1, 8, 8))
    assert torch.allclose(torch.tensor(json.loads(done.stdout)), expected, atol=1e-6)


def test_modules_that_differ_in_widths_share_a_class_and_keep_their_names(tmp_path: Path) -> None:
    export_python(compressor.load("init", arch="resnet20"), tmp_path / "m.py")
    tree = ast.parse((tmp_path / "m.py").read_text())
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    assert [node.name for node in classes] == ["Block", "Block2", "Model"]
    text = ast.unparse(tree)
    assert "aten" not in text and "self.layer2 = nn.Sequential(Block2(" in text
    forwards = [f for c in classes for f in c.body if isinstance(f, ast.FunctionDef) and f.name == "forward"]
    assert max(len(f.body) for f in forwards) <= 4


def source_of(program: Program, folder: Path) -> str:
    report = export_python(program, folder / "m.py")
    assert report.max_rel <= 1e-6
    return (folder / "m.py").read_text()


class Heads(nn.Module):
    """Chains in numbered lists, as detectors have them, with something behind each that only the whole knows."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.ModuleList([Cell(3, 8), nn.ModuleDict({"a": Cell(8, 4), "b": Cell(8, 8)})])
        self.heads = nn.ModuleList([nn.Sequential(Cell(8, 8), nn.Conv2d(8, 6, 1)) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem[0](x)
        parts = self.stem[1]["a"](x)
        y = self.stem[1]["b"](torch.cat([parts, F.max_pool2d(parts, 3, 1, 1)], 1))
        near = F.interpolate(y, scale_factor=2.0)
        found = [head(level).flatten(2) for head, level in zip(self.heads, (y, near), strict=True)]
        a, b = torch.cat(found, 2).split([3, 3], 1)
        rows, columns = torch.meshgrid(torch.arange(2.0), torch.arange(3.0), indexing="ij")
        return a * b + (rows + columns).sum()


def test_numbered_chains_are_sequential_and_what_follows_them_is_their_callers(tmp_path: Path) -> None:
    text = source_of(capture(Heads(), "3x6x6"), tmp_path)
    assert "self.heads = nn.ModuleList([\n            nn.Sequential(" in text
    assert "self.heads[0](" in text and "self.heads[1](" in text
    assert "return (" not in text, "what only the caller reads is no second output of a module"
    assert ".chunk(2, 1)" in text and "torch.meshgrid(" in text and "torch.ops" not in text
    assert "class ConvBn(nn.Module)" in text


class Cells(nn.Module):
    """Two cells, each with something behind it that the other has not."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = Cell(3, 8), Cell(8, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.one(x), 2)
        return self.head(self.two(x).mean((2, 3)))


def test_siblings_share_a_class_whatever_stands_behind_each(tmp_path: Path) -> None:
    text = source_of(capture(Cells(), "3x6x6"), tmp_path)
    assert text.count("class ") == 2 and "self.two = One(" in text


class Fixed(nn.Module):
    """A layer, a part of one and a whole module that nobody trains."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.middle = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 4)
        self.rest = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
        self.middle.bias.requires_grad_(False)
        for module in (self.stem, self.rest[2]):
            module.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.middle(self.stem(x).mean((2, 3))))


def test_what_is_fixed_stays_fixed(tmp_path: Path) -> None:
    program = capture(Fixed(), "3x4x4")
    text = source_of(program, tmp_path)
    assert "self.stem = nn.Conv2d(3, 4, 3, padding=1).requires_grad_(False)" in text
    made = dict(load_source(tmp_path / "m.py").named_parameters())
    assert {n: p.requires_grad for n, p in made.items()} == {n: p.requires_grad for n, p in program.parameters.items()}


def test_twin_a_layer_that_trains_and_should_not_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_layers, "replace", lambda build, **_: build)
    with pytest.raises(VerificationError, match="do not both train 'stem"):
        export_python(capture(Fixed(), "3x4x4"), tmp_path / "m.py")


def test_the_weights_say_their_widths(program_of: Build, tmp_path: Path) -> None:
    export_python(program_of("plain"), tmp_path / "m.py", metadata={"why": "a test"})
    with safe_open(tmp_path / "m.safetensors", "pt") as file:
        told = file.metadata()
    assert json.loads(told["compress.widths"]) == {"conv": [1, 4], "hidden": [144, 12], "out": [12, 5]}
    assert told["why"] == "a test"


def test_masked_weights_are_written_as_zeros_and_said_so(tmp_path: Path) -> None:
    program = compressor.load("init", arch="lenet5")
    settings = compressor.PruneSettings(ratio=2, method="magnitude")
    export_python(compressor.prune(program, settings)[0], tmp_path / "m.py")
    about = ast.get_docstring(ast.parse((tmp_path / "m.py").read_text()))
    assert about is not None and "are zero by masks that are not part of this file" in about


HOSTILE = ("x; import os", "a" * 300, "torch", "F", "nn", "print", "__secret", "é", "0x", "Model", "a-b", "os:system")
"""What torch.fx itself can hold; quotes and words of the language it cannot."""


class Hostile(nn.Module):
    """Names that would be code if they were written as they are."""

    def __init__(self) -> None:
        super().__init__()
        for name in HOSTILE:
            inner = nn.Module()
            inner.add_module(name, nn.Linear(4, 4))
            self.add_module(name, inner)
        self.register_parameter("load", nn.Parameter(torch.ones(4)))

    def forward(self, print: Tensor) -> dict[str, Tensor]:
        x = print * self.load
        for name in HOSTILE:
            x = getattr(getattr(self, name), name)(x).relu()
        return {'"]; import os #': x, "\n": x + 1}


def test_names_never_become_code(tmp_path: Path) -> None:
    program = capture(Hostile(), (InputSpec("print", (None, 4)),))
    record = replace(program.record, arch='x"""\nimport os\n"""', notes=('"""\nimport os',))
    export_python(program.replace(record=record), tmp_path / '"); import os #.py')
    text = (tmp_path / '"); import os #.py').read_text()
    assert text.isascii()
    tree = ast.parse(text)
    imported = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert {ast.unparse(node) for node in imported} <= {
        "import torch", "import torch.nn.functional as F", "from torch import nn", "from pathlib import Path",
        "from safetensors.torch import load_file", "from collections import OrderedDict",
    }  # fmt: skip
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert not names & {"os", "eval", "exec", "__secret"} and max(map(len, names)) < 80
    made = load_source(tmp_path / '"); import os #.py')
    assert set(made.state_dict()) == set(program.module.state_dict())


@pytest.mark.parametrize(
    "text", ['"', "'", "\\", "\n", '"""', "\0", "é\u2028", "{x}", "'); import os #", "😀" * 9, "\ud800"]
)
def test_texts_are_literals(text: str) -> None:
    assert quoted(text).isascii() and ast.literal_eval(quoted(text)) == text
    assert attribute("self", text) == f"getattr(self, {quoted(text)})"
    for name in (variable(text), class_name((text,)), class_name((text, "0"))):
        assert name.isidentifier() and name.isascii() and not keyword.iskeyword(name)


@pytest.mark.parametrize(
    ("table", "key", "wrong", "net"),
    [
        (source_idioms.IDIOMS, "add.Tensor", source_idioms._binary("-"), "normalised"),
        (source_idioms.IDIOMS, "mean.dim", source_idioms._reduce("sum"), "normalised"),
        (
            source_idioms.IDIOMS,
            "dropout.default",
            lambda b, w: f"F.dropout({w.value(b['input'])}, 0.5, False)",
            "normalised",
        ),
        (source_idioms.IDIOMS, "flatten.using_ints", lambda b, w: w.value(b["self"]) + ".unknown()", "plain"),
        (source_idioms.IDIOMS, "flatten.using_ints", lambda b, w: "__import__('os')", "plain"),
    ],
)
def test_a_wrong_line_is_found_out_and_nothing_is_written(
    table: dict[Any, Any], key: str, wrong: Any, net: str, program_of: Build, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setitem(table, key, wrong)
    with pytest.raises(VerificationError, match=r"the generated source|the file and torch differ"):
        export_python(program_of(net), tmp_path / "m.py")
    assert list(tmp_path.iterdir()) == []


def test_a_batch_norm_with_another_momentum_is_found_out(program_of: Build, tmp_path: Path, monkeypatch: Any) -> None:
    genuine = source_layers._option
    monkeypatch.setattr(
        source_layers,
        "_option",
        lambda name, value, default: genuine(name, 0.3 if name == "momentum" else value, default),
    )
    with pytest.raises(VerificationError, match="what training mode does to the statistics"):
        export_python(program_of("normalised"), tmp_path / "m.py")


def test_an_operator_without_an_idiom_is_called_as_it_is(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return torch.special.i0(self.layer(x)) + 1

    export_python(capture(Odd(), (InputSpec("x", (None, 4)),)), tmp_path / "m.py")
    assert "torch.ops.aten.special_i0.default(" in (tmp_path / "m.py").read_text()


@pytest.mark.parametrize("net", ["several", "fixed-batch"])
def test_inputs_and_outputs_of_every_kind(net: str, program_of: Build, tmp_path: Path) -> None:
    assert export_python(program_of(net), tmp_path / "m.py").max_rel <= 1e-6


def test_what_cannot_be_written_is_said(program_of: Build, tmp_path: Path) -> None:
    program = program_of("plain")
    with pytest.raises(UsageError, match=r"ends in \.py"):
        export_python(program, tmp_path / "model.txt")
    (tmp_path / "m.safetensors").write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        export_python(program, tmp_path / "m.py")
    assert (tmp_path / "m.safetensors").read_text() == "mine" and not (tmp_path / "m.py").exists()

    def refuse(report: Any) -> None:
        raise GateError("too large")

    with pytest.raises(GateError):
        export_python(program, tmp_path / "other.py", accept=refuse)
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]


def test_arguments_that_have_a_keyword_only_are_not_lost(tmp_path: Path) -> None:
    """Spectral norm copies its vectors with a memory format, which `Tensor.clone` takes by name."""
    torch.manual_seed(0)
    norm = nn.utils.parametrizations.spectral_norm
    net = nn.Sequential(norm(nn.Conv2d(3, 8, 3)), nn.ReLU(), nn.Flatten(), norm(nn.Linear(288, 2))).eval()
    report = export_python(capture(net, [InputSpec("x", (None, 3, 8, 8))]), tmp_path / "m.py")
    assert report.max_rel <= 1e-6 and "memory_format" in (tmp_path / "m.py").read_text()
