"""Rotary positions: queries and keys are turned by angles that grow with their position.

Features i and i + D/2 of a head are the coordinates of a point in a plane. At position p the point is turned by the
angle p f_i. So the product of a query and a key depends on the distance of their positions alone.

Sources: Su et al. 2021, "RoFormer: Enhanced Transformer with Rotary Position Embedding". Scaling for a longer context:
linear, Chen et al. 2023, "Extending Context Window of Large Language Models via Positional Interpolation"; yarn, Peng
et al. 2023, "YaRN: Efficient Context Window Extension of Large Language Models", which describes dynamic, too; llama3,
Llama Team 2024, "The Llama 3 Herd of Models", and its published code.

With dynamic scaling the angles of all positions change when a text longer than the original context grows. A cache then
holds what earlier positions computed with the angles of a shorter text. So its logits differ from those of the whole
text, as they do in transformers.
"""

import math

import numpy as np
from numpy.typing import NDArray

import tensorlite as tl
from gpt.config import ModelConfig
from tensorlite import Tensor

Array = NDArray[np.float64]


class RotaryTable:
    """The cosines and sines of the angles of a model, by position. They are computed as far as positions are used.

    config: the model's; its `position` is "rope".
    """

    def __init__(self, config: ModelConfig) -> None:
        self.config = config
        self.tables: dict[tuple[object, str, int], tuple[Tensor, Tensor]] = {}

    @property
    def turns_late(self) -> bool:
        """Return whether the angles of all positions depend on the length of the text, as those of dynamic do."""
        return self.config.rope_scaling == "dynamic"

    def __call__(self, length: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosines and sines (length, D) of the positions from 0, with the dtype and the device of `like`.

        The cosines and sines of the D/2 angles come twice in a row.
        """
        stretched = self.turns_late and length > self.config.original_context  # A table for each length.
        kind = (like.dtype, str(like.device), length if stretched else 0)
        if kind not in self.tables or self.tables[kind][0].shape[0] < length:
            # Powers of two, so that a text that grows by a token computes the table a few times only.
            size = length if stretched else min(self.config.block_size, max(256, 1 << (length - 1).bit_length()))
            cosines, sines = (tl.tensor(a).to(like.device, like.dtype) for a in angles(self.config, size, length))
            self.tables = {key: value for key, value in self.tables.items() if not key[2]}
            self.tables[kind] = cosines, sines
        cosines, sines = self.tables[kind]
        return cosines[:length], sines[:length]


def rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Return x, (..., T, D), with each pair of features turned, for cosines and sines that broadcast to it."""
    half = x.shape[-1] // 2
    return x * cosines + tl.cat([-x[..., half:], x[..., :half]], dim=-1) * sines


def angles(config: ModelConfig, count: int, length: int) -> tuple[Array, Array]:
    """Return cosines and sines (count, D), float64, for a text of `length` tokens."""
    frequencies, factor = inverse_wavelengths(config, length)
    turned = np.arange(count)[:, None] * frequencies  # (count, D/2)
    return factor * np.tile(np.cos(turned), 2), factor * np.tile(np.sin(turned), 2)


def inverse_wavelengths(config: ModelConfig, length: int) -> tuple[Array, float]:
    """Return the frequencies f_i (D/2,), in radians for each position, and the factor of cosines and sines.

    f_i = theta^(-2i / D), before the scaling. length: that of the text, for dynamic scaling.
    """
    D, theta, factor, original = config.head_size, config.rope_theta, config.rope_factor, config.original_context
    scaling = config.rope_scaling
    if scaling == "dynamic":
        theta *= (factor * max(length, original) / original - (factor - 1)) ** (D / (D - 2))
    frequencies = theta ** (-np.arange(0, D, 2) / D)
    if scaling == "linear":
        return frequencies / factor, 1.0
    if scaling == "llama3":
        # Short wavelengths are kept, long ones are scaled, and between the two limits the share grows linearly.
        low, high = config.rope_low_freq_factor, config.rope_high_freq_factor
        kept = np.clip((original * frequencies / (2 * math.pi) - low) / (high - low), 0, 1)
        return frequencies * (kept + (1 - kept) / factor), 1.0
    if scaling == "yarn":
        first, last = yarn_range(config)
        kept = 1 - np.clip((np.arange(D // 2) - first) / (last - first), 0, 1)
        scale = config.rope_attention_factor or yarn_attention_factor(factor)
        return frequencies * (kept + (1 - kept) / factor), scale
    return frequencies, 1.0


def yarn_attention_factor(factor: float) -> float:
    """Return YaRN's usual factor of queries and keys, for a context `factor` times as long (Peng et al., 3.4)."""
    return 0.1 * math.log(factor) + 1


def yarn_range(config: ModelConfig) -> tuple[float, float]:
    """Return the pairs of features between which YaRN goes from kept to scaled frequencies (Peng et al., 3.2).

    Pair i turns r times in the original context where i = D ln(context / (2 pi r)) / (2 ln theta).
    """
    D, theta = config.head_size, config.rope_theta

    def pair(rotations: float) -> float:
        return D * math.log(config.original_context / (2 * math.pi * rotations)) / (2 * math.log(theta))

    first = max(math.floor(pair(config.rope_beta_fast)), 0)
    last = min(math.ceil(pair(config.rope_beta_slow)), D - 1)
    return first, last if last != first else last + 1e-3
