"""Texts and conversations, their two splits, and the batches and windows cut from them."""

from gpt.data.conversations import Conversations
from gpt.data.dataset import Batch, Dataset, Split
from gpt.data.loading import described, is_folder, load_dataset, texts_have_carriage_returns
from gpt.data.order import Order, make_order
from gpt.data.preparation import Prepared, prepare
from gpt.data.text import DATASETS, DataError, TextFile, load_text, open_text, read_text, unix_lines

__all__ = [
    "DATASETS",
    "Batch",
    "Conversations",
    "DataError",
    "Dataset",
    "Order",
    "Prepared",
    "Split",
    "TextFile",
    "described",
    "is_folder",
    "load_dataset",
    "load_text",
    "make_order",
    "open_text",
    "prepare",
    "read_text",
    "texts_have_carriage_returns",
    "unix_lines",
]
