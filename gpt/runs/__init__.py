"""The folder of a run: its metrics and its loss curve."""

from gpt.runs.metrics import FINAL, Metrics, read, writing
from gpt.runs.plot import loss_curve

__all__ = ["FINAL", "Metrics", "loss_curve", "read", "writing"]
