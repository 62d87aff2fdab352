"""Mistakes of people who know PyTorch, or begin: each error says what to write."""

import re

import numpy as np
import pytest

import tensorlite as tl
from tensorlite import nn, optim
from tensorlite.nn import functional as F

X, LAYER = tl.zeros(3, 4), nn.Linear(4, 2)
LEAF = tl.zeros(3, 4, requires_grad=True)

MISTAKES = {
    # names
    "typo": (lambda: nn.Liner, AttributeError, "'tensorlite.nn' has no attribute 'Liner'. Did you mean 'Linear'?"),
    "typo in F": (lambda: F.crossentropy, AttributeError, "Did you mean 'cross_entropy'?"),
    "typo in tl": (lambda: tl.zeros_lik, AttributeError, "Did you mean 'zeros_like'?"),
    "typo in optim": (lambda: optim.Adamw, AttributeError, "Did you mean 'AdamW'?"),
    "typo in linalg": (lambda: tl.linalg.norms, AttributeError, "Did you mean 'norm'?"),
    "typo of a tensor": (lambda: X.unsqeeze(0), AttributeError, "'Tensor' object has no attribute 'unsqeeze'. Did you"),
    "typo of a parameter": (lambda: LAYER.weight.grd, AttributeError, "'Parameter' object has no attribute 'grd'"),
    "typo of a layer": (lambda: LAYER.wieght, AttributeError, "Did you mean 'weight'?"),
    "nothing near": (lambda: X.xyz, AttributeError, "'Tensor' object has no attribute 'xyz'"),
    "compile": (lambda: tl.compile(LAYER), TypeError, "Write def step(x, y)"),
    "FloatTensor": (lambda: tl.FloatTensor([1]), AttributeError, "Use tl.tensor(data, dtype=tl.float32)"),
    "Function": (lambda: tl.autograd.Function, AttributeError, "with @tl.op: see docs/autograd.md"),
    "amp": (lambda: tl.cuda.amp, AttributeError, "Use tl.amp.autocast and tl.amp.GradScaler"),
    "Conv3d": (lambda: nn.Conv3d, AttributeError, "Use nn.Conv1d or nn.Conv2d."),
    "LBFGS": (lambda: optim.LBFGS, AttributeError, "Use optim.Adam"),
    "astype": (lambda: X.astype("float16"), AttributeError, "Use .to(dtype)."),
    "x.zero_grad": (lambda: X.zero_grad(), AttributeError, "Use x.grad = None"),
    # arguments
    "wrong option": (lambda: optim.Adam([LEAF], learning_rate=1), TypeError,
                     "Adam: got an unexpected keyword argument 'learning_rate'; its signature is Adam(params"),
    "missing size": (lambda: nn.Linear(4), TypeError, "Linear: missing a required argument: 'out_features'; its sign"),
    "inherited": (lambda: nn.Conv2d(3, 4), TypeError, "Conv2d: missing a required argument: 'kernel_size'"),
    "scheduler": (lambda: optim.lr_scheduler.StepLR(optim.SGD([LEAF])), TypeError, "its signature is StepLR(optimizer"),
    "too many": (lambda: nn.ReLU(1, 2), TypeError, "ReLU: too many positional arguments; its signature is ReLU("),
    "list of layers": (lambda: nn.Sequential([LAYER]), TypeError, "Unpack it: Sequential(*layers)."),
    "class as layer": (lambda: nn.Sequential(nn.ReLU), TypeError, "Make one: ReLU()."),
    "function as layer": (lambda: nn.Sequential(F.relu), TypeError, "use a layer such as nn.ReLU()"),
    "step(loss)": (lambda: optim.SGD([LEAF]).step(X.sum()), TypeError, "Call loss.backward() first, then step()."),
    "clip a model": (lambda: nn.utils.clip_grad_norm_(LAYER, 1.0), TypeError, "Pass model.parameters()."),
    "optimize arrays": (lambda: optim.SGD([np.zeros(3)]), TypeError, "Use nn.Parameter()."),
    "load a model": (lambda: tl.load(LAYER), TypeError, "expected a path, got Linear"),
    # tensors
    "item": (lambda: X.item(), tl.ShapeError, "got shape (3, 4). Use tolist(), or reduce or index it."),
    "array to a layer": (lambda: LAYER(np.zeros((3, 4))), TypeError, "got numpy.ndarray. Make one with"),
    "list as a target": (lambda: F.cross_entropy(X, [0, 1, 2]), TypeError, "got list. Make one with tl.tensor()."),
    "features": (lambda: LAYER(tl.zeros(3, 5)), tl.ShapeError, "an input (..., 4) for this weight, got (..., 5)"),
    "weight = tensor": (lambda: setattr(LAYER, "weight", X), TypeError, "Use nn.Parameter(), or copy_()"),
    "buffer": (lambda: LAYER.register_buffer("b", np.zeros(3)), TypeError, "Make one with tl.tensor()."),
    "from_numpy": (lambda: tl.from_numpy([1, 2]), TypeError, "Use tl.tensor()."),
    "requires_grad": (lambda: tl.arange(3).requires_grad_(), tl.DTypeError, "Convert it with .float()."),
    "hook": (lambda: X.register_hook(print), tl.GraphError, "Set requires_grad=True on it first."),
    "retain_grad": (lambda: X.retain_grad(), tl.GraphError, "Compute it from one that does."),
    "backward(1.0)": (lambda: LEAF.sum().backward(1.0), TypeError, "got float. Make one with tl.tensor()."),
    "max": (lambda: X.max(1).shape, AttributeError, "use .values or .indices"),
    "sort": (lambda: X.sort().sum(), AttributeError, "use .values or .indices"),
    "median": (lambda: X.median(1).item(), AttributeError, "use .values or .indices"),
    "-mask": (lambda: -(X > 0), tl.DTypeError, "Convert booleans with .int()."),
    "float & 1": (lambda: X & 1, tl.DTypeError, "Convert to integers with .long(), or to"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_the_error_says_what_to_write(name):
    mistake, error, words = MISTAKES[name]
    with pytest.raises(error, match=re.escape(words)):
        mistake()


def test_missing_names_can_be_asked_for():
    for owner in (tl, nn, F, optim, tl.autograd, tl.linalg, tl.cuda, X, LAYER, X.max(1)):
        assert not hasattr(owner, "no_such_name")
        assert getattr(owner, "__no_such_name__", None) is None


def test_a_subclass_with_other_arguments_is_made_copied_and_pickled():
    import copy

    class Scaled(nn.Linear):
        def __init__(self, width, *, scale):
            super().__init__(width, width)
            self.scale = scale

    made = Scaled(3, scale=2)
    assert copy.deepcopy(made).scale == copy.copy(made).scale == 2
    with pytest.raises(TypeError, match=r"Scaled: missing a required.*its signature is Scaled\(width, \*, scale\)"):
        Scaled(3)
