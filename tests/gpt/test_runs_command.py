"""Test the comparison of runs, and the command that lists them."""

import json
import math

import pytest

pytest.importorskip("platformdirs")
pytest.importorskip("safetensors")
pytest.importorskip("tqdm")
from gpt import checkpoint, train
from gpt.runs import LATEST, METRICS, RunFolder, differing_options, find_runs, summarize
from gpt.train import start

pytestmark = pytest.mark.usefixtures("default_ctrl_c")


def write_lines(folder, *lines):
    """Make a folder of a run with metrics only."""
    folder.mkdir(parents=True)
    (folder / METRICS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


STEP = {"loss": 2.0, "grad_norm": 1.0, "lr": 0.1}
LINES = [
    {"step": 10, **STEP, "ms_per_step": 100.0, "tokens_per_second": 320.0},
    {"step": 10, "train_loss": 2.5, "val_loss": 2.4, "val_bits_per_char": 3.5},
    {"step": 30, **STEP, "ms_per_step": 50.0, "tokens_per_second": 640.0},
    {"step": 30, "train_loss": 2.1, "val_loss": 2.6, "val_bits_per_char": 3.8},
]


@pytest.fixture
def finished(tiny):
    """Return the folder of a finished run."""
    config = tiny("runs/one", name="one", train__steps=4, train__eval_interval=2, train__sample_chars=0)
    train.train(config)
    return config.run_dir


def test_what_a_finished_run_says(finished):
    run = summarize(finished)
    assert (run.name, run.state, run.step, run.steps, run.damage) == ("one", "finished", 4, 4, "")
    assert run.tokens == 4 * 4 * 8
    assert run.parameters == checkpoint.load(finished / LATEST).model.num_params()
    assert run.best_loss <= run.val_loss
    assert run.best_step in (2, 4)
    assert run.final_loss is not None
    assert run.seconds > 0
    assert run.options["optim.lr"] == 1e-2
    json.dumps(run.to_dict())


def test_what_metrics_alone_say(tmp_path):
    run = summarize(write_lines(tmp_path / "alone", *LINES))
    assert (run.name, run.state, run.step, run.steps, run.options) == ("alone", "interrupted", 30, None, {})
    assert (run.train_loss, run.val_loss, run.best_loss, run.best_step) == (2.1, 2.6, 2.4, 10)
    assert run.bits_per_char == 3.8
    assert run.seconds == pytest.approx(10 * 0.1 + 20 * 0.05)


def test_states(tiny, tmp_path):
    config = tiny("run", train__steps=20)
    trainer = start(config)
    for _ in range(3):
        trainer.meter.add(*trainer.train_step())
    trainer.log(0.1)
    assert summarize(config.run_dir).state == "interrupted"
    trainer.save(LATEST)
    assert summarize(config.run_dir).state == "stopped"
    with RunFolder(config.run_dir).lock():
        assert summarize(config.run_dir).state == "running"
    (config.run_dir / ".lock").touch()  # A killed process leaves it.
    assert summarize(config.run_dir).state == "stopped"
    trainer.metrics.write(step=5, loss=math.nan)
    assert summarize(config.run_dir).state == "interrupted"
    assert summarize(config.run_dir).step == 5


def test_archived_runs_and_folders_that_are_none(finished, tmp_path):
    runs = finished.parent
    write_lines(runs / "one" / "earlier-1", *LINES)
    write_lines(runs / "deeper" / "still" / "two", *LINES)
    write_lines(runs / ".hidden", *LINES)
    write_lines(runs / "empty")
    (runs / "nothing").mkdir()
    (runs / "damaged").mkdir()
    (runs / "damaged" / LATEST).write_bytes(b"no checkpoint")
    found, skipped = find_runs(runs)
    assert [run.name for run in found] == ["two", "one"]
    assert len(skipped) == 3
    reasons = (LATEST, f"{METRICS} has no line that can be read", "it is not a run")
    for line, words in zip(skipped, reasons, strict=True):
        assert words in line
    found, _ = find_runs(runs, archived=True)
    assert [run.name for run in found] == ["two", "one", "earlier-1"]
    (found,), skipped = find_runs(finished)
    assert (found.name, skipped) == ("one", [])
    assert find_runs(tmp_path / "nowhere")[1] == [f"{tmp_path / 'nowhere'}: No such file or directory"]


def test_a_damaged_checkpoint_leaves_what_the_metrics_say(finished):
    (finished / LATEST).write_bytes(b"no checkpoint")
    run = summarize(finished)
    assert str(finished / LATEST) in run.damage
    assert run.final_loss is not None
    assert run.steps == 4  # from the best checkpoint


def test_options_that_differ(tiny, tmp_path):
    runs = []
    for name, lr in (("a", 1e-2), ("b", 1e-3)):
        config = tiny(f"runs/{name}", name=name, optim__lr=lr, optim__min_lr=1e-4)
        start(config).save(LATEST)
        runs.append(summarize(config.run_dir))
    runs.append(summarize(write_lines(tmp_path / "runs" / "c", *LINES)))
    assert differing_options(runs) == ["optim.lr"]
    assert differing_options(runs[:1]) == differing_options([]) == []
