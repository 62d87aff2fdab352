"""Optimizers and learning rate schedulers."""

from typing import TYPE_CHECKING as _TYPE_CHECKING

from ..missing_names import module_getattr as _module_getattr
from ..nn.utils import clip_grad_norm_, clip_grad_value_
from . import lr_scheduler, swa_utils
from .adagrad import Adagrad
from .adam import Adam, AdamW
from .combined import CombinedOptimizer
from .lion import Lion
from .muon import Muon
from .optimizer import Optimizer
from .rmsprop import RMSprop
from .sgd import SGD

__all__ = [
    "Adagrad", "Adam", "AdamW", "CombinedOptimizer", "Lion", "Muon", "Optimizer", "RMSprop", "SGD", "clip_grad_norm_",
    "clip_grad_value_", "lr_scheduler", "swa_utils",
]

if not _TYPE_CHECKING:  # because a type checker would then accept any name of this module
    __getattr__ = _module_getattr(__name__, globals())
