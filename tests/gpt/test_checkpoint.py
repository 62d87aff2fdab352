"""Test that checkpoints round-trip, survive failed writes, and report damaged files in one clear error."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("safetensors")
import safetensors.numpy
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

import tensorlite as tl
from gpt import checkpoint
from gpt.checkpoint import CheckpointError, container, native
from gpt.checkpoint.container import KEY
from gpt.config import Config
from gpt.model import build_model
from gpt.runs import BEST, LATEST, find_checkpoint, newest_checkpoint
from gpt.tokenizer import BPETokenizer, CharTokenizer
from gpt.train import configure_optimizer

CONFIG = Config.load(
    "shakespeare-char-cpu",
    {"model.vocab_size": 5, "model.block_size": 4, "model.n_layer": 1, "model.n_head": 2, "model.n_embd": 8},
)
STATE = {"best": 2.5, "batches": np.random.default_rng(0).bit_generator.state, "own": {"a": [1, 2**100], "none": None}}


def trained(config=CONFIG, steps=2):
    """Return a model and its optimizer after some steps."""
    tl.manual_seed(0)
    model = build_model(config.model, "cpu", config.train.dtype)
    optimizer = configure_optimizer(model, config.optim)
    for i in range(steps):
        optimizer.zero_grad()
        idx = tl.tensor(np.random.default_rng(i).integers(0, 5, (2, 4)))
        model(idx, idx)[1].backward()
        optimizer.step()
    return model, optimizer


def save(path, *, config=CONFIG, tokenizer=None, step=2, steps=2, state=STATE):
    model, optimizer = trained(config, steps)
    checkpoint.save(
        path,
        config=config,
        tokenizer=tokenizer or CharTokenizer("\nabcd"),
        step=step,
        model=model,
        optimizer=optimizer,
        state=state,
    )
    return model, optimizer


def same_weights(a, b):
    a, b = a.state_dict(), b.state_dict()
    return list(a) == list(b) and all((a[n].numpy() == b[n].numpy()).all() for n in a)


# --- round trips


@pytest.mark.parametrize("overrides", [
    {}, {"train.dtype": "float64"}, {"model.position": "sinusoidal"},
    {"model.previous_tokens": 2, "model.zero_init": True, "model.init_std": 0.1, "model.attention_dropout": False},
])  # fmt: skip
def test_round_trip(tmp_path, overrides):
    config = CONFIG.replace(overrides)
    model, optimizer = save(tmp_path / "new" / LATEST, config=config)
    loaded = checkpoint.load(tmp_path / "new" / LATEST, training=True)
    assert loaded.config == config
    assert loaded.step == 2
    assert loaded.state == STATE
    assert loaded.tokenizer.to_dict() == CharTokenizer("\nabcd").to_dict()
    assert same_weights(loaded.model, model)
    assert loaded.model.wte.weight.dtype == np.dtype(config.train.dtype)
    assert loaded.model.training

    again = configure_optimizer(loaded.model, config.optim)
    again.load_state_dict(loaded.optimizer)
    idx = tl.tensor([[1, 2, 3]])
    for m, o in ((model, optimizer), (loaded.model, again)):  # The next step is the same too.
        o.zero_grad()
        m(idx, idx)[1].backward()
        o.step()
    assert same_weights(loaded.model, model)


def test_without_training_the_optimizer_stays_in_the_file(tmp_path):
    save(tmp_path / LATEST)
    loaded = checkpoint.load(tmp_path / LATEST)
    assert loaded.optimizer is None
    assert not loaded.model.training


def test_a_checkpoint_contains_a_trained_tokenizer(tmp_path):
    pytest.importorskip("tiktoken")
    text = "the cat sat on the mat, the cat sat on the hat. "
    tokenizer = BPETokenizer.train(text * 10, 270)
    save(tmp_path / LATEST, tokenizer=tokenizer, config=CONFIG.with_vocab_size(tokenizer.vocab_size))
    loaded = checkpoint.load(tmp_path / LATEST).tokenizer
    assert loaded.kind == "bpe"
    assert (loaded.encode(text) == tokenizer.encode(text)).all()


def test_config_is_read_without_the_weights(tmp_path, monkeypatch):
    save(tmp_path / LATEST)
    monkeypatch.setattr(native, "build_model", None)
    assert checkpoint.load_config(tmp_path / LATEST) == CONFIG


def test_the_file_is_safetensors_and_json(tmp_path):
    model, _ = save(tmp_path / LATEST)
    with safe_open(tmp_path / LATEST, framework="numpy") as file:
        header = json.loads(file.metadata()[KEY])
        weights = {n: file.get_tensor(n) for n in file.keys() if n.startswith("model.")}
    assert header["format"] == 2
    assert header["config"] == CONFIG.to_dict()
    assert {f"model.{n}" for n in model.state_dict()} == set(weights)
    assert (weights["model.wte.weight"] == model.wte.weight.detach().numpy()).all()


def test_the_same_run_writes_the_same_file(tmp_path):
    save(tmp_path / "a")
    save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


# --- a write that fails


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / LATEST
    save(path, step=1)
    before, write = path.read_bytes(), save_file

    def half(tensors, filename, metadata):
        write(tensors, filename, metadata)
        os.truncate(filename, 100)
        raise SafetensorError("no space left on device")

    monkeypatch.setattr(safetensors.numpy, "save_file", half)
    with pytest.raises(CheckpointError, match=f"cannot write.*{LATEST}.*no space left"):
        save(path, step=2)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [LATEST]
    assert checkpoint.load(path).step == 1


def test_ctrl_c_in_a_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / LATEST
    save(path, step=1)

    def interrupted(tensors, filename, metadata):
        filename.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(safetensors.numpy, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(path, step=2)
    assert os.listdir(tmp_path) == [LATEST]
    assert checkpoint.load(path).step == 1


def test_content_reaches_the_disk_before_the_name(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda d: (events.append("fsync"), fsync(d)))
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append("replace"), replace(a, b)))
    save(tmp_path / LATEST)
    assert events == ["fsync", "replace", "fsync"]


# --- invalid files


def with_header(path, change):
    """Change the JSON and the tensors of the checkpoint `path`, and compute the checksums again."""
    with safe_open(path, framework="numpy") as file:
        header = json.loads(file.metadata()[KEY])
        tensors = {n: file.get_tensor(n) for n in file.keys()}
    del header["crc32"], header["sha256"]
    change(header, tensors)
    container.write(path, header, {name: tl.tensor(array) for name, array in tensors.items()})


def load_error(path):
    """Return the message of a load that fails."""
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(path, training=True)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_missing_file_is_an_error(tmp_path):
    assert "there is no checkpoint" in load_error(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        checkpoint.load_config(tmp_path / "nowhere")


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_truncated_file_is_an_error(tmp_path, keep):
    path = tmp_path / LATEST
    save(path)
    os.truncate(path, keep if keep >= 0 else path.stat().st_size - 1)
    assert "is not a checkpoint, or only a part of one" in load_error(path)


def test_a_file_of_another_kind_is_an_error(tmp_path):
    path = tmp_path / "x"
    path.write_text("First Citizen:\nBefore we proceed any further, hear me speak.\n")
    assert "is not a checkpoint, or only a part of one" in load_error(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_safetensors_of_another_program_is_an_error(tmp_path, metadata):
    path = tmp_path / "x"
    save_file({"a": np.zeros(3)}, path, metadata=metadata)
    assert "is a safetensors file, but not a checkpoint of this program" in load_error(path)


def test_json_that_does_not_parse_is_an_error(tmp_path):
    path = tmp_path / "x"
    save_file({"a": np.zeros(3)}, path, metadata={KEY: "{"})
    assert "is damaged: its JSON does not parse" in load_error(path)
    save_file({"a": np.zeros(3)}, path, metadata={KEY: "[]"})
    assert "is damaged: its JSON does not parse" in load_error(path)


def test_a_newer_format_is_an_error(tmp_path):
    path = tmp_path / LATEST
    save(path)
    with_header(path, lambda header, tensors: header.update(format=3, config="changed"))
    assert "has format 3, and this version of tensorlite reads formats up to 2: upgrade it" in load_error(path)
    with pytest.raises(CheckpointError, match="has format 3"):
        checkpoint.load_config(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda header, tensors: tensors.pop("model.wte.weight"), "missing: wte.weight"),
        (lambda header, tensors: tensors.update({"model.x": np.zeros(1)}), "unexpected: x"),
        (lambda header, tensors: header["config"]["model"].update(vocab_size=6), "wrong shape: wte.weight"),
        (lambda header, tensors: header["config"]["model"].update(n_layer=0), "n_layer = 0"),
        (lambda header, tensors: header.pop("tokenizer"), "'tokenizer'"),
        (lambda header, tensors: header["tokenizer"].pop("vocab"), "vocab"),
        (lambda header, tensors: header["tokenizer"].update(vocab="\nabcde"), "5 tokens in the model, 6 in its token"),
        (lambda header, tensors: header.pop("step"), "'step'"),
    ],
)
def test_a_damaged_file_is_an_error(tmp_path, change, message):
    path = tmp_path / LATEST
    save(path)
    with_header(path, change)
    text = load_error(path)
    assert "is damaged" in text
    assert message in text


def test_a_flipped_bit_is_detected(tmp_path):
    """A flipped bit in the numbers, in the JSON or in the names never loads as a valid checkpoint."""
    path = tmp_path / LATEST
    save(path)
    whole = path.read_bytes()
    tensors = 8 + int.from_bytes(whole[:8], "little")
    for position in [*range(8, tensors, 37), *range(tensors, len(whole), 97)]:
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        try:
            loaded = checkpoint.load(path, training=True)
        except CheckpointError:
            pass
        else:  # The bit was in the name of a checksum.
            assert same_weights(loaded.model, trained()[0]), position
            assert loaded.config == CONFIG


def test_a_checkpoint_without_checksums_loads(tmp_path):
    path = tmp_path / LATEST
    model, _ = save(path)
    with_header(path, lambda header, tensors: None)
    assert same_weights(checkpoint.load(path, training=True).model, model)


def test_an_unreadable_file_is_an_error(tmp_path, monkeypatch):
    save(tmp_path / LATEST)

    def refuse(*arguments):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert load_error(tmp_path / LATEST) == f"cannot read the checkpoint {str(tmp_path / LATEST)!r}: Permission denied"


def test_an_unwritable_folder_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot write"):
        save(tmp_path / "file" / LATEST)


def test_a_missing_device_is_not_reported_as_damage(tmp_path):
    save(tmp_path / LATEST)
    with pytest.raises(tl.DeviceError, match="nowhere"):
        checkpoint.load(tmp_path / LATEST, "nowhere")


# --- finding checkpoints


def test_find_checkpoint(tmp_path):
    save(tmp_path / "run" / LATEST)
    assert find_checkpoint(tmp_path / "run") == tmp_path / "run" / LATEST
    assert find_checkpoint(tmp_path / "run" / LATEST) == tmp_path / "run" / LATEST
    with pytest.raises(CheckpointError, match=f"no {LATEST} in the folder"):
        find_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match=r"there is no checkpoint '.*nowhere'"):
        find_checkpoint(tmp_path / "nowhere")


def test_newest_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="train a model first"):
        newest_checkpoint(tmp_path / "runs")
    for age, name in enumerate(["b/" + LATEST, "a/" + LATEST, "deep/er/" + LATEST, "z/" + BEST]):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text("")
        os.utime(path, ns=(10**18 - age * 10**9,) * 2)
    os.utime(tmp_path / "z" / BEST)
    assert newest_checkpoint(tmp_path) == tmp_path / "b" / LATEST
    os.utime(tmp_path / "deep" / "er" / LATEST)
    assert newest_checkpoint(tmp_path) == tmp_path / "deep" / "er" / LATEST
