"""The encoder of a transformer: each position of a sequence sees all of them, those of padding excepted.

    x = dropout(token embedding + position embedding)         (B, T, C)
    x = x + attention(norm(x));  x = x + mlp(norm(x))         n_layer times
    hidden states = norm(x)                                   (B, T, C)

Sources: Vaswani et al. 2017, "Attention Is All You Need", whose encoder has its norms after each sum; Devlin et al.
2018, "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding".
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

import tensorlite as tl
from gpt.config import ConfigError, ModelConfig
from gpt.model.blocks import MLP, BidirectionalSelfAttention, build_norm, init_parameters
from gpt.model.gpt import check_model_config, sinusoids
from gpt.model.rotary import RotaryTable
from tensorlite import Tensor, nn

# Options of ModelConfig that need a text which is read from left to right, or whose length does not change.
REFUSED = ("previous_tokens", "sliding_window")


class Stack(nn.Module):
    """Embeddings, blocks and a last norm, which an encoder and a decoder have in common. Its names are those of GPT.

    config: a checked ModelConfig. blocks: those of all layers.
    """

    def __init__(self, config: ModelConfig, blocks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        if config.position == "learned":
            self.wpe = nn.Embedding(config.block_size, config.n_embd)
        elif config.position == "sinusoidal":
            table = tl.tensor(sinusoids(config.block_size, config.n_embd))
            self.register_buffer("sinusoids", table, persistent=False)
        self.drop = nn.Dropout(config.dropout)
        self.h = nn.ModuleList(blocks)
        self.ln_f = build_norm(config)

    def embed(self, idx: Tensor, start: int = 0) -> Tensor:
        """Return embeddings (B, T, C) of idx (B, T) at the positions from `start`; rotary ones are not added."""
        x = self.wte(idx)
        if self.config.position == "rope":
            return self.drop(x)
        table = self.wpe.weight if self.config.position == "learned" else self.sinusoids.to(x.dtype)
        if self.config.position == "sinusoidal":
            x = x * math.sqrt(self.config.n_embd)  # The factor is that of Vaswani et al., 3.4.
        return self.drop(x + table[start : start + idx.shape[1]])


class EncoderBlock(nn.Module):
    """A transformer block where each position sees all positions that are not padding."""

    def __init__(self, config: ModelConfig, rotary: RotaryTable | None = None) -> None:
        super().__init__()
        self.ln_1 = build_norm(config)
        self.attn = BidirectionalSelfAttention(config, rotary)
        self.ln_2 = build_norm(config)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        x = x + self.attn(self.ln_1(x), seen)
        return x + self.mlp(self.ln_2(x))


class Encoder(Stack):
    """A bidirectional transformer without a head: token ids to hidden states.

    config: its options. `tied` is for the head of a model that has one. Raises ConfigError for an option that needs a
    text which is read from left to right.
    """

    def __init__(self, config: ModelConfig) -> None:
        check_config("Encoder", config)
        rotary = RotaryTable(config) if config.position == "rope" else None
        super().__init__(config, [EncoderBlock(config, rotary) for _ in range(config.n_layer)])
        init_parameters(self.named_parameters(), config, projections=2 * config.n_layer)

    def forward(self, idx: Tensor, key_padding_mask: Tensor | None = None) -> Tensor:
        """Return hidden states (B, T, C) for token ids (B, T), int64, where T is at most block_size.

        key_padding_mask: (B, T), booleans, True for padding, which is at the end of a sequence. Nothing sees it. The
            hidden states there have no meaning.

        Raises ValueError for another shape, no token, too many tokens, or padding before a token; TypeError for a mask
        that is not boolean, and IndexError for an id outside the vocabulary.
        """
        check_ids("Encoder", "token ids", idx, self.config.block_size)
        check_padding("Encoder", "key_padding_mask", key_padding_mask, idx)
        seen = None if key_padding_mask is None else visible(key_padding_mask)
        x = self.embed(idx)
        for block in self.h:
            x = block(x, seen)
        hidden: Tensor = self.ln_f(x)
        return hidden


def visible(key_padding_mask: Tensor) -> Tensor:
    """Return whether each key is seen, (B, 1, 1, S), for a mask (B, S) that is True for padding."""
    return (~key_padding_mask).unsqueeze(1).unsqueeze(1)


def pad_sequences(
    sequences: Sequence[Sequence[int] | np.ndarray],
    padding_value: int = 0,
    device: Any = None,
    *,
    pad_to_multiple_of: int = 1,
) -> tuple[Tensor, Tensor]:
    """Return sequences of ids as one Tensor (B, T), int64, and its key padding mask (B, T), True for padding.

    padding_value: what is put after shorter sequences: an id of the vocabulary, or -1 for labels.
    pad_to_multiple_of: T is a multiple of it, so that batches have fewer shapes, which `tl.compile` records each.

    Raises ValueError for no sequence, an empty one, ids that are not integers, or a multiple below 1.
    """
    if not len(sequences) or not all(map(len, sequences)):
        empty = next((i for i, ids in enumerate(sequences) if not len(ids)), None)
        got = "none" if empty is None else f"none in sequence {empty}"
        raise ValueError(f"pad_sequences: expected sequences of at least one id each, got {got}. Leave it out")
    if not isinstance(pad_to_multiple_of, int) or pad_to_multiple_of < 1:
        raise ValueError(f"pad_sequences: expected pad_to_multiple_of >= 1, got {pad_to_multiple_of!r:.80}")
    longest = -(-max(map(len, sequences)) // pad_to_multiple_of) * pad_to_multiple_of
    ids = np.full((len(sequences), longest), padding_value, np.int64)
    padding = np.ones(ids.shape, bool)
    for row, sequence in enumerate(sequences):
        values = np.asarray(sequence)
        if values.ndim != 1 or values.dtype.kind not in "iu":
            raise ValueError(
                f"pad_sequences: expected integers (T,) in sequence {row}, got {values.dtype}{values.shape}. "
                "Encode the text: tokenizer.encode(text)"
            )
        ids[row, : len(values)], padding[row, : len(values)] = values, False
    return tl.tensor(ids, device=device), tl.tensor(padding, device=device)


def check_config(op: str, config: object) -> None:
    """Raise TypeError unless `config` is a ModelConfig, and ConfigError for an option that these models do not have."""
    check_model_config(config, op)
    assert isinstance(config, ModelConfig)
    for name in REFUSED:
        if value := getattr(config, name):
            raise ConfigError(f"{op}: expected model.{name} = 0, got {value}. GPT alone has it; leave it out")
    if config.rope_scaling == "dynamic":
        raise ConfigError(
            f"{op}: expected angles that do not depend on the padding, got model.rope_scaling = 'dynamic'. "
            "Choose 'linear', 'yarn' or 'llama3'"
        )


def check_ids(op: str, name: str, idx: object, block_size: int) -> None:
    """Raise TypeError or ValueError unless idx are integers (B, T) with 1 to block_size tokens in each sequence."""
    if not isinstance(idx, Tensor):
        raise TypeError(f"{op}: expected a Tensor of {name}, got {type(idx).__name__}. Write tl.tensor(ids)")
    if idx.dtype.kind not in "iu":
        raise TypeError(f"{op}: expected {name} that are integers, got {idx.dtype}. Use ids.long()")
    if idx.ndim != 2 or not idx.shape[1]:
        raise ValueError(
            f"{op}: expected {name} of shape (B, T) with at least one token, got {tuple(idx.shape)}. "
            "pad_sequences puts sequences into one Tensor"
        )
    if idx.shape[1] > block_size:
        raise ValueError(f"{op}: expected at most block_size = {block_size} {name}, got {idx.shape[1]}. Crop them")


def check_padding(op: str, name: str, mask: object, idx: Tensor) -> None:
    """Raise TypeError or ValueError unless a mask is None, or True for padding after the tokens idx (B, T)."""
    if mask is None:
        return
    if not isinstance(mask, Tensor) or mask.dtype.kind != "b":
        got = str(mask.dtype) if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"{op}: expected a Tensor of booleans as {name}, got {got}. Write ids == padding_id")
    if tuple(mask.shape) != tuple(idx.shape):
        raise ValueError(
            f"{op}: expected {name} in the shape of its tokens, {tuple(idx.shape)}, got {tuple(mask.shape)}. "
            "mask[:, t] is True if idx[:, t] is padding"
        )
    if bool(mask[:, 0].any()):
        row = int(mask[:, 0].long().argmax())
        raise ValueError(f"{op}: expected a token at the start of each sequence, got padding in row {row} of {name}")
    if bool((mask[:, :-1] & ~mask[:, 1:]).any()):
        raise ValueError(f"{op}: expected padding at the end of a sequence, got a token after it in {name}")


def check_labels(op: str, labels: object, idx: Tensor) -> None:
    """Raise TypeError or ValueError unless labels are integers in the shape of idx."""
    if not isinstance(labels, Tensor) or labels.dtype.kind not in "iu":
        got = str(labels.dtype) if isinstance(labels, Tensor) else type(labels).__name__
        raise TypeError(f"{op}: expected labels that are a Tensor of integers, got {got}. Use labels.long()")
    if tuple(labels.shape) != tuple(idx.shape):
        raise ValueError(
            f"{op}: expected labels of the shape of the tokens, {tuple(idx.shape)}, got {tuple(labels.shape)}. "
            "Write -1 where a position does not count"
        )
