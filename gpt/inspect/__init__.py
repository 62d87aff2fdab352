"""Look inside a model and a run: attention, the layers' predictions, embeddings, gradients, losses; and draw them."""

from gpt.inspect.attention import attention_weights, cross_attention_weights
from gpt.inspect.curves import plot_gradients, plot_runs
from gpt.inspect.embedding_map import plot_embeddings
from gpt.inspect.figures import PictureError, save_figure
from gpt.inspect.heat_maps import plot_attention, plot_lens
from gpt.inspect.lens import Lens, logit_lens

__all__ = ["Lens", "PictureError", "attention_weights", "cross_attention_weights", "logit_lens", "plot_attention",
           "plot_embeddings", "plot_gradients", "plot_lens", "plot_runs", "save_figure"]  # fmt: skip
