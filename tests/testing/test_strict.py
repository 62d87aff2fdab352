"""Tests of the device "strict": it rejects what CuPy rejects, behaves like CuPy, and records synchronisations."""
import inspect
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import tensorlite as tl
from tensorlite.backends import registry
from tensorlite.testing.strict import SYNCS, Sync, SyncError, allow_syncs, count_syncs, forbid_syncs
from tensorlite.testing.strict.array import METHODS, StrictArray
from tensorlite.testing.strict.namespace import FUNCTIONS, UFUNCS

ROOT = Path(__file__).resolve().parents[2]
XP = registry.namespace(tl.device("strict"))


def on(*shape, seed=0, dtype=np.float64):
    """Return a strict array of normal random numbers."""
    return XP.asarray(np.random.default_rng(seed).standard_normal(shape).astype(dtype))


# ---- errors ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "f",
    [
        lambda a: np.asarray(a),
        lambda a: np.exp(a),
        lambda a: np.sum(a),
        lambda a: a + np.ones(3),
        lambda a: np.ones(3) + a,
        lambda a: a * [1.0, 2.0, 3.0],
        lambda a: a == (1.0, 2.0, 3.0),
        lambda a: a == np.ones(3),
        lambda a: a[np.array([0])],
        lambda a: a[[0, 1]],
        lambda a: a.__setitem__(0, np.ones(())),
        lambda a: a.__setitem__(..., [1.0, 2.0, 3.0]),
        lambda a: a.__iadd__(np.ones(3)),
        lambda a: a.__iadd__([1.0, 2.0, 3.0]),
        lambda a: XP.where(True, a, a),
        lambda a: XP.where(a > 0, a, np.ones(3)),
        lambda a: XP.where(a > 0, a, [1.0, 2.0, 3.0]),
        lambda a: XP.exp(1.0),
        lambda a: XP.add(a, [1.0, 2.0, 3.0]),
        lambda a: XP.exp(a, out=np.ones(3)),
        lambda a: XP.take(a, [0, 1]),
        lambda a: XP.take(a, np.array([0, 1])),
        lambda a: XP.concatenate([a, np.ones(3)]),
        lambda a: XP.clip(1.0, a, a),
        lambda a: XP.searchsorted(a, 1.0),
        lambda a: XP.matmul(a, np.ones(3)),
        lambda a: XP.add.at(a, XP.asarray([0]), np.ones(1)),
        lambda a: a.max(initial=0),
        lambda a: a.sum(where=True),
        lambda a: XP.sum(a, keepdims=True, initial=0),
        lambda a: list(a),
        lambda a: hash(a),
    ],
)
def test_the_device_rejects_what_cupy_rejects(f):
    with pytest.raises(TypeError):
        f(on(3))


def test_an_unknown_name_is_an_error():
    assert not hasattr(XP, "frompyfunc")
    with pytest.raises(AttributeError):
        on(3).tobytes()
    with pytest.raises(ValueError, match="kind must be None or 'stable', got 'heapsort'"):
        XP.argsort(on(3), kind="heapsort")


def test_there_is_one_device():
    assert tl.ones(2, device="strict:0").device == registry.Device("strict", 0)
    with pytest.raises(tl.DeviceError, match="expected strict:0, the only strict device, got strict:1"):
        tl.ones(2, device="strict:1")


def test_errors_say_what_to_do():
    expected = r"^add: expected strict arrays, got a NumPy array float64\(3,\)\. Move it with xp.asarray\(\)"
    with pytest.raises(TypeError, match=expected):
        on(3) + np.ones(3)
    with pytest.raises(TypeError, match=r"^max: CuPy's arguments are 'self axis\? out\? keepdims\?'"):
        on(3).max(initial=0)


# ---- behaviour of CuPy ----------------------------------------------------------------------


def test_reductions_and_entries_are_arrays():
    a = on(3, 4)
    for zero in (a.sum(), a[0, 0], a.max(), a[0] @ a[0], -a.sum(), np.float32(2) * a.sum(), XP.exp(a.sum())):
        assert type(zero) is StrictArray
        assert zero.shape == ()


def test_views_know_their_base():
    a = on(3, 4)
    view = a[1:].reshape(8)[2:4]
    assert view.base is a
    assert a.base is None
    assert (a + 1).base is None
    assert (a.flags.c_contiguous, a.T.flags.c_contiguous) == (True, False)
    assert (a.flags.owndata, view.flags.owndata) == (True, False)
    assert not hasattr(a.flags, "writeable")  # CuPy has none
    view[...] = 7.0
    assert (a.host[1, 2:] == 7).all()


def test_indices_wrap_around():
    a = on(3, 4)
    near, far = XP.asarray([0, 2]), XP.asarray([3, -1])
    for found, expected in ((a[far], a[near]), (XP.take(a, far, axis=0), XP.take(a, near, axis=0))):
        np.testing.assert_array_equal(found.host, expected.host)
    a[XP.asarray([5])] = 0.0
    assert (a.host[2] == 0).all()
    with pytest.raises(IndexError):  # an int is checked on the host
        a[3]


def test_numpy_scalars_promote_and_python_numbers_do_not():
    a = on(3, dtype=np.float32)
    assert (a * 3.0).dtype == (a * np.float32(3)).dtype == np.float32
    assert (a * np.float64(3)).dtype == (np.float64(3) * a).dtype == np.float64


@pytest.mark.parametrize(
    ("dtype", "poison"),
    [("float32", np.nan), ("float64", np.nan), ("float16", np.nan), ("int64", 2**63 - 1), ("uint8", 255), ("?", True)],
)
def test_new_memory_is_filled_with_nan(dtype, poison):
    like = XP.zeros((2, 3), dtype)
    for array in (XP.empty((2, 3), dtype), XP.empty_like(like), XP.empty_like(on(2, 3), dtype=dtype)):
        assert array.dtype == dtype
        np.testing.assert_array_equal(array.host, np.full((2, 3), poison, dtype))
    assert np.isnan(tl.empty(2, device="strict").cpu().numpy()).all()
    assert np.isnan(XP.empty(3).host).all()


def test_arithmetic_gives_no_warnings():
    a = XP.asarray([0.0, -1.0, 1e300])
    a /= XP.zeros(3)
    a[...] = a.astype(XP.float32)
    XP.log(on(3)), XP.asarray([1]) // XP.asarray([0])  # warnings are errors here
    assert not XP.isfinite(a).host.any()


def test_names_and_order_of_arguments_are_cupys():
    a = on(2, 3)
    assert XP.flip(a=a, axis=1).host[0, 0] == a.host[0, 2]
    assert XP.concatenate(tup=[a, a], axis=1).shape == (2, 6)
    assert XP.clip(a, a_min=0.0, a_max=1.0).host.min() >= 0
    assert a.std(axis=0, ddof=1).shape == (3,)
    out = XP.empty(3)
    assert XP.take(a, XP.asarray([2, 1, 0]), out=out) is out
    np.testing.assert_array_equal(out.host, a.host.reshape(-1)[[2, 1, 0]])


def cupys(name, method):
    """Return the parameters of CuPy's function or method, in order, and whether each is optional."""
    cupy = sys.modules["cupy"]
    if not method:
        parameters = inspect.signature(getattr(cupy, name)).parameters.values()
        return [(p.name, p.default is not p.empty) for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    line = getattr(cupy.ndarray, name).__doc__.splitlines()[0]  # Cython's: "_ndarray_base.sum(self, axis=None) -> ..."
    found = line.partition("(")[2].rpartition(")")[0].split(", ")
    return [(p.partition("=")[0].split()[-1], "=" in p) for p in found]


def test_every_signature_is_part_of_cupys():
    """Compare with CuPy where it can be imported, with or without a GPU."""
    cupy = pytest.importorskip("cupy")
    wrong = []
    for table, method in ((FUNCTIONS, False), (METHODS, True)):
        for name, signature in table.items():
            mine = [(p.rstrip("?"), p.endswith("?")) for p in signature.split()]
            theirs = cupys(name, method)
            if [p for p in theirs if p in mine or not p[1]] != mine:
                wrong.append(f"{name}: {mine}, CuPy has {theirs}")
    wrong += [name for name in UFUNCS.split() if not isinstance(getattr(cupy, name, None), cupy.ufunc)]
    assert wrong == []


# ---- synchronisation ------------------------------------------------------------------------


def test_every_kind_of_sync_is_counted():
    a = on(3, 4)
    one, mask = a[0, 0], a > 0
    with count_syncs() as log:
        bool(one), complex(one), float(one), range(3)[a.shape[0] * XP.zeros((), int)], int(one), one.item(), a[mask]
        a[mask] = 0.0
        XP.nonzero(a), XP.argwhere(a), XP.where(mask), XP.to_numpy(a), a.tolist()
    assert log.kinds == [
        "bool", "complex", "float", "index", "int", "item", "mask", "mask", "nonzero", "nonzero", "nonzero", "to_numpy",
        "tolist",
    ]  # fmt: skip
    assert set(log.kinds) == set(SYNCS)


def test_other_operations_are_not_counted():
    a = on(3, 4)
    with count_syncs() as log:
        repr(a), len(a), a.shape, a.host, XP.where(a > 0, a, 0.0), a[XP.asarray([1])], XP.asarray(np.ones(3)), a.sum()
        a[0] = 1.0
    assert log == []
    assert str(log) == "no syncs"


def test_a_sync_names_the_users_line():
    x = tl.ones(3, device="strict")
    with count_syncs() as log:
        x.sum().item()  # this line
    (sync,) = log
    assert isinstance(sync, Sync)
    assert sync.what == "item"
    assert sync.where.startswith(__file__)
    assert sync.where.endswith(": x.sum().item()  # this line")
    assert str(log) == str(sync) == f"item at {sync.where}"


def test_a_forbidden_sync_is_an_error_at_the_users_line():
    x = tl.ones(3, device="strict")
    with forbid_syncs() as log:
        y = (x * 2).sum()
        with pytest.raises(SyncError, match=r"^float: a value is read on the host.*\n.*test_strict.py:\d+, in .*float"):
            float(y.array)
        with pytest.raises(SyncError, match="to_numpy"):
            y.cpu()
        with pytest.raises(SyncError, match=r"in test_a_forbidden_sync_is_an_error_at_the_users_line: print\(y\)"):
            print(y)
    assert len(log) == 3
    assert y.item() == 6  # nothing is forbidden after the block


def test_syncs_may_be_allowed_by_kind_and_by_block():
    x = tl.ones(3, device="strict")
    with forbid_syncs(allow=["item", "tolist"]) as log:
        assert x.sum().item() == 3
        with allow_syncs():
            assert bool(x.sum() > 2)
        with pytest.raises(SyncError, match=r"^bool"):
            bool(x.array.sum())
    assert log.kinds[-1] == "bool"
    for wrong in (["get"], "item"):
        with pytest.raises(ValueError, match=r"^forbid_syncs: allow=.*expected some of bool, "):
            forbid_syncs(wrong)


def test_blocks_nest_and_end_with_an_error():
    x = on(1)
    with count_syncs() as outer:
        x.item()
        with count_syncs() as inner:
            x.item()
        with pytest.raises(SyncError), forbid_syncs():
            x.item()
        worker = threading.Thread(target=x.item)
        worker.start()
        worker.join()
    x.item()
    assert (len(outer), len(inner)) == (4, 1)


def test_the_device_needs_only_numpy():
    script = (
        "import sys; before = set(sys.modules); import tensorlite.testing.strict\n"
        "print(*(name for name in set(sys.modules) - before if getattr(sys.modules[name], '__spec__', None)))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded - sys.stdlib_module_names == {"tensorlite", "numpy"}
