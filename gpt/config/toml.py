"""Presets and TOML files."""

import json
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

from gpt.config.fields import ConfigError, suggestion

PRESETS = resources.files(__package__) / "presets"


def preset_names() -> list[str]:
    """Return the names of the presets in the package, sorted."""
    return sorted(entry.name.removesuffix(".toml") for entry in PRESETS.iterdir() if entry.name.endswith(".toml"))


def read_toml(source: str | Path) -> dict[str, Any]:
    """Return the values of a preset or of a TOML file.

    source: the name of a preset; or a path, or a name that ends in `.toml`. If a file has no `name`, its stem is the
    name. Raises ConfigError if the source does not exist, cannot be read, or is not TOML.
    """
    if isinstance(source, str) and source in preset_names():
        text = (PRESETS / f"{source}.toml").read_text(encoding="utf-8")
    elif isinstance(source, str) and not source.endswith(".toml") and Path(source).name == source:
        raise ConfigError(f"no preset {source!r}{suggestion(source, preset_names())}")
    else:
        text = read_file(source)
    try:
        values = tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError is one; an integer of too many digits is another.
        raise ConfigError(f"{str(source)!r} is not valid TOML: {error}") from None
    except RecursionError:
        raise ConfigError(f"{str(source)!r} is nested too deeply for a configuration") from None
    return {"name": Path(source).stem, **values}


def read_file(path: str | Path) -> str:
    """Return the text of a UTF-8 file, or raise ConfigError."""
    try:
        if Path(path).is_char_device() or Path(path).is_block_device():  # Reading might have no end.
            raise ConfigError(f"the configuration {str(path)!r} is a device. Give a file of TOML")
        return Path(path).read_text(encoding="utf-8-sig")  # Windows Notepad writes a byte order mark.
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {str(path)!r}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{str(path)!r} is not UTF-8 text (byte {error.start})") from None


def to_toml_value(value: str | float | bool | tuple[str | float, ...]) -> str:
    """Return a value as TOML writes it."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(to_toml_value, value))}]"
    if isinstance(value, str):
        # TOML has the escapes of JSON, and in addition requires one for DEL.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else repr(value)
