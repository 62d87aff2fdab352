"""Print a hash of the results of every compiled kernel, of a training run and of the same run resumed half way.

``python -m tests.support.compiled_bits FOLDER``: the first process that runs with a FOLDER saves the state of the half
way there; it and the later ones resume from it.
"""

import hashlib
import os
import pickle
import sys
from pathlib import Path

import numpy as np

import tensorlite as tl
from gpt.config.sections import ModelConfig
from gpt.generation import SamplingConfig, generate
from gpt.model import KVCache, compiled_reader
from gpt.model.gpt import GPT
from gpt.model.quantized import quantize_model
from tensorlite import optim
from tensorlite.backends.cpu import products as cpu_products
from tensorlite.backends.cpu.compiled import (
    attention,
    bfloats,
    channel_kernels,
    function_kernels,
    gemm,
    index_kernels,
    kernels,
    quantized_kernels,
    row_kernels,
    sum_kernels,
)
from tensorlite.backends.cpu.compiled.machine_code import MachineCodeCache
from tensorlite.nn import functional as F

f32 = np.float32
rng = np.random.default_rng(0)


def show(name: str, *tensors: tl.Tensor) -> None:
    """Print the name and a hash of the tensors' bytes."""
    print(name, hashlib.sha256(b"".join(t.array.tobytes() for t in tensors)).hexdigest()[:16])


def random(*shape: int) -> tl.Tensor:
    """Return normal random numbers, float32, that need a gradient."""
    return tl.tensor(rng.standard_normal(shape).astype(f32), requires_grad=True)


def show_op(name, op, *inputs):
    """Show the result of an op and the gradients of its inputs."""
    y = op(*inputs)
    y.backward(tl.tensor(rng.standard_normal(y.shape).astype(f32)))
    show(name, y, *(x.grad for x in inputs))


def show_ops() -> None:
    """Show each op that has a compiled kernel, at widths with and without a rest of the vector loop."""
    for n in (64, 1003):
        target = tl.tensor(rng.integers(0, n, 64))
        show_op(f"gelu {n}", F.gelu, random(64, n))
        show_op(f"gelu tanh {n}", lambda x: F.gelu(x, approximate="tanh"), random(64, n))
        show_op(f"silu {n}", F.silu, random(64, n))
        show_op(f"softmax {n}", lambda x: F.softmax(x, -1), random(64, n))
        show_op(
            f"layer_norm {n}", lambda x, w, b, n=n: F.layer_norm(x, (n,), w, b), random(64, n), random(n), random(n)
        )
        normalize = lambda x, w, b: F.batch_norm(x, None, None, w, b, True)
        show_op(f"batch_norm {n}", normalize, random(4, 5, n), random(5), random(5))
        show_op(f"batch_norm of vectors {n}", normalize, random(64, n), random(n), random(n))
        show_op(f"group_norm {n}", lambda x: F.group_norm(x, 2), random(4, 6, n))
        show_op(f"cross_entropy {n}", lambda x, t=target: F.cross_entropy(x, t, label_smoothing=0.1), random(64, n))
        show_op(f"bias {n}", lambda x, b: x + b, random(300, n), random(n))
        show_op(f"embedding {n}", lambda w, t=target: F.embedding(t, w), random(n, n))
        show_op(f"cumsum {n}", lambda x: x.cumsum(1), random(30, n))
        show_op(f"cumsum of columns {n}", lambda x: x.cumsum(0), random(300, n))
        show_op(f"sigmoid {n}", tl.sigmoid, random(64, n))
        show_op(f"erf {n}", tl.erf, random(64, n))
        show_op(f"logaddexp {n}", tl.logaddexp, random(64, n), random(64, n))
        show_op(f"fmod {n}", lambda x: tl.fmod(x, 0.3), random(64, n))
        places = tl.tensor(rng.integers(0, n, (30, n)))
        show_op(f"gather {n}", lambda x, t=places: x.gather(1, t), random(30, n))
        show_op(f"index_add {n}", lambda x, y, t=places[0]: x.index_add(1, t, y), random(30, n), random(30, n))
        order = tl.tensor(rng.permuted(np.tile(np.arange(n), (30, 1)), axis=1))
        show_op(f"scatter {n}", lambda x, y, t=order: x.scatter(1, t, y), random(30, n), random(30, n))
        show_op(f"max_pool1d {n}", lambda x: F.max_pool1d(x, 3), random(2, 30, n))
        show_op(f"var {n}", lambda x: x.var(1), random(64, n))
        show_op(f"norm {n}", lambda x: x.norm(dim=1), random(64, n))
        for causal in (False, True):
            attend = lambda q, k, v, c=causal: F.scaled_dot_product_attention(q, k, v, is_causal=c)
            show_op(f"attention {n} {causal}", attend, *(random(1, 2, n // 4, 24) for _ in range(3)))
            narrow = lambda q, k, v, f=attend: f(*(x.to(tl.bfloat16) for x in (q, k, v))).to(tl.float32)
            show_op(f"attention of bfloat16 {n} {causal}", narrow, *(random(1, 2, n // 4, 24) for _ in range(3)))
            few = (random(4, 16, length, 8) for length in (4, n, n))  # of so few queries, with BLAS
            show_op(f"attention of few queries {n} {causal}", attend, *few)
    show_op("matmul", lambda a, b: a @ b, random(300, 200), random(200, 100))
    for amx in ("0", "1"):  # where the processor has no AMX, both are the same
        os.environ["TENSORLITE_AMX"] = amx
        for cached in (cpu_products.has_amx_products, cpu_products._plan):
            cached.cache_clear()
        show("matmul of bfloat16", random(300, 200).to(tl.bfloat16) @ random(200, 100).to(tl.bfloat16))
    show_op("a row times a matrix", lambda a, b: a @ b.T, random(1, 2000), random(1000, 2000))
    x, weight, y = (random(*shape).array for shape in ((100,), (50, 100), (50,)))
    row_kernels.linear(0, x, weight, None, y)
    row_kernels.layer_norm(x, x.copy(), None, 1e-5, x)
    row_kernels.gelu(x, True)
    q, keys, values, scores, out = (random(*shape).array for shape in ((2, 8), (2, 9, 8), (2, 9, 8), (2, 9), (2, 8)))
    row_kernels.decode_attention(0, q, keys, values, 7, scores, out)
    show("row kernels", *map(tl.tensor, (x, y, out)))
    show_bfloat16_kernels()
    states = [random(3000).array for _ in range(4)]
    states[3] *= states[3]  # mean squares
    kernels.adam_step(0, *states, 1.0, 0.99, 0.0, 0.9, 0.1, 0.999, 0.001, 0.5, 1e-8, 0.1)
    show("adam_step", *map(tl.tensor, states))
    sums = np.empty(50)
    sum_kernels.row_sums(0, weight, sums)
    show("row_sums", tl.tensor(sums))


def show_bfloat16_kernels() -> None:
    """Show the kernels of bfloat16 arrays, whose bits are arrays of uint16."""
    for n in (64, 1003):
        numbers = random(64, n).array
        x, y, wide = np.empty((64, n), np.uint16), np.empty((64, n), np.uint16), np.empty((64, n), f32)
        table = random(1 << 16).array
        bfloats.round_array(0, numbers.reshape(-1), x.reshape(-1))
        bfloats.widen_array(0, x.reshape(-1), wide.reshape(-1))
        show(f"bfloat16 casts {n}", tl.tensor(x.view(np.int16)), tl.tensor(wide))
        bfloats.look_up(0, x.reshape(-1), table.view(np.uint16)[: 1 << 16], y.reshape(-1))
        show(f"bfloat16 tables {n}", tl.tensor(y.view(np.int16)))
        bfloats.look_up_product(0, x.reshape(-1), x.reshape(-1), table, y.reshape(-1))
        show(f"bfloat16 products with tables {n}", tl.tensor(y.view(np.int16)))


def train(model: GPT, optimizer: optim.AdamW, steps: range) -> None:
    """Make training steps; the batch depends on the number of the step alone."""
    for step in steps:
        ids = tl.tensor(np.random.default_rng(step).integers(0, 65, (8, 64)))
        tl.manual_seed(step)
        optimizer.zero_grad()
        model(ids, ids)[1].backward()
        optimizer.step()


def show_runs(folder: Path) -> None:
    """Show a run of six steps, then the last three again, from the state that the first process saved."""
    for resumed in (False, True):
        tl.manual_seed(0)
        model = GPT(ModelConfig(vocab_size=65, block_size=64, n_layer=2, n_head=4, n_embd=128, dropout=0.0))
        optimizer = optim.AdamW(model.parameters(), lr=1e-3)
        path = folder / "half.pickle"
        if resumed:
            state = pickle.loads(path.read_bytes())  # noqa: S301
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
        else:
            train(model, optimizer, range(3))
            if not path.exists():
                path.write_bytes(pickle.dumps({"model": model.state_dict(), "optimizer": optimizer.state_dict()}))
        train(model, optimizer, range(3, 6))
        show("run", *model.parameters())
    print("text", *generate(model.eval(), [1, 2, 3], 20, SamplingConfig(seed=1)))
    for kind in (None, "q8_0", "q4_1"):
        model = model if kind is None else quantize_model(model, kind)
        reader = compiled_reader.CompiledReader.for_model(model, KVCache(model))
        logits = [reader.logits(np.arange(T)[None], T) for T in (1, 30, 3)]
        show(f"reader {kind}", *map(tl.tensor, logits), model(tl.tensor([[1, 2, 3]]))[0])
        model = GPT(model.config).eval()


def main() -> None:
    """Show everything. Raises AssertionError if a compiled function was not called."""
    show_ops()
    show_runs(Path(sys.argv[1]))
    modules = (
        attention, bfloats, channel_kernels, function_kernels, gemm, index_kernels, kernels, quantized_kernels,
        row_kernels, sum_kernels, compiled_reader,
    )  # fmt: skip
    for module in modules:
        for name, function in vars(module).items():
            if isinstance(getattr(function, "_cache", None), MachineCodeCache):
                assert function.overloads, f"{module.__name__}.{name} was not called"


if __name__ == "__main__":
    main()
