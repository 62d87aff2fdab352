"""Tests of the CUDA sources that need no GPU.

NVRTC compiles each source to machine code for several architectures. The host's C++ compiler compiles the same source
with tests/support/cuda_shim.h, and its kernels are run thread by thread. The wrappers of backends/cuda/kernels.py get a
stand-in for RawModule, which checks the types of arguments (CuPy does not) and runs the host's kernels.
"""
import ctypes
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tensorlite.backends import reference, registry
from tensorlite.backends.cuda import kernels as cuda
from tests.support.devices import difference

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "tensorlite").rglob("*.cu"))
ELEMENTWISE = ROOT / "tensorlite" / "backends" / "cuda" / "elementwise.cu"
CPU = registry.namespace(registry.device("cpu"))
DTYPES = ["float32", "float64"]
TOLERANCE = {"float32": 2e-6, "float64": 1e-14}

# The arguments of each kernel: an array it reads, an array it writes, the count, a number of the arrays' dtype.
READS, WRITES, COUNT, NUMBER = "reads", "writes", "count", "number"
ARGUMENTS = {
    "adam_step": [WRITES, READS, WRITES, WRITES, COUNT, *[NUMBER] * 10],
    "gelu": [READS, WRITES, COUNT], "gelu_tanh": [READS, WRITES, COUNT],
    "gelu_backward": [READS, READS, WRITES, COUNT], "gelu_tanh_backward": [READS, READS, WRITES, COUNT],
}  # fmt: skip


# ---- NVRTC ----------------------------------------------------------------------------------


def find_nvrtc():
    """Return the library of an installed wheel, for CUDA 12 or 13, or None if there is none."""
    for package in ("nvidia.cuda_nvrtc", "nvidia.cu13"):
        try:
            spec = importlib.util.find_spec(package)
        except ModuleNotFoundError:
            continue
        for folder in (spec.submodule_search_locations or []) if spec else []:
            for path in Path(folder).rglob("*nvrtc*"):
                if re.fullmatch(r"libnvrtc\.so\.\d+|nvrtc64_\d+_0\.dll", path.name):
                    return ctypes.CDLL(str(path))
    return None


@pytest.fixture(scope="module")
def nvrtc():
    return find_nvrtc() or pytest.skip("NVRTC is not installed: pip install 'tensorlite[nvrtc]'")


def compiled(nvrtc, source, architecture, kind):
    """Return the PTX or CUBIN of a source. Raises AssertionError with the compiler's messages, if there are any."""
    program = ctypes.c_void_p()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"elementwise.cu", 0, None, None) == 0

    def text(what):
        size = ctypes.c_size_t()
        assert getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size)) == 0
        buffer = ctypes.create_string_buffer(size.value)
        assert getattr(nvrtc, f"nvrtcGet{what}")(program, buffer) == 0
        return buffer.raw

    try:
        options = [f"--gpu-architecture={architecture}".encode(), b"-std=c++17"]
        status = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
        log = text("ProgramLog").rstrip(b"\0\n ").decode()
        if status or log:
            raise AssertionError(log)
        return text(kind)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def test_there_is_a_source():
    assert ELEMENTWISE in SOURCES


@pytest.mark.parametrize("architecture", [75, 80, 90])
@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_a_source_compiles(nvrtc, path, architecture):
    """The machine code has every kernel, and the compiler gives no warning."""
    code = compiled(nvrtc, path.read_text("utf-8"), f"sm_{architecture}", "CUBIN")
    assert code[:4] == b"\x7fELF"
    if path == ELEMENTWISE:
        for name in ARGUMENTS:
            for dtype in DTYPES:
                assert f".text.{name}_{dtype}\0".encode() in code


def test_kernels_of_float32_compute_in_float32(nvrtc):
    """A single constant of type double would make a consumer GPU 32 times as slow."""
    ptx = compiled(nvrtc, ELEMENTWISE.read_text("utf-8"), "compute_75", "PTX").decode()
    bodies = dict(re.findall(r"\.entry (\w+)\((.*?\n})", ptx, re.DOTALL))
    assert set(bodies) == {f"{name}_{dtype}" for name in ARGUMENTS for dtype in DTYPES}
    assert [name for name, body in bodies.items() if ".f64" in body] == [name for name in bodies if "float64" in name]


def test_a_mistake_is_reported(nvrtc):
    with pytest.raises(AssertionError, match='identifier "y" is undefined'):
        compiled(nvrtc, 'extern "C" __global__ void f(float* x) { x[0] = y; }', "sm_75", "CUBIN")
    with pytest.raises(AssertionError, match="never referenced"):
        compiled(nvrtc, 'extern "C" __global__ void f(float* x) { int y = 0; }', "sm_75", "CUBIN")


# ---- the same source on the host ------------------------------------------------------------


class Dim3(ctypes.Structure):
    _fields_ = [(axis, ctypes.c_uint) for axis in "xyz"]


class HostKernels:
    """The kernels of elementwise.cu, compiled for the CPU. A launch runs its threads one after the other."""

    def __init__(self, library):
        self.library = library
        self.places = [Dim3.in_dll(library, n) for n in ("gridDim", "blockDim", "blockIdx", "threadIdx")]

    def launch(self, name, grid, block, args):
        """Launch a kernel, as CuPy's RawKernel does. Numbers are not converted, so their types must be as declared."""
        function = getattr(self.library, name)
        types = {np.float32: ctypes.c_float, np.float64: ctypes.c_double, np.int64: ctypes.c_longlong}
        passed = [a.ctypes.data_as(ctypes.c_void_p) if isinstance(a, np.ndarray) else types[type(a)](a) for a in args]
        function.argtypes, function.restype = [type(a) for a in passed], None
        grid_dim, block_dim, block_idx, thread_idx = self.places
        grid_dim.x, block_dim.x = grid[0], block[0]
        for block_idx.x in range(grid[0]):
            for thread_idx.x in range(block[0]):
                function(*passed)


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None or sys.platform == "win32":
        pytest.skip("no C++ compiler")
    library = tmp_path_factory.mktemp("kernels") / "elementwise.so"
    command = [compiler, "-x", "c++", "-std=c++17", "-O1", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"]
    command += ["-include", str(ROOT / "tests" / "support" / "cuda_shim.h"), str(ELEMENTWISE), "-o", str(library)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return HostKernels(ctypes.CDLL(str(library)))


def arrays(count, n, dtype, seed=0):
    """Return arrays of normal numbers, some of them large, zero or tiny."""
    rng = np.random.default_rng(seed)
    found = [rng.standard_normal(n) * rng.choice([1.0, 1.0, 5.0, 0.0, 1e-6], n) for _ in range(count)]
    return [a.astype(dtype) for a in found]


def guarded(n, dtype):
    """Return an array for results, and the entries after it, which no kernel may write."""
    whole = np.full(n + 8, 7.0, dtype)
    return whole[:n], whole[n:]


LAUNCHES = [(1, 1), (1, 32), (3, 4), (5, 1), (40, 2)]
SIZES = [1, 2, 7, 31, 33, 65]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tanh", [False, True])
@pytest.mark.parametrize("n", SIZES)
@np.errstate(over="ignore")  # as ops run
def test_gelu_on_the_host(host, n, tanh, dtype):
    """For any launch, every entry is written, and none after the last."""
    x, g = arrays(2, n, dtype)
    y = reference.gelu(CPU, x, tanh)
    dx = reference.gelu_backward(CPU, g, x, tanh)
    name = "gelu_tanh" if tanh else "gelu"
    for grid, block in LAUNCHES:
        results = [guarded(n, dtype) for _ in range(2)]
        (y_, _), (dx_, _) = results
        host.launch(f"{name}_{dtype}", (grid,), (block,), (x, y_, np.int64(n)))
        host.launch(f"{name}_backward_{dtype}", (grid,), (block,), (g, x, dx_, np.int64(n)))
        assert difference((y_, dx_), (y, dx)) <= TOLERANCE[dtype]
        assert all((behind == 7).all() for _, behind in results)


@pytest.mark.parametrize("tanh", [False, True])
def test_gelu_of_extreme_inputs(host, tanh):
    """The results for infinity, NaN and huge numbers are those of the reference."""
    x = np.array([np.inf, -np.inf, np.nan, 50.0, -50.0, 0.0, -0.0, 1e-30], np.float32)
    g = np.ones_like(x)
    kernels = fake_xp(host)
    with np.errstate(all="ignore"):
        y = reference.gelu(CPU, x, tanh)
        dx = reference.gelu_backward(CPU, g, x, tanh)
    y_ = cuda.gelu(kernels, on_device(x), tanh)
    dx_ = cuda.gelu_backward(kernels, on_device(g), on_device(x), tanh)
    for found, expected in ((y_, y), (dx_, dx)):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-12)


# ---- the wrappers ---------------------------------------------------------------------------


class OnDevice(np.ndarray):
    """A NumPy array with the attribute `device` of CuPy's arrays."""

    device = None


def on_device(array, index=0):
    """Return a copy on a device that counts how often it was made the current one."""

    class Device:
        id = index
        current = 0

        def __enter__(self): type(self).current += 1
        def __exit__(self, *exc): pass

    result = np.array(array).view(OnDevice)
    result.device = Device()
    return result


def fake_xp(host=None):
    """Return a namespace of NumPy's functions with a RawModule that logs its calls and runs the host's kernels."""
    calls, modules = [], []

    class RawModule:
        def __init__(self, *, code, options):
            assert code == ELEMENTWISE.read_text("utf-8")
            modules.append(options)

        def get_function(self, name):
            def kernel(grid, block, args):
                calls.append((name, grid, block, args))
                check_arguments(name, args)
                if host is not None:
                    host.launch(name, grid, block, args)

            return kernel

    def empty_like(x):
        return on_device(np.full(x.shape, np.nan, x.dtype), x.device.id)

    names = {**vars(CPU), "RawModule": RawModule, "empty_like": empty_like, "calls": calls, "modules": modules}
    return SimpleNamespace(**names)


def check_arguments(name, args):
    """Check the arguments of a kernel, which CuPy passes on as bytes without a check."""
    kernel, _, dtype = name.rpartition("_")
    assert len(args) == len(ARGUMENTS[kernel])
    n = next(a.size for a in args if isinstance(a, np.ndarray))
    for value, kind in zip(args, ARGUMENTS[kernel], strict=True):
        if kind in (READS, WRITES):
            assert isinstance(value, np.ndarray)
            assert (value.dtype, value.size) == (dtype, n)
            assert value.flags.c_contiguous
        elif kind == COUNT:
            assert type(value) is np.int64
            assert value == n
        else:
            assert type(value) is np.dtype(dtype).type


def test_the_table_of_arguments_is_that_of_the_source():
    """The declarations are read from the macro KERNELS."""
    text = ELEMENTWISE.read_text("utf-8").replace("\\\n", " ")
    found = re.findall(r"__global__ void (\w+)_##dtype\((.*?)\)", text, re.DOTALL)
    kinds = {"const T*": READS, "T*": WRITES, "long long": COUNT, "T": NUMBER}
    declared = {name: [p.strip().rpartition(" ")[0] for p in parameters.split(",")] for name, parameters in found}
    assert {name: [kinds[p] for p in parameters] for name, parameters in declared.items()} == ARGUMENTS


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "options",
    [{}, {"decay": 0.1}, {"decay": 0.1, "decoupled": True}, {"maximize": True}, {"maximize": True, "decay": 0.2}],
)
@pytest.mark.parametrize("shape", [(), (1,), (3, 7), (5, 1, 61)])
def test_adam_step(host, shape, options, dtype):
    """Five steps in place give what the reference gives."""
    xp, n = fake_xp(host), int(np.prod(shape))
    mine = [on_device(a.reshape(shape)) for a in arrays(2, n, dtype)]
    mine += [on_device(np.zeros(shape, dtype)) for _ in range(2)]
    theirs = [np.array(a) for a in mine]
    for t in range(1, 6):
        g = arrays(1, n, dtype, seed=t)[0].reshape(shape)
        mine[1][...] = theirs[1][...] = g
        numbers = (t, 1e-2, 0.9, 0.99, 1e-8, options.get("decay", 0.0), options.get("decoupled", False),
                   options.get("maximize", False))  # fmt: skip
        cuda.adam_step(xp, *mine, *numbers)
        reference.adam_step(CPU, *theirs, *numbers)
    assert len(xp.calls) == 5
    assert difference(mine, theirs) <= TOLERANCE[dtype]
    np.testing.assert_array_equal(mine[1], g)  # the gradient is unchanged


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tanh", [False, True])
@pytest.mark.parametrize("shape", [(), (3,), (4, 5, 31)])
@np.errstate(over="ignore")  # as ops run
def test_gelu(host, shape, tanh, dtype):
    xp = fake_xp(host)
    x, g = (a.reshape(shape) for a in arrays(2, int(np.prod(shape)), dtype))
    y = cuda.gelu(xp, on_device(x), tanh)
    dx = cuda.gelu_backward(xp, on_device(g), on_device(x), tanh)
    expected = reference.gelu(CPU, x, tanh), reference.gelu_backward(CPU, g, x, tanh)
    name = "gelu_tanh" if tanh else "gelu"
    assert [call[0] for call in xp.calls] == [f"{name}_{dtype}", f"{name}_backward_{dtype}"]
    assert difference((y, dx), [np.asarray(a) for a in expected]) <= TOLERANCE[dtype]


ADAM = (1, 1e-3, 0.9, 0.999, 1e-8, 0.01, True, False)


@pytest.mark.parametrize(
    ("change", "launched"),
    [
        (lambda a: a, True),
        (lambda a: a.T, False),
        (lambda a: a[:, ::2], False),
        (lambda a: a.astype(np.float16), False),
        (lambda a: np.asfortranarray(a), False),
    ],
)
def test_other_strides_and_dtypes_go_to_the_reference(change, launched):
    def changed(k):
        base = on_device(np.random.default_rng(k).standard_normal((4, 6)).astype(np.float32))
        result = change(base).view(OnDevice)
        result.device = base.device
        return result

    xp = fake_xp()
    x, g = changed(0), changed(1)
    cuda.gelu(xp, x, False)
    cuda.gelu_backward(xp, g, x, True)
    p, m, v = changed(3), changed(4), abs(changed(5))
    v.device = p.device
    before = np.array(p)
    cuda.adam_step(xp, p, g, m, v, *ADAM)
    assert len(xp.calls) == 3 * launched
    assert (np.array(p) != before).any() == (not launched)  # this stand-in for RawModule computes nothing


def test_arrays_that_do_not_match_go_to_the_reference():
    xp = fake_xp()
    x = on_device(np.ones((3, 4), np.float32))
    assert cuda.gelu_backward(xp, on_device(np.ones(4, np.float32)), x, False).shape == (3, 4)
    for g in (on_device(np.ones((3, 4))), on_device(np.ones((3, 4), np.float32), 1)):
        assert cuda.gelu_backward(xp, g, x, False).dtype == g.dtype
        p, m, v = (on_device(x) for _ in range(3))
        cuda.adam_step(xp, p, g, m, v, *ADAM)
        assert (p != 1).all()
    assert xp.calls == []


def test_an_empty_array_launches_nothing():
    xp = fake_xp()
    x = on_device(np.ones((3, 0), np.float32))
    assert cuda.gelu(xp, x, True).shape == cuda.gelu_backward(xp, x, x, False).shape == (3, 0)
    cuda.adam_step(xp, x, x, x, x, *ADAM)
    assert xp.calls == []
    assert xp.modules == []  # nothing is compiled either


def test_a_launch_has_a_fitting_grid_on_the_device_of_its_arrays():
    xp = fake_xp()
    for n, blocks in ((1, 1), (256, 1), (257, 2), (4096 * 256, 4096), (4096 * 256 + 1, 4096)):
        x = on_device(np.ones(n, np.float32), 1)
        cuda.gelu(xp, x, False)
        name, grid, block, _ = xp.calls[-1]
        assert (name, grid, block) == ("gelu_float32", (blocks,), (256,))
        assert type(x.device).current == 1
    assert xp.modules == [("-std=c++17",)]  # compiled once


def test_the_cuda_kernels_replace_those_of_the_reference():
    for name in ("adam_step", "gelu", "gelu_backward"):
        assert name in cuda.__all__
        assert name in reference.__all__
