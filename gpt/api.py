"""The shortest way to use a model from Python: `gpt.load` and `gpt.generate`."""

from pathlib import Path
from typing import Any, NamedTuple

from gpt import sources
from gpt.generation import generate as generate_ids
from gpt.generation import stream
from gpt.model import GPT
from gpt.tokenizer import Tokenizer, prompt_ids


class Model(NamedTuple):
    """A model and its tokenizer."""

    model: GPT
    tokenizer: Tokenizer


def load(
    source: str | Path,
    device: str = "auto",
    dtype: str = "float32",
    adapter: str | Path | None = None,
    quantize: str = "none",
) -> Model:
    """Return a model, in evaluation mode, and its tokenizer.

    source: a Hugging Face folder, a GGUF file, a checkpoint or a run of ours, or a name; see `gpt.sources.find`.
    device: cpu, cuda or cuda:N; auto takes TENSORLITE_DEVICE, else cpu. dtype: float32 or float64.
    adapter: the folder of a LoRA adapter, of ours or of peft, which is merged into the weights.
    quantize: none, for a model that can be trained; auto keeps matrices of a GGUF file in Q8_0, Q4_0 and Q4_1 as they
        are; int8 and int4 quantize all matrices. A quantized model takes less memory, and writes faster.

        model, tokenizer = gpt.load("smollm2-135m-instruct")

    Raises CheckpointError, DownloadError, TokenizerError and DeviceError.
    """
    loaded = sources.load(source, device, dtype, adapter, quantize)
    return Model(loaded.model.eval(), loaded.tokenizer)


def generate(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str,
    max_new_tokens: int = 100,
    *,
    stop: str | list[str] | None = None,
    **options: Any,
) -> str:
    """Return the text that follows a prompt, without the prompt.

    It ends after max_new_tokens, before a stop text, or where the model ends it. options: fields of `SamplingConfig`,
    such as temperature=0.8, top_p=0.9, seed=1. Raises the errors of `gpt.generation.generate` and TokenizerError.
    """
    if not hasattr(tokenizer, "decode_bytes"):
        kind = type(tokenizer).__name__
        raise TypeError(f"generate: expected a tokenizer, got {kind}. Write gpt.generate(model, tokenizer, prompt)")
    ids = prompt_ids(tokenizer, prompt)
    new = generate_ids(model, ids, max_new_tokens, stop_tokens=tokenizer.stop_ids, **options)
    return "".join(stream(tokenizer, new, stop=stop))
