"""Profile a computation: the time of each op, forward and backward.

    with tl.profiler.profile() as prof:
        loss = model(x).sum()
        loss.backward()
    print(prof.table())

The forward time of an op is the time of its function on arrays. The line "between ops" is the rest: Python code and
the graph. The backward time of an op is the time of its gradient rules, with the ops that these call. Ops that still
run when the profile ends are not counted. On a GPU, work continues after an op has returned, so these times are those
of launching the work.
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
    """The time that one op took, in seconds.

    name: the op's name. calls: the number of calls. forward: the time of the calls. backward_calls: the number of nodes
    of the op in backward passes. backward: the time of their gradient rules.
    """

    name: str
    calls: int = 0
    forward: float = 0.0
    backward_calls: int = 0
    backward: float = 0.0

    @property
    def total(self) -> float:
        """Return the sum of the forward and the backward time, in seconds."""
        return self.forward + self.backward


class profile:
    """Context manager that measures the ops that this thread calls inside it. Entered again, it adds to its times.

    ops: an OpTime for each op, by name. seconds: the time inside the blocks.
    """

    def __init__(self) -> None:
        self.ops: dict[str, OpTime] = {}
        self.seconds = 0.0
        self._differentiating = False

    def __enter__(self) -> profile:
        before = self._before = set_op_hooks(OpHooks(self._forward, self._backward))
        # Other hooks see the ops as well. A profile around this one does not count them.
        self._around = OpHooks() if isinstance(getattr(before.forward, "__self__", None), profile) else before
        self._began = time.perf_counter()
        return self

    def __exit__(self, *exc: object) -> None:
        self.seconds += time.perf_counter() - self._began
        set_op_hooks(self._before)

    def _forward(self, run: Callable[..., Any], f: Callable[..., Any], *args: Any) -> Any:
        around = self._around.forward
        began = time.perf_counter()
        try:
            return run(f, *args) if around is None else around(run, f, *args)
        finally:
            if not self._differentiating:  # otherwise the gradient rule that called it counts its time
                op = self._of(f.__name__.strip("_"))
                op.calls += 1
                op.forward += time.perf_counter() - began

    def _backward(self, run: Callable[..., Any], node: Node, *args: Any) -> Any:
        outer, self._differentiating = self._differentiating, True
        around = self._around.backward
        began = time.perf_counter()
        try:
            return run(node, *args) if around is None else around(run, node, *args)
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
        """Return a table of the ops, the slowest first, with times in milliseconds and shares of the total time.

        rows: the number of ops to list, None for all; the others are summed in one line.
        """
        ops = sorted(self.ops.values(), key=lambda op: -op.total)
        listed, rest = ops[:rows], ops[rows:] if rows is not None else []
        cells = [_cells(op.name, op) for op in listed]
        if rest:
            cells.append(_cells(f"{len(rest)} more", *rest))
        cells.append(("between ops", "", "", "", "", self.seconds - sum(op.total for op in ops)))
        width = max(len(row[0]) for row in cells)
        lines = [f"{'op':{width}} {'calls':>8} {'forward':>10} {'calls':>8} {'backward':>10} {'ms':>10} {'share':>6}"]
        for name, calls, forward, backward_calls, backward, total in cells:
            share = total / self.seconds if self.seconds else 0.0
            numbers = f"{calls:>8} {forward:>10} {backward_calls:>8} {backward:>10} {_ms(total):>10} {share:>6.1%}"
            lines.append(f"{name:{width}} {numbers}")
        return "\n".join([*lines, f"{'total':{width}} {'':39} {_ms(self.seconds):>10}"])


def _cells(name: str, *ops: OpTime) -> tuple[str, str, str, str, str, float]:
    """Return the cells of a line of the table, with the sums over these ops."""
    calls, backward_calls = sum(op.calls for op in ops), sum(op.backward_calls for op in ops)
    forward, backward = _ms(sum(op.forward for op in ops)), _ms(sum(op.backward for op in ops))
    return name, f"{calls:,}", forward, f"{backward_calls:,}", backward, sum(op.total for op in ops)


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:,.3f}"
