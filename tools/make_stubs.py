"""Write the type stubs of the ops and of the methods of Tensor, from the signatures in ``tensorlite/ops``.

    python tools/make_stubs.py          write them
    python tools/make_stubs.py --check  fail if a stub is not what this would write

An op's function computes on raw arrays, ``def exp(xp: Namespace, x: Array) -> Array``. Its users call it with Tensors,
as ``exp(input: Tensor) -> Tensor``. A type checker cannot follow that, and the class Tensor is in a layer above them.
So this script translates: ``Array`` and ``Value`` become ``Tensor``, and ``Operand`` becomes
``Tensor | ArrayOrNumber``. Names of arguments and defaults are those that ``inspect.signature`` shows. Functions with
several kinds of results are declared in the source with ``typing.overload``, which this script copies.

Each stub is next to a module that has only imports or assignments, because type checkers read the stub instead of the
module.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))  # so that the stubs describe this checkout, not an installed version

from tensorlite import autograd, linalg, ops
from tensorlite.ops import functional
from tensorlite.tensors import method_makers
from tensorlite.tensors.methods import OpMethods

ROOT = REPOSITORY / "tensorlite"

IMPORTS = {
    **dict.fromkeys(("Callable", "Collection", "Sequence"), "from collections.abc import"),
    **dict.fromkeys(("Any", "Concatenate", "Literal", "Self", "overload"), "from typing import"),
    **dict.fromkeys(("OpFunction", "P"), "from ..autograd.function import"),
    **dict.fromkeys(("Edge", "Node", "Rule", "Variable"), "from ..autograd.graph import"),
    **dict.fromkeys(("DTypeLike", "Policy"), "from ..dtypes import"),
    **dict.fromkeys(("ArrayOrNumber", "Dim", "Index", "Number"), "from ..ops.arguments import"),
    **dict.fromkeys(("QR", "SVD", "Eigh"), "from ..ops.factorizations import"),
    "MaxMin": "from ..ops.reduce import",
    **dict.fromkeys(("Interpolation", "Median"), "from ..ops.order_statistics import"),
    "LeastSquares": "from ..ops.linear_systems import",
    "SlogDet": "from ..ops.inverses import",
    "Sorted": "from ..ops.sorting import",
    "Tensor": "from ..tensors.tensor import",
}
"""The import that a name in an annotation needs."""

HEADER = "# Written by tools/make_stubs.py. To change it, change the signature of the op and run the script.\n\n"


# ---- signatures -----------------------------------------------------------------------------


def translate(annotation: Any) -> str:
    """Return an annotation of a function in ``tensorlite/ops`` as its users read it."""
    if annotation is inspect.Parameter.empty:
        return "Any"
    text = re.sub(r"\b(Array|Value)\b", "Tensor", annotation if isinstance(annotation, str) else annotation.__name__)
    return re.sub(r"\bOperand\b", "Tensor | ArrayOrNumber", text).replace("'", '"')


def signatures(function: Callable[..., Any]) -> list[inspect.Signature]:
    """Return the public signatures of an op or of a function of ops: several if it is overloaded."""
    op = getattr(function, "op", None)
    if not isinstance(op, autograd.Op):
        own = inspect.unwrap(function)
        return [_translated(inspect.signature(f)) for f in typing.get_overloads(own) or [own]]
    public = inspect.signature(function)
    _, *theirs = inspect.signature(op.forward).parameters.values()
    annotations = [*(translate(p.annotation) for p in theirs), "DTypeLike | None"]
    parameters = [p.replace(annotation=a) for p, a in zip(public.parameters.values(), annotations)]
    result = "tuple[Tensor, ...]" if op.multi_output else "Tensor"
    return [public.replace(parameters=parameters, return_annotation=result)]


def _translated(signature: inspect.Signature) -> inspect.Signature:
    parameters = [p.replace(annotation=translate(p.annotation)) for p in signature.parameters.values()]
    return signature.replace(parameters=parameters, return_annotation=translate(signature.return_annotation))


def as_method(signature: inspect.Signature, result: str | None = None) -> inspect.Signature:
    """Return the signature of the method: the first argument is ``self``."""
    first, *rest = signature.parameters.values()
    itself = first.replace(name="self", annotation=first.empty)
    if first.kind is first.POSITIONAL_ONLY or not any(p.kind is p.POSITIONAL_ONLY for p in rest):
        itself = itself.replace(kind=first.POSITIONAL_OR_KEYWORD)
    if any(p.kind is p.POSITIONAL_ONLY for p in rest):
        itself = itself.replace(kind=first.POSITIONAL_ONLY)
    return signature.replace(
        parameters=[itself, *rest], return_annotation=result if result is not None else signature.return_annotation
    )


# ---- text -----------------------------------------------------------------------------------


def declare(name: str, variants: list[inspect.Signature], indent: str = "", comment: str = "") -> str:
    """Return the declaration of a function in a stub, with ``@overload`` if it has several signatures."""
    lines = []
    for signature in variants:
        lines += [f"{indent}@overload\n"] * (len(variants) > 1)
        lines.append(_definition(name, signature, indent, comment))
    return "".join(lines)


def _definition(name: str, signature: inspect.Signature, indent: str, comment: str) -> str:
    parts, before = [], None
    for p in signature.parameters.values():
        if before is not None and before.kind is p.POSITIONAL_ONLY and p.kind is not p.POSITIONAL_ONLY:
            parts.append("/")
        if p.kind is p.KEYWORD_ONLY and (before is None or before.kind not in (p.KEYWORD_ONLY, p.VAR_POSITIONAL)):
            parts.append("*")
        star = {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "")
        text = f"{star}{p.name}" + (f": {p.annotation}" if p.annotation is not p.empty else "")
        default = json.dumps(p.default) if isinstance(p.default, str) else repr(p.default)
        parts.append(text if p.default is p.empty else f"{text} = {default}")
        before = p
    if before is not None and before.kind is before.POSITIONAL_ONLY and len(signature.parameters) > 1:
        parts.append("/")
    line = f"{indent}def {name}({', '.join(parts)}) -> {signature.return_annotation}: ...{comment}\n"
    if len(line) <= 121:
        return line
    body = "".join(f"{indent}    {part},\n" for part in parts)
    if "*" in parts[-1][:1] and parts[-1] != "*":  # because old tools reject a comma after *args
        body = body[:-2] + "\n"
    return f"{indent}def {name}(\n{body}{indent}) -> {signature.return_annotation}: ...{comment}\n"


def _import_order(name: str) -> tuple[bool, str]:
    """Return the key by which names are sorted in an import: capitals first."""
    return not name.isupper(), name


def with_imports(body: str, here: str, exported: Iterable[str] = ()) -> str:
    """Return a stub's text with the imports that its annotations need, and with those that it re-exports."""
    words = set(re.findall(r"(?<!\.)\b[A-Za-z]\w*\b", body)) - {line.split()[-1] for line in exported}
    names: dict[str, list[str]] = {}
    for name, statement in IMPORTS.items():
        if name in words:
            names.setdefault(statement.replace(f"from ..{here}.", "from ."), []).append(name)
    lines = [f"{statement} {', '.join(sorted(found, key=_import_order))}\n" for statement, found in names.items()]
    lines = sorted([*lines, *exported], key=lambda line: (line.split()[1].replace("..", " "), line))
    relative = [line for line in lines if line.startswith("from .")]
    absolute = [f"import {name}\n" for name in ("builtins",) if name in words]
    absolute += [line for line in lines if line not in relative]
    return HEADER + "".join(absolute) + "\n" * bool(absolute) + "".join(relative) + "\n" + body


# ---- the stubs ------------------------------------------------------------------------------


def stub_of(module: Any, here: str) -> str:
    """Return the stub of a module that only re-exports ops, functions and classes of the package ``here``."""
    exported = {name: getattr(module, name) for name in module.__all__}
    classes = {name: f for name, f in exported.items() if inspect.isclass(f)}
    files = {name: f.__module__.removeprefix("tensorlite.") for name, f in classes.items()}
    files = {name: f"..{file}".replace(f"..{here}.", ".") for name, file in files.items()}
    imports = [f"from {file} import {name} as {name}\n" for name, file in files.items()]
    functions = {name: f for name, f in exported.items() if name == f.__name__ and name not in classes}
    lines = [declare(name, signatures(f)) for name, f in functions.items()]
    lines += [f"{n} = {f.__name__}\n" for n, f in exported.items() if n not in {*functions, *classes}]
    names = "".join(f'    "{name}",\n' for name in exported)
    return with_imports(f"__all__ = [\n{names}]\n\n" + "".join(lines), here, imports)


REFLECTED = re.compile(r"__r(add|sub|mul|truediv|floordiv|mod|pow|lshift|rshift|and|or|xor)__")
IN_PLACE = re.compile(r"__i(add|sub|mul|truediv|floordiv|mod|pow|matmul)__")

SPECIAL = {
    "__eq__": "    def __eq__(self, other: Any) -> Tensor: ...  # type: ignore[override]\n",
    "__ne__": "    def __ne__(self, other: Any) -> Tensor: ...  # type: ignore[override]\n",
    "__hash__": "    def __hash__(self) -> builtins.int: ...\n",
    "__pos__": "    def __pos__(self) -> Self: ...\n",
    "__rmatmul__": "    def __rmatmul__(self, other: Tensor) -> Tensor: ...\n",
}
"""Methods whose declaration does not follow from an op."""


def methods_of(cls: type) -> str:
    """Return the stub of a class with ops as attributes."""
    members = {name: f for name, f in vars(cls).items() if callable(f)}
    first: dict[int, str] = {}  # the first name of each function that is not an operator
    lines = []
    for name, f in members.items():
        if not name.startswith("__") and first.setdefault(id(f), name) != name:
            lines.append(f"    {name} = {first[id(f)]}\n")
        elif name in SPECIAL:
            lines.append(SPECIAL[name])
        else:
            lines.append(declare(name, [_qualified(s, members) for s in _method(name, f)], "    "))
    return f"class {cls.__name__}(Variable):\n" + "".join(lines)


def _qualified(signature: inspect.Signature, members: Mapping[str, Any]) -> inspect.Signature:
    """Name built-in types by their module where a method of the class has the same name."""
    hidden = "|".join({"int", "float", "bool"} & members.keys())

    def full(annotation: Any) -> Any:
        return annotation if annotation is signature.empty else re.sub(rf"\b({hidden})\b", r"builtins.\1", annotation)

    parameters = [p.replace(annotation=full(p.annotation)) for p in signature.parameters.values()]
    return signature.replace(parameters=parameters, return_annotation=full(signature.return_annotation))


def _method(name: str, f: Callable[..., Any]) -> list[inspect.Signature]:
    """Return the signatures of a method, made of an op by the functions in ``tensorlite/tensors/method_makers.py``."""
    if REFLECTED.fullmatch(name):
        return [_signature("Tensor", other="ArrayOrNumber")]
    if IN_PLACE.fullmatch(name):
        return [_signature("Self", other="Tensor | ArrayOrNumber")]
    if name.startswith("__"):
        return [_only_required(as_method(s)) for s in signatures(f)]
    if name.endswith("_"):
        return [_without_dtype(as_method(s, "Self")) for s in signatures(getattr(ops, name[:-1]))]
    _, *rest = inspect.signature(f).parameters.values()
    if len(rest) == 1 and rest[0].kind is rest[0].VAR_POSITIONAL:
        one_by_one = rest[0].replace(annotation="int")
        variants = _signature("Tensor", **{rest[0].name: "Sequence[int]"}), _signature("Tensor")
        return [variants[1].replace(parameters=[*variants[1].parameters.values(), one_by_one]), variants[0]]
    if not rest and not hasattr(f, "op") and f.__module__ == method_makers.__name__:
        return [_signature("Tensor")]
    return [as_method(s) for s in signatures(f)]


def _signature(result: str, **annotations: str) -> inspect.Signature:
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, kind, annotation=text) for name, text in annotations.items()]
    return inspect.Signature([inspect.Parameter("self", kind), *parameters], return_annotation=result)


def _only_required(signature: inspect.Signature) -> inspect.Signature:
    return signature.replace(parameters=[p for p in signature.parameters.values() if p.default is p.empty])


def _without_dtype(signature: inspect.Signature) -> inspect.Signature:
    return signature.replace(parameters=[p for p in signature.parameters.values() if p.name != "dtype"])


def stubs() -> Iterator[tuple[Path, str]]:
    """Yield the path and the text of every stub."""
    yield ROOT / "autograd" / "__init__.pyi", stub_of(autograd, "autograd")
    yield ROOT / "ops" / "__init__.pyi", stub_of(ops, "ops")
    yield ROOT / "ops" / "functional.pyi", stub_of(functional, "ops")
    yield ROOT / "linalg" / "__init__.pyi", stub_of(linalg, "linalg")
    methods = f'__all__ = ["{OpMethods.__name__}"]\n\n' + methods_of(OpMethods)
    yield ROOT / "tensors" / "methods.pyi", with_imports(methods, "tensors")


def main(check: bool) -> int:
    """Write the stubs, or with ``check`` compare them. Return the exit status."""
    stale = []
    for path, text in stubs():
        if not path.exists() or path.read_text("utf-8") != text:
            stale.append(path.name)
            if not check:
                path.write_text(text, "utf-8")
                print(f"wrote {path.relative_to(ROOT.parent)}")
    if check and stale:
        names = ", ".join(stale)
        print(f"make_stubs: {names} differ from the ops. Run python tools/make_stubs.py", file=sys.stderr)
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
