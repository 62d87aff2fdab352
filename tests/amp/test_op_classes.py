"""The table of the classes of ops: it has every op, and dtypes are PyTorch's, except for listed ops."""

import gc
import importlib
import pkgutil
import re
from pathlib import Path

import numpy as np
import pytest

import tensorlite as tl
from tensorlite.amp.op_classes import OP_CLASSES
from tensorlite.autograd.op_definition import Op
from tests.ops.op_table import SPECS

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


# ---- against PyTorch ------------------------------------------------------------------------

# Ops of a bfloat16 input whose result is float32 here, and bfloat16 in torch.autocast("cpu").
FLOAT32_HERE = {
    "PyTorch does so on a GPU": """
        pow square exp expm1 log log2 log10 log1p rsqrt reciprocal tan sinh cosh asin acos sum logsumexp cumsum cumprod
        norm linalg.norm linalg.vector_norm linalg.matrix_norm softplus F.softplus softmax log_softmax F.softmax
        F.log_softmax F.layer_norm F.rms_norm F.group_norm cosine_similarity F.cosine_similarity cdist F.normalize
    """,
    "it adds up, as sum does": "mean var std logcumsumexp logaddexp matrix_exp linalg.matrix_exp F.pairwise_distance",
    "a count needs more digits": "histc",
}
# Ops of a float32 input whose result is bfloat16 here, and float32 in torch.autocast("cpu").
LOWER_HERE = {"PyTorch does so on a GPU": "mv"}
# Ops of a float32 input whose result is float32 here, and bfloat16 in torch.autocast("cpu").
NOT_LOWER_HERE = {"an inverse loses more digits than a product": "linalg.pinv"}


def names(reasons):
    return {name for text in reasons.values() for name in text.split()}


def result_dtypes(library, f, sample, arrays, dtype):
    """Return the names of the dtypes of the results inside autocast, for floating point inputs of a dtype."""
    tensor = library.Tensor
    xs = [library.tensor(a.astype(np.float32)).to(dtype) if a.dtype.kind == "f" else library.tensor(a) for a in arrays]
    args, kwargs = sample.fill(xs)
    with library.autocast("cpu", dtype=library.bfloat16):
        found = f(*args, **kwargs)
    found = [found] if isinstance(found, tensor) else [x for x in found if isinstance(x, tensor)]
    return [str(x.dtype).removeprefix("torch.") for x in found]


@pytest.mark.filterwarnings("ignore")  # PyTorch's, about single samples
def test_dtypes_of_results_are_those_of_pytorch_except_for_listed_ops():
    torch = pytest.importorskip("torch")
    from tests.ops.test_against_torch import NO_TWIN, twin

    differences = {}
    compared = set()
    for name, spec in SPECS.items():
        if name in NO_TWIN:
            continue
        for wide in (True, False):
            for k, sample in enumerate(spec.samples[:3]):
                try:
                    theirs = result_dtypes(
                        torch, twin(spec), sample, spec.arrays[k], torch.float32 if wide else torch.bfloat16
                    )
                except (RuntimeError, TypeError, NotImplementedError):
                    continue  # PyTorch does not compute this op of bfloat16
                ours = result_dtypes(tl, spec.f, sample, spec.arrays[k], tl.dtypes.float32 if wide else tl.bfloat16)
                compared.add((name, wide))
                if ours != theirs:
                    differences.setdefault((wide, ours[0], theirs[0]), set()).add(name)
                break
    assert len(compared) > 400
    assert differences == {
        (False, "float32", "bfloat16"): names(FLOAT32_HERE),
        (True, "bfloat16", "float32"): names(LOWER_HERE),
        (True, "float32", "bfloat16"): names(NOT_LOWER_HERE),
    }
