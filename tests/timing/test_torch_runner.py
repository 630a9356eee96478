"""Programs in torch: as they are, and that the program itself is not touched."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from compressor.errors import ModelError, ProviderError, UsageError
from compressor.program import InputSpec, Program, capture
from compressor.timing.providers import find_provider
from compressor.timing.torch_runner import TorchRunner

CPU = find_provider("cpu")


def test_a_block_runs_and_takes_time(program: Program) -> None:
    program.module.train()
    runner = TorchRunner(program, CPU, "tiny")
    runner.prepare(3, seed=0)
    assert 0 < runner.block(2) < 60
    assert program.module.training


def test_copies_are_measured_apart(program: Program) -> None:
    runner = TorchRunner(program, CPU, "tiny")
    runner.prepare(3, seed=0)
    assert runner.block_with_copies(2) > 0
    assert not runner.has_own_memory and runner.elsewhere() == {}


def test_double_precision_gets_inputs_of_its_own_type() -> None:
    program = capture(nn.Linear(4, 2).double(), [InputSpec("x", (None, 4))])
    runner = TorchRunner(program, CPU, "double")
    runner.prepare(2, seed=0)
    assert runner.block(1) > 0


def test_a_fixed_batch_is_kept() -> None:
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(1, 16)

    runner = TorchRunner(capture(Fixed(), [InputSpec("x", (None, 4, 4))]), CPU, "fixed")
    runner.prepare(1, seed=0)
    with pytest.raises(UsageError, match=r"--batch 2: fixed has its batch fixed at 1"):
        runner.prepare(2, seed=0)


def test_a_program_that_cannot_run_is_a_model_error(program: Program) -> None:
    wrong = program.replace(inputs=(InputSpec("x", (None, 5)),))
    with pytest.raises(ModelError, match=r"tiny: torch cannot run it at batch 1: .*mat1 and mat2"):
        TorchRunner(wrong, CPU, "tiny").prepare(1, seed=0)


def test_compiling_is_asked_for_by_the_provider(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []

    def record(module: nn.Module, **options: object) -> nn.Module:
        assert options == {"dynamic": False}
        compiled.append(module)
        return module

    monkeypatch.setattr(torch, "compile", record)
    runner = TorchRunner(program, find_provider("torch-compile"), "tiny")
    runner.prepare(1, seed=0)
    assert len(compiled) == 1 and runner.block(1) > 0
    TorchRunner(program, CPU, "tiny").prepare(1, seed=0)
    assert len(compiled) == 1


def test_a_failing_compiler_is_a_provider_error(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(module: nn.Module, **options: object) -> object:
        def call(*inputs: Tensor) -> Tensor:
            raise RuntimeError("no g++ here\nlong story")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(ProviderError, match=r"did not compile: no g\+\+ here\n.*needs a C\+\+ compiler"):
        TorchRunner(program, find_provider("torch-compile"), "tiny").prepare(1, seed=0)


def test_cuda_that_is_not_there_is_refused(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ProviderError, match="no CUDA device"):
        TorchRunner(program, find_provider("cuda"), "tiny")


@pytest.mark.gpu
def test_cuda_is_timed_by_its_own_clock(program: Program) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU")
    runner = TorchRunner(program, find_provider("cuda"), "tiny")
    runner.prepare(4, seed=0)
    assert runner.block(10) > 0
