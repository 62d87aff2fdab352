"""The GPT, with its key-value cache."""

from gpt.model.gpt import GPT, MLP, Block, CausalSelfAttention, KVCache, build_model, eval_mode, sinusoids

__all__ = ["GPT", "MLP", "Block", "CausalSelfAttention", "KVCache", "build_model", "eval_mode", "sinusoids"]
