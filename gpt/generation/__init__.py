"""Generation: one token after the other, each sampled from what the model predicts."""

from gpt.generation.engine import SampleError, draw, generate, next_logits

__all__ = ["SampleError", "draw", "generate", "next_logits"]
