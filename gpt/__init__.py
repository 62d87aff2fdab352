"""A GPT on top of tensorlite: config, tokenizers, data, model, training and generation.

    import gpt

    model, tokenizer = gpt.load("smollm2-135m-instruct")
    print(gpt.generate(model, tokenizer, "The capital of France is", temperature=0))

`python -m gpt --help` lists the commands. Importing this package imports nothing else; `load` and `generate` are loaded
on first use.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpt.api import generate as generate
    from gpt.api import load as load

__all__ = ["generate", "load"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from gpt import api

        return getattr(api, name)
    raise AttributeError(f"module 'gpt' has no attribute {name!r}")
