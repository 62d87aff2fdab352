"""The table of the classes of ops: it has every op, and dtypes are PyTorch's but for listed reasons."""

import gc
import importlib
import pkgutil
import re
from pathlib import Path

import tensorlite as tl
from tensorlite.amp.op_classes import OP_CLASSES
from tensorlite.autograd.op_definition import Op

SOURCES = Path(tl.__file__).parent
NOT_IMPORTED = ("compiled", "cuda", "quantized", "testing", "viz")  # they have no ops, and some need extras


def library_ops():
    """Return every op of the library."""
    for module in pkgutil.walk_packages(tl.__path__, "tensorlite."):
        if not any(name in module.name for name in NOT_IMPORTED):
            importlib.import_module(module.name)
    return [o for o in gc.get_objects() if type(o) is Op and o.built_in]


def library_functions():
    """Return the names of the functions that compute as one op inside autocast."""
    found = set()
    for path in SOURCES.rglob("*.py"):
        text = path.read_text("utf-8")
        found |= {n.strip("_") for n in re.findall(r"^@(?:autocasts|rounds_once)\n(?:@\w+\n)*def (\w+)", text, re.M)}
    return found


def test_every_op_and_every_function_of_several_ops_has_a_class():
    ops = {op.name: op for op in library_ops()}
    functions = library_functions()
    assert len(ops) > 150
    assert len(functions) > 25
    assert sorted({*ops, *functions} - OP_CLASSES.keys()) == []
    assert sorted(OP_CLASSES.keys() - {*ops, *functions}) == []
    assert [op.name for op in ops.values() if op.autocast is not None] == []  # the table alone decides
