"""Helpers that observe and interrupt small training runs."""

import json
import signal

from gpt import checkpoint, train
from gpt.checkpoint.container import KEY
from gpt.runs import BEST, LATEST, METRICS, read
from gpt.train import Trainer


def content(path):
    """Return the header and the tensors of a checkpoint, without the path that it was written to."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        header = json.loads(file.metadata()[KEY])
        del header["config"]["train"]["out_dir"], header["sha256"]
        return header, {name: file.get_tensor(name) for name in file.keys()}


def assert_same_checkpoint(a, b, but=()):
    """Compare two checkpoints, except for the path of the folder and some sections of the configuration."""
    (header_a, tensors_a), (header_b, tensors_b) = content(a), content(b)
    for section in but:
        del header_a["config"][section], header_b["config"][section]
    assert header_a == header_b
    assert list(tensors_a) == list(tensors_b)
    for name in tensors_a:
        assert (tensors_a[name] == tensors_b[name]).all(), name


def assert_goes_on_as(whole, folder):
    """Finish a run that was stopped, and compare it with an undisturbed one."""
    assert train.train(checkpoint.load_config(folder / LATEST), resume=folder / LATEST)
    for name in (LATEST, BEST):
        assert_same_checkpoint(whole / name, folder / name)
    assert measured(folder) == measured(whole)


def measured(folder):
    """Return the metrics of a run, without those that depend on the clock."""
    clock = {"ms_per_step", "tokens_per_second"}
    return [{k: v for k, v in line.items() if k not in clock} for line in read(folder / METRICS)]


def at_step(monkeypatch, step, action):
    """Call `action(run)` before a run takes step number `step` (from 1)."""
    original = Trainer.train_step

    def patched(run):
        if run.step == step - 1:
            action(run)
        return original(run)

    monkeypatch.setattr(Trainer, "train_step", patched)


def ctrl_c(run):
    signal.raise_signal(signal.SIGINT)
