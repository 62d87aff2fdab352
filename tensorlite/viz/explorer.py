"""The explorer: what ``tl.explore`` returns, and how it is made."""

from __future__ import annotations

import html
import inspect
import os
import sys
import tempfile
import webbrowser
from pathlib import Path
from typing import Any

from ..autograd import version_counter
from ..autograd.graph import Edge, Variable, topological_order
from ..autograd.views import regenerate_views
from ..backends.registry import BACKENDS, describe_array
from ..dtypes import is_floating
from ..errors import GraphError
from ..nn.module import Module
from ..serialization import atomic_write
from .backward import Step, trace_backward
from .data import DataWriter, shortened
from .finite_differences import EdgeCheck, check_step
from .formats import FORMATS
from .forward import known_results
from .graph import build_graph
from .labels import Labels
from .large import is_too_large, overview
from .memory import held_elsewhere
from .notes import found_notes
from .op_recording import recording as Recording
from .second_order import with_gradients
from .variables import variables_of, variables_of_function

__all__ = ["Explorer", "explore"]

_HEAD = '<head>\n<meta name="generator" content="tensorlite.viz">\n'
_MARKS = {None: b"tensorlite.viz", "dot": b"digraph", "mermaid": b"flowchart", "text": b"gradient rules"}
"""What is near the start of a file of each format, by which a file that may be replaced is known."""


class Explorer:
    """A picture of a graph that steps through its backward pass.

    In a notebook it shows itself. ``str()`` gives it as text.

    data: a dict that JSON can hold; see :mod:`tensorlite.viz`. path: the file that it was saved to, or None.
    """

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data
        self.path: Path | None = None

    def html(self) -> str:
        """Return the page as one HTML text that needs nothing else."""
        from .page import render

        return render(self.data).replace("<head>\n", _HEAD, 1)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the page to a file, and return its path. A page of the explorer is replaced.

        Raises ValueError for a name that does not end in ``.html``, FileNotFoundError for a missing folder, and
        FileExistsError for an existing file that is not a page of the explorer.
        """
        found = checked_path(path)
        with atomic_write(found) as temporary:
            temporary.write_text(self.html(), "utf-8")
        self.path = found
        return found

    def open(self) -> Path:
        """Show the page in the browser, from a temporary file if it was not saved. Return the path of the file."""
        if self.path is None:
            folder = tempfile.mkdtemp(prefix="tensorlite-")
            self.save(Path(folder, "explore.html"))
        assert self.path is not None
        webbrowser.open(self.path.resolve().as_uri())
        return self.path

    def _repr_html_(self) -> str:
        page = html.escape(self.html(), quote=True)
        return f'<iframe srcdoc="{page}" style="width:100%;height:640px;border:0" title="tl.explore"></iframe>'

    def __str__(self) -> str:
        return FORMATS["text"](self.data)

    def __repr__(self) -> str:
        where = "" if self.path is None else f", saved to {self.path}"
        return f"<Explorer of {self.data['title']}: {len(self.data['nodes'])} nodes{where}>"


def explore(
    what: Any,
    path: str | os.PathLike[str] | None = None,
    *,
    model: Module | None = None,
    check: bool = False,
    order: int = 1,
    format: str | None = None,
    recording: Recording | None = None,
) -> Any:
    """Return a page that shows the graph of a tensor and steps through its backward pass.

        tl.explore(loss, "loss.html")                     # writes a page
        tl.explore(lambda: model(x).sum()).open()         # with every forward value, its time and its source line

    The backward pass is run for the page, on a copy of the graph: no ``.grad`` and no saved value changes. Hooks of
    tensors are called once, except those of ``retain_grad``. Random ops are not run again.

    what: a Tensor that requires gradients, or a function without arguments that computes one. The gradient of a tensor
        that is not a scalar starts as ones.
    path: the file to write, which ends in ``.html``. With ``format`` it may have any name.
    model: the module that gives names to parameters. By default they are named after the caller's variables.
    check: whether to compute each derivative by finite differences, too, in float64.
    order: 2 shows the graph of the gradients, too.
    format: ``"dot"``, ``"mermaid"`` or ``"text"`` returns the graph as text in that language.
    recording: what recorded the forward pass, a :class:`tensorlite.viz.recording`.

    Returns an :class:`Explorer`, or a str with ``format``. Raises TypeError for anything else than a tensor or such a
    function, GraphError for a tensor that does not require gradients, ValueError for another format, order or suffix,
    and FileNotFoundError or FileExistsError for a path that cannot be written.
    """
    _check_options(model, check, order, format)
    if recording is not None and not isinstance(recording, Recording):
        raise TypeError(f"explore: expected a recording, got {type(recording).__name__}. Do recording=r, of its block.")
    target = None if path is None else checked_path(path, format)
    variables = variables_of(sys._getframe(1))
    recordings: list[Recording] = [] if recording is None else [recording]
    if not isinstance(what, Variable):
        variables = {**variables_of_function(what), **variables}
        what, record = _call(what, model, variables)
        recordings.insert(0, record)
    _check_tensor(what)
    found = _explored(what, model, check, order, recordings, variables)
    if format is not None:
        text = FORMATS[format](found.data)
        if target is not None:
            target.write_text(text, "utf-8")
        return text
    if target is not None:
        found.save(target)
    return found


def _explored(
    root: Variable, model: Module | None, check: bool, order: int, recordings: list[Recording], variables: Any
) -> Explorer:
    """Return the explorer of a tensor."""
    if version_counter.inplace_in_graph:
        regenerate_views("explore", [root])
    held = held_elsewhere(topological_order([root.node or root]))
    graph = build_graph([root])
    notes: list[str] = []
    roots: list[Variable] = [root]
    origin: dict[Edge, Edge] = {}
    if order == 2:
        try:
            graph, roots, origin, record = with_gradients(graph, root)
            recordings = [*recordings, record]
            if len(roots) == 1:
                notes.append(
                    "The gradients are constants: they stay the same if a tensor changes a little. So there is no "
                    "graph of second order to show."
                )
        except Exception as error:
            notes.append(f"The graph of the gradients is not shown: {error}")
    labels = Labels(graph, root, origin=origin, model=model, variables=variables, recordings=recordings)
    if is_too_large(graph):
        return Explorer(overview(graph, labels, notes))
    recorded = {v.id: a for v in graph.ops if (a := labels.value(v)) is not None}
    known = known_results(graph, roots, recorded)
    seed = BACKENDS[type(root.array)].ones_like(root.array)
    writer = DataWriter(graph, known, labels)
    checks: list[EdgeCheck] = []

    def add(step: Step) -> None:
        writer.add_step(step)
        if check:
            checks.extend(check_step(graph, known, step))

    trace = trace_backward(graph, {graph.roots[0]: seed}, add)
    notes += [*found_notes(graph, known, trace, checks), *filter(None, [shortened(graph)])]
    return Explorer(writer.data(trace, held, checks, notes))


def _call(what: Any, model: Module | None, variables: Any) -> tuple[Any, Recording]:
    """Return the result of a function without arguments, and what recorded its ops. Raises TypeError."""
    if not callable(what) or isinstance(what, (Module, type)):
        raise TypeError(f"{_EXPECTED}, got {_described(what)}")
    name = getattr(what, "__name__", type(what).__name__)
    try:
        parameters = list(inspect.signature(what).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if needed:
        raise TypeError(
            f"{_EXPECTED}, got the function {name} with the arguments {', '.join(needed)}. Do "
            f"tl.explore(lambda: {name if name.isidentifier() else 'f'}({', '.join(needed)}))."
        )
    record = Recording(model)
    record.start(variables)
    try:
        result = what()
    finally:
        record.__exit__()
    if not isinstance(result, Variable):
        raise TypeError(f"{_EXPECTED}, got the function {name}, which returned {_described(result)}")
    return result, record


_EXPECTED = "explore: expected a Tensor that requires gradients, or a function without arguments that computes one"


def _described(x: Any) -> str:
    """Return what an argument is, and what to do instead."""
    kind = type(x).__name__
    if isinstance(x, Module):
        return f"the module {kind}. Do tl.explore(model(x).sum()), say."
    if isinstance(x, type):
        return f"the class {x.__name__}. Do tl.explore(loss), with a Tensor."
    if isinstance(x, (list, tuple, dict)):
        return f"a {kind} of {len(x)}. Do tl.explore for one of its tensors, or for their sum."
    if x is None:
        return "None. Do tl.explore(loss), with a Tensor, or return it from the function."
    if type(x) in BACKENDS or hasattr(x, "dtype"):
        return f"an array of the type {kind}. Do tl.tensor(..., requires_grad=True), and compute with that."
    return f"{kind} {x!r:.40}. Do tl.explore(loss), with a Tensor."


def _check_tensor(x: Variable) -> None:
    if x.tracked:
        return
    what = f"a Tensor {describe_array(x.array)} without a graph"
    if not is_floating(x.array.dtype):
        raise GraphError(f"{_EXPECTED}, got {what}. Only floating point tensors have gradients. Do x.float(), say.")
    raise GraphError(
        f"{_EXPECTED}, got {what}. Do requires_grad=True on a tensor that it is computed from, and look for no_grad() "
        f"and detach() on the way."
    )


def _check_options(model: Any, check: Any, order: Any, format: Any) -> None:
    if model is not None and not isinstance(model, Module):
        raise TypeError(f"explore: expected model to be a Module, got {type(model).__name__}. Do model=net.")
    if not isinstance(check, bool):
        raise TypeError(f"explore: expected check to be True or False, got {check!r}. Do check=True.")
    if isinstance(order, bool) or order not in (1, 2):
        raise ValueError(f"explore: expected order to be 1 or 2, got {order!r}. Do order=2 for the gradients' graph.")
    if format is not None and (not isinstance(format, str) or format not in FORMATS):
        known = ", ".join(map(repr, FORMATS))
        raise ValueError(f"explore: expected format to be one of {known}, got {format!r}. Do leave it out for a page.")


def checked_path(path: str | os.PathLike[str], format: str | None = None) -> Path:
    """Return a path that a page, or the text of a format, can be written to. Raises the errors of ``Explorer.save``."""
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"explore: expected a path, got {type(path).__name__}. Do path='loss.html'.")
    found = Path(path)
    if found.is_dir():
        raise IsADirectoryError(f"explore: expected a file, got the folder {str(path)!r}. Do {found.name}/x.html.")
    if format is None and found.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"explore: expected a path that ends in .html, got {str(path)!r}. Do {found.stem}.html.")
    if not found.parent.is_dir():
        raise FileNotFoundError(f"explore: expected a folder, got {str(found.parent)!r}, which is none. Make it.")
    if found.exists() and not _is_replaceable(found, format):
        raise FileExistsError(
            f"explore: expected a new file or one that explore has written, got {str(path)!r}, which holds something "
            f"else. Do choose another name, or delete it."
        )
    return found


def _is_replaceable(path: Path, format: str | None) -> bool:
    """Return whether a file is empty or looks like one that explore has written."""
    with path.open("rb") as file:
        start = file.read(4096)
    return not start.strip() or _MARKS[format] in start
