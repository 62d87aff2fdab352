"""The table of tokens with their log-probabilities, which `sample --logprobs` prints."""

import math

from gpt.generation import TokenLogProb
from gpt.tokenizer import Tokenizer

WIDTH = 14
HEADER = f"{'token':{WIDTH}} {'logprob':>8} {'prob.':>7}  likeliest"


def table_row(tokenizer: Tokenizer, step: TokenLogProb) -> str:
    """Return the row of a token: its text, log-probability in nats and probability, then the likeliest tokens."""
    likeliest = "  ".join(f"{shown(tokenizer, token)} {logprob:.3f}" for token, logprob in step.alternatives)
    row = f"{shown(tokenizer, step.token):{WIDTH}} {step.logprob:8.3f} {math.exp(step.logprob):7.2%}  {likeliest}"
    return row.rstrip()


def shown(tokenizer: Tokenizer, token: int) -> str:
    """Return the text of a token as Python writes it, so without control characters; bytes if it is not whole."""
    data = tokenizer.decode_bytes([token])
    try:
        return repr(data.decode())
    except UnicodeDecodeError:
        return repr(data)
