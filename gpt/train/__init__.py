"""Training: a new or a resumed run, its loop, and what it prints."""

from gpt.train.trainer import CURVE, METRICS, Run, TrainingError, alone_in, profile, train

__all__ = ["CURVE", "METRICS", "Run", "TrainingError", "alone_in", "profile", "train"]
