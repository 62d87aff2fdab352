"""Look inside a model and a run: attention, the layers' predictions, embeddings, gradients, losses; and draw them."""

from gpt.inspect.attention import attention_weights
from gpt.inspect.curves import plot_runs
from gpt.inspect.figures import PictureError, save_figure
from gpt.inspect.lens import Lens, logit_lens

__all__ = ["Lens", "PictureError", "attention_weights", "logit_lens", "plot_runs", "save_figure"]
