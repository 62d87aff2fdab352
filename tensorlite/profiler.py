"""Where the time of a computation goes, by op, forward and backward.

    with tl.profiler.profile() as prof:
        loss = model(x).sum()
        loss.backward()
    print(prof.table())

An op's time is that of its function on arrays; what Python and the graph cost around it is the line "between ops". In
the backward pass an op's time is that of its gradient rules, with the ops that these call. The time of what is under
way when the profile ends is not counted. On a GPU, whose work goes on after an op has returned, these are the times of
launching it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .autograd.graph import Node
from .autograd.op_hooks import OpHooks, set_op_hooks

__all__ = ["OpTime", "profile"]


@dataclass
class OpTime:
    """What one op took. calls, backward_calls: how often it was called, and differentiated. Times are in seconds."""

    name: str
    calls: int = 0
    forward: float = 0.0
    backward_calls: int = 0
    backward: float = 0.0

    @property
    def total(self) -> float:
        """Forward and backward."""
        return self.forward + self.backward


class profile:
    """A context manager that measures the ops which this thread calls inside it. It can be entered again, and adds up.

    ops: an OpTime for each op, by name. seconds: the time inside the blocks.
    """

    def __init__(self) -> None:
        self.ops: dict[str, OpTime] = {}
        self.seconds = 0.0
        self._differentiating = False

    def __enter__(self) -> profile:
        self._before = set_op_hooks(OpHooks(self._forward, self._backward))
        self._began = time.perf_counter()
        return self

    def __exit__(self, *exc: object) -> None:
        self.seconds += time.perf_counter() - self._began
        set_op_hooks(self._before)

    def _forward(self, run: Callable[..., Any], f: Callable[..., Any], *args: Any) -> Any:
        began = time.perf_counter()
        try:
            return run(f, *args)
        finally:
            if not self._differentiating:  # else it is part of the rule that called it
                op = self._of(f.__name__.strip("_"))
                op.calls += 1
                op.forward += time.perf_counter() - began

    def _backward(self, run: Callable[..., Any], node: Node, *args: Any) -> Any:
        outer, self._differentiating = self._differentiating, True
        began = time.perf_counter()
        try:
            return run(node, *args)
        finally:
            self._differentiating = outer
            if not outer:
                op = self._of(node.name)
                op.backward_calls += 1
                op.backward += time.perf_counter() - began

    def _of(self, name: str) -> OpTime:
        op = self.ops.get(name)
        if op is None:
            op = self.ops[name] = OpTime(name)
        return op

    def table(self, rows: int | None = None) -> str:
        """The ops as a table, the slowest first, or the ``rows`` slowest: milliseconds, and parts of the whole."""
        ops = sorted(self.ops.values(), key=lambda op: -op.total)
        between = self.seconds - sum(op.total for op in ops)
        shown = [
            (op.name, f"{op.calls:,}", _ms(op.forward), f"{op.backward_calls:,}", _ms(op.backward), op.total)
            for op in ops[:rows]
        ]
        if len(ops) > len(shown):
            rest = ops[len(shown) :]
            shown.append((f"{len(rest)} more", f"{sum(op.calls for op in rest):,}", _ms(sum(op.forward for op in rest)),
                          f"{sum(op.backward_calls for op in rest):,}", _ms(sum(op.backward for op in rest)),
                          sum(op.total for op in rest)))  # fmt: skip
        shown.append(("between ops", "", "", "", "", between))
        width = max(len(row[0]) for row in shown)
        lines = [f"{'op':{width}} {'calls':>8} {'forward':>10} {'calls':>8} {'backward':>10} {'ms':>10} {'part':>6}"]
        for name, calls, forward, backward_calls, backward, total in shown:
            part = total / self.seconds if self.seconds else 0.0
            numbers = f"{calls:>8} {forward:>10} {backward_calls:>8} {backward:>10} {_ms(total):>10} {part:>6.1%}"
            lines.append(f"{name:{width}} {numbers}")
        return "\n".join([*lines, f"{'in all':{width}} {'':39} {_ms(self.seconds):>10}"])


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:,.3f}"
