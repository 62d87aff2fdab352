"""The exponential moving average of the weights of a model while it trains."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from gpt.model import GPT
from tensorlite import Tensor
from tensorlite.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """A copy of a model whose trained weights are the exponential moving average of those of the model.

    After each update ``average = d * average + (1 - d) * weights`` with ``d = min(decay, (1 + n) / (10 + n))`` for the
    n-th update, n from 0. So the random weights of the start do not stay in the average for 1 / (1 - decay) steps.
    Source of that d: the option `num_updates` of `tf.train.ExponentialMovingAverage`.

    model: the copy. Weights that are not trained, as with low-rank adaptation, are those of the model itself.
    """

    def __init__(self, model: GPT, parameters: Sequence[Tensor], decay: float) -> None:
        trained = set(map(id, parameters))
        shared = {id(p): p for p in model.parameters() if id(p) not in trained}
        self.model: GPT = copy.deepcopy(model, shared)
        self.decay, self.updates = decay, 0
        self.own = [p.requires_grad_(False) for p in self.model.parameters() if id(p) not in shared]
        self.trained = list(parameters)

    def update(self) -> None:
        """Take the weights of now into the average."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        current = [p.detach() for p in self.trained]
        get_ema_multi_avg_fn(decay)([p.detach() for p in self.own], current, self.updates)
        self.updates += 1

    def get_state(self) -> dict[str, Any]:
        """Return the number of updates. The average itself is in the tensors of a checkpoint."""
        return {"updates": self.updates}

    def set_state(self, state: Mapping[str, Any], average: Mapping[str, Tensor]) -> None:
        """Continue from a state that `get_state` returned. average: the averaged weights by name."""
        self.updates = int(state["updates"])
        self.model.load_state_dict(average, strict=False)  # The names were compared before.
