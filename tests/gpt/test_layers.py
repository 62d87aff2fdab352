"""Test the records of gradients, updates and activations by layer, and the picture of them."""

import json

import numpy as np
import pytest

pytest.importorskip("click")
pytest.importorskip("platformdirs")
pytest.importorskip("safetensors")
pytest.importorskip("tqdm")
from click.testing import CliRunner

import tensorlite as tl
from gpt import checkpoint, train
from gpt.cli import main
from gpt.inspect import PictureError, plot_gradients
from gpt.runs import LATEST, LAYERS, METRICS, RunFolder, read
from gpt.train import layers, start
from tests.gpt.small_runs import at_step, ctrl_c, measured

pytestmark = pytest.mark.usefixtures("default_ctrl_c")
GROUPS = ["wte", "wpe", "h.0.attn", "h.0.mlp", "h.1.attn", "h.1.mlp", "ln_f"]


def test_a_record_has_the_norms_and_activations_of_the_step(tiny, tmp_path, monkeypatch):
    """Compare with NumPy, on a step whose gradient is clipped."""
    trainer = start(tiny(train__log_layers=2, optim__grad_clip=0.01, model__dropout=0.0, train__grad_accum=2))
    trainer.train_step()
    model = trainer.model
    before = {name: p.detach().numpy().copy() for name, p in model.named_parameters()}
    outputs = {}
    for i, block in enumerate(model.h):
        block.register_forward_hook(lambda block, args, x, i=i: outputs.update({f"h.{i}": x.detach().numpy().copy()}))
    found = {}
    clip = tl.nn.utils.clip_grad_norm_

    def clip_and_look(parameters, norm):
        found.update({name: p.grad.numpy().copy() for name, p in model.named_parameters()})
        return clip(parameters, norm)

    monkeypatch.setattr("tensorlite.nn.utils.clip_grad_norm_", clip_and_look)
    trainer.train_step()
    trainer.layers.flush()
    first, line = read(tmp_path / "run" / LAYERS)
    assert (first["step"], line["step"]) == (1, 2)
    assert list(line["gradient"]) == list(line["update"]) == GROUPS

    def whole(values, group):
        return np.concatenate([v.ravel() for name, v in values.items() if layers.group_of(name) == group])

    after = {name: p.detach().numpy() for name, p in model.named_parameters()}
    for group in GROUPS:
        assert line["gradient"][group] == pytest.approx(np.linalg.norm(whole(found, group)), rel=1e-5)
        old, new = whole(before, group), whole(after, group)
        assert line["update"][group] == pytest.approx(np.linalg.norm(new - old) / np.linalg.norm(old), rel=1e-3)
    for name, x in outputs.items():
        assert line["mean"][name] == pytest.approx(x.mean(), abs=1e-6)
        assert line["std"][name] == pytest.approx(x.std(), rel=1e-5)
    assert list(line["std"]) == ["embedding", "h.0", "h.1"]


def test_the_update_of_a_large_parameter_is_that_of_a_sample(monkeypatch):
    monkeypatch.setattr(layers, "SAMPLE", 10)
    assert layers.sample(tl.arange(95.0)).tolist() == [0, 10, 20, 30, 40, 50, 60, 70, 80, 90]
    assert layers.sample(tl.arange(10.0)).tolist() == list(range(10))


def test_values_that_are_not_finite_are_null(tiny, tmp_path):
    trainer = start(tiny())
    trainer.model.ln_f.weight.array[:] = np.inf
    with np.errstate(all="ignore"):
        trainer.train_step()
    trainer.layers.flush()
    text = (tmp_path / "run" / LAYERS).read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    line = json.loads(text)
    assert line["gradient"]["wte"] is None
    assert line["std"]["h.1"] > 0


def test_recording_changes_nothing_else(tiny, tmp_path):
    for name, interval in (("with", 1), ("without", 0)):
        train.train(tiny(name, train__log_layers=interval, model__dropout=0.2, train__sample_chars=0))
    assert measured(tmp_path / "with") == measured(tmp_path / "without")
    assert [line["step"] for line in read(tmp_path / "with" / LAYERS)] == list(range(1, 31))
    assert not (tmp_path / "without" / LAYERS).exists()


def test_a_resumed_run_records_what_the_whole_run_does(tiny, tmp_path, monkeypatch):
    options = {"train__log_layers": 4, "train__sample_chars": 0, "train__steps": 20}
    train.train(tiny("whole", **options))
    config = tiny("parts", **options)
    with monkeypatch.context() as patch:
        at_step(patch, 9, ctrl_c)
        assert train.train(config) is False
    path = config.run_dir / LAYERS
    path.write_text(path.read_text() + '{"step": 12, "gradient": {}}\n{"step": 16, "gra')  # A killed process left it.
    latest = config.run_dir / LATEST
    assert train.train(checkpoint.load_config(latest), resume=latest)
    assert read(path) == read(tmp_path / "whole" / LAYERS)
    assert [line["step"] for line in read(path)] == [1, 4, 8, 12, 16, 20]


def test_a_second_run_archives_the_records(tiny, tmp_path):
    for seed in (1, 2):
        train.train(tiny(train__steps=2, train__sample_chars=0, train__seed=seed))
    archived = tmp_path / "run" / "earlier-1" / LAYERS
    assert read(archived) != read(tmp_path / "run" / LAYERS)
    assert [line["step"] for line in read(archived)] == [1, 2]


def test_a_checkpoint_without_the_option_still_loads(tiny, monkeypatch):
    trainer = start(tiny(train__steps=2))
    values = trainer.config.to_dict()
    del values["train"]["log_layers"]
    monkeypatch.setattr(type(trainer.config), "to_dict", lambda self: values)
    trainer.save(LATEST)
    monkeypatch.undo()
    assert checkpoint.load_config(trainer.folder.latest).train.log_layers == 50


def test_low_rank_adaptation_records_what_it_trains(tiny, tmp_path):
    train.train(tiny("base", train__steps=1, train__sample_chars=0))
    config = tiny("lora", train__steps=2, lora__rank=2, train__sample_chars=0)
    train.train(config, init_from=str(tmp_path / "base"))
    first, last = read(tmp_path / "lora" / LAYERS)
    assert list(last["update"]) == ["h.0.attn", "h.0.mlp", "h.1.attn", "h.1.mlp"]
    assert 0 < last["update"]["h.0.attn"] < 1
    assert first["gradient"]["h.0.attn"] > 0


def test_the_picture(tiny, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    train.train(tiny("runs/one", name="one", train__log_layers=10, train__sample_chars=0))
    recorded = read(tmp_path / "runs" / "one" / LAYERS)
    with (tmp_path / "runs" / "one" / LAYERS).open("a") as file:
        file.write('{"step": 40, "gradient": {"wte": null, "ln_f": "x"}, "update": 3}\n')
    figure = plot_gradients(tmp_path / "runs" / "one")
    gradient, update, std, mean = figure.axes
    assert [line.get_label() for line in gradient.lines] == GROUPS
    assert list(gradient.lines[2].get_xdata()) == [1, 10, 20, 30]
    assert list(update.lines[2].get_ydata()) == [line["update"]["h.0.attn"] for line in recorded]
    assert [line.get_label() for line in std.lines] == ["embedding", "h.0", "h.1"]
    assert (gradient.get_yscale(), mean.get_yscale()) == ("log", "linear")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["gradients", "one"])
    assert (done.exit_code, done.stdout) == (0, "wrote gradients.png\n")
    assert CliRunner().invoke(main, ["gradients", "--out", "g.svg"]).stderr == "run runs/one\n"


def test_runs_without_a_record(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "old"
    with RunFolder(folder).lock():
        RunFolder(folder).metrics.write(step=1, loss=2.0)
    with pytest.raises(PictureError, match=r"has no layers\.jsonl: .* Train with --log-layers 50"):
        plot_gradients(folder)
    (tmp_path / "runs" / "damaged").mkdir()
    (tmp_path / "runs" / "damaged" / LAYERS).write_text('{"step": 1, "gradient": 3, "mean": {"h.0": null}}\n')
    with pytest.raises(PictureError, match=r"layers\.jsonl' has no number that can be drawn"):
        plot_gradients(tmp_path / "runs" / "damaged")
    for arguments, words in (
        (["old"], "'runs/old' has no layers.jsonl"),
        (["runs"], "'runs/old' has no layers.jsonl"),
        (["nowhere"], "there is no folder 'nowhere'"),
        (["old", "--out", METRICS], "expected a name that ends in .png or .svg"),
    ):
        result = CliRunner().invoke(main, ["gradients", *arguments])
        assert result.exit_code == 2
        assert words in result.stderr
