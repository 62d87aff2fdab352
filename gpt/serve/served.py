"""The models that a server has, each with the scheduler that writes its texts."""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from gpt.errors import short
from gpt.generation.grammar import Grammar
from gpt.model import GPT
from gpt.serve.errors import ApiError
from gpt.serve.options import ServeOptions
from gpt.serve.scheduler import Scheduler
from gpt.tokenizer import Tokenizer


@dataclass(eq=False)
class ServedModel:
    """A model with its name in the API, its tokenizer, and its scheduler while the server runs."""

    id: str
    model: GPT
    tokenizer: Tokenizer
    scheduler: Scheduler
    created: int = field(default_factory=lambda: int(time.time()))
    """When the server loaded it, in seconds since 1970."""
    grammars: dict[str, Grammar] = field(default_factory=dict)
    """Grammars that texts have had, by their JSON schemas."""

    @property
    def context(self) -> int:
        """Return how many tokens the model sees."""
        return self.model.config.block_size

    @cached_property
    def fingerprint(self) -> str:
        """Return a name of the model and the code that computes it; OpenAI calls it `system_fingerprint`."""
        from tensorlite import __version__

        text = f"{self.id} {self.model.config} {__version__}"
        return "fp_" + hashlib.sha256(text.encode()).hexdigest()[:10]


class Served:
    """The models of a server, by their names in the API; the first one is the default.

    models: each name with its model and tokenizer. The application has it in `app.state.served`.
    """

    def __init__(self, models: Mapping[str, tuple[GPT, Tokenizer]], options: ServeOptions) -> None:
        self.options = options
        self.active = 0
        """The number of requests that are answered now."""
        self.draining = False
        """Whether the server takes no new work, because it is about to end."""
        self.abandoned = False
        """Whether the server ends at once, without an end of its texts."""
        self.models = {
            name: ServedModel(name, model, tokenizer, Scheduler(model, options.max_batch, options.queue))
            for name, (model, tokenizer) in models.items()
        }

    def find(self, name: str | None) -> ServedModel:
        """Return the model of a name, the first one for None. Raises ApiError 404."""
        if name is None:
            return next(iter(self.models.values()))
        if name in self.models:
            return self.models[name]
        raise ApiError(
            404,
            f"The model {short(name)} does not exist. This server has {', '.join(self.models)}.",
            param="model",
            code="model_not_found",
        )

    def close(self) -> None:
        """End the schedulers, and with them all texts."""
        for served in self.models.values():
            served.scheduler.close(wait=not self.abandoned)
