"""Small models whose predictions are far from uniform."""

import functools

import tensorlite as tl
from gpt.config import ModelConfig
from gpt.model import GPT


@functools.cache
def small_model(**options):
    """Return a model in float64 with 11 tokens and a context of 12, and other options of ModelConfig."""
    shape = {"vocab_size": 11, "block_size": 12, "n_layer": 2, "n_head": 4, "n_embd": 16}
    tl.manual_seed(3)
    model = GPT(ModelConfig(**shape | options)).to(tl.float64).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.array *= 6
    return model
