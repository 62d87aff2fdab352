"""Sentences that tell what a page does not show, and why."""

from __future__ import annotations

from .backward import Trace
from .finite_differences import EdgeCheck
from .forward import Known
from .graph import FREED, Graph

__all__ = ["found_notes"]

_MOST = 5  # failed steps that are named one by one


def found_notes(graph: Graph, known: Known, trace: Trace, checks: list[EdgeCheck]) -> list[str]:
    """Return the notes about a graph, its values, its backward pass and its checks."""
    return [*_seed(graph), *_saved(graph), *_backward(graph, trace), *_values(graph, known), *_checks(checks)]


def _count(n: int, one: str, many: str = "") -> str:
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def _seed(graph: Graph) -> list[str]:
    shape = graph.roots[0].shape or ()
    if all(n == 1 for n in shape):
        return []
    return [f"The tensor has shape {shape}, so its gradient starts as ones: these are the gradients of its sum."]


def _saved(graph: Graph) -> list[str]:
    notes = []
    freed = sum(v.no_saved == FREED for v in graph.ops)
    if freed:
        notes.append(
            f"{_count(freed, 'op has', 'ops have')} no saved values, because a backward pass has freed them. The "
            f"backward pass stops there. Call explore before backward(), or pass retain_graph=True to it."
        )
    again = sum(v.recomputed for v in graph.ops)
    if again:
        notes.append(
            f"{_count(again, 'op is', 'ops are')} inside a checkpoint. The values that they save were computed again "
            f"for this page, as a backward pass does."
        )
    return notes


def _backward(graph: Graph, trace: Trace) -> list[str]:
    failed = [s for s in trace.steps if s.error is not None and s.vertex.no_saved != FREED]
    notes = [f"The backward pass stops at {s.vertex.name}: {s.error}" for s in failed[:_MOST]]
    if len(failed) > _MOST:
        notes.append(f"It stops at {_count(len(failed) - _MOST, 'further op')}, too.")
    if trace.error is not None:
        notes.append(f"The backward pass ended early: {trace.error}")
    leaves = sum(v.order == 1 and v.id not in trace.gradients for v in graph.leaves)
    if leaves and any(s.error is not None for s in trace.steps):
        notes.append(
            f"The gradients of {_count(leaves, 'leaf', 'leaves')} are not shown, because a step before them is missing."
        )
    if trace.hooked:
        notes.append(
            f"{_count(len(trace.hooked), 'tensor has hooks, which were', 'tensors have hooks, which were')} called "
            f"once for this page. Their steps show the gradient after the hooks."
        )
    return notes


def _values(graph: Graph, known: Known) -> list[str]:
    unknown = sum(v.id in known.why_not and v.id not in graph.outputs_of for v in graph.vertices)
    notes = []
    if unknown:
        notes.append(
            f"The results of {_count(unknown, 'op')} are not known, because nothing holds them. Give explore a "
            f"function that computes the tensor: tl.explore(lambda: ...)."
        )
    if known.changed:
        notes.append(
            f"{_count(known.changed, 'leaf was', 'leaves were')} changed in place after the forward pass. The page "
            f"shows the new values. Call explore before the optimizer's step."
        )
    return notes


def _checks(checks: list[EdgeCheck]) -> list[str]:
    if not checks:
        return []
    wrong, unknown = sum(c.ok is False for c in checks), sum(c.ok is None for c in checks)
    sampled = sum(c.entries is not None for c in checks)
    note = f"Finite differences in float64 confirm {len(checks) - wrong - unknown:,} of {_count(len(checks), 'edge')}"
    note += f", contradict {wrong:,}" * bool(wrong) + f", and say nothing about {unknown:,}" * bool(unknown) + "."
    if sampled:
        note += f" On {_count(sampled, 'edge')} a sample of the entries was checked, and one direction through all."
    return [note]
