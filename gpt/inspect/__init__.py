"""Look inside a model: where its heads attend to, and what each of its layers would predict."""

from gpt.inspect.attention import attention_weights
from gpt.inspect.lens import Lens, logit_lens

__all__ = ["Lens", "attention_weights", "logit_lens"]
