"""Texts, their two splits, and the batches and windows cut from them."""

from gpt.data.dataset import Dataset, Split, load_dataset
from gpt.data.text import DATASETS, DataError, load_text, read_text

__all__ = ["DATASETS", "DataError", "Dataset", "Split", "load_dataset", "load_text", "read_text"]
