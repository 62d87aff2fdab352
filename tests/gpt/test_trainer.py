"""Test the training loop: against PyTorch, the files of a run, and divergence."""

import io
import math
import re
import sys
import threading
import tracemalloc

import numpy as np
import pytest

pytest.importorskip("platformdirs")
pytest.importorskip("safetensors")
pytest.importorskip("tqdm")
pytest.importorskip("filelock")
from filelock import FileLock

import tensorlite as tl
from gpt import checkpoint, train
from gpt.checkpoint import CheckpointError
from gpt.config import Config, SamplingConfig
from gpt.data import load_dataset
from gpt.evaluate import evaluate
from gpt.generation import gather, generate
from gpt.runs import (
    BEST,
    CURVE,
    LATEST,
    LAYERS,
    METRICS,
    RunFolder,
    RunFolderError,
    find_checkpoint,
    is_locked,
    newest_checkpoint,
    read,
)
from gpt.tokenizer import start_ids
from gpt.train import Trainer, TrainingError, report, run, start, step, trainer
from gpt.train.progress import evaluation_bar
from tests.gpt.small_runs import at_step, content

pytestmark = pytest.mark.usefixtures("default_ctrl_c")


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
    assert losses[0] - np.mean(losses[-20:]) > 1  # The model has learned.
    if dtype == "float64":
        for name, value in run.model.state_dict().items():
            np.testing.assert_allclose(
                value.numpy(), oracle.model.p[name].detach().numpy(), rtol=0, atol=tolerance, err_msg=name
            )


def test_the_learning_rate_is_logged_with_its_step(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "LOG_INTERVAL", 1)
    config = tiny(optim__lr=0.1, optim__min_lr=0.01, optim__warmup_steps=4, train__steps=12)
    start(config).optimize()
    rates = [line["lr"] for line in read(tmp_path / "run" / METRICS) if "lr" in line]
    cosine = [0.01 + 0.09 * (1 + math.cos(math.pi * k / 8)) / 2 for k in range(8)]
    assert rates == pytest.approx([0.02, 0.04, 0.06, 0.08, *cosine], rel=1e-12)


def test_a_run_can_be_shorter_than_its_warm_up(tiny, tmp_path):
    start(tiny(train__steps=2)).optimize()
    assert read(tmp_path / "run" / METRICS)[0]["lr"] == pytest.approx(1e-2 * 2 / 6)


def test_accumulated_batches_equal_one_large_batch(tiny):
    """The gradient of 3 batches of 4 is the mean of their gradients."""
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


def test_activation_checkpointing_changes_memory_alone(tiny, tmp_path):
    """The losses, the weights and the records have the same bits, with dropout and accumulated batches."""
    runs = []
    for recompute in (False, True):
        options = {"train__activation_checkpointing": recompute, "train__grad_accum": 2, "train__log_layers": 1}
        options["train__batch_size"] = 12
        trainer = train.start(tiny(f"{recompute}", model__dropout=0.3, model__n_layer=8, **options))
        trainer.train_step()
        tracemalloc.start()
        losses = [trainer.train_step()[0].item() for _ in range(2)]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        trainer.layers.flush()
        layers = (tmp_path / f"{recompute}" / LAYERS).read_text()
        runs.append((losses, trainer.model.state_dict(), layers, peak))
    plain, recomputed = runs
    assert recomputed[0] == plain[0]
    assert all(np.array_equal(plain[1][name].numpy(), value.numpy()) for name, value in recomputed[1].items())
    assert recomputed[2] == plain[2]
    assert recomputed[3] < 0.7 * plain[3]


def test_a_run_writes_the_files_that_it_lists(tiny, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    config = tiny()
    assert train.train(config) is True
    folder, out = tmp_path / "run", capsys.readouterr().out
    assert sorted(p.name for p in folder.iterdir()) == sorted([LATEST, BEST, METRICS, LAYERS, CURVE])
    for name in (LATEST, BEST, METRICS, LAYERS, CURVE):
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


def test_an_estimate_does_not_change_training(tiny, tmp_path):
    """The dropout masks and batches of training do not depend on how often the loss is estimated."""
    for name, interval in (("a", 10), ("b", 1)):
        start(tiny(run=name, model__dropout=0.2, train__eval_interval=interval)).optimize()
    (_, a), (_, b) = content(tmp_path / "a" / LATEST), content(tmp_path / "b" / LATEST)
    assert all((a[name] == b[name]).all() for name in a)


def test_two_processes_cannot_train_in_one_folder(tiny, tmp_path):
    config = tiny()
    with RunFolder(config.run_dir).lock():
        with pytest.raises(RunFolderError, match=r"another process is training in .*run.*--name or --out"):
            train.train(config)
        assert not (config.run_dir / "metrics.jsonl").exists()
    assert train.train(config)
    with RunFolder(config.run_dir).lock(), pytest.raises(RunFolderError, match="another process is training"):
        train.train(config, resume=config.run_dir / LATEST)


def test_a_lock_that_is_taken_for_an_instant_refuses_no_training(tmp_path):
    """`gpt runs` and the page of the server look whether a process trains in a folder, which takes its lock."""
    folder = RunFolder(tmp_path)
    other = FileLock(tmp_path / ".lock", thread_local=False)
    other.acquire()
    timer = threading.Timer(0.1, other.release)
    timer.start()
    with folder.lock():
        timer.join()
        assert is_locked(tmp_path)
    assert not is_locked(tmp_path)


def test_a_second_run_archives_the_first(tiny, tmp_path, capsys):
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
    """The loss of step 5 is finite; its gradient, and so the weights after it, are not."""
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


def test_a_far_too_large_learning_rate_diverges(tiny):
    with pytest.raises(TrainingError, match=r"diverged at step \d+.*lower --lr \(it is 1e\+30\)"):
        train.train(tiny(optim__lr=1e30, optim__warmup_steps=0))


@pytest.mark.parametrize(("lr", "warned"), [(5.0, True), (1e-2, False)])
def test_a_loss_far_above_chance_is_reported_once(tiny, capsys, lr, warned):
    options = {"optim__min_lr": 0.0, "optim__warmup_steps": 0, "optim__grad_clip": 0.0, "train__sample_chars": 0}
    train.train(tiny(optim__lr=lr, **options))
    out = capsys.readouterr().out
    assert out.count("Warning: the loss is ") == warned
    if warned:
        assert "guessing among the 13 tokens gives ln 13 = 2.56. The model does not learn. Stop (Ctrl-C) and" in out
        assert "a lower --lr (it is 5), more --warmup-steps (0) or --grad-clip 1 (it is off)." in out


# --- without a validation set, and with a part of it


def test_a_run_without_a_validation_set(tiny, tmp_path, capsys):
    config = tiny(data__val_fraction=0.0, train__steps=20)
    assert train.train(config)
    out, folder = capsys.readouterr().out, tmp_path / "run"
    assert "2,338 tokens to train on, no validation set" in out
    assert "There is no validation set (--val-fraction 0), so there is no loss on one, and no best model" in out
    assert not (folder / BEST).exists()
    assert f"wrote {folder / BEST}" not in out
    lines = read(folder / METRICS)
    assert [line["step"] for line in lines if "train_loss" in line] == [10, 20]
    assert not any("val_loss" in line or "final_val_loss" in line for line in lines)
    assert train.train(checkpoint.load_config(folder / LATEST).replace({"train.steps": 25}), resume=folder / LATEST)
    assert checkpoint.load(folder / LATEST).step == 25


@pytest.mark.parametrize(("limit", "evaluated"), [(50, 48), (1, 8), (232, 232), (233, None), (0, None)])
def test_the_last_evaluation_takes_a_part_of_a_large_set(tiny, tmp_path, capsys, limit, evaluated):
    train.train(tiny(train__steps=2, train__sample_chars=0, train__final_eval_tokens=limit))
    line, out = read(tmp_path / "run" / METRICS)[-1], capsys.readouterr().out
    assert line.get("final_val_tokens") == evaluated
    if evaluated:
        assert f"({evaluated} of 233 tokens, spread evenly; --final-eval-tokens 0 takes all)" in out
    else:
        assert "(the whole set: 234 characters)" in out


# --- what a run says


def test_an_overfitted_run_samples_from_its_best_model(tiny, tmp_path, monkeypatch, capsys):
    estimates = iter([3.0, 2.0, 1.0, 9.0])  # train, validation
    monkeypatch.setattr(trainer, "mean_loss", lambda model, batches: next(estimates))
    config = tiny(train__steps=20)
    train.train(config)
    out = capsys.readouterr().out
    start, sample = "A sample of 40 characters, by the model of step 10 (best.safetensors), whose validation", ""
    assert start in out
    best = checkpoint.load(tmp_path / "run" / BEST)
    for token in generate(best.model, start_ids(best.tokenizer), 40, SamplingConfig(seed=config.train.seed)):
        sample += best.tokenizer.decode([token])
    assert sample in out


def test_a_sample_is_one_output_of_a_notebook(tiny, monkeypatch):
    said = []
    monkeypatch.setattr(report, "say", lambda text, end="\n": said.append(text))
    train.train(tiny(train__steps=2))
    start = next(i for i, text in enumerate(said) if text.startswith("\nA sample of 40"))
    assert len(said[start + 1]) == 40
    assert list(gather(iter("abc"), 60)) == ["abc"]
    assert list(gather(iter("abc"), 0)) == ["a", "b", "c"]


def test_a_run_without_numba_says_so_once(tiny, monkeypatch, capsys):
    note = "numba is not installed, so training on a CPU takes several times as long: pip install 'tensorlite[fast]'"
    for found, jit, count in [(None, None, 1), ("numba", None, 0), (None, "0", 0)]:
        monkeypatch.setattr(run, "find_spec", lambda name, found=found: found)
        monkeypatch.setenv("TENSORLITE_JIT", jit) if jit else monkeypatch.delenv("TENSORLITE_JIT", raising=False)
        train.train(tiny(train__steps=1, train__sample_chars=0))
        assert capsys.readouterr().out.count(note) == count


def test_a_bpe_with_fewer_tokens_than_asked_for_says_so(tiny, capsys):
    pytest.importorskip("tokenizers")
    options = {"train__steps": 1, "train__sample_chars": 0, "data__tokenizer": "bpe"}
    train.train(tiny(data__bpe_vocab_size=4000, **options))
    assert re.search(r"\d+ tokens instead of 4,000 \(--bpe-vocab-size\), because", capsys.readouterr().out)
    train.train(tiny(data__bpe_vocab_size=260, **options))
    assert "instead of" not in capsys.readouterr().out


def test_the_bar_of_an_evaluation(monkeypatch):
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", stream)
    with evaluation_bar(1000) as bar:
        bar.update(500)
        bar.refresh()
    assert "evaluating:  50 % of 1,000 tokens" in stream.getvalue()


# --- arguments of a wrong kind


@pytest.mark.parametrize("function", [train.train, start, train.profile, lambda c: train.resume(c, "x")])
def test_the_name_of_a_preset_is_no_config(function):
    with pytest.raises(TypeError, match=r"expected a Config, got 'gpt-nano'. Write \w+\(Config.load\('gpt-nano'\)\)"):
        function("gpt-nano")
    with pytest.raises(TypeError, match="expected a Config, got ModelConfig"):
        function(Config.load("gpt-nano").model)


def test_paths_may_be_strings(tiny, tmp_path):
    config = tiny(train__steps=2, train__sample_chars=0)
    assert train.train(config)
    path = str(tmp_path / "run" / LATEST)
    assert checkpoint.load(path).step == checkpoint.load_info(path).step == 2
    assert checkpoint.load_config(path).model == checkpoint.load(path).config.model
    assert str(find_checkpoint(str(tmp_path / "run"))) == str(newest_checkpoint(str(tmp_path))) == path
    assert read(str(tmp_path / "run" / METRICS))
    assert train.train(config.replace({"train.steps": 3}).with_vocab_size(13), resume=path)
    with pytest.raises(CheckpointError, match="is not a checkpoint, but a folder"):
        checkpoint.load(str(tmp_path / "run"))


@pytest.mark.parametrize("package", ["tqdm", "filelock", "safetensors", "platformdirs", "tiktoken"])
def test_a_missing_extra_says_what_to_install(tiny, monkeypatch, package):
    """The import of gpt.train works without it, and the call says which package it needs."""
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setenv("TENSORLITE_CACHE", "")
    config = tiny(data__tokenizer="bpe" if package == "tiktoken" else "char")
    if package == "platformdirs":
        config = config.replace({"data.dataset": "tinyshakespeare"})
    with pytest.raises(ModuleNotFoundError, match=rf"gpt needs the package {package}: pip install 'tensorlite\[gpt\]'"):
        train.train(config)


@pytest.mark.parametrize(
    ("options", "replayed"),
    [
        ({"model__dropout": 0.2, "train__grad_accum": 2, "train__log_layers": 7}, 15),
        ({"optim__optimizer": "muon", "optim__schedule": "linear", "optim__grad_clip": 0.0, "model__bias": True}, 20),
        ({"train__dtype": "float64", "model__norm": "rms", "model__mlp": "swiglu", "train__log_layers": 0}, 20),
        ({"train__dtype": "bfloat16"}, 0),
        ({"train__activation_checkpointing": True}, 0),
        ({"model__position": "rope"}, 0),
    ],
)
def test_compile_changes_no_bit(tiny, tmp_path, monkeypatch, options, replayed):
    """Losses, weights and records are the same, also after a run was resumed, with and without `train.compile`."""
    if options.get("train__dtype") == "bfloat16":
        pytest.importorskip("ml_dtypes")
    monkeypatch.setattr(step, "MIN_COMPILED_STEPS", 1)
    runs = []
    for compiled in (False, True):
        out = f"{compiled}"
        config = tiny(out, train__steps=28, train__compile=compiled, **options)
        first = start(config)
        assert first.optimize()
        resumed = train.resume(first.config.replace({"train.steps": 36}), tmp_path / out / LATEST)
        assert resumed.optimize()
        lines = [{k: v for k, v in line.items() if "per_s" not in k} for line in read(tmp_path / out / METRICS)]
        layers = (tmp_path / out / LAYERS).read_text() if (tmp_path / out / LAYERS).exists() else ""
        runs.append((lines, layers, {name: value.numpy() for name, value in resumed.model.state_dict().items()}))
    plain, replays = runs
    np.testing.assert_equal(replays, plain)
    found = re.search(r"(\d+) replayed", first.compiled.explain() if first.compiled else "")
    assert (int(found[1]) if found else 0) >= replayed
