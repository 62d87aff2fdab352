"""Test configurations: presets, files, overrides and errors."""

import dataclasses
import json
import tomllib

import numpy as np
import pytest

pytest.importorskip("hypothesis")
from hypothesis import given
from hypothesis import strategies as st

from gpt.config import (
    SECTIONS,
    TOKENIZERS,
    Config,
    ConfigError,
    DataConfig,
    ModelConfig,
    OptimConfig,
    preset_names,
    value_type,
)
from gpt.tokenizer import expected_vocab_size

PRESETS = {
    "shakespeare-char-cpu", "shakespeare-char", "shakespeare-bpe", "gpt-nano", "gpt-micro", "gpt-mini",
    "gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "shakespeare-speedrun", "shakespeare-speedrun-1.47",
    "llama-tiny", "qwen-style", "smollm2-135m",
}  # fmt: skip


def test_every_preset_exists_and_is_named_after_its_file():
    assert set(preset_names()) == PRESETS
    for name in PRESETS:
        assert Config.load(name).name == name


def test_default_preset_is_the_cpu_run():
    config = Config.load()
    assert config == Config.load("shakespeare-char-cpu")
    assert config.data == DataConfig(dataset="tinyshakespeare", tokenizer="char", val_fraction=0.1)
    assert config.model == ModelConfig(
        vocab_size=65, block_size=64, n_layer=4, n_head=4, n_embd=128, dropout=0.0, bias=False
    )
    assert config.optim == OptimConfig(
        lr=1e-3, min_lr=1e-4, warmup_steps=100, beta1=0.9, beta2=0.99, weight_decay=0.1, grad_clip=1.0
    )
    assert config.optim.betas == (0.9, 0.99)
    assert (config.train.steps, config.train.batch_size, config.train.eval_interval) == (2000, 12, 250)
    assert config.run_dir.as_posix() == "runs/shakespeare-char-cpu"


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("gpt-nano", (3, 3, 48)),
        ("gpt-micro", (4, 4, 128)),
        ("gpt-mini", (6, 6, 192)),
        ("shakespeare-char", (6, 6, 384)),
        ("gpt2", (12, 12, 768)),
        ("gpt2-medium", (24, 16, 1024)),
        ("gpt2-large", (36, 20, 1280)),
        ("gpt2-xl", (48, 25, 1600)),
    ],
)
def test_preset_shapes(name, shape):
    model = Config.load(name).model
    assert (model.n_layer, model.n_head, model.n_embd) == shape


def test_every_field_has_a_help_text_and_a_unique_name():
    config = Config.load()
    names = []
    for section in SECTIONS:
        for key, field, value in getattr(config, section).options():
            assert field.metadata["help"], key
            assert value is None or type(value) is value_type(field), key
            names.append(f"lora_{field.name}" if section == "lora" else field.name)
    # The command line names options after fields alone, those of lora with its name before them.
    assert len(names) == len(set(names))


def test_sections_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config.load().model.n_layer = 5


def test_file_and_overrides(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[model]\nn_layer = 2\n[optim]\nlr = 1\nmin_lr = 0\n", encoding="utf-8")
    config = Config.load(path, {"model.n_head": 2, "train.out_dir": "elsewhere"})
    assert config.name == "mine"
    assert (config.model.n_layer, config.model.n_head) == (2, 2)
    assert config.run_dir.as_posix() == "elsewhere"
    assert type(config.optim.lr) is float  # An integer in TOML is accepted for a float.
    assert Config.load(str(path)).model.n_head == ModelConfig().n_head
    assert config.replace({"name": "other"}).name == "other"


def test_expected_vocabulary():
    config = Config.load("shakespeare-bpe", {"data.bpe_vocab_size": 512})
    assert expected_vocab_size(config.data) == 512
    assert expected_vocab_size(config.replace({"data.tokenizer": "gpt2"}).data) == 50257
    assert expected_vocab_size(Config.load().data) is None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"model.n_head": 5}, r"n_embd = 128 is not divisible by model\.n_head = 5"),
        ({"model.n_layr": 5}, r"unknown key 'model\.n_layr'; did you mean 'model\.n_layer'\?"),
        ({"modl.n_layer": 5}, r"unknown key 'modl\.n_layer'"),
        ({"nme": "x"}, r"unknown key 'nme'; did you mean 'name'\?"),
        ({"model": 5}, "model = 5: expected a table"),
        ({"model.n_layer": True}, "n_layer = True: expected int, got bool"),
        ({"model.n_layer": 2.0}, "n_layer = 2.0: expected int, got float"),
        ({"model.n_layer": 0}, "n_layer = 0: must be >= 1"),
        ({"model.bias": 1}, "bias = 1: expected bool, got int"),
        ({"model.dropout": 1.0}, "dropout = 1.0: must be < 1"),
        ({"model.position": "rotary"}, "position = 'rotary': choose one of learned, sinusoidal"),
        ({"model.position": "sinusoidal", "model.n_embd": 3, "model.n_head": 3}, "n_embd = 3 is odd"),
        ({"optim.beta2": 1}, "beta2 = 1.0: must be < 1"),
        ({"optim.beta1": -0.1}, "beta1 = -0.1: must be >= 0"),
        ({"optim.lr": 0}, "lr = 0.0: must be > 0"),
        ({"optim.lr": float("nan")}, "lr = nan: expected a finite number"),
        ({"optim.min_lr": 1}, "min_lr = 1.0 is larger than optim.lr = 0.001"),
        ({"data.tokenizer": "word"}, f"tokenizer = 'word': choose one of {', '.join(TOKENIZERS)}"),
        ({"data.val_fraction": 1.0}, "val_fraction = 1.0: must be < 1"),
        ({"data.val_fraction": -0.1}, "val_fraction = -0.1: must be >= 0"),
        ({"train.device": "gpu"}, "device = 'gpu' is not one of auto, cpu, cuda, cuda:N"),
        ({"train.dtype": "float8"}, "dtype = 'float8': choose one of float32, float64"),
        ({"train.steps": "many"}, "steps = 'many': expected int, got str"),
        ({"name": "../up"}, r"name = '\.\./up'"),
        ({"name": ""}, "name = ''"),
    ],
)
def test_invalid_values_are_errors(overrides, message):
    with pytest.raises(ConfigError, match=message):
        Config.load(overrides=overrides)


def test_invalid_sources_are_errors(tmp_path):
    with pytest.raises(ConfigError, match=r"no preset 'gpt3'; did you mean 'gpt2'\?"):
        Config.load("gpt3")
    with pytest.raises(ConfigError, match=r"cannot read the configuration .*nowhere\.toml.*: No such file"):
        Config.load(tmp_path / "nowhere.toml")
    (tmp_path / "bad.toml").write_text("import os\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="is not valid TOML"):
        Config.load(tmp_path / "bad.toml")
    (tmp_path / "latin.toml").write_bytes(b"name = '\xe9'\n")
    with pytest.raises(ConfigError, match=r"is not UTF-8 text \(byte 8\)"):
        Config.load(tmp_path / "latin.toml")
    (tmp_path / "deep.toml").write_text("a = " + "[" * 10_000, encoding="utf-8")
    with pytest.raises(ConfigError, match="is nested too deeply"):
        Config.load(tmp_path / "deep.toml")
    (tmp_path / "zero.toml").write_text('[train]\nout_dir = "a\\u0000b"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"train.out_dir = 'a\\x00b': a file name cannot contain a zero byte"):
        Config.load(tmp_path / "zero.toml")
    with pytest.raises(ConfigError, match="has no name"):
        Config.from_dict({})


def test_a_byte_order_mark_is_accepted(tmp_path):
    (tmp_path / "mine.toml").write_bytes(b"\xef\xbb\xbf[model]\r\nn_layer = 3\r\n")
    assert Config.load(tmp_path / "mine.toml").model.n_layer == 3


@given(
    dataset=st.text(st.characters(codec="utf-8", exclude_characters="\0")),
    lr=st.floats(1e-12, 1e3),
    n_head=st.integers(1, 64),
    bias=st.booleans(),
    name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]*", fullmatch=True),
)
def test_round_trips(dataset, lr, n_head, bias, name):
    config = Config(
        name=name,
        data=DataConfig(dataset=dataset),
        optim=OptimConfig(lr=lr, min_lr=0.0),
        model=ModelConfig(n_head=n_head, n_embd=4 * n_head, bias=bias),
    )
    assert Config.from_dict(tomllib.loads(config.to_toml())) == config
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_written_toml_loads(tmp_path):
    config = Config.load("gpt-nano", {"train.steps": 3})
    (tmp_path / "c.toml").write_text(config.to_toml(), encoding="utf-8")
    assert Config.load(tmp_path / "c.toml") == config


def test_numbers_of_numpy_are_numbers():
    given = {"model.n_layer": np.int64(3), "optim.lr": np.float32(0.5), "optim.beta2": np.float64(0.5)}
    config = Config.load("gpt-nano", given)
    assert config == Config.load("gpt-nano", {"model.n_layer": 3, "optim.lr": 0.5, "optim.beta2": 0.5})
    assert type(config.model.n_layer) is int
    for wrong in (np.bool_(True), True, np.float64(3.0), np.array([3])):
        with pytest.raises(ConfigError, match="expected int, got "):
            Config.load("gpt-nano", {"model.n_layer": wrong})
