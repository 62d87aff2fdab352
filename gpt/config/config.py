"""The configuration of one run."""

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from gpt.config.fields import ConfigError, suggestion
from gpt.config.sections import SECTIONS, DataConfig, LoraConfig, ModelConfig, OptimConfig, TrainConfig
from gpt.config.toml import read_toml, to_toml_value
from gpt.errors import short

DEFAULT_PRESET = "shakespeare-char-cpu"


@dataclass(frozen=True, kw_only=True)
class Config:
    """A name and five sections. `Config.load` reads a preset or a file, `replace` makes variations."""

    name: str
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        # The name of a run is also the name of its folder.
        if not isinstance(self.name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise ConfigError(
                f"name = {short(self.name)}: use letters, digits, '.', '_' and '-', a letter or digit first"
            )

    @property
    def run_dir(self) -> Path:
        """Return the folder of the run: `train.out_dir`, or `runs/<name>` where that is empty."""
        return Path(self.train.out_dir) if self.train.out_dir else Path("runs") / self.name

    def with_vocab_size(self, vocab_size: int) -> Self:
        """Return this configuration with `model.vocab_size` set, once the tokenizer is known."""
        return self.replace({"model.vocab_size": vocab_size})

    def replace(self, overrides: Mapping[str, Any]) -> Self:
        """Return this configuration with `overrides`, in the form that `load` takes. Raises ConfigError."""
        return self.from_dict(apply_overrides(self.to_dict(), overrides))

    def flatten(self) -> dict[str, Any]:
        """Return the value of every option by its dotted name, and the name of the run."""
        sections = [getattr(self, head) for head in SECTIONS]
        return {"name": self.name} | {name: value for part in sections for name, _, value in part.options()}

    @classmethod
    def load(cls, source: str | Path = DEFAULT_PRESET, overrides: Mapping[str, Any] | None = None) -> Self:
        """Read a preset by its name, or a TOML file by its path, then apply `overrides`.

        overrides: values by dotted name, such as `{"model.n_layer": 6, "name": "deeper"}`.

        Raises ConfigError for a preset or file that does not exist, and for invalid TOML. It also raises it for an
        unknown key (with the nearest known one), and for a value of a wrong type or out of range.
        """
        return cls.from_dict(apply_overrides(read_toml(source), overrides or {}))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the configuration that `to_dict` gave; missing keys take their defaults. Raises ConfigError."""
        known = {"name", *SECTIONS}
        for key in values:
            if key not in known:
                raise ConfigError(f"unknown key {short(key)}{suggestion(key, known)}")
        if "name" not in values:
            raise ConfigError("the configuration has no name")
        parts: dict[str, Any] = {"name": values["name"]}
        for head, section in SECTIONS.items():
            given = values.get(head, {})
            if not isinstance(given, Mapping):
                raise ConfigError(f"{head} = {short(given)}: expected a table of options")
            names = {option.name for option in dataclasses.fields(section)}  # type: ignore[arg-type]
            for key in given:
                if key not in names:
                    raise ConfigError(f"unknown key {short(f'{head}.{key}')}{suggestion(key, names, head)}")
            parts[head] = section(**given)
        return cls(**parts)

    def to_dict(self) -> dict[str, Any]:
        """Return nested dictionaries of str, int, float, bool and None, which JSON can store."""
        return dataclasses.asdict(self)

    def to_toml(self) -> str:
        """Return TOML that `load` reads back to an equal Config, with the meaning of each field as a comment."""
        lines = [f"name = {json.dumps(self.name)}"]
        for head in SECTIONS:
            lines += ["", f"[{head}]"]
            for _, option, value in getattr(self, head).options():
                unit = f" [{option.metadata['unit']}]" if option.metadata["unit"] else ""
                unset = "# " if value is None else ""  # TOML has no null.
                shown = "..." if value is None else to_toml_value(value)
                lines.append(f"{unset}{option.name} = {shown}  # {option.metadata['help']}{unit}")
        return "\n".join(lines) + "\n"


def apply_overrides(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested `values` with `overrides`, which have dotted names."""
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
