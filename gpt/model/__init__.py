"""The GPT, with its key-value cache."""

from gpt.model.cache import KVCache
from gpt.model.gpt import GPT, MLP, Block, CausalSelfAttention, build_model, eval_mode, sinusoids
from gpt.model.shapes import parameter_shapes

__all__ = ["GPT", "MLP", "Block", "CausalSelfAttention", "KVCache", "build_model", "eval_mode", "parameter_shapes",
           "sinusoids"]  # fmt: skip
