from __future__ import annotations

import pytest
import torch

from compressor.errors import ProviderError
from compressor.training.devices import (
    LossReading,
    _selected,
    autocast,
    forked_rng,
    gradient_scaler,
    resolve_device,
    seed_epoch,
)

CPU = torch.device("cpu")


def test_cpu_and_auto_are_always_there() -> None:
    assert resolve_device("cpu") == CPU
    assert resolve_device("auto").type in {"cpu", "cuda", "mps"}


@pytest.mark.parametrize("text", ["cuda:99", "cpu:3", "xpu:7"])
def test_missing_device_says_what_to_do(text: str) -> None:
    with pytest.raises(ProviderError, match=rf"--device {text}: torch .* finds \d+ device.*--device cpu"):
        resolve_device(text)


def test_devices_that_a_driver_does_not_reach_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(ProviderError, match=r"--device cuda:1: torch .* finds 0 device"):
        resolve_device("cuda:1")


@pytest.mark.parametrize("text", ["gpu", "", "cuda:x"])
def test_no_such_name_lists_the_names(text: str) -> None:
    with pytest.raises(ProviderError, match="no such device; use auto, cpu, cuda"):
        resolve_device(text)


def test_forked_rng_gives_the_caller_its_numbers_back() -> None:
    before = torch.get_rng_state()
    with forked_rng(CPU):
        seed_epoch(CPU, 3, 1, 0)
        torch.rand(5)
        assert not torch.equal(torch.get_rng_state(), before)
    assert torch.equal(torch.get_rng_state(), before)


def test_seed_epoch_depends_on_each_of_its_numbers() -> None:
    draws: dict[tuple[int, int, int], float] = {}
    with forked_rng(CPU):
        for key in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (-1, 0, 0)]:
            seed_epoch(CPU, *key)
            draws[key] = torch.rand(()).item()
        seed_epoch(CPU, 0, 1, 0)
        again = torch.rand(()).item()
    assert len(set(draws.values())) == 5
    assert again == draws[0, 1, 0]


def test_only_cuda_has_a_device_that_is_selected() -> None:
    with _selected(torch.device("meta")):
        assert torch.ones(1).device == CPU


def test_precision_is_that_of_the_matrix_product() -> None:
    a = torch.ones(2, 2)
    with autocast(CPU, "bf16"):
        assert (a @ a).dtype == torch.bfloat16
    with autocast(CPU, "fp32"):
        assert (a @ a).dtype == torch.float32


def test_only_fp16_scales_the_loss() -> None:
    assert gradient_scaler(CPU, "fp16").is_enabled()
    assert not gradient_scaler(CPU, "bf16").is_enabled()
    assert gradient_scaler(CPU, "fp32").scale(torch.ones(())).item() == 1.0


def test_loss_reading_is_the_loss() -> None:
    assert LossReading(torch.tensor(2.5, requires_grad=True)).value() == 2.5


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_cuda_random_numbers_and_readings() -> None:
    device = resolve_device("cuda:0")
    torch.cuda.manual_seed(5)
    before = torch.cuda.get_rng_state(device)
    draws = []
    for _ in range(2):
        with forked_rng(device):
            seed_epoch(device, 1, 2, 0)
            draws.append(torch.rand(3, device=device).tolist())
        assert torch.equal(torch.cuda.get_rng_state(device), before)
    assert draws[0] == draws[1]
    assert LossReading(torch.tensor(2.5, device=device)).value() == 2.5
