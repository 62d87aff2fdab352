"""Optimizers, a GPT's training and its generation give on every device what they give on the CPU."""

import dataclasses
import itertools
import math

import numpy as np
import pytest

import tensorlite as tl
import tensorlite.nn.functional as F
from gpt.config import ModelConfig
from gpt.generation import SamplingConfig, generate
from gpt.model import GPT, KVCache
from gpt.train import configure_optimizer
from tensorlite import nn, optim
from tensorlite.testing import strict
from tests.support.devices import difference, numpy, on
from tests.support.training_run import MODEL, OPTIM, STEPS, Run, batches, curve

# ---- optimizers -----------------------------------------------------------------------------

OPTIMIZERS = {
    "SGD": lambda p: optim.SGD(p, 0.1),
    "SGD, all options": lambda p: optim.SGD(p, 0.1, 0.9, 0.2, 0.1, maximize=True),
    "SGD, Nesterov": lambda p: optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
    "Adam": lambda p: optim.Adam(p, 0.01),
    "Adam, all options": lambda p: optim.Adam(p, 0.01, (0.8, 0.95), 1e-6, 0.1, maximize=True),
    "AdamW": lambda p: optim.AdamW(p, 0.01),
    "RMSprop": lambda p: optim.RMSprop(p, 0.01, weight_decay=0.1, momentum=0.5, centered=True),
    "Adagrad": lambda p: optim.Adagrad(p, 0.01, initial_accumulator_value=0.1),
    "Lion": lambda p: optim.Lion(p, 0.01, weight_decay=0.1),
    "Muon": lambda p: optim.Muon([x for x in p if x.ndim == 2], 0.01),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_agrees_with_the_cpu(name, other_device):
    """Ten steps with each kind of clipping, a schedule, and a state that is saved and loaded after five."""

    def run(where):
        tl.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double().to(where)
        parameters = list(model.parameters())
        optimizer = OPTIMIZERS[name](parameters)
        schedule = optim.lr_scheduler.CosineWithWarmup(optimizer, 3, 10)
        norms = []
        for step in range(10):
            optimizer.zero_grad()
            F.mse_loss(model(on(5, 3, seed=step, device=where)), on(5, 2, seed=-step % 7, device=where)).backward()
            norms.append(nn.utils.clip_grad_norm_(parameters, 0.3, (1.0, 2.0, 3.0, math.inf)[step % 4]))
            nn.utils.clip_grad_value_(parameters, 0.2)
            optimizer.step()
            schedule.step()
            if step == 4:
                state, optimizer = optimizer.state_dict(), OPTIMIZERS[name](parameters)
                optimizer.load_state_dict(state)
                schedule = optim.lr_scheduler.CosineWithWarmup(optimizer, 3, 10, last_epoch=4)
        return [*parameters, *norms]

    with strict.forbid_syncs() as log:
        found = run(other_device)
    assert log == []
    for a, b in zip(found, run(tl.device("cpu")), strict=True):
        np.testing.assert_allclose(numpy(a), numpy(b), rtol=1e-10, atol=1e-12)


# ---- a GPT ----------------------------------------------------------------------------------


def test_training_gives_the_same_losses(device):
    found = curve(Run.start(device).train(batches(STEPS)))
    expected = curve(Run.start(tl.device("cpu")).train(batches(STEPS)))
    assert found[-1] < 0.6 * found[0]
    assert difference(found, expected) <= 1e-4


@pytest.mark.parametrize("options", [{}, {"dropout": 0.1, "gelu": "tanh"}, {"bias": True, "position": "sinusoidal"}])
def test_a_training_step_does_not_wait(options):
    """Forward, backward, clipping, AdamW and zero_grad have no sync, each on its own."""
    tl.manual_seed(0)
    config = {"vocab_size": 16, "block_size": 8, "n_layer": 2, "n_head": 2, "n_embd": 16}
    model = GPT(ModelConfig(**config, **options)).to("strict")
    optimizer = configure_optimizer(model, OPTIM)
    schedule = optim.lr_scheduler.CosineWithWarmup(optimizer, 2, 10)
    syncs = {}
    for x, y in batches(3):
        with strict.count_syncs() as syncs["batch"]:
            x, y = tl.tensor(x, device="strict"), tl.tensor(y, device="strict")
        with strict.count_syncs() as syncs["forward"]:
            _, loss = model(x, y)
        with strict.count_syncs() as syncs["backward"]:
            loss.backward()
        with strict.count_syncs() as syncs["clip"]:
            norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        with strict.count_syncs() as syncs["step"]:
            optimizer.step()
            schedule.step()
        with strict.count_syncs() as syncs["zero_grad"]:
            optimizer.zero_grad(set_to_none=False)
            optimizer.zero_grad()
        assert {piece: log.kinds for piece, log in syncs.items()} == {piece: [] for piece in syncs}
        with strict.count_syncs() as log:
            assert math.isfinite(loss.item())
            assert norm.item() > 0
        assert log.kinds == ["item", "item"]


@pytest.mark.parametrize(("temperature", "top_k"), [(0.0, None), (1.0, None), (0.8, 3)])
def test_a_token_waits_once(temperature, top_k):
    """A token has one sync, to move its logits to the host, also beyond the block size."""
    tl.manual_seed(0)
    model = GPT(MODEL).to("strict")
    sampling = SamplingConfig(temperature=temperature, top_k=top_k, seed=1)
    with strict.forbid_syncs(allow=["to_numpy"]) as log:
        tokens = list(generate(model, [1, 2], 12, sampling))
    assert len(tokens) == 12
    assert len(log) == 12
    expected = list(generate(model.to("cpu"), [1, 2], 12, sampling))
    assert tokens == expected


@pytest.mark.parametrize("position", ["learned", "sinusoidal"])
def test_reading_with_a_cache_does_not_wait(position, other_device):
    """Chunks of several tokens and of one give the logits of the CPU."""
    tl.manual_seed(0)
    config = ModelConfig(vocab_size=4, block_size=8, n_layer=2, n_head=2, n_embd=8, position=position)
    model = GPT(config).double()
    ids = np.array([[1, 0, 3, 3, 2, 0], [2, 2, 1, 0, 1, 3]])
    expected = numpy(model(tl.tensor(ids))[0])
    model.to(other_device)
    cache = KVCache(model, 2)
    assert {t.device.type for t in (*cache.keys, *cache.values)} == {other_device.type}
    with strict.forbid_syncs() as log, tl.no_grad():
        pieces = [tl.tensor(part, device=other_device) for part in np.split(ids, [2, 3, 5], axis=1)]
        found = tl.cat([model(piece, cache=cache)[0] for piece in pieces], dim=1)
    assert log == []
    np.testing.assert_allclose(numpy(found), expected, rtol=0, atol=1e-12)


def test_training_with_dropout_repeats(other_device):
    """The same seed gives the same losses, and the model learns."""
    config = dataclasses.replace(MODEL, dropout=0.1)
    first, second = (curve(Run.start(other_device, config).train(batches(STEPS))) for _ in range(2))
    assert first[-1] < 0.7 * first[0]
    assert difference(first, second) <= 1e-4


def test_a_resumed_run_gives_the_losses_of_one_that_went_on(other_device):
    expected = curve(Run.start(other_device).train(batches(20)))
    data = batches(20)
    before = Run.start(other_device)
    found = curve(before.train(itertools.islice(data, 10)))
    after = Run.start(other_device)
    after.train(batches(3))  # other weights, until the state is loaded
    weights = {name: value.cpu() for name, value in before.model.state_dict().items()}
    after.model.load_state_dict({name: value.to(other_device) for name, value in weights.items()})
    after.optimizer.load_state_dict(before.optimizer.state_dict())
    after.schedule.load_state_dict(before.schedule.state_dict())
    assert difference(found + curve(after.train(data)), expected) <= 1e-4


@pytest.fixture(scope="module")
def trained():
    run = Run.start(tl.device("cpu"))
    run.train(batches(STEPS))
    return run.model


@pytest.mark.parametrize(("temperature", "top_k"), [(0.0, None), (1.0, None), (0.8, 3)])
def test_a_trained_model_writes_the_same_text(temperature, top_k, other_device, trained):
    sampling = SamplingConfig(temperature=temperature, top_k=top_k, seed=7)
    texts = [
        list(generate(trained.to(where), [1, 2, 3], 40, sampling))
        for where in (other_device, tl.device("cpu"))
    ]
    assert texts[0] == texts[1]
