"""Providers by name: found, refused, never replaced in silence."""

from __future__ import annotations

import onnxruntime as ort
import pytest
import torch

from compressor.errors import ProviderError, UsageError
from compressor.timing.providers import (
    available_providers,
    find_provider,
    require_onnxruntime,
    require_torch,
)


def test_available_providers_are_what_onnxruntime_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert available_providers()["cpu"] is True
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    found = available_providers()
    assert found["cuda"] is True and found["cpu"] is False and found["openvino"] is False


@pytest.mark.parametrize(
    ("name", "found"),
    [("cpu", "cpu"), (" CUDA ", "cuda"), ("trt", "tensorrt"), ("torch", "cpu"), ("gpu", "cuda")],
)
def test_names_are_read_as_people_write_them(name: str, found: str) -> None:
    assert find_provider(name).name == found


def test_unknown_names_are_a_usage_error() -> None:
    with pytest.raises(UsageError, match="did you mean openvino"):
        find_provider("openvin")
    with pytest.raises(UsageError, match="use one of cpu, cuda"):
        find_provider("zzz")


def test_a_provider_that_only_this_onnxruntime_knows_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    there = ["XnnpackExecutionProvider", "AzureExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(ort, "get_available_providers", lambda: there)
    assert available_providers()["xnnpack"] is True and "azure" not in available_providers()
    found = find_provider("xnnpack")
    assert found.ort_name == "XnnpackExecutionProvider" and found.is_device
    require_onnxruntime(found)
    with pytest.raises(UsageError, match="no such provider"):
        find_provider("azure")


def test_a_missing_provider_names_the_package_and_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ProviderError, match=r"install onnxruntime-gpu .* there: cpu$") as caught:
        require_onnxruntime(find_provider("cuda"))
    assert len(str(caught.value).splitlines()) <= 3
    require_onnxruntime(find_provider("cpu"))


def test_torch_goes_only_where_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    assert require_torch(find_provider("cpu")) == torch.device("cpu")
    assert require_torch(find_provider("torch-compile")) == torch.device("cpu")
    with pytest.raises(ProviderError, match="make it ONNX first"):
        require_torch(find_provider("openvino"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ProviderError, match="no CUDA device"):
        require_torch(find_provider("cuda"))
