"""Training: a new or a resumed run, its optimizer, its loop, and what it prints."""

from gpt.train.failures import TrainingError
from gpt.train.interrupt import Interrupt
from gpt.train.optimizer import configure_optimizer, configure_schedule
from gpt.train.run import profile, train
from gpt.train.setup import RESUMABLE_OPTIONS, resume, start
from gpt.train.trainer import Trainer

__all__ = [
    "Interrupt",
    "RESUMABLE_OPTIONS",
    "Trainer",
    "TrainingError",
    "configure_optimizer",
    "configure_schedule",
    "profile",
    "resume",
    "start",
    "train",
]
