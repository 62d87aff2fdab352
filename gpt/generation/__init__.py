"""Generation: one token after the other, each sampled from what the model predicts."""

from gpt.config import SamplingConfig
from gpt.generation.engine import Engine, generate, next_logits
from gpt.generation.sampling import SampleError, sample_token
from gpt.generation.text_stream import stream

__all__ = ["Engine", "SampleError", "SamplingConfig", "generate", "next_logits", "sample_token", "stream"]
