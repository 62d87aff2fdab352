"""The sections of a configuration: data, model, low-rank adaptation, optimizer, training, and sampling."""

import math
import numbers
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from gpt.config.fields import ConfigError, Field, Section, option
from gpt.errors import short

# Tokenizers and optimizers by name, each with where it is implemented. To add one, write it and add a line here. The
# names are strings, because importing them would slow down `--help`; `pkgutil.resolve_name` finds them.
TOKENIZERS = {
    "char": "gpt.tokenizer.char:CharTokenizer",
    "gpt2": "gpt.tokenizer.openai:GPT2Tokenizer",
    "cl100k_base": "gpt.tokenizer.openai:CL100KTokenizer",
    "o200k_base": "gpt.tokenizer.openai:O200KTokenizer",
    "bpe": "gpt.tokenizer.bpe:BPETokenizer",
    "huggingface": "gpt.tokenizer.huggingface:HuggingFaceTokenizer",
}
QUANTIZATIONS = ("none", "auto", "int8", "int4")  # of the weights of a model that is loaded
SCALINGS = ("linear", "dynamic", "yarn", "llama3")  # of rotary positions
JSON_LINES = (".jsonl", ".ndjson")  # how names of files of JSON lines end
OPTIMIZERS = {
    "adamw": "gpt.train.optimizer:adamw",
    "muon": "gpt.train.optimizer:muon",
}


@dataclass(frozen=True, kw_only=True)
class DataConfig(Section):
    """The text to train on, and the tokenizer that encodes it."""

    section: ClassVar[str] = "data"

    dataset: str | tuple[str, ...] = option(
        "tinyshakespeare",
        "name of a data set, or path of a UTF-8 text file or of a folder that `prepare` wrote; several may be given",
        several=True,
    )
    weights: float | tuple[float, ...] | None = option(
        None, "shares of several data sets in the sequences; those of their tokens if not given", several=True, gt=0
    )
    field: str = option("", "of files of JSON lines (.jsonl), the field with the text of a document")
    sampling: str = option(
        "random",
        "windows at random places, or epochs: each sequence once, in another random order each time",
        choices=("random", "epochs"),
    )
    documents: str = option(
        "joined",
        "windows over the whole text; or apart, of one document each; or packed, with several that do not see each "
        "other",
        choices=("joined", "apart", "packed"),
    )
    format: str = option(
        "text",
        "a text, or chat: JSON lines of conversations, of which the answers alone are learned",
        choices=("text", "chat"),
    )
    tokenizer: str = option(
        "char",
        "one token per character, a BPE of OpenAI, or a BPE trained on the text; huggingface comes with a model",
        choices=TOKENIZERS,
    )
    bpe_vocab_size: int = option(
        1024, "size of the trained BPE's vocabulary", "tokens", ge=257, le=1_000_000
    )
    val_fraction: float = option(
        0.1, "fraction of the text, at its end, that is used for validation; 0 for none", "of the text", ge=0, lt=1
    )

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names or paths of all data sets."""
        return self.dataset if isinstance(self.dataset, tuple) else (self.dataset,)

    @property
    def title(self) -> str:
        """Return the names of all data sets as one text."""
        return ", ".join(self.names)

    def check(self) -> None:
        count = 0 if self.weights is None else len(self.weights) if isinstance(self.weights, tuple) else 1
        if count and count != len(self.names):
            raise ConfigError(
                f"data.weights = {short(self.weights)}: expected one weight for each data set, of which there are "
                f"{len(self.names)}, got {count}. Give as many weights as data sets"
            )
        if count == 1:
            raise ConfigError(f"data.weights = {short(self.weights)} has no effect with one data set. Leave it out")
        if self.field and not any(name.lower().endswith(JSON_LINES) for name in self.names):
            raise ConfigError(
                f"data.field = {short(self.field)} has no effect without a file of JSON lines "
                f"({', '.join(JSON_LINES)}). Leave it out, or rename the file"
            )
        if self.format == "chat":
            self.check_chat()

    def check_chat(self) -> None:
        """Raise ConfigError for options that conversations do not have."""
        if len(self.names) > 1:
            raise ConfigError(
                f"data.format = 'chat' takes one file, got {len(self.names)}. Write all conversations into one file"
            )
        for name, default in (("field", ""), ("documents", "joined")):
            if (value := getattr(self, name)) != default:
                raise ConfigError(f"data.{name} = {short(value)} has no effect with format = 'chat'. Leave it out")


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Section):
    """The shape of the transformer."""

    section: ClassVar[str] = "model"

    vocab_size: int = option(
        65, "size of the vocabulary; training sets it from the tokenizer", "tokens", ge=1, lt=2**63
    )
    block_size: int = option(64, "context length", "tokens", ge=1, lt=2**31)
    n_layer: int = option(4, "number of transformer blocks", "blocks", ge=1, le=10_000)
    n_head: int = option(4, "attention heads in each block", "heads", ge=1, lt=2**31)
    n_embd: int = option(128, "width of the residual stream; a multiple of n_head", "features", ge=1, lt=2**31)
    dropout: float = option(0.0, "probability that dropout zeroes an activation", ge=0, lt=1)
    attention_dropout: bool = option(True, "dropout zeroes attention weights, too; without, attention is faster")
    bias: bool = option(False, "biases in the linear layers and layer norms, as in GPT-2")
    gelu: str = option("erf", "GELU of the MLP: exact, or GPT-2's tanh approximation", choices=("erf", "tanh"))
    position: str = option(
        "learned", "learned or sinusoidal embeddings, or rotary positions", choices=("learned", "sinusoidal", "rope")
    )
    previous_tokens: int = option(
        0, "tokens before each one whose embeddings, from tables of their own, are added to its own", "tokens", ge=0,
        le=1000,
    )
    norm: str = option("layer", "LayerNorm, as in GPT-2, or RMSNorm, as in Llama", choices=("layer", "rms"))
    norm_eps: float = option(1e-5, "added to the variance, or to the mean square, in the norms", gt=0, lt=1)
    mlp: str = option("gelu", "the MLP: GELU, SwiGLU as in Llama, or ReLU squared", choices=("gelu", "swiglu", "relu2"))
    n_inner: int = option(
        0, "width of the MLP; 0 is 4 n_embd, for SwiGLU 8/3 n_embd as a multiple of 32", "features", ge=0, lt=2**31
    )
    n_kv_head: int = option(
        0, "heads of keys and values, each shared by several queries; 0 is n_head", "heads", ge=0, lt=2**31
    )
    head_dim: int = option(0, "width of a head; 0 is n_embd / n_head", "features", ge=0, lt=2**31)
    qkv_bias: bool = option(False, "biases of queries, keys and values, as in Qwen2, even without bias")
    qk_norm: bool = option(False, "RMSNorm of each query and key, as in Qwen3")
    tied: bool = option(True, "the head has the weights of the token embedding")
    zero_init: bool = option(False, "projections back to the residual stream, and a separate head, begin as zeros")
    init_std: float = option(0.02, "standard deviation of the first values of matrices and embeddings", gt=0, le=1e3)
    sliding_window: int = option(
        0, "positions that a query sees, its own the last, as in Mistral; 0 is all before it", "tokens", ge=0, lt=2**31
    )
    full_layers: int = option(0, "blocks at the start whose queries see all positions before them", "blocks", ge=0)
    rope_theta: float = option(10000.0, "base of the wavelengths of rotary positions", gt=1)
    rope_scaling: str = option(
        "none",
        "scaling of rotary positions for a longer context",
        choices=("none", *SCALINGS),
    )
    rope_factor: float = option(1.0, "by how much rope_scaling extends the context", ge=1)
    rope_original_context: int = option(
        0, "context before rope_scaling; 0 is block_size / rope_factor", "tokens", ge=0, lt=2**31
    )
    rope_low_freq_factor: float = option(1.0, "llama3: longest wavelengths kept, as a divisor of the context", gt=0)
    rope_high_freq_factor: float = option(4.0, "llama3: shortest wavelengths scaled, as a divisor of the context", gt=0)
    rope_beta_fast: float = option(32.0, "yarn: rotations in the context from which a frequency stays", ge=1e-9, le=1e9)
    rope_beta_slow: float = option(1.0, "yarn: rotations in the context up to which it is scaled", ge=1e-9, le=1e9)
    rope_attention_factor: float = option(0.0, "yarn: factor of q and k; 0 is 0.1 ln(rope_factor) + 1", ge=0, le=1e6)

    @property
    def head_size(self) -> int:
        """Return the width of a head."""
        return self.head_dim or self.n_embd // self.n_head

    @property
    def kv_heads(self) -> int:
        """Return the number of heads of keys and values."""
        return self.n_kv_head or self.n_head

    @property
    def inner_size(self) -> int:
        """Return the width of the MLP."""
        return self.n_inner or (-(-8 * self.n_embd // 96) * 32 if self.mlp == "swiglu" else 4 * self.n_embd)

    @property
    def original_context(self) -> int:
        """Return the context length before `rope_scaling`."""
        return self.rope_original_context or max(1, round(self.block_size / self.rope_factor))

    def check(self) -> None:
        if not self.head_dim and self.n_embd % self.n_head:
            raise ConfigError(
                f"model.n_embd = {self.n_embd} is not divisible by model.n_head = {self.n_head}: "
                "each head takes an equal share of the features"
            )
        if self.n_head % self.kv_heads:
            raise ConfigError(
                f"model.n_head = {self.n_head} is not divisible by model.n_kv_head = {self.n_kv_head}: "
                "the queries share the keys and values in equal groups"
            )
        if self.position == "sinusoidal" and self.n_embd % 2:
            raise ConfigError(
                f"model.n_embd = {self.n_embd} is odd, and position = 'sinusoidal' pairs sines with cosines"
            )
        if self.position == "rope" and self.head_size % 2:
            raise ConfigError(f"a head is {self.head_size} wide, which is odd, and position = 'rope' rotates pairs")
        for name, need in NEEDS.items():
            value, (other, accepted) = getattr(self, name), need
            if value != type(self).__dataclass_fields__[name].default and getattr(self, other) not in accepted:
                wanted = " or ".join(map(repr, accepted)) if other != "sliding_window" else "1 or more"
                raise ConfigError(
                    f"model.{name} = {value!r} has no effect with {other} = {getattr(self, other)!r}. "
                    f"Leave it out, or set {other} to {wanted}"
                )
        if self.previous_tokens >= self.block_size:
            raise ConfigError(
                f"model.previous_tokens = {self.previous_tokens}: must be below model.block_size = {self.block_size}, "
                "because no token has as many before it"
            )
        if self.full_layers > self.n_layer:
            raise ConfigError(f"model.full_layers = {self.full_layers}, and there are model.n_layer = {self.n_layer}")
        if self.rope_scaling in ("dynamic", "yarn") and self.head_size < 4:
            raise ConfigError(
                f"model.rope_scaling = {self.rope_scaling!r} needs heads that are at least 4 wide, got {self.head_size}"
            )
        if self.rope_scaling == "llama3" and self.rope_low_freq_factor >= self.rope_high_freq_factor:
            raise ConfigError(
                f"model.rope_low_freq_factor = {self.rope_low_freq_factor}: must be below rope_high_freq_factor = "
                f"{self.rope_high_freq_factor}"
            )


# Options that have an effect with certain values of another option only.
NEEDS: dict[str, tuple[str, Sequence[Any]]] = {
    "rope_theta": ("position", ("rope",)),
    "rope_scaling": ("position", ("rope",)),
    "rope_factor": ("rope_scaling", SCALINGS),
    "rope_original_context": ("rope_scaling", SCALINGS),
    "rope_low_freq_factor": ("rope_scaling", ("llama3",)),
    "rope_high_freq_factor": ("rope_scaling", ("llama3",)),
    "rope_beta_fast": ("rope_scaling", ("yarn",)),
    "rope_beta_slow": ("rope_scaling", ("yarn",)),
    "rope_attention_factor": ("rope_scaling", ("yarn",)),
    "full_layers": ("sliding_window", range(1, 2**31)),
}


@dataclass(frozen=True, kw_only=True)
class OptimConfig(Section):
    """The optimizer, and a learning rate with linear warm-up and a decay."""

    section: ClassVar[str] = "optim"

    optimizer: str = option(
        "adamw",
        "AdamW for all parameters, or Muon for the matrices inside the blocks and AdamW for the rest",
        choices=OPTIMIZERS,
    )
    muon_lr: float = option(0.02, "peak learning rate of Muon; it follows the schedule of lr", "per step", gt=0)
    muon_momentum: float = option(0.95, "decay of the gradient's running mean in Muon", "per step", ge=0, lt=1)
    lr: float = option(1e-3, "peak learning rate", "per step", gt=0)
    schedule: str = option(
        "cosine",
        "how the learning rate falls after the warm-up; with wsd it stays at its peak until the end of the run is near",
        choices=("cosine", "linear", "wsd"),
    )
    decay_fraction: float = option(
        0.2, "wsd: the part of the run, at its end, in which the learning rate falls", "of the steps", ge=0, le=1
    )
    decay_shape: str = option("linear", "wsd: how it falls", choices=("linear", "cosine", "1-sqrt"))
    min_lr: float = option(1e-4, "learning rate at the end of the decay", "per step", ge=0)
    warmup_steps: int = option(100, "steps of linear warm-up", "steps", ge=0, lt=2**63)
    beta1: float = option(0.9, "decay of the gradient's running mean", "per step", ge=0, lt=1)
    beta2: float = option(0.99, "decay of the squared gradient's running mean", "per step", ge=0, lt=1)
    eps: float = option(1e-8, "added to the denominator of the update", gt=0)
    weight_decay: float = option(
        0.1,
        "decoupled weight decay per step, as a multiple of lr, on matrices only (with Muon, on those that it updates)",
        ge=0,
    )
    grad_clip: float = option(1.0, "largest L2 norm of the whole gradient; 0 turns clipping off", ge=0)

    @property
    def betas(self) -> tuple[float, float]:
        """Return (beta1, beta2)."""
        return (self.beta1, self.beta2)

    def check(self) -> None:
        if self.min_lr > self.lr:
            raise ConfigError(f"optim.min_lr = {self.min_lr} is larger than optim.lr = {self.lr}: set it lower, too")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Section):
    """The length of a run, its device, and when it evaluates and saves."""

    section: ClassVar[str] = "train"

    steps: int = option(2000, "optimizer steps", "steps", ge=1, lt=2**63)
    batch_size: int = option(12, "sequences in a batch", "sequences", ge=1, lt=2**31)
    grad_accum: int = option(
        1, "batches of batch_size whose gradients are averaged for one step", ge=1, lt=2**63
    )
    eval_interval: int = option(250, "steps between evaluations", "steps", ge=1, lt=2**63)
    eval_batches: int = option(20, "random batches of each split in an evaluation", "batches", ge=1, lt=2**63)
    final_eval_tokens: int = option(
        1_000_000, "validation tokens in the evaluation at the end; 0 takes all", "tokens", ge=0, lt=2**63
    )
    checkpoint_interval: int = option(250, "steps between checkpoints", "steps", ge=1, lt=2**63)
    keep: int = option(
        1, "last checkpoints that stay, each in a file of its step; 1 keeps the latest and the best alone", ge=1,
        lt=2**63,
    )  # fmt: skip
    save_in_background: bool = option(
        True, "write checkpoints while training goes on, which takes the memory of one more checkpoint"
    )
    on_save_error: str = option(
        "stop",
        "a checkpoint that cannot be written stops the run; or it continues, and the checkpoint is written later",
        choices=("stop", "continue"),
    )
    on_spike: str = option(
        "none",
        "at a spike of the loss or of the gradient's norm: skip the update, lower the learning rate, or stop",
        choices=("none", "skip", "lower", "stop"),
    )
    spike_factor: float = option(
        20.0, "a spike is above median + spike_factor * deviation of the last 100 steps; see on_spike", gt=0
    )
    ema_decay: float | None = option(
        None,
        "decay of an exponential moving average of the weights, which is evaluated, sampled and used instead of them; "
        "no average if not given",
        "per step",
        gt=0,
        lt=1,
    )
    patience: int | None = option(
        None,
        "evaluations without an improvement of the validation loss that end the run early; never if not given",
        "evaluations",
        ge=1,
        lt=2**63,
    )
    min_delta: float = option(
        0.0, "by how much the validation loss must fall to be an improvement, for patience", "nats per token", ge=0
    )
    log_layers: int = option(
        50, "steps between records of each layer's gradient, update and activations; 0 records none", "steps", ge=0,
        lt=2**63,
    )  # fmt: skip
    sample_chars: int = option(500, "length of the sample written at the end", "characters", ge=0, lt=2**63)
    seed: int = option(1337, "seed of weights, batches, dropout and the sample", ge=0, lt=2**63)
    device: str = option(
        "auto", "where to compute: cpu, cuda or cuda:N; auto takes TENSORLITE_DEVICE, else cpu"
    )
    dtype: str = option(
        "float32",
        "type of the arithmetic; with bfloat16, and float16 on a GPU, parameters and their optimizer stay in float32",
        choices=("float32", "float64", "bfloat16", "float16"),
    )
    activation_checkpointing: bool = option(
        False, "compute each block again in the backward pass instead of keeping its values: less memory, slower steps"
    )
    shard_optimizer: bool = option(
        False, "divide the optimizer's state among the processes of a run, with the same bits: less memory for each"
    )
    compile: bool = option(
        True, "record a step on a CPU and replay it with the same bits, where that is possible: faster steps"
    )
    out_dir: str = option("", "folder for checkpoint, metrics and loss curve; runs/NAME if empty")

    @property
    def is_mixed(self) -> bool:
        """Return whether products compute in a lower dtype than the parameters have."""
        return self.dtype in ("bfloat16", "float16")

    @property
    def parameter_dtype(self) -> str:
        """Return the dtype of the parameters, the optimizer and the checkpoints."""
        return "float32" if self.is_mixed else self.dtype

    def check(self) -> None:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise ConfigError(f"train.device = {self.device!r:.80} is not one of auto, cpu, cuda, cuda:N")
        if self.min_delta and self.patience is None:
            raise ConfigError(f"train.min_delta = {self.min_delta:g} has no effect without train.patience: set it, too")


@dataclass(frozen=True, kw_only=True)
class LoraConfig(Section):
    """Low-rank adaptation (Hu et al. 2021, "LoRA"): which layers get matrices of a low rank, and how they are used."""

    section: ClassVar[str] = "lora"

    rank: int | None = option(
        None, "rank of the matrices that are trained instead of the weights; all weights are trained if not given", ge=1
    )
    alpha: float | None = option(
        None, "the product of the low-rank matrices counts alpha / rank times; twice the rank if not given", gt=0
    )
    dropout: float = option(0.0, "probability that dropout zeroes an input of the low-rank matrices", ge=0, lt=1)
    targets: str = option(
        "",
        "layers that get them: ends of names with commas between them, such as q_proj,v_proj, or a regular expression "
        "for whole names; the linear layers of attention and MLP if empty",
    )

    @property
    def scale(self) -> float:
        """Return the factor of the low-rank product, alpha / rank; 0 without a rank."""
        return 0.0 if self.rank is None else (self.alpha or 2.0 * self.rank) / self.rank

    def check(self) -> None:
        for name in ("alpha", "dropout", "targets"):
            if self.rank is None and (value := getattr(self, name)) not in (None, 0.0, ""):
                raise ConfigError(f"lora.{name} = {short(value)} has no effect without lora.rank: set it, too")


@dataclass(frozen=True, kw_only=True)
class SamplingConfig(Section):
    """The choice of a token from the predicted distribution. It is not part of a `Config`, because no run has it."""

    section: ClassVar[str] = "sampling"

    temperature: float = option(
        1.0, "divisor of the logits: lower is more predictable, 0 always takes the most likely token", ge=0
    )
    top_k: int | None = option(None, "sample from the K most likely tokens only; all tokens if not given", ge=1)
    top_p: float = option(1.0, "sample from the likeliest tokens that have this probability together", ge=0, le=1)
    min_p: float = option(0.0, "sample from tokens with this multiple of the largest probability at least", ge=0, le=1)
    typical_p: float = option(
        1.0, "sample from the tokens nearest to the expected surprise that have this probability", gt=0, le=1
    )
    repetition_penalty: float = option(
        1.0, "divides positive logits of the tokens so far, prompt included, and multiplies negative ones", gt=0
    )
    presence_penalty: float = option(0.0, "subtracted from the logits of the tokens that the new text has")
    frequency_penalty: float = option(0.0, "subtracted from a logit for each time that the new text has the token")
    seed: int | None = option(None, "seed of the random numbers; a new one each time if not given", ge=0)

    # These depend on the vocabulary, so the command line has options of its own for them.
    logit_bias: Mapping[int, float] = field(default_factory=dict, hash=False)
    """Numbers that are added to the logits of tokens."""
    banned_tokens: Sequence[int | Sequence[int]] = field(default=(), hash=False)
    """Tokens that the text never has, or sequences of tokens."""
    forced_tokens: Mapping[int, int] = field(default_factory=dict, hash=False)
    """The token at a place of the new text, which begins with place 0."""

    def options(self) -> Iterator[tuple[str, Field, Any]]:
        return (row for row in super().options() if row[1].metadata)

    def check(self) -> None:
        checks = {"logit_bias": is_bias, "banned_tokens": is_banned, "forced_tokens": is_forced}
        for name, accepts in checks.items():
            if not accepts(value := getattr(self, name)):
                raise ConfigError(f"sampling.{name} = {short(value)}: expected {FORMS[name]}")


FORMS = {
    "logit_bias": "finite numbers by token id, such as {5: -1.5}",
    "banned_tokens": "token ids or sequences of token ids, such as [5, [1, 2]]",
    "forced_tokens": "token ids by place, such as {0: 5}",
}


def is_id(value: object) -> bool:
    """Return whether a value can be the id of a token."""
    return not isinstance(value, bool) and isinstance(value, numbers.Integral) and int(value) >= 0


def is_bias(value: object) -> bool:
    """Return whether a value is a mapping of token ids to finite numbers."""
    return isinstance(value, Mapping) and all(
        is_id(token) and isinstance(number, numbers.Real) and math.isfinite(number) for token, number in value.items()
    )


def is_banned(value: object) -> bool:
    """Return whether a value is a sequence of token ids and of sequences of token ids."""
    return isinstance(value, Sequence) and all(
        is_id(entry) or (isinstance(entry, Sequence) and len(entry) > 0 and all(map(is_id, entry))) for entry in value
    )


def is_forced(value: object) -> bool:
    """Return whether a value is a mapping of places to token ids."""
    return isinstance(value, Mapping) and all(is_id(place) and is_id(token) for place, token in value.items())


SECTIONS: dict[str, type[Section]] = {
    cls.section: cls for cls in (DataConfig, ModelConfig, LoraConfig, OptimConfig, TrainConfig)
}
