"""tensorlite: tensors with reverse-mode automatic differentiation, on NumPy or CuPy.

    import tensorlite as tl

    x = tl.tensor([1.0, 2.0], requires_grad=True)
    (x * x).sum().backward()
    x.grad                      # tensor([2., 4.])

Names are PyTorch's where PyTorch has one.
"""

from . import autograd, errors, func, nn, optim, serialization
from .anomaly import detect_anomaly
from .autograd import enable_grad, is_grad_enabled, no_grad, op, set_grad_enabled
from .backend import Device, cuda_is_available, device, get_default_device, set_default_device
from .checkpointing import checkpoint
from .creation import (
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
from .dtypes import (
    bool_,
    complex64,
    complex128,
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
from .random import Generator, get_rng_state, manual_seed, set_rng_state
from .tensor import Tensor
