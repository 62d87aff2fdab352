"""Texts, their two splits, and the batches and windows cut from them."""

from gpt.data.dataset import Dataset, Split, load_dataset
from gpt.data.text import DATASETS, DataError, TextFile, load_text, open_text, read_text, unix_lines

__all__ = [
    "DATASETS",
    "DataError",
    "Dataset",
    "Split",
    "TextFile",
    "load_dataset",
    "load_text",
    "open_text",
    "read_text",
    "unix_lines",
]
