"""BERT's masked language model: a bidirectional encoder predicts tokens that were hidden from it.

    logits = encoder(ids) @ (token embedding)^T               (B, T, V)

It has no segment embeddings and no prediction of the next sentence, and the head is that of GPT.

Source: Devlin et al. 2018, "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding".
"""

import numbers
from typing import Any

import numpy as np

import tensorlite as tl
import tensorlite.nn.functional as F
from gpt.config import ModelConfig
from gpt.model.blocks import init_parameters
from gpt.model.encoder import Encoder, check_config, check_ids, check_labels, check_padding
from tensorlite import Tensor, nn

# What becomes of chosen tokens: of ten, eight become the mask token, one a random token, and one stays.
MASKED, RANDOM = 0.8, 0.1


class MaskedLanguageModel(nn.Module):
    """A language model that sees the tokens on both sides of the one that it predicts.

    config: its options. vocab_size counts the mask token. Raises ConfigError for an option that GPT alone has.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        check_config("MaskedLanguageModel", config)
        self.config = config
        self.encoder = Encoder(config)
        if not config.tied:
            self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
            init_parameters([("lm_head.weight", self.lm_head.weight)], config, projections=1)

    @property
    def device(self) -> tl.Device:
        """Return the device of the parameters."""
        return self.encoder.wte.weight.device

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the type of the parameters and of the activations."""
        return self.encoder.wte.weight.dtype

    def forward(
        self, idx: Tensor, labels: Tensor | None = None, key_padding_mask: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Return logits (B, T, V) for token ids (B, T), int64, and the mean cross-entropy in nats per label.

        logits[:, t] predicts the token at the place t itself.

        labels: (B, T), int64: the tokens that were there before `mask_tokens`, and -1 where a position does not count.
            The loss is a Tensor, 0-d; None without labels, and NaN if no position counts.
        key_padding_mask: (B, T), booleans, True for padding, which is at the end of a sequence. Nothing sees it, and
            labels there do not count.

        Raises ValueError for another shape, no token, more than block_size, or padding before a token. Raises TypeError
        for another dtype, and IndexError for an id outside the vocabulary.
        """
        name = "MaskedLanguageModel"
        check_ids(name, "token ids", idx, self.config.block_size)
        check_padding(name, "key_padding_mask", key_padding_mask, idx)
        if labels is not None:
            check_labels(name, labels, idx)
        x = self.encoder(idx, key_padding_mask)
        logits = F.linear(x, self.encoder.wte.weight) if self.config.tied else self.lm_head(x)
        if labels is None:
            return logits, None
        if key_padding_mask is not None:
            labels = tl.where(key_padding_mask, -1, labels)
        return logits, F.cross_entropy(logits.view(-1, logits.shape[-1]), labels.reshape(-1), ignore_index=-1)

    def num_params(self) -> int:
        """Return the number of parameters."""
        return sum(p.numel() for p in self.parameters())


def mask_tokens(
    idx: Tensor,
    mask_token: int,
    vocab_size: int,
    probability: float = 0.15,
    key_padding_mask: Tensor | None = None,
    generator: tl.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Return token ids with some of them hidden, (B, T), and the labels (B, T): the ids there, -1 elsewhere.

    Each sequence of n tokens has max(1, round(probability * n)) of them chosen at random, as in BERT's code. A chosen
    token becomes mask_token with probability 0.8, a random one of the vocabulary with 0.1, and stays with 0.1.

    idx: (B, T), integers. vocab_size: random tokens are from 0 to vocab_size - 1. key_padding_mask: (B, T), booleans,
        True for padding, at the end of a sequence, which is never chosen. generator: that of the device if not given.

    Raises ValueError for a probability that is not above 0 and at most 1, and for another shape.
    Source: Devlin et al. 2018, section 3.1.
    """
    check_ids("mask_tokens", "token ids", idx, np.iinfo(np.int64).max)
    check_padding("mask_tokens", "key_padding_mask", key_padding_mask, idx)
    check_probability(probability)
    with tl.no_grad():
        order = tl.rand(*idx.shape, device=idx.device, generator=generator)
        if key_padding_mask is None:
            lengths = tl.full((idx.shape[0], 1), idx.shape[1], dtype=tl.int64, device=idx.device)
        else:
            order = tl.where(key_padding_mask, 2.0, order)  # Padding comes last.
            lengths = (~key_padding_mask).sum(1, keepdim=True)
        count = (lengths * float(probability)).round().clamp(min=1)
        chosen = order.argsort(1).argsort(1) < count
        kind = tl.rand(*idx.shape, device=idx.device, generator=generator)
        random = tl.randint(0, vocab_size, tuple(idx.shape), device=idx.device, generator=generator)
        hidden = tl.where(kind < MASKED, mask_token, tl.where(kind < MASKED + RANDOM, random, idx))
        return tl.where(chosen, hidden, idx), tl.where(chosen, idx, -1)


def check_probability(value: object) -> None:
    """Raise ValueError unless a probability is a number above 0 and at most 1."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 < float(value) <= 1:
        raise ValueError(f"mask_tokens: expected a probability above 0 and at most 1, got {value!r:.80}")
