"""Files that make a library choose what handles them: an interpreter, a download, code beside the weights, no end."""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.data import open_data
from compressor.data.folders import decode
from compressor.errors import CompressError, DataError, ModelError, UnsafeFileError, UsageError
from compressor.formats import load
from compressor.models import build
from compressor.sealed import sealed
from tests.bad.forging import check_message, no_hang

ATTEMPTS: dict[str, Callable[[Path], Any]] = {
    "subprocess": lambda canary: subprocess.run(["touch", canary], check=True),
    "os.system": lambda canary: os.system(f"touch {canary}"),
    "os.popen": lambda canary: os.popen(f"touch {canary}").read(),
    "os.posix_spawn": lambda canary: os.waitpid(os.posix_spawn("/bin/touch", ["touch", str(canary)], {}), 0),
    "a look-up": lambda canary: socket.getaddrinfo("localhost", 80),
    "a connection": lambda canary: socket.create_connection(("127.0.0.1", 9), timeout=0.1),
    "a datagram": lambda canary: datagram(),
}


def datagram() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as open_socket:
        open_socket.sendto(b"x", ("127.0.0.1", 9))


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_nothing_starts_or_connects_in_a_sealed_block(tmp_path: Path, attempt: str) -> None:
    canary = tmp_path / "canary"
    with pytest.raises(UnsafeFileError) as caught, sealed("a file"), sealed("the file"):
        ATTEMPTS[attempt](canary)
    check_message(str(caught.value))
    assert str(caught.value).startswith("the file: ") and not canary.exists()


def test_twin_outside_of_it_and_in_other_threads_they_do(tmp_path: Path) -> None:
    ATTEMPTS["subprocess"](tmp_path / "before")
    with sealed("the file"):
        other = threading.Thread(target=ATTEMPTS["subprocess"], args=(tmp_path / "beside",))
        other.start()
        other.join()
    ATTEMPTS["subprocess"](tmp_path / "after")
    assert {path.name for path in tmp_path.iterdir()} == {"before", "beside", "after"}


EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 10 10
%%EndComments
0 0 10 10 rectfill
showpage
%%EOF
"""


@pytest.fixture
def ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `gs` that leaves a canary, first on the path."""
    pytest.importorskip("PIL", reason="needs Pillow")
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path / 'canary'}\nexit 1\n")
    (programs / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    return tmp_path / "canary"


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tiff", ".ppm", ".webp", ".bmp"])
def test_postscript_under_the_name_of_an_image_is_not_interpreted(
    tmp_path: Path, ghostscript: Path, suffix: str
) -> None:
    (tmp_path / f"image{suffix}").write_bytes(EPS)
    with pytest.raises(DataError, match="cannot be decoded as an image"):
        decode(tmp_path / f"image{suffix}", None)
    assert not ghostscript.exists()


def test_were_the_formats_forgotten_the_seal_would_hold(
    tmp_path: Path, ghostscript: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    monkeypatch.setattr("compressor.data.folders._FORMATS", None)
    (tmp_path / "image.png").write_bytes(EPS)
    with pytest.raises(UnsafeFileError, match="would start another program"):
        decode(tmp_path / "image.png", None)
    assert not ghostscript.exists()


def test_twin_pillow_left_to_itself_runs_it(tmp_path: Path, ghostscript: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import EpsImagePlugin, Image

    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    (tmp_path / "image.png").write_bytes(EPS)
    with Image.open(tmp_path / "image.png") as image, pytest.raises((OSError, subprocess.CalledProcessError)):
        image.load()
    assert ghostscript.exists()


def image_bytes(kind: str, size: tuple[int, int] = (9, 7)) -> bytes:
    from PIL import Image

    image = Image.frombytes("RGB", size, bytes(i * 7 % 251 for i in range(3 * size[0] * size[1])))
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


KEPT = ("JPEG", "PNG", "BMP", "WEBP", "PPM", "TIFF")


def test_every_other_format_that_pillow_writes_is_refused(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    image.init()
    seen: dict[str, bool] = {}
    for kind in image.SAVE:
        try:
            content = image_bytes(kind)
        except Exception:  # not of this mode, or without its library
            continue
        (tmp_path / "image.png").write_bytes(content)
        try:
            seen[kind] = decode(tmp_path / "image.png", None, (8, 8)).shape == (3, 8, 8)
        except DataError:
            seen[kind] = False
    assert {kind for kind, taken in seen.items() if taken} - {"MPO"} == set(KEPT) & set(seen)
    assert len(seen) > 12


def png(width: int, height: int) -> bytes:
    """A picture of one colour, in as few bytes as may be."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content).to_bytes(4, "big")
        return len(content).to_bytes(4, "big") + kind + content + check

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes((1, 0, 0, 0, 0))
    rows = zlib.compress(bytes(min((1 + (width + 7) // 8) * height, 2**25)), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("width", "height", "told"),
    [(1, 65_000, "too long and thin"), (65_000, 1, "too long and thin"), (3, 60_000, "too long and thin"),
     (9_000, 9_000, "bytes that unpack to"), (13_000, 13_000, "bytes that unpack to"),
     (2**31 - 1, 2**31 - 1, "decoded"), (0, 5, "decoded"), (5, 0, "decoded")],
)  # fmt: skip
def test_an_image_that_grows_beyond_measure(tmp_path: Path, width: int, height: int, told: str) -> None:
    pytest.importorskip("PIL", reason="needs Pillow")
    (tmp_path / "image.png").write_bytes(png(width, height))
    with no_hang(), pytest.raises(DataError, match=told):
        decode(tmp_path / "image.png", None)


@pytest.mark.parametrize(("width", "height"), [(64, 64), (1, 64), (300, 3), (2_000, 1_500)])
def test_twin_images_of_usual_sizes_are_decoded(tmp_path: Path, width: int, height: int) -> None:
    pytest.importorskip("PIL", reason="needs Pillow")
    (tmp_path / "image.png").write_bytes(png(width, height))
    assert decode(tmp_path / "image.png", None).shape == (3, 224, 224)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
@pytest.mark.parametrize("what", ["pipe", "directory", "endless device", "link to nothing"])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, what: str) -> None:
    pytest.importorskip("PIL", reason="needs Pillow")
    for split in ("train", "val"):
        folder = tmp_path / split / "cat"
        folder.mkdir(parents=True)
        path = folder / "a.png"
        match what:
            case "pipe":
                os.mkfifo(path)
            case "directory":
                path.mkdir()
            case "endless device":
                path.symlink_to("/dev/zero")
            case _:
                path.symlink_to("nowhere")
    source = open_data(str(tmp_path))
    with no_hang(), pytest.raises(DataError, match=r"not a file|cannot be read"):
        next(source.batches("val", 2))


@given(data=st.data(), kind=st.sampled_from(KEPT))
@settings(max_examples=150)
def test_a_damaged_image_is_decoded_or_refused(tmp_path_factory: Any, data: Any, kind: str) -> None:
    pytest.importorskip("PIL", reason="needs Pillow")
    content = bytearray(image_bytes(kind))
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    path = tmp_path_factory.getbasetemp() / "image.png"
    path.write_bytes(bytes(content))
    with contextlib.suppress(DataError):
        assert tuple(decode(path, None, (8, 8)).shape) == (3, 8, 8)


SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
         "vocab_size": 20, "max_position_embeddings": 8}  # fmt: skip
BERT = {"model_type": "bert", "architectures": ["BertForSequenceClassification"], **SMALL}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a small BERT."""
    pytest.importorskip("transformers", reason="transformers is not installed")
    from compressor.models.huggingface import _transformers

    transformers, folder = _transformers(), tmp_path_factory.mktemp("bert")
    transformers.BertForSequenceClassification(transformers.BertConfig(**SMALL)).save_pretrained(folder)
    return folder


@pytest.fixture
def directory(bert: Path, tmp_path: Path) -> Callable[[Any], Path]:
    """The same with another configuration, and code beside it that leaves a canary."""

    def make(config: Any) -> Path:
        folder = tmp_path / "model"
        folder.mkdir(exist_ok=True)
        (folder / "model.safetensors").write_bytes((bert / "model.safetensors").read_bytes())
        for name in ("own.py", "modeling_bert.py", "configuration_bert.py", "build.py"):
            (folder / name).write_text(f"open({str(tmp_path / 'canary')!r}, 'w')\nclass Config: ...\nclass Net: ...\n")
        (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
        return folder

    return make


KERNELS = ("evil/kernel", "evil/kernel@main:attend", "kernels-community/flash-attn", "flash_attention_2",
           "paged|evil/k", "../own", 3, ["evil/kernel"], {"": "evil/kernel"})  # fmt: skip
NAMES = ("attn_implementation", "_attn_implementation", "_attn_implementation_internal", "experts_implementation")


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_a_configuration_does_not_choose_what_computes(
    directory: Any, bert: Path, tmp_path: Path, name: str, kernel: Any
) -> None:
    folder = directory({**BERT, name: kernel, "text_config": {name: kernel}})
    module, usual = (build(f"transformers:{where}", {}).module for where in (folder, bert))
    assert vars(module)["config"]._attn_implementation == vars(usual)["config"]._attn_implementation == "sdpa"
    assert not (tmp_path / "canary").exists()
    with pytest.raises(UsageError, match="how it is computed is chosen here"):
        build(f"transformers:{folder}", {name: "evil/kernel"})


def test_twin_the_library_takes_a_kernel_by_its_name(bert: Path) -> None:
    import transformers

    config = transformers.BertConfig(**SMALL, attn_implementation="evil/kernel")
    with pytest.raises(ImportError, match="kernels"):
        transformers.BertModel(config)


CODE = ("own.Config", "own.py", "evil/repository--own.Config", "own--own.Config")


@pytest.mark.parametrize("where", CODE)
@pytest.mark.parametrize("kind", ["AutoConfig", "AutoModel", "AutoModelForSequenceClassification", "AutoTokenizer"])
@pytest.mark.parametrize("model_type", ["bert", "own", None])
def test_code_beside_the_weights_is_not_run(
    directory: Any, tmp_path: Path, where: str, kind: str, model_type: str | None
) -> None:
    config = {**BERT, "model_type": model_type, "auto_map": {kind: where}}
    try:
        load(directory({key: value for key, value in config.items() if value is not None}))
    except CompressError as error:
        check_message(str(error))
    assert not (tmp_path / "canary").exists()


FETCHED: dict[str, Any] = {
    "a backbone of timm": {
        "model_type": "detr", "architectures": ["DetrForObjectDetection"], "use_timm_backbone": True,
        "use_pretrained_backbone": True, "backbone": "resnet18", "num_queries": 2, "d_model": 8,
        "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8,
        "encoder_attention_heads": 1, "decoder_attention_heads": 1,
    },
    "a backbone of the hub": {
        "model_type": "detr", "architectures": ["DetrForObjectDetection"], "use_timm_backbone": False,
        "use_pretrained_backbone": True, "backbone": "evil/resnet", "num_queries": 2, "d_model": 8,
    },
    "a network of timm on the hub": {
        "model_type": "timm_wrapper", "architecture": "hf-hub:evil/model",
        "architectures": ["TimmWrapperForImageClassification"],
    },
    "a quantiser": {**BERT, "quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}},
    "a quantiser inside": {**BERT, "text_config": {"quantization_config": {"quant_method": "gptq"}}},
    "another class": {**BERT, "architectures": ["pipeline"]},
    "a class of another network": {**BERT, "architectures": ["GPT2LMHeadModel"]},
    "classes in a table": {**BERT, "architectures": {"0": "BertModel"}},
    "a class that is a number": {**BERT, "architectures": [3]},
}  # fmt: skip


@pytest.mark.parametrize("what", FETCHED)
def test_what_a_configuration_would_fetch_is_refused(
    directory: Any, tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    folder = directory(FETCHED[what])
    (folder / "model.safetensors").unlink()
    try:
        with no_hang():
            load("init", arch=f"transformers:{folder}")
    except CompressError as error:
        check_message(str(error))
    else:  # a network of a library that is here is built, without weights of its own
        assert what == "a backbone of timm"
    assert not (tmp_path / "canary").exists()
    assert not [path for path in (tmp_path / "home").rglob("*") if path.is_file()]


LARGE = {
    "layers": {"num_hidden_layers": 10**7},
    "fewer layers": {"num_hidden_layers": 10**6},
    "labels": {"num_labels": 10**9},
    "words": {"vocab_size": 2**40},
    "width": {"hidden_size": 10**6, "num_attention_heads": 1},
    "width twice": {"hidden_size": 2**20, "intermediate_size": 2**20, "num_attention_heads": 1},
    "positions": {"max_position_embeddings": 2**45},
    "a number without end": {"num_hidden_layers": 10**4000},
    "heads": {"num_attention_heads": 10**9},
    "below zero": {"num_hidden_layers": -(10**9)},
    "in a table": {"text_config": {"num_hidden_layers": 10**9}},
    "in a list": {"depths": [2, 10**9]},
}


@pytest.mark.parametrize("source", ["weights", "init"])
@pytest.mark.parametrize("what", LARGE)
def test_a_network_larger_than_its_weights_is_not_built(directory: Any, what: str, source: str) -> None:
    folder = directory({**BERT, **LARGE[what]})
    with no_hang(), pytest.raises(ModelError) as caught:
        load(folder) if source == "weights" else load("init", arch=f"transformers:{folder}")
    check_message(str(caught.value))


VALUES = (None, True, -1, 0, 1.5, 2**70, "", "x", [], [1], {}, {"a": 1}, "\x1b[31m")


@pytest.mark.parametrize("name", [*BERT, "id2label", "num_labels", "hidden_act", "pad_token_id", "layer_norm_eps",
                                  "is_decoder", "position_embedding_type", "chunk_size_feed_forward", "torch_dtype",
                                  "pruned_heads", "__class__", "to_dict", "name_or_path"])  # fmt: skip
def test_a_field_of_a_wrong_type_ends_in_a_message(directory: Any, name: str) -> None:
    for value in VALUES:
        folder = directory({**BERT, name: value})
        try:
            with no_hang():
                build(f"transformers:{folder}", {})
                if value in (True, 0, "x"):
                    load(folder)
        except CompressError as error:
            check_message(str(error))


@pytest.mark.parametrize(
    "text", ["", "[]", "3", "null", "[" * 100_000, "{" * 100_000, '{"a":' * 50_000, '{"a":' * 30 + "1" + "}" * 30,
             '{"model_type": "bert", "vocab_size": ' + "9" * 5000 + "}", "\x00", '{"a": NaN}' ],
)  # fmt: skip
def test_a_configuration_that_is_none(directory: Any, text: str) -> None:
    with no_hang(), pytest.raises(ModelError) as caught:
        load(directory(text))
    check_message(str(caught.value))


@pytest.mark.parametrize(
    ("arch", "argument"),
    [("torchvision:resnet18", {"weights": "DEFAULT"}), ("timm:resnet18", {"pretrained": True}),
     ("timm:resnet18", {"checkpoint_path": "evil.pt"}), ("timm:resnet18", {"pretrained_cfg": "hf-hub:evil/model"}),
     ("timm:resnet18", {"cache_dir": "."})],
)  # fmt: skip
def test_an_argument_of_an_architecture_fetches_and_opens_nothing(
    arch: str, argument: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = arch.partition(":")[0]
    pytest.importorskip("timm" if package == "timm" else "compressor", reason=f"{package} is not installed")
    for variable in ("TORCH_HOME", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises((UnsafeFileError, UsageError)) as caught:
        build(arch, argument)
    check_message(str(caught.value))


def test_without_the_hook_nothing_is_looked_at() -> None:
    """An audit hook stays for good: one that looked at events outside of a sealed block would slow everything down."""
    code = "import sys, compressor.sealed as s; print(len(s._installed)); "
    code += 'exec(\'with s.sealed("a"): pass\\nwith s.sealed("b"): pass\'); print(len(s._installed))'
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "1"]
