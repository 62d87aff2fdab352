"""The training loop: against PyTorch, through breaks and crashes, and what it writes."""

import json
import math
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("platformdirs")
pytest.importorskip("safetensors")
pytest.importorskip("tqdm")
import tensorlite as tl
from gpt import checkpoint, train
from gpt.checkpoint.native import KEY
from gpt.config import Config, ConfigError
from gpt.data import load_dataset
from gpt.errors import UserError
from gpt.evaluate import evaluate
from gpt.runs import BEST, CURVE, LATEST, METRICS, Metrics, RunFolder, RunFolderError, newest_checkpoint, read
from gpt.train import Trainer, TrainingError, report, start, trainer
from gpt.train.progress import Interrupt, format_metrics, progress_bar, this_python

ROOT = Path(__file__).resolve().parents[2]
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
    """Makes a small configuration that writes to the folder `run`."""

    def make(run="run", **overrides):
        own = {key.replace("__", "."): value for key, value in overrides.items()}
        out = {"data.dataset": str(text), "train.out_dir": str(tmp_path / run)}
        return Config.load("shakespeare-char-cpu", {**TINY, **out, **own})

    return make


@pytest.fixture(autouse=True)
def default_ctrl_c():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def content(path):
    """A checkpoint's tensors and header, without where it was written."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        header = json.loads(file.metadata()[KEY])
        del header["config"]["train"]["out_dir"], header["check"]
        return header, {name: file.get_tensor(name) for name in file.keys()}


def assert_same_checkpoint(a, b):
    (header_a, tensors_a), (header_b, tensors_b) = content(a), content(b)
    assert header_a == header_b
    assert list(tensors_a) == list(tensors_b)
    for name in tensors_a:
        assert (tensors_a[name] == tensors_b[name]).all(), name


def measured(folder):
    """The metrics of a run, without what depends on the clock."""
    clock = {"ms_per_step", "tokens_per_second"}
    return [{k: v for k, v in line.items() if k not in clock} for line in read(folder / METRICS)]


def at_step(monkeypatch, step, action):
    """Calls `action(run)` when a run is about to do step number `step` (from 1)."""
    original = Trainer.train_step

    def patched(run):
        if run.step == step - 1:
            action(run)
        return original(run)

    monkeypatch.setattr(Trainer, "train_step", patched)


def ctrl_c(run):
    signal.raise_signal(signal.SIGINT)


# --- against PyTorch


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-4)])
def test_300_steps_agree_with_torch(tiny, dtype, tolerance):
    pytest.importorskip("torch")
    from tests.support.torch_reference_gpt import TorchGPT, TorchTrainer

    config = tiny(train__steps=300, train__dtype=dtype, optim__warmup_steps=20)
    run = start(config)
    weights = {name: value.numpy().copy() for name, value in run.model.state_dict().items()}
    oracle = TorchTrainer(TorchGPT(run.config.model, weights), config.optim, config.train.steps)
    rng = np.random.default_rng(config.train.seed)
    losses = []
    for _ in range(300):
        expected = oracle.step(*run.dataset.batch(rng, "train", config.train.batch_size, 8))
        loss, _ = run.train_step()
        losses.append(loss.item())
        assert abs(loss.item() - expected) < tolerance
    assert losses[0] - np.mean(losses[-20:]) > 1  # it did learn
    if dtype == "float64":
        for name, value in run.model.state_dict().items():
            np.testing.assert_allclose(
                value.numpy(), oracle.model.p[name].detach().numpy(), rtol=0, atol=tolerance, err_msg=name
            )


def test_the_learning_rate_is_that_of_the_step_it_is_logged_with(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "LOG_INTERVAL", 1)
    config = tiny(optim__lr=0.1, optim__min_lr=0.01, optim__warmup_steps=4, train__steps=12)
    start(config).optimize()
    rates = [line["lr"] for line in read(tmp_path / "run" / METRICS) if "lr" in line]
    cosine = [0.01 + 0.09 * (1 + math.cos(math.pi * k / 8)) / 2 for k in range(8)]
    assert rates == pytest.approx([0.02, 0.04, 0.06, 0.08, *cosine], rel=1e-12)


def test_a_run_shorter_than_its_warm_up(tiny, tmp_path):
    start(tiny(train__steps=2)).optimize()
    assert read(tmp_path / "run" / METRICS)[0]["lr"] == pytest.approx(1e-2 * 2 / 6)


def test_accumulated_batches_are_one_large_batch(tiny):
    """The gradient of 3 batches of 4 is the mean of theirs."""
    run = start(tiny(train__grad_accum=3, train__dtype="float64", optim__grad_clip=0.0))
    other = start(tiny(run="other", train__dtype="float64"))
    loss, norm = run.train_step()
    total = 0.0
    for _ in range(3):
        x, y = other.batch("train", other.rng)
        part = other.model(tl.tensor(x), tl.tensor(y))[1]
        part.backward()
        total += part.item() / 3
    assert loss.item() == pytest.approx(total, abs=1e-14)
    gradients = [p.grad.numpy() / 3 for p in other.parameters]
    for ours, expected in zip(run.parameters, gradients):
        np.testing.assert_allclose(ours.grad.numpy(), expected, rtol=0, atol=1e-14)
    assert norm.item() == pytest.approx(math.sqrt(sum((g**2).sum() for g in gradients)), rel=1e-12)


# --- a whole run


def test_a_run_writes_what_it_says(tiny, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    config = tiny()
    assert train.train(config) is True
    folder, out = tmp_path / "run", capsys.readouterr().out
    assert sorted(p.name for p in folder.iterdir()) == sorted([LATEST, BEST, METRICS, CURVE])
    for name in (LATEST, BEST, METRICS, CURVE):
        assert f"wrote {folder / name}\n" in out
    assert (folder / CURVE).read_bytes().startswith(b"\x89PNG")

    lines = read(folder / METRICS)
    steps = [line["step"] for line in lines if "loss" in line]
    assert steps == [5, 10, 15, 20, 25, 30]
    assert [line["step"] for line in lines if "val_loss" in line] == [10, 20, 30]
    assert all(line["ms_per_step"] > 0 and line["tokens_per_second"] > 0 for line in lines if "loss" in line)
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < losses[0]

    loaded = checkpoint.load(folder / LATEST)
    dataset = load_dataset(config.data, 8)
    final = evaluate(loaded.model, dataset, "val")
    assert lines[-1] == {
        "step": 30,
        "final_val_loss": final,
        "final_val_bits_per_char": pytest.approx(final / math.log(2), rel=1e-12),
    }
    assert f"validation loss {final:.4f} nats per token" in out
    assert loaded.step == 30
    assert loaded.config == config.with_vocab_size(dataset.tokenizer.vocab_size)
    sample = out.partition("A sample of 40 characters:\n\n")[2].partition("\n\nwrote")[0]
    assert len(sample) == 40
    assert set(sample) <= set(dataset.tokenizer.vocab)


def test_the_best_model_is_kept(tiny, tmp_path, monkeypatch):
    estimates = iter([3.0, 9.0, 3.0, 2.0, 3.0, 2.5])  # train, validation
    monkeypatch.setattr(trainer, "mean_loss", lambda model, batches: next(estimates))
    run = start(tiny())
    run.optimize()
    assert checkpoint.load(tmp_path / "run" / BEST).step == 20
    assert checkpoint.load(tmp_path / "run" / LATEST).step == 30
    assert run.best == 2.0


def test_an_estimate_disturbs_nothing(tiny, tmp_path):
    """Dropout and batches of training are the same, however often the loss is estimated."""
    for name, interval in (("a", 10), ("b", 1)):
        start(tiny(run=name, model__dropout=0.2, train__eval_interval=interval)).optimize()
    (_, a), (_, b) = content(tmp_path / "a" / LATEST), content(tmp_path / "b" / LATEST)
    assert all((a[name] == b[name]).all() for name in a)


def test_two_runs_never_write_to_one_folder(tiny, tmp_path):
    config = tiny()
    with RunFolder(config.run_dir).lock():
        with pytest.raises(RunFolderError, match=r"another process is training in .*run.*--name or --out"):
            train.train(config)
        assert not (config.run_dir / "metrics.jsonl").exists()
    assert train.train(config)
    with RunFolder(config.run_dir).lock(), pytest.raises(RunFolderError, match="another process is training"):
        train.train(config, resume=config.run_dir / LATEST)


def test_a_second_run_sets_the_first_aside(tiny, tmp_path, capsys):
    for seed in (1, 2, 3):
        train.train(tiny(train__steps=2, train__sample_chars=0, train__seed=seed))
    folder = tmp_path / "run"
    seeds = [checkpoint.load_config(folder / place / LATEST).train.seed for place in ("earlier-1", "earlier-2", "")]
    assert seeds == [1, 2, 3]
    assert (folder / "earlier-1" / METRICS).exists()
    assert f"The run that was in {folder} is now in {folder / 'earlier-2'}" in capsys.readouterr().out
    assert newest_checkpoint(tmp_path) == folder / LATEST


def test_without_matplotlib_there_is_no_curve(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert train.train(tiny(train__steps=2)) is True
    out = capsys.readouterr().out
    assert "pip install 'tensorlite[plot]'" in out
    assert f"wrote {tmp_path / 'run' / METRICS}" in out
    assert CURVE not in out.partition("wrote")[2]


# --- breaks


@pytest.mark.parametrize("stop", [1, 10, 13])
def test_a_resumed_run_is_the_same_bit_for_bit(tiny, tmp_path, monkeypatch, capsys, stop):
    options = {"model__dropout": 0.2, "train__grad_accum": 2}
    assert train.train(tiny(run="whole", **options)) is True
    whole = capsys.readouterr().out
    with monkeypatch.context() as patch:
        at_step(patch, stop, ctrl_c)
        assert train.train(tiny(run="broken", **options)) is False
    folder = tmp_path / "broken"
    stopped = capsys.readouterr()
    assert f"Stopped after step {stop} and saved. To continue: {this_python()} -m gpt train --resume " in stopped.out
    assert f" --resume {folder}\n" in stopped.out
    assert checkpoint.load(folder / LATEST).step == stop

    tl.manual_seed(99)  # whatever happened in between
    resumed = checkpoint.load_config(folder / LATEST)
    assert train.train(resumed, resume=folder / LATEST) is True
    assert_same_checkpoint(tmp_path / "whole" / LATEST, folder / LATEST)
    assert_same_checkpoint(tmp_path / "whole" / BEST, folder / BEST)

    extra = {stop} - {5, 10, 15, 20, 25, 30}
    kept = [line for line in measured(folder) if line["step"] not in extra]
    reference = measured(tmp_path / "whole")
    after = [line["step"] for line in reference].index(min(s for s in (5, 10, 15, 20) if s > stop))
    del reference[after]["loss"], kept[after]["loss"]  # a mean over fewer steps
    assert kept == reference
    sample = whole.partition("A sample")[2].partition("\n\nwrote")[0]
    assert sample == capsys.readouterr().out.partition("A sample")[2].partition("\n\nwrote")[0]


def test_after_a_crash_the_metrics_have_no_step_twice(tiny, tmp_path, monkeypatch):
    def crash(run):
        with run.metrics.path.open("a") as file:
            file.write('{"step": 18, "lo')
        raise MemoryError

    with monkeypatch.context() as patch:
        at_step(patch, 18, crash)
        with pytest.raises(MemoryError):
            train.train(tiny())
    folder = tmp_path / "run"
    with (folder / METRICS).open("a") as file:
        file.write('\n{"step": 16, "loss": 1.0}\n')
    train.train(checkpoint.load_config(folder / LATEST), resume=folder / LATEST)
    steps = [line["step"] for line in read(folder / METRICS) if "loss" in line]
    assert steps == [5, 10, 15, 20, 25, 30]
    assert [json.loads(line) for line in (folder / METRICS).read_text().splitlines()] == read(folder / METRICS)


def test_more_steps_for_a_run_that_is_done(tiny, tmp_path):
    train.train(tiny(train__steps=10))
    folder = tmp_path / "run"
    config = checkpoint.load_config(folder / LATEST).replace({"train.steps": 20, "train.eval_interval": 4})
    assert train.train(config, resume=folder / LATEST) is True
    assert checkpoint.load(folder / LATEST).step == 20
    lines = read(folder / METRICS)
    assert [line["step"] for line in lines if "final_val_loss" in line] == [20]
    assert [line["step"] for line in lines if "val_loss" in line] == [10, 12, 16, 20]


def test_a_moved_run_goes_on_where_it_is(tiny, tmp_path):
    train.train(tiny(train__steps=4))
    (tmp_path / "run").rename(tmp_path / "moved")
    config = checkpoint.load_config(tmp_path / "moved" / LATEST).replace({"train.steps": 6})
    train.train(config, resume=tmp_path / "moved" / LATEST)
    assert checkpoint.load(tmp_path / "moved" / LATEST).step == 6
    assert not (tmp_path / "run").exists()


def test_a_text_that_moved_goes_on_where_it_is(tiny, text, tmp_path):
    train.train(tiny(train__steps=4))
    text = text.rename(tmp_path / "elsewhere.txt")
    path = tmp_path / "run" / LATEST
    with pytest.raises(UserError, match=r"cannot read the text"):
        train.train(checkpoint.load_config(path).replace({"train.steps": 6}), resume=path)
    more = {"train.steps": 6, "data.dataset": str(text)}
    train.train(checkpoint.load_config(path).replace(more), resume=path)
    assert checkpoint.load(path).step == 6
    text.write_text("the " + text.read_text())
    with pytest.raises(ConfigError, match=r"is not the one that .* was trained on"):
        train.train(checkpoint.load_config(path).replace(more), resume=path)


def test_a_checkpoint_of_an_earlier_version_resumes(tmp_path):
    """The file was written at commit 03bb663, whose run then ended with the loss below."""
    words = ["the ", "cat ", "sat\n", "on ", "a ", "mat, ", "and ", "then "]
    text = tmp_path / "text.txt"
    text.write_text("".join(np.random.default_rng(0).choice(words, 200)))
    path = tmp_path / "run" / LATEST
    path.parent.mkdir()
    shutil.copy(Path(__file__).parent / "data" / "checkpoint-format-1.safetensors", path)
    config = checkpoint.load_config(path)
    assert (config.name, config.optim.optimizer, config.train.steps) == ("old", "muon", 10)
    train.train(config.replace({"train.steps": 15, "data.dataset": str(text)}), resume=path)
    final = read(path.parent / METRICS)[-1]
    assert final["step"] == 15
    assert final["final_val_loss"] == pytest.approx(2.453517108742109, abs=1e-9)


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header["state"].pop("text"),
        lambda header: header["state"].update(best="low"),
        lambda header: header["state"]["batches"].update(bit_generator="MT"),
        lambda header: header["state"].update(dropout={}),
        lambda header: header["optimizer"]["param_groups"][0].pop("lr"),
        lambda header: header["optimizer"]["numbers"].pop("0"),
    ],
)
def test_a_damaged_checkpoint_is_one_error(tiny, tmp_path, change):
    from safetensors.numpy import save_file

    train.train(tiny(train__steps=2, train__sample_chars=0))
    path = tmp_path / "run" / LATEST
    header, tensors = content(path)
    header["config"]["train"]["out_dir"] = str(tmp_path / "run")
    change(header)
    save_file(tensors, path, metadata={KEY: json.dumps(header)})
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()}
    with pytest.raises(checkpoint.CheckpointError, match=f"{LATEST}' is damaged: "):
        train.train(checkpoint.load_config(path), resume=path)
    assert before == {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"optim.lr": 2e-2}, "optim.lr = 0.02 instead of 0.01"),
        ({"model.n_layer": 3}, "model.n_layer = 3 instead of 2"),
        ({"train.seed": 7, "train.batch_size": 5}, "train.batch_size = 5 instead of 4; train.seed = 7 instead of 1"),
        ({"name": "other"}, "name = 'other' instead of 'tiny'"),
        ({"data.val_fraction": 0.2}, "data.val_fraction = 0.2 instead of 0.1"),
        ({"train.steps": 5}, "train.steps = 5, but .* has done 10 steps already"),
    ],
)
def test_a_resumed_run_keeps_its_options(tiny, tmp_path, overrides, message):
    train.train(tiny(train__steps=10, train__sample_chars=0))
    path = tmp_path / "run" / LATEST
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()}
    with pytest.raises(ConfigError, match=message):
        train.train(checkpoint.load_config(path).replace(overrides), resume=path)
    assert before == {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()}


def test_a_text_that_changed_is_noticed(tiny, text, tmp_path):
    train.train(tiny(train__steps=2, train__sample_chars=0))
    text.write_text("the " + text.read_text())
    path = tmp_path / "run" / LATEST
    with pytest.raises(ConfigError, match=r"is not the one that .* was trained on"):
        train.train(checkpoint.load_config(path), resume=path)


def test_resuming_never_overwrites_a_later_checkpoint(tiny, tmp_path):
    train.train(tiny(train__steps=2, train__sample_chars=0))
    path = tmp_path / "run" / BEST
    with pytest.raises(ConfigError, match=f"would overwrite {LATEST} in the same folder"):
        train.train(checkpoint.load_config(path).replace({"train.steps": 3}), resume=path)


# --- Ctrl-C


def test_the_second_ctrl_c_stops_at_once(capfd):
    with Interrupt() as interrupt:
        assert not interrupt.requested
        signal.raise_signal(signal.SIGINT)
        assert interrupt.requested
        assert "Ctrl-C again stops at once" in capfd.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_somebody_else_stays(monkeypatch):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Interrupt() as interrupt:
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        signal.raise_signal(signal.SIGINT)
        assert not interrupt.requested
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_how_to_go_on_names_this_interpreter(tmp_path, monkeypatch):
    folder = tmp_path / ".venv" / "bin"
    folder.mkdir(parents=True)
    for name in ("python", "python.exe"):
        (folder / name).touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(folder / ("python.exe" if os.name == "nt" else "python")))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert this_python() == sys.executable  # no python on PATH
    monkeypatch.chdir(tmp_path)
    assert Path(this_python()) == Path(sys.executable).relative_to(tmp_path)
    monkeypatch.setenv("PATH", str(folder))  # an active environment
    assert this_python() == "python"


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT for one process on Windows")
def test_ctrl_c_and_resume_on_the_command_line(text, tmp_path):
    pytest.importorskip("click")
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "gpt", "train"]
    options = (
        f"--data {text} --out {folder} --name tiny --block-size 8 --n-layer 1 --n-head 1 --n-embd 8 --batch-size 2 "
        "--steps 1000000 --eval-interval 1000000 --checkpoint-interval 1000000 --warmup-steps 5"
    )
    process = subprocess.Popen(
        [*command, *options.split()], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 120
        while not read(folder / METRICS) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert f" -m gpt train --resume {folder}\n" in out
    assert "Traceback" not in err
    step = checkpoint.load(folder / LATEST).step
    assert step >= 10
    more = f"--resume {folder} --steps {step + 3} --sample-chars 0"
    done = subprocess.run([*command, *more.split()], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert checkpoint.load(folder / LATEST).step == step + 3


# --- the progress bar


@pytest.mark.skipif(os.name == "nt", reason="no pseudo-terminals on Windows")
@pytest.mark.parametrize("columns", [0, 80, 120])
def test_the_bar_shows_every_number_on_80_columns(monkeypatch, columns):
    """And on a terminal that does not know its width."""
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24 if columns else 0, columns, 0, 0))
    line = {"loss": 3.99506, "lr": 9.9e-05, "ms_per_step": 326.278, "tokens_per_second": 18037.1}
    shows = b""
    with open(theirs, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        with progress_bar(1230, 2000) as bar:
            bar.set_postfix_str(format_metrics(line))
            while select.select([ours], [], [], 0.1)[0]:
                shows += os.read(ours, 10000)
        monkeypatch.undo()
    os.close(ours)
    shows = shows.decode().split("\r")[-1]
    assert re.match(
        r"step 1230/2000, loss 3\.995, lr 9\.9e-05, 326.3 ms/step, 18.0k tok/s, (\?|[\d:]+) left", shows
    ), shows
    assert len(shows) <= (columns or 80)


# --- divergence


def test_a_loss_that_is_not_finite_stops_the_run(tiny, tmp_path, monkeypatch):
    def poison(run):
        run.model.ln_f.weight.array[3] = math.nan

    at_step(monkeypatch, 17, poison)
    with pytest.raises(TrainingError) as caught:
        train.train(tiny())
    message = str(caught.value)
    assert message.startswith("training diverged at step 17: the loss is nan")
    assert "lower --lr (it is 0.01)" in message
    assert f"{tmp_path / 'run' / LATEST} is kept" in message
    kept = checkpoint.load(tmp_path / "run" / LATEST)
    assert kept.step == 15
    assert all(np.isfinite(value.numpy()).all() for value in kept.model.state_dict().values())


def test_a_gradient_that_is_not_finite_is_never_saved(tiny, tmp_path, monkeypatch):
    """The loss of step 5 is finite; what step 5 makes of the weights is not."""
    clip = tl.nn.utils.clip_grad_norm_

    def poison(run):
        monkeypatch.setattr(
            tl.nn.utils, "clip_grad_norm_", lambda parameters, limit: clip(parameters, limit) * math.inf
        )

    at_step(monkeypatch, 5, poison)
    with pytest.raises(TrainingError, match=r"diverged at step 5.*there is no checkpoint yet"):
        train.train(tiny())
    assert not (tmp_path / "run" / LATEST).exists()


def test_weights_that_are_not_finite_are_never_saved(tiny, tmp_path, monkeypatch):
    """The loss and the gradient of step 10 are finite; the weights after it are not."""
    step = Trainer.train_step

    def patched(run):
        result = step(run)
        if run.step == 10:
            run.model.h[0].ln_1.weight.array[2] = -math.inf
        return result

    monkeypatch.setattr(Trainer, "train_step", patched)
    with pytest.raises(TrainingError, match=r"diverged at step 10: there are weights that are not finite.* is kept"):
        train.train(tiny(train__eval_interval=30))
    assert checkpoint.load(tmp_path / "run" / LATEST).step == 5


def test_a_learning_rate_that_is_far_too_large(tiny):
    with pytest.raises(TrainingError, match=r"diverged at step \d+.*lower --lr \(it is 1e\+30\)"):
        train.train(tiny(optim__lr=1e30, optim__warmup_steps=0))


# --- metrics


def test_metrics_are_a_line_a_write(tmp_path):
    metrics = Metrics(tmp_path / "new" / METRICS)
    metrics.write(step=1, loss=2.5)
    assert metrics.path.read_text() == '{"step": 1, "loss": 2.5}\n'
    metrics.write(step=2, loss=2.25)
    assert read(metrics.path) == [{"step": 1, "loss": 2.5}, {"step": 2, "loss": 2.25}]
    assert read(tmp_path / "nowhere") == []


def test_metrics_that_a_crash_made_unreadable(tmp_path):
    path = tmp_path / METRICS
    path.write_bytes(b'{"step": 1, "loss": 2.5}\n{"step": "2"}\n\xff\x00\n{"step": 3, "lo')
    assert read(path) == [{"step": 1, "loss": 2.5}]
    Metrics(path).truncate_after(1)
    assert path.read_text() == '{"step": 1, "loss": 2.5}\n'


@pytest.mark.parametrize("name", [METRICS, f".{METRICS}.tmp", "earlier-1"])
def test_a_run_that_cannot_write_is_one_error(tiny, tmp_path, monkeypatch, name):
    """The disk is full, or the folder cannot be written any more: in training, on resuming, on starting anew."""
    train.train(tiny(train__steps=2, train__sample_chars=0))
    path = tmp_path / "run" / LATEST
    opened, made = Path.open, Path.mkdir

    def full(original):
        def function(self, *arguments, **options):
            if self.name == name and self.parent.name == "run":
                raise OSError(28, "No space left on device")
            return original(self, *arguments, **options)

        return function

    monkeypatch.setattr(Path, "open", full(opened))
    monkeypatch.setattr(Path, "write_text", full(Path.write_text))
    monkeypatch.setattr(Path, "mkdir", full(made))
    saved = path.read_bytes()
    with pytest.raises(UserError, match=r"^cannot write to the run's folder '.*run': No space left on device\. What"):
        if name == "earlier-1":
            train.train(tiny())
        else:
            more = {"train.steps": 4}
            train.train(checkpoint.load_config(path).replace(more), resume=path)
    assert path.read_bytes() == saved


def test_a_curve_that_cannot_be_written_is_left_out(tiny, tmp_path, monkeypatch, capsys):
    def full(metrics, path, title):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report, "loss_curve", full)
    assert train.train(tiny(train__steps=2)) is True
    out = capsys.readouterr().out
    assert f"no {CURVE}: No space left on device" in out
    assert f"wrote {tmp_path / 'run' / LATEST}" in out
    assert not (tmp_path / "run" / CURVE).exists()


def test_a_run_whose_folder_cannot_be_made_is_one_error(tmp_path):
    (tmp_path / "file").touch()
    for folder in ("file", "file/below"):
        with pytest.raises(UserError, match=rf"^cannot write to the run's folder '.*{folder}': "):
            Metrics(tmp_path / folder / "metrics.jsonl")
