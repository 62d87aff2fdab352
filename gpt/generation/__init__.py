"""Generation: one token after the other, each sampled from what the model predicts."""

from gpt.config import SamplingConfig
from gpt.generation.engine import Engine, generate, next_logits
from gpt.generation.sampling import SampleError, sample_token
from gpt.generation.terminal import ControlEscaper, gather, on_terminal
from gpt.generation.text_stream import stream

__all__ = [
    "ControlEscaper",
    "Engine",
    "SampleError",
    "SamplingConfig",
    "gather",
    "generate",
    "next_logits",
    "on_terminal",
    "sample_token",
    "stream",
]
