"""`make gpu-check`, run on a device that is none: it passes, it sees what is wrong, and it needs little."""
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tensorlite as tl
from tensorlite.testing import strict
from tests.backends import gpu_check

ROOT = Path(__file__).resolve().parents[2]
ABSENT = "click hypothesis matplotlib platformdirs pooch pytest safetensors tiktoken tokenizers torch tqdm".split()


@pytest.mark.parametrize("check", gpu_check.CHECKS)
def test_a_check_passes(check):
    outcome = gpu_check.run(check, tl.device("strict"))
    assert outcome.failures == []
    assert outcome.cases > 0


def test_every_kernel_is_run():
    """By the checks together: those of gradients are the last to be missed."""
    called = set()
    namespace = tl.backends.registry.namespace(tl.device("strict"))
    kept = {name: getattr(namespace, name) for name in tl.backends.reference.__all__}

    def noting(name):
        return lambda *args, **kwargs: (called.add(name), kept[name](*args, **kwargs))[1]

    try:
        vars(namespace).update({name: noting(name) for name in kept})
        for check in (gpu_check.ops, gpu_check.randomness, gpu_check.optimizers):
            gpu_check.run(check, tl.device("strict"))
    finally:
        vars(namespace).update(kept)
    assert called == set(kept)


def test_what_is_wrong_is_seen(monkeypatch, capsys):
    namespace = tl.backends.registry.namespace(tl.device("strict"))
    right = namespace.softmax
    monkeypatch.setattr(namespace, "softmax", lambda x, axis: right(x, axis) * 1.001)
    monkeypatch.setattr(namespace, "erf", lambda x: x.astype(np.float64))
    failures = gpu_check.run(gpu_check.ops, tl.device("strict")).failures
    assert "erf 0 in float32: AssertionError: float64(2, 3) instead of float32(2, 3)" in failures
    assert [line for line in failures if line.startswith("softmax 0 in float64: off by 0.00")]


def test_a_failure_is_the_exit_status(monkeypatch, capsys):
    namespace = tl.backends.registry.namespace(tl.device("strict"))
    monkeypatch.setattr(namespace, "adam_step", lambda *args: None)
    assert gpu_check.main(["--device", "strict", "optimizers"]) == 1
    out = capsys.readouterr().out
    assert "FAILED optimizers: AdamW: off by " in out
    assert "FAILED optimizers: SGD" not in out
    assert out.endswith("gpu-check failed\n")


def test_the_table_of_results(capsys):
    assert gpu_check.main(["--device", "strict", "optimizers", "randomness"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines[3:5]] == [["optimizers", "5", "0"], ["randomness", "8", "0"]]
    assert lines[-1] == "gpu-check passed on strict"
    with pytest.raises(SystemExit):
        gpu_check.main(["nothing"])
    assert "no check is called nothing; they are ops, memory, " in capsys.readouterr().err


def test_no_gpu_is_no_failure(capsys):
    if tl.cuda_is_available():
        pytest.skip("there is a GPU")
    assert gpu_check.main([]) == 0
    assert capsys.readouterr().out.startswith("gpu-check: nothing was checked: device 'cuda' cannot be used: CuPy ")


def test_a_gpu_that_does_not_compute_is_a_failure(monkeypatch, capsys):
    class Broken:
        class cuda:
            class runtime:
                getDeviceCount = staticmethod(lambda: 1)

    monkeypatch.setitem(sys.modules, "cupy", Broken)
    tl.backends.cuda.kernels.find_cupy.cache_clear()
    try:
        assert gpu_check.main([]) == 1
    finally:
        tl.backends.cuda.kernels.find_cupy.cache_clear()
    assert "CuPy cannot compute on the GPU (AttributeError" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("found", "expected", "result"),
    [
        ([1.0, 2.0], [1.0, 2.5], 0.2),
        ([0.5], [0.25], 0.25),
        ([np.inf, -np.inf, np.nan], [np.inf, -np.inf, np.nan], 0.0),
        ([], [], 0.0),
    ],
)
def test_difference(found, expected, result):
    assert gpu_check.difference([np.array(found)], [np.array(expected)]) == pytest.approx(result)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([np.zeros(2)], [np.zeros(2, np.float32)]),
        ([np.zeros(2)], [np.zeros((2, 1))]),
        ([np.zeros(2)], []),
        ([np.array([np.nan, 1.0])], [np.array([0.0, 1.0])]),
        ([np.array([np.inf])], [np.array([-np.inf])]),
    ],
)
def test_difference_refuses(found, expected):
    with pytest.raises((AssertionError, ValueError)):
        gpu_check.difference(found, expected)


def test_it_needs_numpy_and_cupy_alone():
    """The extras of gpt, and pytest, are not there; a run on the device passes all the same."""
    script = f"""
import sys
class Nobody:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT}:
            raise ImportError(f"{{name}} is not installed")
sys.meta_path.insert(0, Nobody())
from tests.backends import gpu_check
sys.exit(gpu_check.main(["--device", "strict", "optimizers", "generation"]))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.returncode == 0
    assert "gpu-check passed on strict" in done.stdout


def test_training_on_the_device_waits_for_nothing():
    """A step reads no value on the host: on a GPU it would have to wait."""
    run = gpu_check.Run.start(tl.device("strict"))
    data = list(gpu_check.batches(3))
    with strict.forbid_syncs(allow=["item"]) as log:
        losses = run.train(iter(data))
        assert log.kinds == []
        assert losses[0].item() > 0
    assert log.kinds == ["item"]
