"""The switch that makes results the same with every number of threads."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tensorlite as tl
from tensorlite import nn, optim
from tensorlite.backends.cpu import compiled_sums, kernels, thread_pool
from tensorlite.nn import functional as F

ROOT = Path(__file__).parents[2]
THREADS = (1, 2, 3, 5, 11)


@pytest.fixture(autouse=True)
def restore(monkeypatch):
    monkeypatch.setattr(thread_pool, "_num_threads", 2)
    yield
    tl.use_deterministic_algorithms(False)


@pytest.fixture(params=["numba", "numpy"])
def compiled(request, monkeypatch):
    """Run a test with compiled loops and without."""
    if request.param == "numba":
        pytest.importorskip("tensorlite.compiled", exc_type=ImportError)
    else:
        monkeypatch.setattr(kernels, "_compiled_kernels", lambda: None)
        monkeypatch.setattr(kernels, "find_compiled", lambda: None)
        monkeypatch.setattr(compiled_sums, "load_sums", lambda: None)


def train():
    """Return a hash of the weights after three steps of a model that uses every kernel."""
    rng = np.random.default_rng(0)
    tl.manual_seed(0)
    layers = [nn.Linear(96, 288), nn.LayerNorm(96), nn.Linear(96, 500), nn.Embedding(50, 96)]
    parameters = [p for layer in layers for p in layer.parameters()]
    optimizer = optim.AdamW(parameters, 1e-2)
    for _ in range(3):
        ids = tl.tensor(rng.integers(0, 50, (4, 101)))
        x = layers[1](layers[3](ids))
        q, k, v = (layers[0](x)[..., 96 * i : 96 * (i + 1)].unflatten(-1, (3, 32)).transpose(1, 2) for i in range(3))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        loss = F.cross_entropy(layers[2](F.gelu(x + y)).flatten(0, 1), ids.flatten()) + (x @ x.mT).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return hashlib.sha256(b"".join(p.array.tobytes() for p in parameters)).hexdigest()


@pytest.mark.usefixtures("compiled")
def test_the_number_of_threads_does_not_change_a_bit():
    tl.use_deterministic_algorithms(True)
    assert tl.are_deterministic_algorithms_enabled()
    hashes = set()
    for n in THREADS:
        tl.set_num_threads(n)
        hashes |= {train(), train()}
    assert len(hashes) == 1


def test_it_can_be_turned_off():
    tl.use_deterministic_algorithms(True)
    tl.set_num_threads(3)
    train()
    tl.use_deterministic_algorithms(False)
    assert not tl.are_deterministic_algorithms_enabled()
    chunks = []
    thread_pool.parallel_for(lambda start, stop: chunks.append((start, stop)), 30)
    assert sorted(chunks) == [(0, 10), (10, 20), (20, 30)]
    tl.use_deterministic_algorithms(True)
    chunks.clear()
    thread_pool.parallel_for(lambda start, stop: chunks.append((start, stop)), 32)
    assert sorted(chunks) == [(i, i + 4) for i in range(0, 32, 4)]
    with pytest.raises(TypeError, match="use_deterministic_algorithms: expected a bool, got 1"):
        tl.use_deterministic_algorithms(1)


@pytest.mark.parametrize(("value", "expected"), [("1", "True"), ("0", "False"), ("", "False")])
def test_the_environment_variable(value, expected):
    code = "import tensorlite as tl; print(tl.are_deterministic_algorithms_enabled())"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TENSORLITE_DETERMINISTIC": value}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected
