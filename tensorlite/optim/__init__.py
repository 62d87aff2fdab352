"""Optimizers and learning rate schedulers."""

from ..nn.utils import clip_grad_norm_, clip_grad_value_
from . import lr_scheduler
from .adam import Adam, AdamW
from .combined import CombinedOptimizer
from .muon import Muon
from .optimizer import Optimizer
from .sgd import SGD

__all__ = [
    "Adam", "AdamW", "CombinedOptimizer", "Muon", "Optimizer", "SGD", "clip_grad_norm_", "clip_grad_value_",
    "lr_scheduler",
]
