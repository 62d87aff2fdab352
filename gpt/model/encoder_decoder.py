"""The whole transformer: an encoder reads a source, and a decoder writes a target that depends on it.

    memory = encoder(source)                                  (B, S, C of the encoder)
    x = dropout(token embedding + position embedding)         (B, T, C)
    x = x + causal attention(norm(x))                         n_layer times, with
    x = x + cross attention(norm(x), memory)
    x = x + mlp(norm(x))
    logits = norm(x) @ (token embedding)^T                    (B, T, V)

The blocks have the norm before each layer, as those of GPT-2, and not after each sum. Source and target have an
embedding each.

Source: Vaswani et al. 2017, "Attention Is All You Need".
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

import tensorlite as tl
import tensorlite.nn.functional as F
from gpt.config import ConfigError, ModelConfig
from gpt.model.blocks import MLP, CausalSelfAttention, build_norm, init_parameters, merge_heads, share_keys
from gpt.model.cache import KVCache
from gpt.model.encoder import Encoder, Stack, check_config, check_ids, check_labels, check_padding, visible
from gpt.model.rotary import RotaryTable
from tensorlite import Tensor, nn


@dataclass(frozen=True)
class Memory:
    """What the decoder sees of sources: the keys and values of its cross attention, for each layer (B, K, S, D).

    seen: whether each position of a source is seen, (B, 1, 1, S); None if all are.
    """

    keys: list[Tensor]
    values: list[Tensor]
    seen: Tensor | None

    @property
    def batch_size(self) -> int:
        """Return the number of sources."""
        return self.keys[0].shape[0]


class CrossAttention(nn.Module):
    """Multi-head attention of a sequence to the hidden states of an encoder (Vaswani et al. 2017, section 3.2.3).

    config: the decoder's. source_width: the width of the encoder.
    """

    def __init__(self, config: ModelConfig, source_width: int) -> None:
        super().__init__()
        C, D = config.n_embd, config.head_size
        bias = config.bias or config.qkv_bias
        self.n_head, self.n_kv_head, self.head_size = config.n_head, config.kv_heads, D
        self.dropout = config.dropout if config.attention_dropout else 0.0  # of attention weights
        self.q_attn = nn.Linear(C, self.n_head * D, bias=bias)
        self.c_attn = nn.Linear(source_width, 2 * self.n_kv_head * D, bias=bias)  # keys and values
        self.c_proj = nn.Linear(self.n_head * D, C, bias=config.bias)
        self.q_norm = nn.RMSNorm(D, config.norm_eps) if config.qk_norm else nn.Identity()
        self.k_norm = nn.RMSNorm(D, config.norm_eps) if config.qk_norm else nn.Identity()
        self.resid_dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, seen: Tensor | None = None) -> Tensor:
        """Return the output (B, T, C) for x (B, T, C), with keys and values (B, K, S, D), or (1, K, S, D) for all."""
        q, k, v, seen = self.inputs_of_attention(x, keys, values, seen)
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, seen, dropout_p=dropout)
        return self.resid_dropout(self.c_proj(merge_heads(y, self.n_head)))

    def inputs_of_attention(
        self, x: Tensor, keys: Tensor, values: Tensor, seen: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Return queries, keys, values and the mask in the shapes of `share_keys`."""
        B, T, _ = x.shape
        q = self.q_norm(self.q_attn(x).view(B, T, self.n_head, self.head_size).transpose(1, 2))
        return share_keys(q, keys, values, seen)

    def keys_and_values(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values (B, K, S, D) of the hidden states (B, S, C) of an encoder."""
        B, S, _ = hidden.shape
        heads = self.c_attn(hidden).view(B, S, 2 * self.n_kv_head, self.head_size).transpose(1, 2)
        k, v = heads.split([self.n_kv_head, self.n_kv_head], dim=1)
        return self.k_norm(k), v


class DecoderBlock(nn.Module):
    """A transformer block with cross attention between causal attention and MLP."""

    def __init__(
        self, config: ModelConfig, source_width: int, layer: int = 0, rotary: RotaryTable | None = None
    ) -> None:
        super().__init__()
        self.ln_1 = build_norm(config)
        self.attn = CausalSelfAttention(config, layer, rotary)
        self.ln_cross_attn = build_norm(config)
        self.crossattention = CrossAttention(config, source_width)
        self.ln_2 = build_norm(config)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, memory: Memory, layer: int, cache: KVCache | None = None) -> Tensor:
        x = x + self.attn(self.ln_1(x), cache, layer)
        x = x + self.crossattention(self.ln_cross_attn(x), memory.keys[layer], memory.values[layer], memory.seen)
        return x + self.mlp(self.ln_2(x))


class Decoder(Stack):
    """The decoder of an EncoderDecoder: target ids and a memory to logits.

    config: its options. source_width: the width of the encoder.
    """

    def __init__(self, config: ModelConfig, source_width: int) -> None:
        check_config("EncoderDecoder", config)
        rotary = RotaryTable(config) if config.position == "rope" else None
        super().__init__(config, [DecoderBlock(config, source_width, i, rotary) for i in range(config.n_layer)])
        if not config.tied:
            self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        init_parameters(self.named_parameters(), config, projections=3 * config.n_layer)

    def forward(self, idx: Tensor, memory: Memory, cache: KVCache | None = None) -> Tensor:
        """Return logits (B, T, V) for target ids (B, T)."""
        x = self.embed(idx, 0 if cache is None else cache.length)
        for layer, block in enumerate(self.h):
            x = block(x, memory, layer, cache)
        if cache is not None:
            cache.length += idx.shape[1]
        x = self.ln_f(x)
        logits: Tensor = F.linear(x, self.wte.weight) if self.config.tied else self.lm_head(x)
        return logits


class EncoderDecoder(nn.Module):
    """A transformer from sequences to sequences, such as for translation.

    config: the options of the decoder. encoder: those of the encoder, which may have another vocabulary, context, width
        and depth; those of the decoder if not given.

    Raises TypeError for another type, and ConfigError for an option that would have no effect.
    `gpt.generation.translate` writes targets with it.
    """

    def __init__(self, config: ModelConfig, encoder: ModelConfig | None = None) -> None:
        super().__init__()
        check_config("EncoderDecoder", config)
        if encoder is not None:
            check_config("EncoderDecoder", encoder)
            if not encoder.tied:
                raise ConfigError(
                    "EncoderDecoder: expected an encoder with model.tied = True, got False, which has no effect: "
                    "an encoder has no head. Leave it out"
                )
        self.config = config
        """The options of the decoder."""
        self.encoder = Encoder(config if encoder is None else encoder)
        self.decoder = Decoder(config, self.encoder.config.n_embd)

    @property
    def device(self) -> tl.Device:
        """Return the device of the parameters."""
        return self.decoder.wte.weight.device

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the type of the parameters and of the activations."""
        return self.decoder.wte.weight.dtype

    def forward(
        self,
        source: Tensor,
        target: Tensor,
        labels: Tensor | None = None,
        source_key_padding_mask: Tensor | None = None,
        target_key_padding_mask: Tensor | None = None,
    ) -> tuple[Tensor, Any]:
        """Return logits (B, T, V) for sources (B, S) and targets (B, T), int64, and the mean cross-entropy in nats.

        logits[:, t] predicts the token after target[:, t]. A target begins with a start token, which is not predicted.

        labels: (B, T), int64: the token after target[:, t], and -1 where a position does not count. The loss is a
            Tensor, 0-d; None without labels, and NaN if no position counts.
        source_key_padding_mask, target_key_padding_mask: (B, S) and (B, T), booleans, True for padding, which is at the
            end of a sequence. Nothing sees it, and labels there do not count.

        Raises ValueError for another shape, no token, more than block_size, or padding before a token. Raises TypeError
        for another dtype, and IndexError for an id outside the vocabulary.
        """
        self.check_target(target, target_key_padding_mask)
        memory = self.encode(source, source_key_padding_mask)
        if labels is not None:
            check_labels("EncoderDecoder", labels, target)
        logits = self.decode(target, memory)
        if labels is None:
            return logits, None
        if target_key_padding_mask is not None:
            labels = tl.where(target_key_padding_mask, -1, labels)
        V = self.config.vocab_size
        return logits, F.cross_entropy(logits.view(-1, V), labels.reshape(-1), ignore_index=-1)

    def encode(self, source: Tensor, source_key_padding_mask: Tensor | None = None) -> Memory:
        """Return what the decoder sees of sources (B, S). Arguments and errors are those of `forward`."""
        check_ids("EncoderDecoder", "source ids", source, self.encoder.config.block_size)
        check_padding("EncoderDecoder", "source_key_padding_mask", source_key_padding_mask, source)
        hidden = self.encoder(source, source_key_padding_mask)
        pairs = [block.crossattention.keys_and_values(hidden) for block in self.decoder.h]
        seen = None if source_key_padding_mask is None else visible(source_key_padding_mask)
        return Memory([k for k, _ in pairs], [v for _, v in pairs], seen)

    def decode(self, target: Tensor, memory: Memory, cache: KVCache | None = None) -> Tensor:
        """Return logits (B, T, V) for targets (B, T) and the memory of their B sources, or of one for all of them.

        cache: with it the targets are the tokens after the cached ones, and it then holds them as well. Raises
            GraphError if gradients would be recorded, and ValueError if they do not fit.
        """
        self.check_target(target)
        B, T = target.shape
        if memory.batch_size not in (1, B):
            raise ValueError(
                f"EncoderDecoder: expected a target for each of {memory.batch_size} sources, got {B}. "
                "target[i] belongs to source[i]"
            )
        if cache is not None:
            if tl.is_grad_enabled() and any(p.requires_grad for p in self.parameters()):
                raise tl.GraphError("EncoderDecoder: a cache records no gradients. Call the model under no_grad()")
            cache.check_capacity(B, T)
        logits: Tensor = self.decoder(target, memory, cache)
        return logits

    def check_target(self, target: Tensor, mask: Tensor | None = None) -> None:
        """Raise TypeError or ValueError unless targets and their padding have the form that `forward` takes."""
        check_ids("EncoderDecoder", "target ids", target, self.config.block_size)
        check_padding("EncoderDecoder", "target_key_padding_mask", mask, target)

    def num_params(self) -> int:
        """Return the number of parameters."""
        return sum(p.numel() for p in self.parameters())
