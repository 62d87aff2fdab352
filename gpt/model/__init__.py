"""The GPT, its key-value cache, and its size."""

from gpt.model.gpt import GPT, MLP, Block, CausalSelfAttention, KeyValueCache, inference, sinusoids

__all__ = ["GPT", "MLP", "Block", "CausalSelfAttention", "KeyValueCache", "inference", "sinusoids"]
