"""Small data for the page of the explorer, made without the engine: `tensorlite.viz` describes their form."""

import base64
import re
from typing import Any

import numpy as np

Data = dict[str, Any]

HOSTILE = '</script><img src="http://example.com/x" onerror="window.hacked=1"><!--'


class Sample:
    """A graph that grows op by op, with its values."""

    def __init__(self, title: str = "loss") -> None:
        lists = "notes modules nodes edges sources values forward backward gradients checks".split()
        self.data: Data = {"version": 1, "title": title, **{name: [] for name in lists}}

    def add(self, kind: str, word: str, array: Any, inputs: tuple[int, ...] = (), **more: Any) -> int:
        """Add a node, with an edge from each of `inputs`, and return its id. `word` is its op, or its name."""
        array, place = np.asarray(array), len(self.data["nodes"])
        named = {"op": word, "name": ""} if kind == "op" else {"op": "", "name": word}
        self.data["nodes"].append({
            "id": place, "kind": kind, **named, "module": None, "shape": list(array.shape), "dtype": str(array.dtype),
            "device": "cpu", "bytes": array.nbytes, "seconds": 2e-6, "line": "train.py:3: y = f(x)",
            "value": self.value(array), "why_no_value": None, "root": False, "order": 1, "of": None,
            "doc": "Return ``x``.", "saved": [], **more,
        })  # fmt: skip
        for position, start in enumerate(inputs):
            edge = {"from": start, "to": place, "argument": "xyz"[position], "position": position}
            self.data["edges"].append({"id": len(self.data["edges"]), **edge})
        self.data["forward"].append(place)
        return place

    def value(self, array: Any) -> int:
        """Add a value, as numbers or as a heat map, and return its place."""
        array = np.asarray(array)
        finite = array[np.isfinite(array)] if array.size else array
        entry: Data = {"shape": list(array.shape), "dtype": str(array.dtype), "min": None, "mean": None, "max": None}
        if finite.size:
            entry |= {"min": float(finite.min()), "mean": float(finite.mean()), "max": float(finite.max())}
        size = max(1, array.size)
        entry |= {"zeros": float((array == 0).sum() / size), "nans": float(np.isnan(array).sum() / size)}
        entry["infs"] = float(np.isinf(array).sum() / size)
        if array.size <= 64:
            entry["numbers"] = _words(array.tolist())
        else:
            rows = array.reshape(-1, array.shape[-1])
            low, high = float(finite.min()), float(finite.max())
            known = np.where(np.isfinite(rows), rows, low)
            scaled = np.where(np.isfinite(rows), (known - low) / (high - low) * 254, 255).round()
            cells = base64.b64encode(scaled.clip(0, 255).astype(np.uint8).tobytes()).decode()
            heat = {"rows": len(rows), "cols": rows.shape[1], "cells": cells, "low": low, "high": high, "reduced": None}
            entry["heat"] = heat
        self.data["values"].append(entry)
        return len(self.data["values"]) - 1

    def source(self, text: str, argument: str | None = None) -> int:
        """Add the source of a rule, and return its place."""
        place = {"file": "tensorlite/ops/some.py", "line": 7}
        called = re.findall(r"xp\.(\w+_backward)", text)
        calls = [{"name": name, "text": f"def {name}(xp, g):\n    return xp.sum(g)", **place} for name in called]
        self.data["sources"].append({"text": text, **place, "for": argument, "calls": calls})
        return len(self.data["sources"]) - 1

    def backward(self, node: int, gradient: Any, *inputs: Data, freed: str = "", freed_bytes: int = 0) -> None:
        """Add a backward step. Each of `inputs` has what differs from an input that is used once."""
        usual = {"summed_dims": [], "sum": None, "cast": None, "before": None, "use": 1, "uses": 1}
        full = [{**usual, "after": each.get("sum") or each["result"], **each} for each in inputs]
        self.data["backward"].append({
            "node": node, "cotangent": self.value(gradient), "cotangents": None, "seconds": 1e-6, "error": None,
            "freed": freed.split(), "freed_bytes": freed_bytes, "inputs": full,
        })  # fmt: skip


def _words(entry: Any) -> Any:
    """Return nested lists with NaN and infinities as strings."""
    if isinstance(entry, list):
        return [_words(each) for each in entry]
    return entry if isinstance(entry, int) or np.isfinite(entry) else str(entry)


def layer(bias_name: str = "0.bias") -> Data:
    """Return a layer ``x @ weight.T + bias`` in one op, a second bias that the engine sums, a square, and a sum."""
    sample = Sample()
    data = sample.data
    data["modules"] = [
        {"id": 0, "name": "", "type": "Sequential", "parent": None},
        {"id": 1, "name": "0", "type": "Linear", "parent": 0},
    ]
    x = np.arange(12.0).reshape(4, 3) / 10 - 0.5
    weight, bias, shift = np.array([[1.0, -2, 3], [0.5, 0, 1]]), np.array([0.25, -1]), np.array([[1.0], [2], [0], [-1]])
    h = x @ weight.T + bias
    y = h + shift
    nodes = [
        sample.add("constant", "x", x),
        sample.add("parameter", "0.weight", weight, module=1),
        sample.add("parameter", bias_name, bias, module=1),
        sample.add("leaf", "shift", shift),
    ]
    linear = sample.add("op", "linear", h, (nodes[0], nodes[1], nodes[2]), module=1, saved=[
        {"name": "x", "value": 0, "text": None, "bytes": 96, "node": 0}])  # fmt: skip
    data["edges"][1]["argument"], data["edges"][2]["argument"] = "weight", "bias"
    add = sample.add("op", "add", y, (linear, nodes[3]), name="y")
    mul = sample.add("op", "mul", y * y, (add, add))
    total = sample.add("op", "sum", (y * y).sum(), (mul,), root=True)
    g = 2 * y
    linear_rule = sample.source("lambda xp, g, x, weight, needs: xp.linear_backward(g, x, weight, needs)")
    same, times = sample.source("lambda g: g", "x"), sample.source("lambda g, y: g * y", "x")
    ones, half, whole = np.ones_like(y), sample.value(y), sample.value(g)
    sample.backward(total, 1.0, {"edge": 7, "source": same, "result": sample.value(ones)})
    sample.backward(
        mul, ones,
        {"edge": 5, "source": times, "result": half, "use": 1, "uses": 2},
        {"edge": 6, "source": times, "result": half, "before": half, "after": whole, "use": 2, "uses": 2},
        freed="x y", freed_bytes=64,
    )  # fmt: skip
    shift_sum = sample.value(g.sum(1, keepdims=True))
    sample.backward(add, g, {"edge": 3, "source": same, "result": whole},
                    {"edge": 4, "source": same, "result": whole, "summed_dims": [1], "sum": shift_sum})  # fmt: skip
    grads = [sample.value(each) for each in (g.T @ x, g.sum(0))]
    sample.backward(linear, g, {"edge": 1, "source": linear_rule, "result": grads[0]},
                    {"edge": 2, "source": linear_rule, "result": grads[1]}, freed="x", freed_bytes=96)  # fmt: skip
    data["gradients"] = [{"node": i + 1, "value": value} for i, value in enumerate([*grads, shift_sum])]
    kink = {"index": [1], "low": -1.0, "high": 2.0}
    checked = {"analytic": grads[1], "numeric": grads[1], "kinks": [], "why_not": None}
    data["checks"] = [
        {"edge": 2, "ok": True, "error": 1e-9, **checked, "kinks": [kink]},
        {"edge": 4, "ok": False, "error": 0.5, **checked, "analytic": shift_sum, "numeric": sample.value(shift)},
        {"edge": 7, "ok": False, "error": None, **checked, "why_not": "It is slow."},
    ]
    return data


def large_sums() -> Data:
    """Return a matrix with a row and a column that were added to it: their gradients are sums of a heat map."""
    sample = Sample()
    g = np.random.default_rng(1).normal(size=(12, 9))
    row, column = np.zeros(9), np.zeros((12, 1))
    leaves = sample.add("leaf", "row", row), sample.add("leaf", "column", column), sample.add("module", "h.0", 1.0)
    sample.data["nodes"][2] |= {"op": "Block", "count": 1234}
    add = sample.add("op", "add", g, leaves, root=True)
    rule, whole = sample.source("lambda g: g"), sample.value(g)
    sums = sample.value(g.sum(0)), sample.value(g.sum(1, keepdims=True))
    sample.backward(add, g, {"edge": 0, "source": rule, "result": whole, "summed_dims": [0], "sum": sums[0]},
                    {"edge": 1, "source": rule, "result": whole, "summed_dims": [1], "sum": sums[1]})  # fmt: skip
    return sample.data


def values() -> Data:
    """Return leaves with each kind of value: empty, 0-d, bool, 3-d, NaN and infinities, a heat map, an unknown one."""
    sample = Sample("values")
    large = np.random.default_rng(0).normal(size=(12, 10))
    large[3, 4], large[5, 6] = np.nan, np.inf
    arrays = {
        "empty": np.zeros((0, 3)), "single": 0.125, "flags": np.array([True, False]),
        "cube": np.arange(8.0).reshape(2, 2, 2), "odd": np.array([1.0, np.nan, -np.inf]), "large": large,
    }  # fmt: skip
    for name, array in arrays.items():
        sample.add("leaf", name, array)
    sample.add("leaf", "freed", 1.0, value=None, why_no_value="A backward pass has freed it.")
    sample.data["notes"] = ["1 op has no saved values, because a backward pass has freed them."]
    return sample.data


def hostile() -> Data:
    """Return a graph whose strings are HTML."""
    sample = Sample(HOSTILE)
    sample.data["notes"] = [HOSTILE]
    sample.data["modules"] = [{"id": 0, "name": HOSTILE, "type": HOSTILE, "parent": None}]
    leaf = sample.add("leaf", HOSTILE, [1.0, 2.0], module=0, line=HOSTILE, doc=HOSTILE)
    sample.add("op", HOSTILE, 3.0, (leaf,), root=True, saved=[
        {"name": HOSTILE, "value": None, "text": HOSTILE, "bytes": 0, "node": None}])  # fmt: skip
    return sample.data


def large(count: int = 2000) -> Data:
    """Return a chain of ops in modules of 40 ops, two deep, with a value that every module uses."""
    sample = Sample("large")
    shared = sample.add("leaf", "shared", [1.0])
    last = shared
    sample.data["modules"] = [{"id": 0, "name": "", "type": "Net", "parent": None}]
    for i in range(count - 1):
        block, part = 1 + 3 * (i // 40), 2 + (i // 20) % 2
        if i % 40 == 0:
            sample.data["modules"].append({"id": block, "name": f"h.{i // 40}", "type": "Block", "parent": 0})
            for j in (1, 2):
                child = {"id": block + j, "name": f"h.{i // 40}.{j}", "type": "Part", "parent": block}
                sample.data["modules"].append(child)
        inputs = (last, shared) if i % 40 == 7 else (last,)
        last = sample.add("op", "tanh", [1.0], inputs, module=block + part - 1)
    rule = sample.source("lambda g, out: g * (1 - out * out)", "x")
    ends = {edge["to"]: edge["id"] for edge in sample.data["edges"]}
    for node in range(count - 1, 0, -1):
        sample.backward(node, [1.0], {"edge": ends[node], "source": rule, "result": 0})
    return sample.data


def recurrent() -> Data:
    """Return ops that go into a module and out of it again, in a cycle between modules, and one of second order."""
    sample = Sample("state")
    sample.data["modules"] = [{"id": 0, "name": "cell", "type": "Cell", "parent": None}]
    state = sample.add("leaf", "state", [1.0])
    for _ in range(3):
        state = sample.add("op", "tanh", [0.5], (state,), module=0)
        state = sample.add("op", "exp", [0.5], (state,))
    sample.add("op", "cos", [0.5], (state,), order=2, of=state)
    return sample.data
