"""Compare with llama.cpp, where its package xllamacpp is installed (the extra llama).

llama.cpp computes a float32 file in float32 if its cache is float32 and flash attention is off. It quantizes the
activations that meet quantized weights, and we do not, so log-probabilities differ there.
"""

import os
from pathlib import Path

import numpy as np
import pytest

import tensorlite as tl
from gpt import sources
from gpt.checkpoint import Checkpoint
from gpt.checkpoint.export import export_gguf
from gpt.config import Config, ModelConfig
from gpt.download import cache_dir
from gpt.evaluate import log_probs
from gpt.generation import generate, next_logits
from gpt.known_models import MODELS
from gpt.model import GPT, eval_mode
from gpt.tokenizer import BPETokenizer, CharTokenizer

llama_cpp = pytest.importorskip("xllamacpp")

TEXT = "The cat sat on the mat.\nThe dog sat on the cat.\nIt isn't 42, is it?\n" * 30
LLAMA = {"position": "rope", "norm": "rms", "mlp": "swiglu", "n_inner": 96}
FAMILIES = {
    "llama": LLAMA,
    "llama, shared keys": {**LLAMA, "n_kv_head": 2, "tied": False, "rope_theta": 500.0},
    "llama, linear": {**LLAMA, "rope_scaling": "linear", "rope_factor": 4.0},
    "llama, yarn": {**LLAMA, "rope_scaling": "yarn", "rope_factor": 4.0, "rope_original_context": 64},
    "llama, yarn with a factor": {
        **LLAMA, "rope_scaling": "yarn", "rope_factor": 4.0, "rope_original_context": 64, "rope_attention_factor": 1.5,
    },
    "llama3": {**LLAMA, "rope_scaling": "llama3", "rope_factor": 8.0, "rope_original_context": 256, "rope_theta": 1e4},
    "qwen2": {**LLAMA, "qkv_bias": True},
    "qwen3": {**LLAMA, "qk_norm": True},
    "gpt2": {"gelu": "tanh", "bias": True},
}


class Server:
    """llama.cpp with a file: it continues token ids, and gives log-probabilities."""

    def __init__(self, path):
        params = llama_cpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx, params.n_parallel, params.n_gpu_layers = 1024, 1, 0
        params.warmup, params.verbosity = False, -1
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 2
        params.cache_type_k = params.cache_type_v = llama_cpp.ggml_type.GGML_TYPE_F32
        params.flash_attn_type = llama_cpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.server = llama_cpp.Server(params)

    def complete(self, ids, count, alternatives=1):
        """Return, for each of `count` greedy tokens, its id and the log-probabilities of the likeliest ones by id.

        llama.cpp says nothing of a token that is a part of a character. The list is then empty.
        """
        done = self.server.handle_completions({
            "prompt": [int(i) for i in ids], "max_tokens": count, "temperature": 0, "logprobs": alternatives,
            "n_probs": alternatives, "cache_prompt": False,
        })  # fmt: skip
        rows = (done["choices"][0]["logprobs"] or {"content": []})["content"]
        return [(row["id"], {top["id"]: top["logprob"] for top in row["top_logprobs"]}) for row in rows]

    def read(self, prompt):
        """Return how many tokens a prompt has, a text or ids, and what llama.cpp says of the likeliest next token."""
        done = self.server.handle_completions({"prompt": prompt, "max_tokens": 1, "temperature": 0, "n_probs": 1,
                                               "logprobs": 1, "cache_prompt": False})  # fmt: skip
        return done["usage"]["prompt_tokens"], (done["choices"][0]["text"], done["choices"][0]["logprobs"])


def make(tokenizer, **options):
    sizes = {"block_size": 256, "n_layer": 2, "n_head": 4, "n_embd": 64, "vocab_size": tokenizer.vocab_size}
    tl.manual_seed(0)
    model = GPT(ModelConfig(**{**sizes, **options})).eval()
    for parameter in model.parameters():
        parameter.array[...] += np.random.default_rng(1).standard_normal(parameter.shape).astype(np.float32) / 10
    return Checkpoint(Config.load("gpt-nano"), tokenizer, 0, model, None, {})


@pytest.fixture(scope="module")
def tokenizer():
    return BPETokenizer.train(TEXT, 320)


@pytest.mark.parametrize("name", FAMILIES)
def test_log_probabilities_of_a_float32_file(name, tokenizer, tmp_path):
    loaded = make(tokenizer, **FAMILIES[name])
    export_gguf(loaded, tmp_path / "model.gguf")
    server = Server(tmp_path / "model.gguf")
    compared = 0
    for length in (40, 50, 60, 70, 300, 310, 320, 330):
        ids = tokenizer.encode(TEXT[:length])
        if not (rows := server.complete(ids, 1, tokenizer.vocab_size)):
            continue
        ((_, found),) = rows
        compared += 1
        with eval_mode(loaded.model):
            logits = next_logits(loaded.model, ids)
        expected = logits - np.logaddexp.reduce(logits)
        assert len(found) == tokenizer.vocab_size
        difference = max(abs(expected[i] - value) for i, value in found.items())
        # llama.cpp takes GELU from a table in float16, so its error grows with the numbers.
        assert difference < (1e-3 * abs(logits).max() if name == "gpt2" else 2e-4)
    assert compared >= 2


@pytest.mark.parametrize("kind", ["bpe", "char"])
def test_our_tokenizers_have_the_same_ids_there(kind, tokenizer, tmp_path):
    chosen = tokenizer if kind == "bpe" else CharTokenizer.train(TEXT)
    export_gguf(make(chosen, **LLAMA), tmp_path / "model.gguf", "Q8_0")
    server = Server(tmp_path / "model.gguf")
    for text in (TEXT[:200], "sat on it", "\n\n 42", "a"):
        assert server.read(text) == server.read(chosen.encode(text).tolist())


PROMPTS = [
    "The capital of France is", "Once upon a time, there was a", "def fibonacci(n):\n", "Water boils at",
    "The three primary colors are", "My favourite book is", "In 1969,", "To make bread, you need", "Dear Sir or Madam,",
    "The opposite of hot is",
]  # fmt: skip


def test_a_quantized_model_writes_the_same_text():
    """Where two texts part, the two likeliest tokens are so near that the quantized activations may exchange them."""
    cached = cache_dir() / "models" / MODELS["smollm2-135m-instruct"].source.name
    path = Path(os.environ.get("TENSORLITE_SMOLLM2", cached))
    if path.suffix != ".gguf" or not path.is_file():
        pytest.skip("SmolLM2 is not in the cache, and TENSORLITE_SMOLLM2 does not name it")
    loaded, server = sources.load(path), Server(path)
    differences, gaps = [], []
    for prompt in PROMPTS:
        ids = loaded.tokenizer.encode(prompt)
        theirs = server.complete(ids, 64, 2)
        ours = list(generate(loaded.model, ids, len(theirs), temperature=0))
        tokens = [token for token, _ in theirs]
        mine = log_probs(loaded.model, [*ids, *tokens])[len(ids) - 1 :]
        differences += [abs(a - top[token]) for a, (token, top) in zip(mine, theirs, strict=True)]
        part = next((i for i, (a, b) in enumerate(zip(ours, tokens, strict=False)) if a != b), None)
        if part is not None:
            best, second = sorted(theirs[part][1].values(), reverse=True)
            gaps.append(best - second)
    print(
        f"{len(PROMPTS) - len(gaps)} of {len(PROMPTS)} texts are equal; where others part, the likeliest tokens differ "
        f"by {max(gaps):.3f} nats at most; mean |difference| of log-probabilities {np.mean(differences):.4f} nats"
    )
    # The log-probabilities of two tokens move by up to twice the largest difference that was seen.
    assert max(gaps, default=0) < 2 * max(differences)
    assert np.mean(differences) < 0.1
