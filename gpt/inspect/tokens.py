"""The tokens that a picture is of: checked ids, and their texts."""

from collections.abc import Sequence

import tensorlite as tl
from gpt.inspect.figures import tokens_text
from gpt.model import GPT
from gpt.tokenizer import Ids, TokenError, Tokenizer, check_token_ids, prompt_ids
from tensorlite import Tensor

TokenIds = Sequence[int] | Ids


def token_tensor(name: str, model: GPT, ids: TokenIds) -> Tensor:
    """Return ids, T integers, as a Tensor (1, T), int64, on the device of a model.

    name: the function that the messages name. Raises TokenError for no tokens, more than block_size, or what
    `check_token_ids` refuses.
    """
    array = check_token_ids(ids, model.config.vocab_size)
    if not array.size:
        raise TokenError(f"{name}: expected at least one token, got none. Give a text")
    if array.size > (limit := model.config.block_size):
        raise TokenError(
            f"{name}: the model sees {limit} tokens, and these are {array.size}. Give a shorter text, or the last "
            f"tokens, ids[-{limit}:]"
        )
    return tl.tensor(array[None], device=model.device)


def ids_of(tokenizer: Tokenizer, prompt: str | TokenIds) -> Ids:
    """Return the ids of a prompt: those of a text, with the token that begins it, or the ones that are given."""
    return prompt_ids(tokenizer, prompt) if isinstance(prompt, str) else check_token_ids(prompt, tokenizer.vocab_size)


def labels_of(tokenizer: Tokenizer, ids: TokenIds) -> list[str]:
    """Return the texts of tokens as labels, in which white space is visible."""
    return [tokens_text(tokenizer.decode_bytes([int(token)])) for token in ids]
