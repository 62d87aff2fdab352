"""Load the data set that a configuration describes."""

import dataclasses
from itertools import chain
from pathlib import Path

from gpt import tokenizer as tokenizers
from gpt.config import JSON_LINES, DataConfig
from gpt.data.conversations import load_conversations
from gpt.data.dataset import Dataset, PlainText, open_plain_text
from gpt.data.documents import separate
from gpt.data.json_documents import JsonDocuments, open_json_documents
from gpt.data.mixture import mix
from gpt.data.text import DATASETS, DataError, check_data_config, open_text, read_bytes
from gpt.data.token_dataset import TokenDataset, load_tokens
from gpt.data.token_folder import is_token_folder, read_index
from gpt.tokenizer import Tokenizer


def load_dataset(config: DataConfig, block_size: int, tokenizer: Tokenizer | None = None) -> Dataset:
    """Return the two encoded splits of texts, of folders of tokens, or of a file of conversations.

    tokenizer: that of the model, as for a resumed run. None takes the one of a folder of tokens, and otherwise makes
        one from `config`: `char` takes its vocabulary from all texts, `bpe` learns from their training splits.

    Raises DataError, TokenizerError and DownloadError. It is a DataError if a split is too short for a window of
    `block_size` tokens, except the validation split of val_fraction = 0.
    """
    check_data_config(config)
    if config.format == "chat":
        if tokenizer is None:
            raise DataError("data.format = 'chat' needs a model that was trained on text. Start from one with finetune")
        return load_conversations(config, block_size, tokenizer)
    names = config.names
    folders = {name: load_tokens(Path(name), tokenizer) for name in names if is_folder(name)}
    if tokenizer is None and folders:
        tokenizer = common_tokenizer(folders)
    opened = {name: open_source(config, name) for name in names if name not in folders}
    if tokenizer is None:
        every = chain.from_iterable(source.pieces() for source in opened.values())
        training = chain.from_iterable(source.training_pieces() for source in opened.values())
        tokenizer = tokenizers.build(every, training, config)
    sources = []
    for name in names:
        source = folders[name] if name in folders else opened[name].encode(tokenizer)
        source = source if config.documents == "joined" else separate(source, config.documents == "packed")
        fraction = folders[name].index.val_fraction if name in folders else config.val_fraction
        source.check_length(block_size, name, fraction)
        sources.append(source)
    return sources[0] if len(sources) == 1 else mix(sources, names, config.weights)


def is_folder(name: str) -> bool:
    """Return whether a data set is a folder of tokens."""
    return name not in DATASETS and is_token_folder(Path(name))


def open_source(config: DataConfig, name: str) -> PlainText | JsonDocuments:
    """Return one of the texts of a configuration. Raises DataError and DownloadError."""
    if config.field and name.lower().endswith(JSON_LINES):
        return open_json_documents(name, config.field, config.val_fraction)
    return open_plain_text(dataclasses.replace(config, dataset=name, weights=None, field=""))


def common_tokenizer(folders: dict[str, TokenDataset]) -> Tokenizer:
    """Return the tokenizer of folders of tokens. Raises DataError if they have several."""
    (first, one), *others = folders.items()
    for name, other in others:
        if one.index.vocabulary != other.index.vocabulary:
            raise DataError(
                f"{name!r} has another tokenizer ({other.index.tokenizer}, {other.index.vocab_size:,} tokens) than "
                f"{first!r} ({one.index.tokenizer}, {one.index.vocab_size:,}). Prepare all of them with one: "
                f"prepare --tokenizer {first}"
            )
    return one.tokenizer


def described(config: DataConfig) -> DataConfig:
    """Return a configuration with what its folders of tokens decide: the tokenizer and the validation split."""
    indices = [read_index(Path(name)) for name in config.names if is_folder(name)]
    if not indices:
        return config
    size = indices[0].plan.get("bpe_vocab_size")
    fractions = [index.val_fraction for index in indices]
    return dataclasses.replace(
        config,
        tokenizer=indices[0].tokenizer,
        bpe_vocab_size=size if isinstance(size, int) else config.bpe_vocab_size,
        val_fraction=max(fractions) if len(fractions) == len(config.names) else max(config.val_fraction, *fractions),
    )


def texts_have_carriage_returns(config: DataConfig) -> bool:
    """Return whether a text of a configuration has carriage returns, which are read as line feeds."""
    names = [name for name in config.names if not is_folder(name)]
    texts = [open_text(dataclasses.replace(config, dataset=name, weights=None, field="")) for name in names]
    return any(b"\r" in piece for text in texts for piece in read_bytes(text.path))
