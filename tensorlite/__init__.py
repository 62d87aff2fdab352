"""tensorlite: tensors with reverse-mode automatic differentiation, on NumPy or CuPy.

    import tensorlite as tl

    x = tl.tensor([1.0, 2.0], requires_grad=True)
    (x * x).sum().backward()
    x.grad                      # tensor([2., 4.])

Names are PyTorch's where PyTorch has one. ``tl.nn``, ``tl.optim`` and other modules are loaded on first use.
"""

import importlib as _importlib
import typing as _typing
from math import inf, nan, pi

from numpy import iinfo

from . import autograd, errors, ops, serialization
from .autograd import (
    detect_anomaly,
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    op,
    set_grad_enabled,
)
from .autograd.checkpointing import checkpoint
from .backends.cpu.malloc import keep_freed_memory
from .backends.cpu.thread_pool import (
    are_deterministic_algorithms_enabled,
    get_num_threads,
    set_num_threads,
    use_deterministic_algorithms,
)
from .backends.registry import Device, cuda_is_available, device, get_default_device, set_default_device
from .batching import vmap
from .dtypes import DType as _DType
from .dtypes import (
    bool_,
    complex64,
    complex128,
    finfo,
    float16,
    float32,
    float64,
    get_default_dtype,
    int8,
    int16,
    int32,
    int64,
    promote_types,
    result_type,
    set_default_dtype,
    uint8,
)
from .errors import AnomalyError, DeviceError, DTypeError, GraphError, ShapeError, VersionError
from .missing_names import missing_attribute as _missing_attribute
from .ops import *
from .random import Generator, get_rng_state, manual_seed, set_rng_state
from .serialization import load, save
from .tensors.comparison import allclose, equal, is_floating_point, is_tensor, isclose, numel
from .tensors.creation import (
    arange,
    as_tensor,
    empty,
    empty_like,
    eye,
    from_numpy,
    full,
    full_like,
    linspace,
    ones,
    ones_like,
    rand,
    rand_like,
    randint,
    randint_like,
    randn,
    randn_like,
    randperm,
    tensor,
    zeros,
    zeros_like,
)
from .tensors.dlpack import from_dlpack
from .tensors.printing import printoptions, set_printoptions
from .tensors.tensor import Tensor

if _typing.TYPE_CHECKING:
    from . import amp, cuda, distributed, func, linalg, nn, optim, profiler, quantized, utils
    from . import compiled as compiled
    from . import learn as learn
    from . import testing as testing
    from . import viz as viz
    from .amp import autocast, get_autocast_dtype, is_autocast_enabled
    from .capture import compile as compile
    from .dtypes import bfloat16 as bfloat16
    from .viz import explore

# PyTorch's other names for number types.
half: _DType = float16
float: _DType = float32
double: _DType = float64
short: _DType = int16
int: _DType = int32
long: _DType = int64
bool: _DType = bool_

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "amp", "autograd", "cuda", "distributed", "errors", "func", "linalg", "nn", "optim", "profiler", "quantized",
    "serialization", "utils",
    "detect_anomaly",
    "autocast", "get_autocast_dtype", "is_autocast_enabled",
    "enable_grad", "inference_mode", "is_grad_enabled", "is_inference_mode_enabled", "no_grad", "op",
    "set_grad_enabled",
    "Device", "cuda_is_available", "device", "get_default_device", "set_default_device",
    "are_deterministic_algorithms_enabled", "get_num_threads", "keep_freed_memory", "set_num_threads",
    "use_deterministic_algorithms",
    "checkpoint", "compile", "printoptions", "set_printoptions", "vmap",
    "arange", "as_tensor", "empty", "empty_like", "eye", "from_dlpack", "from_numpy", "full", "full_like", "linspace",
    "ones", "ones_like", "rand", "rand_like", "randint", "randint_like", "randn", "randn_like", "randperm", "tensor",
    "zeros", "zeros_like",
    "bool_", "complex128", "complex64", "float16", "float32", "float64", "get_default_dtype", "int16", "int32",
    "int64", "int8", "promote_types", "result_type", "set_default_dtype", "uint8",
    "AnomalyError", "DTypeError", "DeviceError", "GraphError", "ShapeError", "VersionError",
    "allclose", "equal", "is_floating_point", "is_tensor", "isclose", "numel",
    "bool", "double", "float", "half", "int", "long", "short", "finfo", "iinfo", "inf", "nan", "pi",
    "Generator", "get_rng_state", "manual_seed", "set_rng_state",
    "explore", "load", "save",
    "Tensor",
]  # fmt: skip
__all__ += ops.__all__

# Importing these takes a third of the time of importing tensorlite, and a program may need none of them.
_LOADED_ON_FIRST_USE = frozenset(
    "amp compiled cuda distributed func learn linalg nn optim profiler quantized testing utils viz".split()
)

_NAMES_OF = {"explore": "viz", "autocast": "amp", "get_autocast_dtype": "amp", "is_autocast_enabled": "amp",
             "bfloat16": "dtypes", "compile": "capture"}  # fmt: skip

if not _typing.TYPE_CHECKING:  # because a type checker would then accept any name of this module

    def __getattr__(name: str) -> object:
        """Load a module or bfloat16 on first use. Raises AttributeError for other names, and without their packages."""
        if name not in _LOADED_ON_FIRST_USE and name not in _NAMES_OF:
            raise _missing_attribute(__name__, name, [*globals(), *_LOADED_ON_FIRST_USE, *_NAMES_OF])
        try:
            if name in _NAMES_OF:
                return getattr(_importlib.import_module(f"tensorlite.{_NAMES_OF[name]}"), name)
            return _importlib.import_module(f"tensorlite.{name}")
        except ImportError as error:
            raise AttributeError(str(error)) from error
