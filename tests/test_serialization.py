"""Save and load tensors: round trips, and errors that leave the old file in place."""

import json
import os
import sys

import numpy as np
import pytest

import tensorlite as tl
from tensorlite import nn, serialization

pytest.importorskip("safetensors")

DTYPES = [tl.bool_, tl.uint8, tl.int8, tl.int16, tl.int32, tl.int64, tl.float16, tl.float32, tl.float64]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.safetensors"


def same(loaded, saved):
    assert sorted(loaded) == sorted(saved)
    for name, value in saved.items():
        assert loaded[name].dtype == value.dtype
        assert loaded[name].shape == value.shape
        np.testing.assert_array_equal(loaded[name].numpy(), value.detach().numpy())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3, 4)])
def test_round_trip(path, dtype, shape):
    tensors = {"x": tl.tensor(np.random.default_rng(0).integers(0, 2, shape).astype(dtype))}
    serialization.save(tensors, path)
    same(serialization.load(path), tensors)


def test_state_of_a_module(path):
    source, target = nn.Linear(3, 4), nn.Linear(3, 4)
    serialization.save(source.state_dict(), path)
    target.load_state_dict(serialization.load(str(path)))
    same(target.state_dict(), source.state_dict())


def test_views_and_shared_memory_round_trip(path):
    x = tl.arange(12).reshape(3, 4)
    tensors = {"x": x, "again": x, "T": x.T, "row": x[1], "column": x[:, 1], "flipped": x.flip(1),
               "wide": tl.ones(3, 1).expand(3, 5)}  # fmt: skip
    serialization.save(tensors, path)
    loaded = serialization.load(path)
    same(loaded, tensors)
    loaded["x"].add_(1)
    assert loaded["again"].tolist() == x.tolist()


def test_a_tensor_in_a_graph_is_saved_without_its_graph(path):
    x = tl.ones(2, requires_grad=True)
    serialization.save({"x": x, "y": x * 2}, path)
    loaded = serialization.load(path)
    assert loaded["y"].tolist() == [2, 2]
    assert not loaded["x"].requires_grad


def test_metadata(path):
    serialization.save({"x": tl.ones(2)}, path, metadata={"step": "3", "ü": "Ω"})
    assert serialization.load_metadata(path) == {"step": "3", "ü": "Ω"}
    serialization.save({}, path)
    assert serialization.load_metadata(path) == {}
    assert serialization.load(path) == {}


def test_other_readers_can_read_it(path):
    from safetensors.numpy import load_file

    serialization.save({"x": tl.tensor([1.5, 2.5])}, path)
    np.testing.assert_array_equal(load_file(path)["x"], np.array([1.5, 2.5], np.float32))


def test_loaded_tensors_do_not_depend_on_the_file(path):
    serialization.save({"x": tl.ones(1000)}, path)
    loaded = serialization.load(path, device="cpu")["x"]
    serialization.save({"x": tl.zeros(1000)}, path)
    assert (loaded == 1).all()
    loaded.add_(1)


# ---- failed saves -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tensors", "metadata", "error", "message"),
    [
        ([tl.ones(1)], None, TypeError, "expected a dict of names and Tensors, got list"),
        (nn.Linear(1, 1), None, TypeError, r"got Linear\. Pass module\.state_dict\(\)"),
        ({"x": np.ones(1)}, None, TypeError, "got 'x': ndarray"),
        ({1: tl.ones(1)}, None, TypeError, "got 1: Tensor"),
        ({"__metadata__": tl.ones(1)}, None, ValueError, "__metadata__"),
        ({"x": tl.tensor([1j])}, None, ValueError, "'x' is complex64"),
        ({"x": tl.ones(1)}, {"step": 3}, TypeError, r"metadata must be str by str, got 'step': 3. Try json.dumps\(\)"),
    ],
)
def test_a_failed_save_names_the_cause_and_keeps_the_old_file(path, tensors, metadata, error, message):
    serialization.save({"old": tl.ones(1)}, path)
    with pytest.raises(error, match=message):
        serialization.save(tensors, path, metadata)
    assert list(serialization.load(path)) == ["old"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failing_disk_leaves_the_old_file_and_nothing_else(path, monkeypatch, call):
    serialization.save({"old": tl.ones(1)}, path)

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match=r"save: cannot write .*weights.safetensors.*No space left"):
        serialization.save({"new": tl.ones(1)}, path)
    monkeypatch.undo()
    assert list(serialization.load(path)) == ["old"]
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_an_interrupt_leaves_the_old_file_and_nothing_else(path, monkeypatch):
    serialization.save({"old": tl.ones(1)}, path)

    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        serialization.save({"new": tl.ones(1)}, path)
    monkeypatch.undo()
    assert list(serialization.load(path)) == ["old"]
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_the_new_file_is_on_disk_before_it_replaces_the_old(path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, n=name, f=real: (calls.append(n), f(*a))[1])
    serialization.save({"x": tl.ones(1)}, path)
    assert calls[:2] == ["fsync", "replace"]


def test_a_missing_folder_or_a_folder_as_the_path_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere"):
        serialization.save({}, tmp_path / "nowhere" / "x.safetensors")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        serialization.save({}, tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_link_stays_a_link(path):
    link = path.with_name("latest")
    serialization.save({"old": tl.ones(1)}, path)
    link.symlink_to(path.name)
    serialization.save({"new": tl.ones(1)}, link)
    assert link.is_symlink()
    assert list(serialization.load(path)) == ["new"]


# ---- invalid files ----------------------------------------------------------------------------


@pytest.mark.parametrize("read", [serialization.load, serialization.load_metadata])
def test_a_missing_truncated_or_other_file_is_an_error(path, read):
    with pytest.raises(FileNotFoundError, match=r"load: there is no file '.*weights\.safetensors'"):
        read(path)
    with pytest.raises(IsADirectoryError, match="is a folder"):
        read(path.parent)
    serialization.save({"x": tl.ones(100)}, path)
    whole = path.read_bytes()
    for damaged in (b"", whole[:5], whole[:50], whole[:-1], whole + b"x", b"PK\x03\x04" + bytes(200)):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"weights\.safetensors' is not a safetensors file, or it is incomplete"):
            read(path)


def test_bfloat16_keeps_its_bits_here_and_in_safetensors(path):
    bits = np.arange(1 << 16, dtype=np.uint16)  # every bfloat16 number, NaNs included
    x = tl.from_numpy(bits.view(tl.bfloat16).reshape(256, 256))
    tl.save({"x": x, "transposed": x.T, "none": x[:0], "one": x[3, 4]}, path)
    loaded = tl.load(path)
    assert {value.dtype for value in loaded.values()} == {tl.bfloat16}
    np.testing.assert_array_equal(loaded["x"].array.view(np.uint16), bits.reshape(256, 256))
    np.testing.assert_array_equal(loaded["transposed"].array.view(np.uint16), bits.reshape(256, 256).T)
    assert (loaded["none"].shape, loaded["one"].shape) == ((0, 256), ())
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    theirs = load_file(path)
    np.testing.assert_array_equal(theirs["x"].view(torch.int16).numpy().view(np.uint16), bits.reshape(256, 256))
    save_file({"x": theirs["x"] + 0}, path)
    assert tl.load(path)["x"].dtype == tl.bfloat16


def test_float8_is_an_error_that_names_it(path):
    header = json.dumps({"x": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(2))
    with pytest.raises(ValueError, match=r"'x' in .* has dtype F8_E4M3, which tensors do not have"):
        serialization.load(path)


def test_a_missing_device_is_an_error(path):
    serialization.save({"x": tl.ones(1)}, path)
    with pytest.raises(tl.DeviceError, match="nowhere"):
        serialization.load(path, device="nowhere")


def test_without_the_library_the_error_says_what_to_install(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ImportError, match="pip install safetensors"):
        serialization.save({}, path)
    with pytest.raises(ImportError, match="pip install safetensors"):
        serialization.load(path)


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_files_get_the_permissions_of_the_umask(path):
    old = os.umask(0o027)
    try:
        tl.save({"x": tl.ones(2)}, path)
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o640


# ---- atomic_write -------------------------------------------------------------------------------


def test_atomic_write_replaces_the_file_at_the_end_of_the_block(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text("old")
    with serialization.atomic_write(str(path)) as temporary:
        assert temporary.parent == tmp_path
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_write_keeps_the_old_file_if_the_block_fails(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text("old")

    def fail():
        with serialization.atomic_write(path) as temporary:
            temporary.write_text("new")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
