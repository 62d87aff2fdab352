"""The GPT with its key-value cache, the encoder-decoder, and the masked language model."""

from gpt.model.blocks import MLP, BidirectionalSelfAttention, Block, CausalSelfAttention
from gpt.model.cache import KVCache
from gpt.model.encoder import Encoder, EncoderBlock, pad_sequences
from gpt.model.encoder_decoder import CrossAttention, DecoderBlock, EncoderDecoder, Memory
from gpt.model.gpt import GPT, build_model, eval_mode, sinusoids
from gpt.model.masked_language_model import MaskedLanguageModel, mask_tokens
from gpt.model.quantized import QuantizedEmbedding, QuantizedLinear, quantize_model
from gpt.model.shapes import parameter_shapes

__all__ = ["GPT", "MLP", "BidirectionalSelfAttention", "Block", "CausalSelfAttention", "CrossAttention", "DecoderBlock",
           "Encoder", "EncoderBlock", "EncoderDecoder", "KVCache", "MaskedLanguageModel", "Memory",
           "QuantizedEmbedding", "QuantizedLinear", "build_model", "eval_mode", "mask_tokens", "pad_sequences",
           "parameter_shapes", "quantize_model", "sinusoids"]  # fmt: skip
