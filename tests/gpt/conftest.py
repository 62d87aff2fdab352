"""Fixtures for small training runs."""

import signal

import numpy as np
import pytest

from gpt.config import Config

TINY = {
    "name": "tiny",
    "model.block_size": 8,
    "model.n_layer": 2,
    "model.n_head": 2,
    "model.n_embd": 16,
    "optim.lr": 1e-2,
    "optim.min_lr": 1e-3,
    "optim.warmup_steps": 5,
    "train.steps": 30,
    "train.batch_size": 4,
    "train.eval_interval": 10,
    "train.eval_batches": 3,
    "train.checkpoint_interval": 5,
    "train.sample_chars": 40,
}


@pytest.fixture
def text(tmp_path):
    words = ["the ", "cat ", "sat\n", "on ", "a ", "mat, ", "and ", "then "]
    path = tmp_path / "text.txt"
    path.write_text("".join(np.random.default_rng(0).choice(words, 600)))
    return path


@pytest.fixture
def tiny(text, tmp_path):
    """Return a function that makes a small configuration, which writes to the folder `run`."""

    def make(run="run", **overrides):
        own = {key.replace("__", "."): value for key, value in overrides.items()}
        out = {"data.dataset": str(text), "train.out_dir": str(tmp_path / run)}
        return Config.load("shakespeare-char-cpu", {**TINY, **out, **own})

    return make


@pytest.fixture
def no_curve(monkeypatch):
    """Draw no loss curve at the end of a run, because that takes longer than a small run."""
    monkeypatch.setattr("gpt.train.report.draw_curve", lambda run: False)


@pytest.fixture
def default_ctrl_c():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
