"""DLPack: tensors that share memory with arrays of NumPy and PyTorch."""

import numpy as np
import pytest

import tensorlite as tl

DTYPES = ["bool_", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64", "complex64"]


@pytest.mark.parametrize("name", DTYPES)
def test_numpy_and_a_tensor_share_memory(name):
    x = tl.ones(2, 3, dtype=getattr(tl, name))
    a = np.from_dlpack(x)
    y = tl.from_dlpack(a)
    a[0, 1] = 0
    assert x.dtype == a.dtype == y.dtype
    assert [x[0].tolist(), y[0].tolist()] == [[1, 0, 1]] * 2
    assert x.__dlpack_device__() == (1, 0)


@pytest.mark.parametrize("name", DTYPES)
def test_pytorch_and_a_tensor_share_memory(name):
    torch = pytest.importorskip("torch")
    x = tl.ones(3, 2, dtype=getattr(tl, name)).T
    t = torch.from_dlpack(x)
    y = tl.from_dlpack(t)
    t[0, 1] = 0
    assert str(t.dtype) == f"torch.{name.strip('_')}"
    assert (tuple(t.shape), t.stride()) == ((2, 3), (1, 2))
    assert [x[0].tolist(), y[0].tolist()] == [[1, 0, 1]] * 2
    y.fill_(0)
    assert not t.any()


def test_tensors_of_every_layout():
    torch = pytest.importorskip("torch")
    x = tl.arange(24).reshape(2, 3, 4)
    for y in (x[0, 0, 0], x[:, :0], x.transpose(0, 2), x[:, ::2], x.expand(2, 2, 3, 4), x.flip(0)):
        assert torch.from_dlpack(y).tolist() == y.tolist()
        assert tl.from_dlpack(torch.from_dlpack(y)).tolist() == y.tolist()


def test_copies_and_devices():
    x = tl.ones(2)
    assert np.shares_memory(tl.from_dlpack(x, device="cpu", copy=False).numpy(), x.numpy())
    assert not np.shares_memory(tl.from_dlpack(x, copy=True).numpy(), x.numpy())
    assert tl.from_dlpack(x, device="strict").device.type == "strict"
    with pytest.raises(BufferError, match=r"expected device='cpu' with copy=False, got 'strict'"):
        tl.from_dlpack(x, device="strict", copy=False)


class Elsewhere:
    """An array on a device, by DLPack's code."""

    def __init__(self, code):
        self.code = code

    def __dlpack__(self, **options):
        raise AssertionError("nothing can be read")

    def __dlpack_device__(self):
        return self.code, 0


@pytest.mark.parametrize(("f", "error", "message"), [
    (lambda: np.from_dlpack(tl.ones(2, requires_grad=True)), BufferError, r"requires gradients.*Use x\.detach"),
    (lambda: tl.from_dlpack(tl.nn.Parameter(tl.ones(2))), BufferError, "requires gradients"),
    (lambda: np.from_dlpack(tl.ones(2, dtype="bfloat16")), BufferError, r"got bfloat16\. Use x\.float"),
    (lambda: np.from_dlpack(tl.ones(2, device="strict")), BufferError, "on the CPU or a GPU, got one on strict"),
    (lambda: tl.ones(2, device="strict").__dlpack_device__(), BufferError, "got one on strict"),
    (lambda: tl.from_dlpack([1.0]), TypeError, "expected an object with __dlpack__ .*, got list"),
    (lambda: tl.from_dlpack(tl.ones(2).__dlpack__()), TypeError, "got PyCapsule. Pass the array itself"),
    (lambda: tl.from_dlpack(Elsewhere(8)), tl.DeviceError, "got DLPack's device type 8"),
    (lambda: tl.ones(2).__dlpack__(stream=1), BufferError, "__dlpack__: "),
])  # fmt: skip
def test_arrays_that_cannot_be_shared_are_errors(f, error, message):
    with pytest.raises(error, match=message):
        f()


def test_pytorch_tensors_that_cannot_be_shared_are_errors():
    torch = pytest.importorskip("torch")
    for t in (torch.ones(2, requires_grad=True), torch.ones(2, dtype=torch.bfloat16)):
        with pytest.raises(BufferError, match="from_dlpack: the array cannot be shared"):
            tl.from_dlpack(t)


def test_a_gpu_that_is_not_there_is_an_error():
    if tl.cuda_is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(tl.DeviceError, match="'cuda' cannot be used"):
        tl.from_dlpack(Elsewhere(2))
