"""The GPT, with its key-value cache."""

from gpt.model.cache import KVCache
from gpt.model.gpt import GPT, MLP, Block, CausalSelfAttention, build_model, eval_mode, sinusoids
from gpt.model.quantized import QuantizedEmbedding, QuantizedLinear, quantize_model
from gpt.model.shapes import parameter_shapes

__all__ = ["GPT", "MLP", "Block", "CausalSelfAttention", "KVCache", "QuantizedEmbedding", "QuantizedLinear",
           "build_model", "eval_mode", "parameter_shapes", "quantize_model", "sinusoids"]  # fmt: skip
