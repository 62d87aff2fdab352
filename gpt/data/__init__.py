"""Texts and conversations, their two splits, and the batches and windows cut from them."""

from gpt.data.conversations import Conversations
from gpt.data.dataset import Dataset, Split
from gpt.data.loading import load_dataset
from gpt.data.text import DATASETS, DataError, TextFile, load_text, open_text, read_text, unix_lines

__all__ = [
    "DATASETS",
    "Conversations",
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
