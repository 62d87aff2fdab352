"""Log-probabilities of tokens in the two forms of OpenAI's API."""

from collections.abc import Sequence
from typing import Any

from gpt.serve.texts import PlacedToken
from gpt.tokenizer import Tokenizer

LOWEST = -9999.0  # JSON has no infinity; OpenAI has this number for what is nearly impossible.


def completion_logprobs(tokenizer: Tokenizer, tokens: Sequence[PlacedToken]) -> dict[str, Any]:
    """Return the form of a completion: four lists with an entry for each token.

    Offsets count the characters of the text of the choice. A token that is not a whole text is "bytes:\\xe2\\x82".
    `top_logprobs` also has the token itself.
    """
    names = [token_name(tokenizer, one.item.token, "bytes:") for one in tokens]
    return {
        "tokens": names,
        "token_logprobs": [number(one.item.logprob) for one in tokens],
        "top_logprobs": [likeliest(tokenizer, one, name) for one, name in zip(tokens, names)],
        "text_offset": [one.offset for one in tokens],
    }


def likeliest(tokenizer: Tokenizer, one: PlacedToken, name: str) -> dict[str, float | None] | None:
    """Return the likeliest tokens at one place with their log-probabilities, and the token that is there."""
    if one.item.logprob != one.item.logprob:  # The first token of a text has no probability.
        return None
    found: dict[str, float | None] = {}
    for token, logprob in one.item.alternatives:
        # Of several tokens with one text, the likeliest counts.
        found.setdefault(token_name(tokenizer, token, "bytes:"), number(logprob))
    found.setdefault(name, number(one.item.logprob))
    return found


def chat_logprobs(tokenizer: Tokenizer, tokens: Sequence[PlacedToken]) -> dict[str, Any]:
    """Return the form of a conversation: an object for each token, with its bytes and those of the likeliest ones."""
    content = [
        {
            **chat_token(tokenizer, one.item.token, one.item.logprob),
            "top_logprobs": [chat_token(tokenizer, *pair) for pair in one.item.alternatives],
        }
        for one in tokens
    ]
    return {"content": content, "refusal": None}


def chat_token(tokenizer: Tokenizer, token: int, logprob: float) -> dict[str, Any]:
    """Return a token with its log-probability and its bytes."""
    return {
        "token": token_name(tokenizer, token, ""),
        "logprob": number(logprob),
        "bytes": list(tokenizer.decode_bytes([token])),
    }


def token_name(tokenizer: Tokenizer, token: int, prefix: str) -> str:
    """Return the text of a token; for bytes that are not UTF-8 alone, their numbers after a prefix."""
    data = tokenizer.decode_bytes([token])
    try:
        return data.decode()
    except UnicodeDecodeError:
        return prefix + "".join(f"\\x{byte:02x}" for byte in data)


def number(logprob: float) -> float | None:
    """Return a log-probability as a number of JSON; None if it is not known."""
    return None if logprob != logprob else max(logprob, LOWEST)
