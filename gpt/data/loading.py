"""Load the data set that a configuration describes."""

from gpt.config import DataConfig
from gpt.data.conversations import load_conversations
from gpt.data.dataset import Dataset, load_text_dataset
from gpt.data.text import DataError, check_data_config
from gpt.tokenizer import Tokenizer


def load_dataset(config: DataConfig, block_size: int, tokenizer: Tokenizer | None = None) -> Dataset:
    """Return the two encoded splits of a text, or of a file of conversations; see the two modules of these.

    tokenizer: that of the model; None makes one for the text. Raises DataError, TokenizerError and DownloadError.
    """
    check_data_config(config)
    if config.format != "chat":
        return load_text_dataset(config, block_size, tokenizer)
    if tokenizer is None:
        raise DataError("data.format = 'chat' needs a model that was trained on text. Start from one with finetune")
    return load_conversations(config, block_size, tokenizer)
