"""Test interrupted and resumed runs."""

import json
import shutil
import types
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("platformdirs")
pytest.importorskip("safetensors")
pytest.importorskip("tqdm")
import tensorlite as tl
from gpt import checkpoint, train
from gpt.checkpoint import container
from gpt.config import ConfigError
from gpt.errors import UserError
from gpt.runs import BEST, LATEST, METRICS, read
from gpt.tokenizer import BPETokenizer, CharTokenizer
from gpt.train import trainer
from gpt.train.progress import this_python
from gpt.train.setup import has_carriage_returns, other_text
from tests.gpt.small_runs import assert_same_checkpoint, at_step, content, ctrl_c, measured

pytestmark = pytest.mark.usefixtures("default_ctrl_c")


@pytest.mark.parametrize("stop", [1, 10, 13])
def test_a_resumed_run_equals_an_uninterrupted_one(tiny, tmp_path, monkeypatch, capsys, stop):
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

    tl.manual_seed(99)  # The state of the random numbers comes from the checkpoint.
    resumed = checkpoint.load_config(folder / LATEST)
    assert train.train(resumed, resume=folder / LATEST) is True
    assert_same_checkpoint(tmp_path / "whole" / LATEST, folder / LATEST)
    assert_same_checkpoint(tmp_path / "whole" / BEST, folder / BEST)

    assert measured(folder) == measured(tmp_path / "whole")
    sample = whole.partition("A sample")[2].partition("\n\nwrote")[0]
    assert sample == capsys.readouterr().out.partition("A sample")[2].partition("\n\nwrote")[0]


def test_metrics_after_a_crash_have_each_step_once(tiny, tmp_path, monkeypatch):
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


def test_an_evaluation_before_a_kill_is_measured_once(tiny, tmp_path, monkeypatch):
    """A signal saves before an evaluation is done. The resumed run is killed between its line and its save."""
    train.train(tiny(run="whole", train__steps=12, train__sample_chars=0))
    folder, estimated = tmp_path / "run", trainer.mean_loss

    class Killed(BaseException):
        pass

    def kill(*arguments, **options):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "mean_loss", lambda model, batches: ctrl_c(None) or estimated(model, batches))
        assert train.train(tiny(train__steps=12, train__sample_chars=0)) is False
    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "take_snapshot", kill)
        with pytest.raises(Killed):
            train.train(checkpoint.load_config(folder / LATEST), resume=folder / LATEST)
    assert "val_loss" in read(folder / METRICS)[-1]
    train.train(checkpoint.load_config(folder / LATEST), resume=folder / LATEST)
    assert measured(folder) == measured(tmp_path / "whole")


def test_a_finished_run_can_take_more_steps(tiny, tmp_path):
    train.train(tiny(train__steps=10))
    folder = tmp_path / "run"
    config = checkpoint.load_config(folder / LATEST).replace({"train.steps": 20, "train.eval_interval": 4})
    assert train.train(config, resume=folder / LATEST) is True
    assert checkpoint.load(folder / LATEST).step == 20
    lines = read(folder / METRICS)
    assert [line["step"] for line in lines if "final_val_loss" in line] == [20]
    assert [line["step"] for line in lines if "val_loss" in line] == [10, 12, 16, 20]


def test_a_moved_run_resumes_in_its_new_folder(tiny, tmp_path):
    train.train(tiny(train__steps=4))
    (tmp_path / "run").rename(tmp_path / "moved")
    config = checkpoint.load_config(tmp_path / "moved" / LATEST).replace({"train.steps": 6})
    train.train(config, resume=tmp_path / "moved" / LATEST)
    assert checkpoint.load(tmp_path / "moved" / LATEST).step == 6
    assert not (tmp_path / "run").exists()


def test_a_moved_text_is_accepted(tiny, text, tmp_path):
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
    """The file was written at commit 03bb663. The run of that commit ended with the loss below."""
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
    train.train(tiny(train__steps=2, train__sample_chars=0))
    path = tmp_path / "run" / LATEST
    header, tensors = content(path)
    header["config"]["train"]["out_dir"] = str(tmp_path / "run")
    del header["crc32"]
    change(header)
    container.write(path, header, {name: tl.tensor(array) for name, array in tensors.items()})
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


def test_a_changed_text_is_an_error(tiny, text, tmp_path):
    train.train(tiny(train__steps=2, train__sample_chars=0))
    text.write_text("the " + text.read_text())
    path = tmp_path / "run" / LATEST
    with pytest.raises(ConfigError, match=r"is not the one that .* was trained on"):
        train.train(checkpoint.load_config(path), resume=path)


def test_a_run_that_began_with_carriage_returns_says_so(tiny, text, tmp_path):
    """Earlier versions kept the carriage returns of Windows."""
    old = "a\r\nb " * 300
    bpe, words = BPETokenizer.train(old, 300), tmp_path / "words.txt"
    words.write_text("a\nb " * 300)
    text.write_bytes(old.encode())
    for tokenizer, file, expected in [
        (CharTokenizer.train(old), words, True), (CharTokenizer.train(words.read_text()), text, False),
        (bpe, text, True), (bpe, words, False),
    ]:  # fmt: skip
        config = tiny(data__dataset=str(file))
        assert has_carriage_returns(config, tokenizer) is expected
        saved = types.SimpleNamespace(tokenizer=tokenizer)
        assert ("it has carriage returns, which" in str(other_text(config, saved, tmp_path))) is expected


def test_a_text_with_other_characters_is_not_the_one_of_the_run(tiny, text, tmp_path):
    train.train(tiny(train__steps=2, train__sample_chars=0))
    text.write_text("XYZ" + text.read_text())
    path = tmp_path / "run" / LATEST
    with pytest.raises(ConfigError, match=r"is not the one that .* was trained on: restore that text"):
        train.train(checkpoint.load_config(path), resume=path)


def test_resuming_does_not_overwrite_a_later_checkpoint(tiny, tmp_path):
    train.train(tiny(train__steps=2, train__sample_chars=0))
    path = tmp_path / "run" / BEST
    with pytest.raises(ConfigError, match=f"would overwrite {LATEST} in the same folder"):
        train.train(checkpoint.load_config(path).replace({"train.steps": 3}), resume=path)
