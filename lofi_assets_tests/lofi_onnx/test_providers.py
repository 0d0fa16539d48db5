"""What ONNX Runtime computes on: what was asked for, or an error that says what to install."""

from pathlib import Path
from typing import Any, ClassVar

import onnxruntime
import pytest

from lofi_assets.backbones import BackboneError
from lofi_assets.backbones.ace_step_v1.backbone import ACE_STEP_V1
from lofi_assets.lofi_onnx.pipeline import CPU, CUDA, OnnxPipeline, ProviderError, providers_of


class Session:
    """Starts on the providers that it is given, or, as a real one whose libraries are absent, on the CPU alone."""

    given: ClassVar[list[Any]] = []
    starts: tuple[str, ...] = (CUDA, CPU)

    def __init__(self, path: str, options: onnxruntime.SessionOptions, providers: list[Any]) -> None:
        Session.given = [providers, options.use_deterministic_compute]

    def get_providers(self) -> list[str]:
        return list(self.starts)


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> OnnxPipeline:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr("tokenizers.Tokenizer.from_file", lambda path: Tokenizer())
    for name in ("tokenizer.json", "text_encoder.onnx", "vocoder.onnx", "vocoder.cpu.onnx"):
        (tmp_path / name).write_bytes(b"{}")
    return OnnxPipeline(tmp_path, providers=providers_of("cuda:1"))


class Tokenizer:
    def enable_truncation(self, length: int) -> None:
        """As one of tokenizers."""

    def no_padding(self) -> None:
        """As one of tokenizers."""


def test_a_gpu_computes_float32_as_float32_and_the_same_each_time(pipeline: OnnxPipeline) -> None:
    pipeline.session("vocoder")
    (first, options), last = Session.given[0][0], Session.given[0][1]
    assert (first, last) == (CUDA, CPU) and Session.given[1]
    assert options["device_id"] == "1" and options["use_tf32"] == "0" and options["cudnn_conv_algo_search"] == "DEFAULT"
    assert pipeline.component_file("vocoder").name == "vocoder.onnx"  # not the CPU's own


def test_a_provider_that_does_not_start_is_no_silent_cpu(
    pipeline: OnnxPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Session, "starts", (CPU,))
    with pytest.raises(ProviderError, match="CUDAExecutionProvider is installed and could not be started"):
        pipeline.session("vocoder")
    with pytest.raises(BackboneError, match="could not be started"):
        ACE_STEP_V1.runtime(pipeline.folder, device="cuda")


@pytest.mark.parametrize(
    ("device", "said"), [("cuda", "install onnxruntime-gpu"), ("mps", "cpu or cuda here, not on mps")]
)
def test_a_device_that_cannot_be_had_is_named(
    device: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    assert providers_of("cpu") == [CPU]
    with pytest.raises(BackboneError, match=said):
        ACE_STEP_V1.runtime(tmp_path, device=device)
