"""Three programs that write with the same GGUF file: tensorlite, and llama.cpp in two packages.

llama-native is `llama-cpp-python`, which pip builds from source for this processor. llama-wheel is `xllamacpp`, whose
wheel was built for all processors. The tokens are those of temperature 0, and their choice counts on every side.
"""

import ctypes
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, Protocol

import numpy as np
from environment import available_cores

CONTEXT = 1024  # tokens that a side makes room for
BATCH = 8  # texts that are written at once


class Text(NamedTuple):
    """One text that a side has written, greedily."""

    prompt: float  # seconds until the first new token is chosen
    others: float  # seconds of all other tokens together
    ids: list[int]


class Setting(NamedTuple):
    """How llama.cpp computes attention."""

    flash: bool
    cache: str  # the type of cached keys and values

    def __str__(self) -> str:
        return f"flash attention {'on' if self.flash else 'off'}, cache {self.cache}"


SETTINGS = (Setting(False, "F16"), Setting(True, "F16"), Setting(False, "F32"), Setting(True, "F32"))


class LanguageModel(Protocol):
    """What each side does. setting: a place in `settings`."""

    settings: Sequence[object]

    def about(self) -> str:
        """Return one line about the library and what it computes with."""

    def write(self, setting: int, ids: list[int], count: int) -> Text:
        """Read a prompt and write `count` tokens, at least one."""

    def likeliest(self, ids: list[int], count: int) -> dict[int, float]:
        """Return the log-probabilities of the likeliest next tokens, by id; {} if the side cannot tell."""

    def write_batch(self, setting: int, prompts: list[list[int]], count: int) -> float | None:
        """Write `count` tokens after each of BATCH prompts of one length. Return the seconds after the first ones."""

    def perplexity(self, ids: list[int]) -> float | None:
        """Return the perplexity of a text; None if the side cannot tell."""


def top(logits: np.ndarray, count: int) -> dict[int, float]:
    """Return the log-probabilities of the likeliest tokens by id. logits: of shape (V,)."""
    logits = logits.astype(np.float64)
    logits = logits - np.logaddexp.reduce(logits)
    return {int(i): float(logits[i]) for i in np.argsort(logits)[-count:]}


def built_with(info: str) -> str:
    """Return the instruction sets and options of a build, of which llama.cpp says `CPU : AVX2 = 1 | FMA = 1 | `."""
    return ", ".join(re.findall(r"(\w+) = 1", info))


class Tensorlite:
    """The model in a file, with `gpt.generation`."""

    settings = ("the only one",)

    def __init__(self, path: str) -> None:
        import gpt
        import tensorlite as tl

        tl.keep_freed_memory()
        self.path = path
        self.model = gpt.load(path, quantize="auto").model

    def token_bytes(self) -> int:
        """Return the bytes of the weights that a token needs: all but the positions, which are float32."""
        rows_alone = {"wpe"} if self.model.config.tied else {"wpe", "wte"}
        sizes: dict[int, int] = {}  # A tied matrix counts once.
        for name, module in self.model.named_modules():
            if name not in rows_alone:
                matrix = getattr(module, "matrix", None)  # of a quantized layer
                weights = [*module.parameters(recurse=False), *([] if matrix is None else [matrix])]
                sizes |= {id(weight): weight.nbytes for weight in weights}
        return sum(sizes.values())

    def about(self) -> str:
        return "with `gpt.generation`"

    def write(self, setting: int, ids: list[int], count: int) -> Text:
        from gpt.generation import generate

        start = time.perf_counter()
        tokens = generate(self.model, ids, count, temperature=0)
        found = [next(tokens)]
        first = time.perf_counter()
        found += tokens
        return Text(first - start, time.perf_counter() - first, found)

    def likeliest(self, ids: list[int], count: int) -> dict[int, float]:
        from gpt.generation import Engine

        # The engine reads as `generate` does: a prompt, and then a token.
        engine = Engine(self.model)
        engine.resume(np.asarray(ids[:-1]))
        return top(np.asarray(engine.step(ids[-1])), count)

    def write_batch(self, setting: int, prompts: list[list[int]], count: int) -> float | None:
        from gpt.generation import stream_batch

        tokens = stream_batch(self.model, prompts, count, temperature=0)
        for _ in prompts:
            next(tokens)
        start = time.perf_counter()
        for _ in tokens:
            pass
        return time.perf_counter() - start

    def perplexity(self, ids: list[int]) -> float | None:
        from gpt.evaluate import log_probs

        return float(np.exp(-log_probs(self.model, ids).mean()))

    def float32_perplexity(self, ids: list[int]) -> float:
        """Return the perplexity of the model with its weights as float32 numbers."""
        import gpt
        from gpt.evaluate import log_probs

        return float(np.exp(-log_probs(gpt.load(self.path, quantize="none").model, ids).mean()))


class LlamaNative:
    """llama.cpp through its C functions, as `llama-cpp-python` offers them."""

    settings = SETTINGS

    def __init__(self, path: str) -> None:
        import llama_cpp

        self.lib = llama_cpp
        self.quiet = llama_cpp.llama_log_callback(lambda *_: None)  # kept, because llama.cpp keeps its address
        llama_cpp.llama_log_set(self.quiet, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = 0
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), params)
        if not self.model:
            raise RuntimeError(f"llama.cpp cannot load {path!r}")
        self.vocab_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.contexts: dict[tuple[int, int], Any] = {}

    def about(self) -> str:
        return built_with(self.lib.llama_print_system_info().decode())

    def context(self, setting: int, texts: int = 1) -> Any:
        """Return an empty context with a setting."""
        key = setting, texts
        if key not in self.contexts:
            params, chosen = self.lib.llama_context_default_params(), SETTINGS[setting]
            params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max = CONTEXT, CONTEXT, 512, texts
            params.n_threads = params.n_threads_batch = available_cores()
            params.flash_attn_type = int(chosen.flash)
            params.type_k = params.type_v = {"F32": 0, "F16": 1}[chosen.cache]
            params.no_perf = True
            self.contexts[key] = self.lib.llama_init_from_model(self.model, params)
            if not self.contexts[key]:
                raise RuntimeError(f"llama.cpp has no context with {chosen}")
        self.lib.llama_memory_clear(self.lib.llama_get_memory(self.contexts[key]), True)
        return self.contexts[key]

    def decode(self, context: Any, ids: list[int]) -> np.ndarray:
        """Read tokens that follow what the context has read. Return the logits of the next token, which it owns."""
        tokens = (self.lib.llama_token * len(ids))(*ids)
        if self.lib.llama_decode(context, self.lib.llama_batch_get_one(tokens, len(ids))):
            raise RuntimeError(f"llama_decode failed on {len(ids)} tokens")
        return np.ctypeslib.as_array(self.lib.llama_get_logits_ith(context, -1), (self.vocab_size,))

    def write(self, setting: int, ids: list[int], count: int) -> Text:
        context = self.context(setting)
        start = time.perf_counter()
        found = [int(self.decode(context, ids).argmax())]
        first = time.perf_counter()
        while len(found) < count:
            found.append(int(self.decode(context, found[-1:]).argmax()))
        return Text(first - start, time.perf_counter() - first, found)

    def likeliest(self, ids: list[int], count: int) -> dict[int, float]:
        context = self.context(0)
        self.decode(context, ids[:-1])
        return top(self.decode(context, ids[-1:]), count)

    @contextmanager
    def batch(self, rows: Sequence[tuple[int, int, int, bool]]) -> Iterator[Any]:
        """Yield a batch of rows (token, position, text, whether its logits are wanted)."""
        batch = self.lib.llama_batch_init(len(rows), 0, 1)
        batch.n_tokens = len(rows)
        for i, (token, position, text, wanted) in enumerate(rows):
            batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, position, 1
            batch.seq_id[i][0], batch.logits[i] = text, wanted
        try:
            yield batch
        finally:
            self.lib.llama_batch_free(batch)

    def decode_rows(self, context: Any, rows: Sequence[tuple[int, int, int, bool]]) -> np.ndarray:
        """Read the rows of a batch. Return the logits that were wanted, of shape (wanted, V)."""
        with self.batch(rows) as batch:
            if self.lib.llama_decode(context, batch):
                raise RuntimeError(f"llama_decode failed on a batch of {len(rows)} tokens")
        wanted = [i for i, row in enumerate(rows) if row[3]]
        return np.stack(
            [np.ctypeslib.as_array(self.lib.llama_get_logits_ith(context, i), (self.vocab_size,)) for i in wanted]
        )

    def write_batch(self, setting: int, prompts: list[list[int]], count: int) -> float | None:
        context, length = self.context(setting, len(prompts)), len(prompts[0])
        rows = [(t, i, text, i == length - 1) for text, ids in enumerate(prompts) for i, t in enumerate(ids)]
        tokens = self.decode_rows(context, rows).argmax(-1)
        start = time.perf_counter()
        for step in range(count - 1):
            tokens = self.decode_rows(
                context, [(int(t), length + step, text, True) for text, t in enumerate(tokens)]
            ).argmax(-1)
        return time.perf_counter() - start

    def perplexity(self, ids: list[int]) -> float | None:
        rows = [(token, i, 0, True) for i, token in enumerate(ids)]
        logits = self.decode_rows(self.context(0), rows)[:-1].astype(np.float64)
        found = logits[np.arange(len(ids) - 1), ids[1:]] - np.logaddexp.reduce(logits, axis=-1)
        return float(np.exp(-found.mean()))


class LlamaWheel:
    """llama.cpp's server in this process, as `xllamacpp` offers it. It measures its times itself."""

    settings = SETTINGS

    def __init__(self, path: str) -> None:
        import xllamacpp

        self.lib, self.path = xllamacpp, path
        self.servers: dict[int, Any] = {}

    def about(self) -> str:
        return built_with(self.lib.get_system_info())

    def server(self, setting: int) -> Any:
        """Return the server with a setting."""
        if setting not in self.servers:
            params, chosen = self.lib.CommonParams(), SETTINGS[setting]
            params.model.path, params.n_gpu_layers, params.n_parallel = self.path, 0, 1
            params.n_ctx, params.n_batch, params.n_ubatch = CONTEXT, CONTEXT, 512
            params.warmup, params.verbosity, params.cache_ram_mib = False, -1, 0
            params.cpuparams.n_threads = params.cpuparams_batch.n_threads = available_cores()
            flash = self.lib.llama_flash_attn_type
            params.flash_attn_type = (
                flash.LLAMA_FLASH_ATTN_TYPE_ENABLED if chosen.flash else flash.LLAMA_FLASH_ATTN_TYPE_DISABLED
            )
            params.cache_type_k = params.cache_type_v = getattr(self.lib.ggml_type, f"GGML_TYPE_{chosen.cache}")
            self.servers[setting] = self.lib.Server(params)
        return self.servers[setting]

    def complete(self, setting: int, ids: list[int], count: int, alternatives: int) -> dict[str, Any]:
        """Return the server's answer. alternatives: the number of log-probabilities of a token; 0 is the fastest."""
        likely = {"n_probs": alternatives, "logprobs": alternatives} if alternatives else {}
        return self.server(setting).handle_completions({
            "prompt": ids, "max_tokens": count, "temperature": 0, "samplers": ["temperature"], "ignore_eos": True,
            "cache_prompt": False, **likely,
        })  # fmt: skip

    def write(self, setting: int, ids: list[int], count: int) -> Text:
        times = self.complete(setting, ids, count, 0)["timings"]
        if (times["prompt_n"], times["predicted_n"]) != (len(ids), count):
            raise RuntimeError(f"llama.cpp's server read {times['prompt_n']} tokens, wrote {times['predicted_n']}")
        # predicted_ms begins when the first token has been chosen, so it is the time of the others.
        return Text(times["prompt_ms"] / 1e3, times["predicted_ms"] / 1e3, [])

    def likeliest(self, ids: list[int], count: int) -> dict[int, float]:
        answer = self.complete(0, ids, 1, count)["choices"][0]["logprobs"]
        # It says nothing of a token that is a part of a character.
        return {row["id"]: row["logprob"] for row in answer["content"][0]["top_logprobs"]} if answer else {}

    def write_batch(self, setting: int, prompts: list[list[int]], count: int) -> float | None:
        return None

    def perplexity(self, ids: list[int]) -> float | None:
        return None


class Package(NamedTuple):
    """A side, and the package that it needs."""

    model: type[Any]
    module: str
    install: str


SIDES = {
    "tensorlite": Package(Tensorlite, "numpy", ""),
    "llama-native": Package(LlamaNative, "llama_cpp", "pip install '.[llama-native]', a build of some minutes"),
    "llama-wheel": Package(LlamaWheel, "xllamacpp", "pip install '.[llama]'"),
}


def installed() -> list[str]:
    """Return the names of the sides that can be measured."""
    return [name for name, side in SIDES.items() if find_spec(side.module)]


def serve(name: str, path: str, pipe: Connection) -> None:
    """Run in a process of its own: answer orders (method, *arguments) until None comes."""
    model = SIDES[name].model(path)
    pipe.send(len(model.settings))
    while order := pipe.recv():
        method, *args = order
        pipe.send(getattr(model, method)(*args))
