"""Runs: the folder of a run, its metrics and its loss curve."""

from gpt.runs.compare import RunSummary, differing_options, find_runs, summarize
from gpt.runs.errors import RunFolderError
from gpt.runs.find import Better, better_checkpoint, describe_choice, find_checkpoint, newest_checkpoint
from gpt.runs.folder import BEST, CURVE, LATEST, LAYERS, MERGED, METRICS, RunFolder, is_locked
from gpt.runs.metrics import Metrics, read
from gpt.runs.plot import loss_curve

__all__ = [
    "BEST",
    "CURVE",
    "LATEST",
    "LAYERS",
    "MERGED",
    "METRICS",
    "Better",
    "Metrics",
    "RunFolder",
    "RunFolderError",
    "RunSummary",
    "better_checkpoint",
    "describe_choice",
    "differing_options",
    "find_checkpoint",
    "find_runs",
    "is_locked",
    "loss_curve",
    "newest_checkpoint",
    "read",
    "summarize",
]
