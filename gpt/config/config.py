"""What a run is: frozen dataclasses, read from TOML presets or files, with every field checked.

A `Config` has a name and four sections: `data`, `model`, `optim`, `train`. Each field says what it means and
in which unit (`describe`), which is all that the command line needs to offer it as an option. Configurations
are data: TOML is parsed, never executed.
"""

import dataclasses
import difflib
import json
import math
import operator
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar, Self

from gpt.errors import UserError

DEFAULT_PRESET = "shakespeare-char-cpu"
GPT2_VOCAB_SIZE = 50257

COMPARE = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt}


class ConfigError(UserError, ValueError):
    """A configuration that cannot be used: an unknown key, a wrong type, or a value out of range."""


def describe(
    default: Any,
    help: str,
    unit: str = "",
    *,
    choices: tuple[str, ...] = (),
    ge: float = -math.inf,
    gt: float = -math.inf,
    le: float = math.inf,
    lt: float = math.inf,
) -> Any:
    """A dataclass field with its meaning, its unit and the values it may take (`ge` <=, `gt` <, ...)."""
    limits: dict[str, float] = {">=": ge, ">": gt, "<=": le, "<": lt}
    limits = {sign: bound for sign, bound in limits.items() if math.isfinite(bound)}
    return dataclasses.field(
        default=default, metadata={"help": help, "unit": unit, "choices": choices, "limits": limits}
    )


def suggestion(name: str, known: Iterable[str], prefix: str = "") -> str:
    """`; did you mean 'x'?` for the nearest known name, else the list of them all."""
    known = sorted(known)
    dot = f"{prefix}." if prefix else ""
    if near := difflib.get_close_matches(name, known, n=1):
        return f"; did you mean {dot + near[0]!r}?"
    return "; known: " + ", ".join(dot + k for k in known)


def checked(name: str, value: Any, field: "dataclasses.Field[Any]") -> Any:
    """`value` as the field's type (an int becomes a float where one is wanted), or ConfigError."""
    wanted: Any = field.type
    if wanted is float and type(value) is int:
        value = float(value)
    if type(value) is not wanted:  # exact: True is an int, but no number of layers
        raise ConfigError(f"{name} = {value!r}: expected {wanted.__name__}, got {type(value).__name__}")
    if wanted is float and not math.isfinite(value):
        raise ConfigError(f"{name} = {value}: expected a finite number")
    if wanted is str and "\0" in value:
        raise ConfigError(f"{name} = {value!r}: no name of a file has a zero byte")
    choices = field.metadata["choices"]
    if choices and value not in choices:
        raise ConfigError(f"{name} = {value!r}: choose one of {', '.join(choices)}")
    for sign, bound in field.metadata["limits"].items():
        if not COMPARE[sign](value, bound):
            raise ConfigError(f"{name} = {value!r}: must be {sign} {bound}")
    return value


class Section:
    """Checks every field of a config dataclass against its type, choices and limits."""

    section: ClassVar[str]

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = checked(f"{self.section}.{field.name}", getattr(self, field.name), field)
            object.__setattr__(self, field.name, value)
        self.check()

    def check(self) -> None:
        """Rules that involve several fields; raises ConfigError."""


@dataclass(frozen=True, kw_only=True)
class DataConfig(Section):
    """Which text, and how it becomes token ids."""

    section: ClassVar[str] = "data"

    dataset: str = describe("tinyshakespeare", "a data set's name, or the path of a UTF-8 text file")
    tokenizer: str = describe(
        "char",
        "one token a character, GPT-2's BPE, or a BPE trained on the text",
        choices=("char", "gpt2", "bpe"),
    )
    bpe_vocab_size: int = describe(
        1024, "size of the trained BPE's vocabulary", "tokens", ge=257, le=1_000_000
    )
    val_fraction: float = describe(
        0.1, "share of the text, at its end, kept for validation", "of the text", gt=0, lt=1
    )


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Section):
    """The shape of the transformer."""

    section: ClassVar[str] = "model"

    vocab_size: int = describe(
        65, "size of the vocabulary; training sets it from the tokenizer", "tokens", ge=1
    )
    block_size: int = describe(64, "context length", "tokens", ge=1, lt=2**31)
    n_layer: int = describe(4, "number of transformer blocks", "blocks", ge=1, le=10_000)
    n_head: int = describe(4, "attention heads in each block", "heads", ge=1, lt=2**31)
    n_embd: int = describe(128, "width of the residual stream; a multiple of n_head", "features", ge=1, lt=2**31)
    dropout: float = describe(0.0, "probability that dropout zeroes an activation", ge=0, lt=1)
    bias: bool = describe(False, "biases in the linear layers and layer norms, as GPT-2 has them")
    gelu: str = describe("erf", "GELU of the MLP: exact, or by GPT-2's tanh formula", choices=("erf", "tanh"))
    position: str = describe("learned", "positional embedding", choices=("learned", "sinusoidal"))

    def check(self) -> None:
        if self.n_embd % self.n_head:
            raise ConfigError(
                f"model.n_embd = {self.n_embd} is not divisible by model.n_head = {self.n_head}: "
                "each head takes an equal share of the features"
            )
        if self.position == "sinusoidal" and self.n_embd % 2:
            raise ConfigError(
                f"model.n_embd = {self.n_embd} is odd, and position = 'sinusoidal' pairs sines with cosines"
            )


@dataclass(frozen=True, kw_only=True)
class OptimConfig(Section):
    """The optimizer, and a learning rate with linear warm-up and cosine decay."""

    section: ClassVar[str] = "optim"

    optimizer: str = describe(
        "adamw", "AdamW for all, or Muon for the matrices inside the blocks and AdamW for the rest",
        choices=("adamw", "muon"),
    )  # fmt: skip
    muon_lr: float = describe(0.02, "peak learning rate of Muon, scheduled as lr is", "per step", gt=0)
    lr: float = describe(1e-3, "peak learning rate", "per step", gt=0)
    min_lr: float = describe(1e-4, "learning rate at the end of the cosine decay", "per step", ge=0)
    warmup_steps: int = describe(100, "steps of linear warm-up", "steps", ge=0)
    beta1: float = describe(0.9, "decay of the gradient's running mean", "per step", ge=0, lt=1)
    beta2: float = describe(0.99, "decay of the squared gradient's running mean", "per step", ge=0, lt=1)
    eps: float = describe(1e-8, "added to the denominator of the update", gt=0)
    weight_decay: float = describe(
        0.1, "decoupled weight decay, on matrices only (with Muon, on those that it has)", "per step, times lr", ge=0
    )
    grad_clip: float = describe(1.0, "largest L2 norm of the whole gradient; 0 turns clipping off", ge=0)

    @property
    def betas(self) -> tuple[float, float]:
        return (self.beta1, self.beta2)

    def check(self) -> None:
        if self.min_lr > self.lr:
            raise ConfigError(f"optim.min_lr = {self.min_lr} is larger than optim.lr = {self.lr}: set it lower, too")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Section):
    """How long, on what, and what is written when."""

    section: ClassVar[str] = "train"

    steps: int = describe(2000, "optimizer steps", "steps", ge=1)
    batch_size: int = describe(12, "sequences in a batch", "sequences", ge=1, lt=2**31)
    grad_accum: int = describe(
        1, "batches whose gradients are averaged for one step", "times batch_size", ge=1
    )
    eval_interval: int = describe(250, "steps between evaluations", "steps", ge=1)
    eval_batches: int = describe(20, "random batches of each split in an evaluation", "batches", ge=1)
    checkpoint_interval: int = describe(250, "steps between checkpoints", "steps", ge=1)
    sample_chars: int = describe(500, "length of the sample written at the end", "characters", ge=0)
    seed: int = describe(1337, "seed of weights, batches, dropout and the sample", ge=0, lt=2**63)
    device: str = describe(
        "auto", "where to compute: cpu, cuda or cuda:N; auto takes TENSORLITE_DEVICE, else cpu"
    )
    dtype: str = describe("float32", "type of parameters and activations", choices=("float32", "float64"))
    out_dir: str = describe("", "folder for checkpoint, metrics and loss curve; runs/NAME if empty")

    def check(self) -> None:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise ConfigError(f"train.device = {self.device!r} is not one of auto, cpu, cuda, cuda:N")


SECTIONS: dict[str, type[Section]] = {
    cls.section: cls for cls in (DataConfig, ModelConfig, OptimConfig, TrainConfig)
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """One run, named. `Config.load` reads a preset or a file; `dataclasses.replace` makes variations."""

    name: str
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()

    def __post_init__(self) -> None:
        # The name becomes a folder's name.
        if not isinstance(self.name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise ConfigError(
                f"name = {self.name!r}: use letters, digits, '.', '_' and '-', a letter or digit first"
            )

    @property
    def run_dir(self) -> Path:
        """Where the run writes: `train.out_dir`, or `runs/<name>` where that is empty."""
        return Path(self.train.out_dir) if self.train.out_dir else Path("runs") / self.name

    def with_vocab_size(self, vocab_size: int) -> Self:
        """The same run with the model's vocabulary set, as training does once the tokenizer is known."""
        return self.replace({"model.vocab_size": vocab_size})

    def with_expected_vocab_size(self) -> Self:
        """The same run with the vocabulary that its tokenizer is going to have, as far as that is known.

        A character tokenizer's depends on the text, and stays as it is.
        """
        sizes = {"gpt2": GPT2_VOCAB_SIZE, "bpe": self.data.bpe_vocab_size}
        return self.with_vocab_size(sizes.get(self.data.tokenizer, self.model.vocab_size))

    def replace(self, overrides: Mapping[str, Any]) -> Self:
        """The same run but for `overrides`, as `load` takes them. Raises ConfigError."""
        return self.from_dict(merged(self.to_dict(), overrides))

    @classmethod
    def load(cls, source: str | Path = DEFAULT_PRESET, overrides: Mapping[str, Any] | None = None) -> Self:
        """Reads a preset by its name, or a TOML file by its path, then applies `overrides`.

        `overrides` maps dotted names to values: `{"model.n_layer": 6, "name": "deeper"}`. Raises ConfigError
        for a preset or file that is not there, TOML that does not parse, an unknown key (naming the nearest
        one) and a value of the wrong type or out of range.
        """
        return cls.from_dict(merged(read_toml(source), overrides or {}))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; keys that are absent take their defaults. Raises ConfigError."""
        known = {"name", *SECTIONS}
        for key in values:
            if key not in known:
                raise ConfigError(f"unknown key {key!r}{suggestion(key, known)}")
        if "name" not in values:
            raise ConfigError("the configuration has no name")
        parts: dict[str, Any] = {"name": values["name"]}
        for head, section in SECTIONS.items():
            given = values.get(head, {})
            if not isinstance(given, Mapping):
                raise ConfigError(f"{head} = {given!r}: expected a table of options")
            names = {field.name for field in dataclasses.fields(section)}  # type: ignore[arg-type]
            for key in given:
                if key not in names:
                    raise ConfigError(f"unknown key {f'{head}.{key}'!r}{suggestion(key, names, head)}")
            parts[head] = section(**given)
        return cls(**parts)

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dictionaries of str, int, float and bool: JSON takes them as they are."""
        return dataclasses.asdict(self)

    def to_toml(self) -> str:
        """A TOML file that `load` reads back to an equal Config, with each field's meaning as a comment."""
        lines = [f"name = {json.dumps(self.name)}"]
        for head in SECTIONS:
            lines += ["", f"[{head}]"]
            for _, field, value in options(self, head):
                unit = f" [{field.metadata['unit']}]" if field.metadata["unit"] else ""
                lines.append(f"{field.name} = {to_toml_value(value)}  # {field.metadata['help']}{unit}")
        return "\n".join(lines) + "\n"


def preset_names() -> list[str]:
    """The presets that ship with the package, sorted."""
    folder = resources.files(__package__) / "presets"
    return sorted(
        entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml")
    )


def merged(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Nested `values` with `overrides` by dotted name put in."""
    result = {head: dict(value) if isinstance(value, Mapping) else value for head, value in values.items()}
    for key, value in overrides.items():
        head, _, tail = key.partition(".")
        if tail and head in SECTIONS:
            section = result.setdefault(head, {})
            if not isinstance(section, dict):
                raise ConfigError(f"{head} = {section!r}: expected a table of options")
            section[tail] = value
        else:
            result[key] = value
    return result


def read_toml(source: str | Path) -> dict[str, Any]:
    """The parsed TOML of a preset (a bare name) or of a file (a path, or a name that ends in .toml).

    A file that gives no `name` is named after itself. Raises ConfigError.
    """
    if isinstance(source, str) and source in preset_names():
        text = (resources.files(__package__) / "presets" / f"{source}.toml").read_text(encoding="utf-8")
    elif isinstance(source, str) and not source.endswith(".toml") and Path(source).name == source:
        raise ConfigError(f"no preset {source!r}{suggestion(source, preset_names())}")
    else:
        try:
            text = Path(source).read_text(encoding="utf-8-sig")  # Notepad begins files with a byte order mark
        except OSError as error:
            raise ConfigError(f"cannot read the configuration {str(source)!r}: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise ConfigError(f"{str(source)!r} is not UTF-8 text (byte {error.start})") from None
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{str(source)!r} is not valid TOML: {error}") from None
    except RecursionError:
        raise ConfigError(f"{str(source)!r} is nested too deeply for a configuration") from None
    return {"name": Path(source).stem, **values}


def options(config: Config, section: str) -> Iterator[tuple[str, "dataclasses.Field[Any]", Any]]:
    """(dotted name, field with its metadata, value) for every option of a section of `config`."""
    part = getattr(config, section)
    for field in dataclasses.fields(part):
        yield f"{section}.{field.name}", field, getattr(part, field.name)


def to_toml_value(value: str | float | bool) -> str:
    if isinstance(value, str):
        # JSON's escapes are TOML's, but for DEL, which TOML wants escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else repr(value)
