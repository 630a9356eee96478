"""docs/transformers.md, from a directory and a CSV to a smaller directory and ONNX, on a small network."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest

from compressor.cli.main import main
from compressor.formats import load
from tests.models.tiny_transformers import save_small

PAGE = Path(__file__).parents[2] / "docs" / "transformers.md"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("transformers", reason="transformers is not installed")
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    from compressor.models.huggingface import _transformers

    save_small(_transformers(), "bert", tmp_path / "bert", num_labels=2)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = {
        word: i for i, word in enumerate([*special, *(f"good{i}" for i in range(9)), *(f"bad{i}" for i in range(9))])
    }
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = _transformers().PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]",
    )  # fmt: skip
    fast.save_pretrained(tmp_path / "bert")
    with (tmp_path / "train.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["text", "label"])
        for i in range(80):
            kind = "good" if i % 2 else "bad"
            table.writerow([" ".join(f"{kind}{(i + k) % 9}" for k in range(3 + i % 4)), i % 2])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_directory_is_the_goal_of_prune(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut = ["-r", "1.2x", "-m", "magnitude", "--no-retrain", "-q"]
    assert main(["prune", "bert", *cut, "-o", "small/"]) == 0
    smaller = load(folder / "small")
    assert smaller.n_parameters * 1.2 <= load(folder / "bert").n_parameters
    assert main(["prune", "bert", *cut, "-o", "small/"]) == 1
    assert "small/ exists; give another -o DIRECTORY, or --force" in capsys.readouterr().err
    assert main(["prune", "bert", *cut, "-o", "other/", "--through-norm", "rescale"]) == 2
    assert main(["prune", "bert", *cut, "-o", "other/", "--require", "params<=10"]) == 3
    assert not (folder / "other").exists() and not list(folder.glob(".*"))


def commands(network: str) -> list[list[str]]:
    """What the page tells to type about a network, but for how long to train."""
    found = re.findall(rf"^\$ compress (\w+ {network}[ .].*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    short = ["--epochs", "2", "--lr", "0.02"]
    return [[*line.split(), *(short if line.startswith("prune") else []), "-q"] for line in found]


def test_the_walk(folder: Path) -> None:
    lines = commands("bert")
    assert [line[0] for line in lines] == ["prune", "compact", "export", "export"]
    for line in lines:
        assert main(line) == 0, line
    smaller: Any = __import__("transformers").AutoModelForSequenceClassification.from_pretrained(folder / "bert-small")
    assert sum(p.numel() for p in smaller.parameters()) * 1.3 <= load(folder / "bert").n_parameters
    tokenizer = __import__("transformers").AutoTokenizer.from_pretrained(folder / "bert-small")
    assert smaller(**tokenizer(["good1 good2 good3"], return_tensors="pt")).logits.shape == (1, 2)
    assert load(folder / "bert.pruned.pt").record.steps[-1].metrics["accuracy"] > 0.7


def test_blocks_of_a_directory(folder: Path) -> None:
    line = ["prune", "bert", "--pattern", "layer", "-r", "1.2x", "-m", "magnitude", "--no-retrain", "-q"]
    assert main(line) == 0 and main(["compact", "bert.pruned.pt", "-q"]) == 0
    smaller, dense = load(folder / "bert.compact.pt"), load(folder / "bert")
    assert smaller.n_parameters * 1.2 <= dense.n_parameters * 1.02
    assert len(smaller.module.graph.nodes) < len(dense.module.graph.nodes)


@pytest.mark.parametrize(
    ("network", "entry", "before", "more"),
    [("llama", "num_hidden_layers", 4, {"num_hidden_layers": 4}), ("mixtral", "num_local_experts", 4, {})],
)
def test_layers_and_experts_of_a_directory(
    folder: Path, network: str, entry: str, before: int, more: dict[str, int]
) -> None:
    library: Any = __import__("transformers")
    save_small(library, network, folder / network, **more)
    library.AutoTokenizer.from_pretrained(folder / "bert").save_pretrained(folder / network)
    texts = [" ".join(f"good{(i + k) % 9}" for k in range(6)) for i in range(40)]
    (folder / "train.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    (line,) = commands(network)
    assert main(line) == 0, line
    smaller = library.AutoModelForCausalLM.from_pretrained(folder / f"{network}-small")
    assert getattr(smaller.config, entry) < before
    assert sum(p.numel() for p in smaller.parameters()) * 1.2 <= load(folder / network).n_parameters * 1.02
