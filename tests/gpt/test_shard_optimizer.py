"""Test `train.shard_optimizer` on ranks that are threads: shares of the state give the bits of the whole."""

import json

import pytest

pytest.importorskip("platformdirs")
pytest.importorskip("safetensors")
pytest.importorskip("tqdm")
import tensorlite.distributed as dist
from gpt import checkpoint, train
from gpt.runs import LATEST, METRICS, read
from gpt.train import report
from tests.gpt.small_runs import at_step, content, measured
from tests.gpt.test_ranks import one_model_at_a_time, run_on  # noqa: F401 - The first one is a fixture.

SHORT = {"train__steps": 12, "train__eval_interval": 6, "train__batch_size": 12}


def assert_same_run(sharded, plain):
    """Compare the folders of two runs, except for the option itself."""
    (header, tensors), (expected, arrays) = content(sharded / LATEST), content(plain / LATEST)
    for values in (header, expected):
        del values["config"]["train"]["shard_optimizer"]
    assert json.dumps(header) == json.dumps(expected)
    assert list(tensors) == list(arrays)
    assert any(name.startswith("optimizer.") for name in arrays)
    for name, array in arrays.items():
        assert tensors[name].tobytes() == array.tobytes(), name
    assert measured(sharded) == measured(plain)


@pytest.mark.parametrize(
    ("size", "options"),
    [
        (2, {"train__log_layers": 4, "train__save_in_background": False}),
        (3, {"optim__optimizer": "muon", "train__grad_accum": 2, "train__ema_decay": 0.9}),
        (4, {"train__dtype": "float16", "optim__grad_clip": 0.01}),
        (2, {"train__steps": 25, "train__on_spike": "lower", "train__spike_factor": 1e-3}),
        (2, {"train__steps": 25, "train__on_spike": "skip", "train__spike_factor": 1e-3}),
    ],
)
def test_a_run_has_the_bits_of_one_with_whole_states(tiny, tmp_path, monkeypatch, size, options):
    monkeypatch.setattr("gpt.train.precision.SLOW_IN_FLOAT16", ())
    options = {**SHORT, **options}
    sharded = run_on(size, tiny("sharded", train__shard_optimizer=True, **options))
    plain = run_on(size, tiny("plain", **options))
    assert sharded[0] is plain[0] is True
    assert [a.tobytes() for a in sharded[1]] == [b.tobytes() for b in plain[1]]
    assert_same_run(tmp_path / "sharded", tmp_path / "plain")
    if "train__on_spike" in options:
        spikes = [line for line in read(tmp_path / "sharded" / METRICS) if "spike" in line]
        assert spikes


def test_each_rank_keeps_a_share(tiny, monkeypatch):
    monkeypatch.setattr("gpt.train.trainer.can_compile", lambda *arguments: True)

    def run(group):
        trainer = train.start(tiny(train__shard_optimizer=True, **SHORT), None, None, group)
        assert ("and the state of the optimizer" in report.about_ranks(trainer)) == (group.size > 1)
        trainer.train_step()
        numbers = [i for i, p in enumerate(trainer.parameters) if p in trainer.optimizer.state]
        assert (trainer.compiled is None) == (group.size > 1)
        trainer.agree_on_step()
        if group.rank == 0:  # What was collected is a copy already, which a save in the background need not copy.
            shared = {name.partition(".")[0] for name in trainer.take_snapshot().shared}
            assert shared == ({"model"} if group.size > 1 else {"model", "optimizer"})
        return numbers, len(trainer.parameters)

    alone, count = dist.run_ranks(run, 1)[0]
    assert alone == list(range(count))
    shares = [numbers for numbers, _ in dist.run_ranks(run, 3)]
    assert all(shares)
    assert sorted(number for share in shares for number in share) == alone


def test_a_stopped_run_goes_on_with_fewer_ranks_with_and_without_shares(tiny, tmp_path, monkeypatch):
    """Ranks: 4, 2, 1. The run whose state is divided at times has the bits of the one whose state never is."""

    def ask(run):
        run.ranks.asked = True

    def train_in_parts(name, divided):
        config = tiny(name, train__shard_optimizer=divided[0], **SHORT)
        path = tmp_path / name / LATEST
        for size, stop, shard in zip((4, 2, 1), (4, 8, None), divided, strict=True):
            with monkeypatch.context() as patch:
                if stop is not None:
                    at_step(patch, stop, ask)
                if path.exists():
                    config = checkpoint.load_config(path).replace({"train.shard_optimizer": shard})
                done, weights = run_on(size, config, path if path.exists() else None)
                assert done is (stop is None)
        return weights

    plain = train_in_parts("plain", (False, False, False))
    for name, divided in {"a": (True, True, False), "b": (False, True, True)}.items():
        weights = train_in_parts(name, divided)
        assert [a.tobytes() for a in weights] == [b.tobytes() for b in plain]
        assert_same_run(tmp_path / name, tmp_path / "plain")


def test_low_rank_matrices(tiny, tmp_path):
    """Each rank has the whole base, and the state of a share of the matrices that are trained."""
    run_on(1, tiny("base", train__steps=2))
    base = tmp_path / "base" / LATEST

    def run_with(name, **more):
        config = tiny(name, lora__rank=2, **SHORT, **more)

        def run(group):
            trainer = train.start(config, None, base, group)
            assert trainer.optimize()
            return len(trainer.optimizer.state), len(trainer.parameters)

        return dist.run_ranks(run, 2, timeout=60)

    assert all(kept == count for kept, count in run_with("plain"))
    shares = run_with("sharded", train__shard_optimizer=True)
    assert sum(kept for kept, _ in shares) == shares[0][1]
    assert_same_run(tmp_path / "sharded", tmp_path / "plain")


def test_a_checkpoint_without_a_state_is_damage_on_each_rank(tiny, tmp_path):
    run_on(2, tiny("run", train__shard_optimizer=True, **SHORT))
    path = tmp_path / "run" / LATEST

    def load(group):
        saved = checkpoint.load(path, training=True)
        trainer = train.resume(saved.config, path, group)
        del saved.optimizer["state"][0]
        with pytest.raises(ValueError, match="optimizer: a parameter has no state"):
            trainer.load_state(saved)
        return True

    assert dist.run_ranks(load, 2) == [True, True]
