"""Test runs in mixed precision: `train.dtype` bfloat16, and float16 with a scaler."""


import numpy as np
import pytest

pytest.importorskip("platformdirs")
pytest.importorskip("safetensors")
pytest.importorskip("tqdm")
pytest.importorskip("ml_dtypes")
import tensorlite as tl
from gpt import checkpoint, train
from gpt.config import ConfigError
from gpt.model import GPT
from gpt.runs import LATEST, METRICS, read
from gpt.train import TrainingError, profile, start
from tensorlite.backends import mixed_precision
from tests.gpt.small_runs import assert_same_checkpoint, at_step, ctrl_c

pytestmark = pytest.mark.usefixtures("default_ctrl_c")


@pytest.fixture(autouse=True)
def bfloat16_products(monkeypatch):
    """Let autocast compute in bfloat16 on every processor."""
    monkeypatch.setattr(mixed_precision, "has_bfloat16_products", lambda: True)


def test_a_run_in_bfloat16_has_float32_weights_and_learns_as_much(tiny, tmp_path, capsys):
    losses = {}
    for dtype in ("float32", "bfloat16"):
        trainer = start(tiny(run=dtype, train__dtype=dtype, train__steps=60))
        steps = [trainer.train_step()[0].item() for _ in range(60)]
        losses[dtype] = np.mean(steps[-10:])
        assert steps[0] - losses[dtype] > 0.5
        assert {p.dtype for p in trainer.parameters} == {tl.dtypes.float32}
        assert {p.grad.dtype for p in trainer.parameters} == {tl.dtypes.float32}
        assert {t.dtype for s in trainer.optimizer.state.values() for t in s.values() if isinstance(t, tl.Tensor)} == {
            tl.dtypes.float32
        }
    assert losses["float32"] != losses["bfloat16"]
    assert abs(losses["float32"] - losses["bfloat16"]) < 0.05


def test_forward_passes_and_evaluations_are_inside_autocast(tiny, tmp_path, capsys, monkeypatch):
    seen, forward = [], GPT.forward

    def watched(self, *args, **kwargs):
        seen.append((self.training, tl.is_autocast_enabled("cpu"), tl.is_grad_enabled()))
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(GPT, "forward", watched)
    assert train.train(tiny(train__dtype="bfloat16", train__sample_chars=0)) is True
    assert {(training, on) for training, on, _ in seen} == {(True, True), (False, True)}
    assert "(bfloat16, parameters float32, cpu)" in capsys.readouterr().out
    saved = checkpoint.load(tmp_path / "run" / LATEST, training=True)
    assert saved.config.train.dtype == "bfloat16"
    assert {p.dtype for p in saved.model.parameters()} == {tl.dtypes.float32}


def test_a_resumed_run_equals_an_uninterrupted_one(tiny, tmp_path, monkeypatch, capsys):
    options = {"model__dropout": 0.2, "train__grad_accum": 2, "train__dtype": "bfloat16", "train__sample_chars": 0}
    assert train.train(tiny(run="whole", **options)) is True
    with monkeypatch.context() as patch:
        at_step(patch, 13, ctrl_c)
        assert train.train(tiny(run="broken", **options)) is False
    path = tmp_path / "broken" / LATEST
    assert train.train(checkpoint.load_config(path), resume=path) is True
    assert_same_checkpoint(tmp_path / "whole" / LATEST, path)


def test_a_run_may_resume_in_another_dtype_of_products(tiny, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        at_step(patch, 10, ctrl_c)
        assert train.train(tiny(train__sample_chars=0)) is False
    path = tmp_path / "run" / LATEST
    for dtype in ("bfloat16", "float32"):
        config = checkpoint.load_config(path).replace({"train.dtype": dtype})
        assert start_resumed(config, path).config.train.dtype == dtype
    with pytest.raises(ConfigError, match=r"train\.dtype = 'float64' instead of 'float32'"):
        start_resumed(checkpoint.load_config(path).replace({"train.dtype": "float64"}), path)
    assert train.train(checkpoint.load_config(path).replace({"train.dtype": "bfloat16"}), resume=path) is True


def start_resumed(config, path):
    return train.resume(config, path)


def test_profile_names_the_ops(tiny):
    assert "linear" in profile(tiny(train__dtype="bfloat16"), steps=1, warmup=1)


def test_float16_needs_a_gpu(tiny):
    for make in (start, profile):
        with pytest.raises(ConfigError, match=r"train\.dtype = 'float16' needs a GPU"):
            make(tiny(train__dtype="float16"))


def test_float16_trains_with_a_scaler(tiny, tmp_path, monkeypatch, capsys):
    """The check for a GPU is left out, because float16 computes the same on the CPU, only slowly."""
    monkeypatch.setattr("gpt.train.setup.check_precision", lambda config: None)
    trainer = start(tiny(train__dtype="float16", train__steps=12, train__sample_chars=0))
    assert trainer.scaler.is_enabled()
    before = [p.detach().clone() for p in trainer.parameters]
    trainer.scaler.update = lambda: None  # so that the large factor stays
    trainer.scaler.load_state_dict({**trainer.scaler.state_dict(), "scale": 2.0**40})
    loss, norm = trainer.train_step()
    assert np.isfinite(loss.item())
    assert not np.isfinite(norm.item())
    for old, p in zip(before, trainer.parameters, strict=True):
        assert np.array_equal(old.numpy(), p.detach().numpy())
    del trainer.scaler.update
    trainer.scaler.update()
    trainer.scaler.load_state_dict({**trainer.scaler.state_dict(), "scale": 1024.0})
    assert trainer.optimize()
    lines = [line for line in read(tmp_path / "run" / METRICS) if "grad_norm" in line]
    assert lines
    assert all(np.isfinite(line["grad_norm"]) for line in lines)
    state = checkpoint.load(tmp_path / "run" / LATEST, training=True).state
    assert state["scaler"]["scale"] == 1024.0
    again = start_resumed(checkpoint.load_config(tmp_path / "run" / LATEST), tmp_path / "run" / LATEST)
    assert again.scaler.state_dict() == trainer.scaler.state_dict()


def test_a_factor_below_1_is_a_divergence(tiny, monkeypatch):
    monkeypatch.setattr("gpt.train.setup.check_precision", lambda config: None)
    trainer = start(tiny(train__dtype="float16"))
    trainer.scaler.load_state_dict({**trainer.scaler.state_dict(), "scale": 0.5})
    with pytest.raises(TrainingError, match=r"the factor of the loss fell to 0\.5"):
        trainer.check()
