"""What an ONNX file says about its own making."""

from __future__ import annotations

import io
import json
from collections.abc import Callable

import onnx
import pytest
import torch

from compressor.data.arrays import Arrays, ArraySource, Normalisation
from compressor.errors import UsageError
from compressor.exporting import export_onnx
from compressor.exporting.metadata import properties, tool_version
from compressor.program import InputSpec, Program, Record, Step, capture

Build = Callable[[str], Program]

RECORD = Record(
    arch="lenet5",
    dense_params=1500,
    steps=(Step("prune", {"ratio": 2.0}, {"accuracy": float("nan")}, seed=3), Step("compact")),
)


def test_history_and_counts_are_in_the_file(program_of: Build) -> None:
    program = program_of("plain").replace(record=RECORD)
    stream = io.BytesIO()
    export_onnx(program, stream, metadata={"ticket": "42"})
    model = onnx.load_from_string(stream.getvalue())
    found = {entry.key: entry.value for entry in model.metadata_props}
    steps = json.loads(found["compress.steps"])
    assert [step["command"] for step in steps] == ["prune", "compact"]
    assert steps[0]["options"] == {"ratio": 2.0} and steps[0]["metrics"] == {"accuracy": None}
    assert found["compress.params"] == str(program.n_parameters)
    assert found["compress.dense_params"] == "1500"
    assert found["compress.version"] == tool_version()
    assert found["ticket"] == "42"
    assert (model.producer_name, model.graph.name) == ("compress", "lenet5")
    assert "lenet5" in model.graph.doc_string and "of 1,500" in model.graph.doc_string


def test_a_network_without_a_name_is_called_main_and_one_that_lost_nothing_does_not_boast(program_of: Build) -> None:
    program = program_of("plain")
    stream = io.BytesIO()
    export_onnx(program.replace(record=Record(dense_params=program.n_parameters)), stream)
    graph = onnx.load_from_string(stream.getvalue()).graph
    assert graph.name == "main"
    assert graph.doc_string.startswith("network: ") and graph.doc_string.endswith(" parameters")


def test_what_the_record_tells_is_told(program_of: Build) -> None:
    record = Record(notes=("cut by hand",), arch_args={"width": 2}, until=("3",), preprocessing="clip")
    found = properties(program_of("plain").replace(record=record), None)
    told = {key: found[f"compress.{key}"] for key in ("notes", "arch_args", "until", "preprocessing")}
    assert told == {"notes": '["cut by hand"]', "arch_args": '{"width": 2}', "until": '["3"]', "preprocessing": "clip"}


def test_what_is_not_finite_is_null_wherever_it_stands(program_of: Build) -> None:
    step = Step("prune", {"ratios": [2.0, float("inf")], "pair": (float("nan"), 1.5)}, {})
    (told,) = json.loads(properties(program_of("plain").replace(record=Record(steps=(step,))), None)["compress.steps"])
    assert told["options"] == {"ratios": [2.0, None], "pair": [None, 1.5]}


def test_a_network_that_was_cast_is_counted_as_before(program_of: Build) -> None:
    program = program_of("plain")
    double = program.replace(module=program.module.clone(torch.float64))
    assert properties(double, None)["compress.macs"] == properties(program, None)["compress.macs"]


def test_a_network_without_weights_is_described_too() -> None:
    found = properties(capture(torch.nn.ReLU(), [InputSpec("x", (None, 3))]), None)
    assert (found["compress.params"], found["compress.macs"]) == ("0", "0")


def test_kept_parameters_are_without_the_masked_ones(program_of: Build) -> None:
    program = program_of("plain")
    mask = torch.ones_like(program.parameters["hidden.weight"], dtype=torch.bool)
    mask[:3] = False
    found = properties(program.replace(masks={"hidden.weight": mask}), None)
    assert int(found["compress.kept_params"]) == program.n_parameters - 3 * 144


def test_unknown_things_are_left_out(program_of: Build) -> None:
    found = properties(program_of("plain"), None)
    counted = {"compress.params", "compress.kept_params", "compress.macs"}
    assert set(found) == {"compress.version", "compress.steps", *counted}


def test_normalisation_is_kept_when_the_data_have_one(program_of: Build) -> None:
    x, y = torch.rand(4, 1, 8, 8), torch.zeros(4, dtype=torch.int64)
    data = ArraySource("fake", Arrays(x, y), Arrays(x, y), 5, Normalisation((0.5,), (0.25,)))
    found = properties(program_of("plain"), data)
    assert json.loads(found["compress.normalisation"]) == {"mean": [0.5], "std": [0.25]}


def test_our_own_keys_cannot_be_overwritten(program_of: Build) -> None:
    with pytest.raises(UsageError, match=r"compress\.steps: .*written by the tool itself"):
        export_onnx(program_of("plain"), io.BytesIO(), metadata={"compress.steps": "[]"})
