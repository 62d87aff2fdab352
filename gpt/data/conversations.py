"""Conversations to train a chat model on: a file of JSON lines, where the answers alone are predicted.

A line is an object with `messages`, a list of objects with `role` and `content`, or with `prompt` and `completion`. The
chat template of the model makes the text of them. A model without one takes `prompt` and `completion` as they are.
"""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt.config import DataConfig
from gpt.data.dataset import Batch, Dataset, Split
from gpt.data.text import DataError, TextFile, open_text
from gpt.errors import UserError, short
from gpt.generation.chat import encode_marked, marked_chat
from gpt.tokenizer import Ids, Tokenizer, prompt_ids

ROLES = ("system", "user", "assistant")

Message = dict[str, str]


@dataclass(frozen=True)
class Example:
    """A conversation in tokens.

    ids: (N,), int64. answer: (N,), whether a token is one of an answer, its end included.
    """

    ids: Ids
    answer: NDArray[np.bool_]

    @property
    def targets(self) -> Ids:
        """Return the token after each one but the last: (N - 1,), with -1 where it is not one of an answer."""
        return np.where(self.answer[1:], self.ids[1:], -1)


@dataclass(frozen=True)
class Conversations(Dataset):
    """A data set of conversations. A batch has whole ones, with padding behind the shorter ones, which counts nowhere.

    chars: the number of characters of the answers in each split.
    """

    examples: dict[Split, list[Example]] = field(default_factory=dict)

    @property
    def unit(self) -> str:
        """Return what a row of a batch is, in words before its number of tokens."""
        return "conversations of up to"

    def batch(self, rng: np.random.Generator, split: Split, batch_size: int, block_size: int) -> Batch:
        """Return random conversations: tokens and targets (B, T), where T is the length of the longest."""
        examples = self.examples[split]
        return padded([examples[i] for i in rng.integers(0, len(examples), batch_size)])

    def count(self, split: Split, block_size: int) -> int:
        """Return the number of conversations."""
        return len(self.examples[split])

    def sequences(self, split: Split, numbers: NDArray[np.int64], block_size: int) -> Batch:
        """Return the conversations with these numbers: tokens and targets (B, T), where T is that of the longest."""
        return padded([self.examples[split][i] for i in numbers])

    def windows(
        self, split: Split, batch_size: int, block_size: int, max_tokens: int | None = None
    ) -> Iterator[Batch]:
        """Yield all conversations in batches, or with `max_tokens` some of them, spread evenly; see `chosen`."""
        examples = self.chosen(split, max_tokens)
        for first in range(0, len(examples), batch_size):
            yield padded(examples[first : first + batch_size])

    def predicted(self, split: Split, block_size: int, max_tokens: int | None = None) -> int:
        """Return the number of tokens of answers that `windows` predicts."""
        return count(self.chosen(split, max_tokens))

    def chosen(self, split: Split, max_tokens: int | None) -> list[Example]:
        """Return the conversations of an evaluation: all, or as many as have `max_tokens` to predict, at least one."""
        examples = self.examples[split]
        if max_tokens is None or not examples or count(examples) <= max_tokens:
            return examples
        number = max(1, int(len(examples) * max_tokens / count(examples)))
        return [examples[i] for i in np.linspace(0, len(examples) - 1, number).astype(int)]

    def bits_per_char(self, loss: float, split: Split = "val") -> float:
        """Return bits per character of the answers, for a mean loss on all of them in nats per token."""
        return loss / float(np.log(2)) * count(self.examples[split]) / max(1, self.chars[split])


def count(examples: Sequence[Example]) -> int:
    """Return the number of tokens that are predicted in conversations."""
    return sum(int(example.answer[1:].sum()) for example in examples)


def padded(examples: Sequence[Example]) -> tuple[Ids, Ids]:
    """Return tokens and targets (B, T) of conversations. Behind the end of each are tokens 0 with the target -1."""
    T = max(len(example.ids) for example in examples) - 1
    x, y = np.zeros((len(examples), T), np.int64), np.full((len(examples), T), -1, np.int64)
    for row, example in enumerate(examples):
        n = len(example.ids) - 1
        x[row, :n], y[row, :n] = example.ids[:-1], example.targets
    return x, y


def load_conversations(config: DataConfig, block_size: int, tokenizer: Tokenizer) -> Conversations:
    """Return the conversations of a file; the last ones, `val_fraction` of all, are for validation.

    Those that are longer than the context are cut; those whose first answer lies behind it are left out.
    Raises DataError, with the line, if the file is not of this form.
    """
    text = open_text(config)
    examples, long = [], 0
    for place, messages in read_lines(text):
        try:
            example = encode(tokenizer, messages, place)
        except DataError:
            raise
        except UserError as error:
            raise DataError(f"{place}: {error}") from error
        cut = Example(example.ids[: block_size + 1], example.answer[: block_size + 1])
        if count([cut]):
            examples.append(cut)
        else:
            long += 1
    if long:
        logging.getLogger("gpt").warning(
            f"{long} of {long + len(examples)} conversations have no answer in the first {block_size} tokens, and are "
            "left out; --block-size N makes the context longer"
        )
    held_out = max(1, round(len(examples) * config.val_fraction)) if config.val_fraction else 0
    if len(examples) <= held_out:
        raise DataError(
            f"{config.title!r} has {len(examples)} conversations that fit, and {held_out + 1} are needed. Use more, "
            "a longer context (--block-size), or no validation (--val-fraction 0)"
        )
    cut_at = len(examples) - held_out
    splits: dict[Split, list[Example]] = {"train": examples[:cut_at], "val": examples[cut_at:]}
    dtype = np.min_scalar_type(tokenizer.vocab_size - 1)
    nothing = np.empty(0, np.int64)
    tokens = {
        name: np.concatenate([nothing, *(e.ids for e in chosen)]).astype(dtype) for name, chosen in splits.items()
    }
    chars = {name: sum(len(answers(tokenizer, e)) for e in chosen) for name, chosen in splits.items()}
    return Conversations(tokenizer, tokens["train"], tokens["val"], chars, splits)


def answers(tokenizer: Tokenizer, example: Example) -> str:
    """Return the text of the answers, without the tokens that end them."""
    ids = [int(i) for i in example.ids[example.answer] if i not in tokenizer.stop_ids]
    return tokenizer.decode_bytes(ids).decode(errors="ignore")


def read_lines(text: TextFile) -> Iterator[tuple[str, list[Message] | tuple[str, str]]]:
    """Yield the place of each line that is not blank, and its messages, or its prompt and completion."""
    lines = "".join(text.pieces()).split("\n")
    for number, line in enumerate(lines, start=1):
        if line.strip():
            place = f"line {number} of {text.name!r}"
            yield place, parse(line, place)


def parse(line: str, place: str) -> list[Message] | tuple[str, str]:
    """Return the messages of a line, or its prompt and completion. Raises DataError."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise DataError(
            f"{place}: not JSON ({reason}). Each line is one object; --format text reads any text"
        ) from None
    if isinstance(value, dict) and isinstance(messages := value.get("messages"), list):
        return [check_message(message, place) for message in messages]
    if isinstance(value, dict) and isinstance(value.get("prompt"), str) and isinstance(value.get("completion"), str):
        return value["prompt"], value["completion"]
    keys = f"an object with {', '.join(map(short, value)) or 'nothing'}" if isinstance(value, dict) else short(value)
    raise DataError(
        f"{place}: expected an object with messages, or with prompt and completion as texts, got {keys:.200}"
    )


def check_message(message: Any, place: str) -> Message:
    """Return the role and the content of a message. Raises DataError."""
    if not isinstance(message, dict) or message.get("role") not in ROLES or not isinstance(message.get("content"), str):
        raise DataError(
            f"{place}: expected messages with a role, {', '.join(ROLES)}, and a content that is a text, got "
            f"{short(message)}"
        )
    return {"role": message["role"], "content": message["content"]}


def encode(tokenizer: Tokenizer, given: list[Message] | tuple[str, str], place: str) -> Example:
    """Return a conversation in tokens. Raises DataError if nothing in it is an answer, and the errors of templates."""
    if isinstance(given, tuple):
        if not tokenizer.chat_template:
            return encode_pair(tokenizer, *given)
        given = [{"role": "user", "content": given[0]}, {"role": "assistant", "content": given[1]}]
    if not tokenizer.chat_template:
        raise DataError(f"{place}: the model has no chat template. Write prompt and completion instead of messages")
    last = max((i for i, message in enumerate(given) if message["role"] == "assistant"), default=-1)
    if last < 0:
        raise DataError(f"{place}: no message is an answer, which has the role assistant")
    text = marked_chat(tokenizer, given[: last + 1], add_generation_prompt=False)
    borders = [0]
    for i in range(last + 1):
        if given[i]["role"] == "assistant":
            borders.append(length_of_first(tokenizer, given[:i], True, text, place))
            borders.append(length_of_first(tokenizer, given[: i + 1], False, text, place))
    pieces = [text[start:stop] for start, stop in pairwise([*borders, len(text)])]
    tokens = encode_pieces(pieces, lambda piece: encode_marked(tokenizer, piece))
    answer = [np.zeros(len(ids), bool) for ids in tokens]
    for ids, chosen in zip(tokens[1::2], answer[1::2]):
        # What the template writes behind the token that ends an answer is not for the model to write.
        ends = np.flatnonzero(np.isin(ids, list(tokenizer.stop_ids)))
        chosen[: ends[-1] + 1 if len(ends) else None] = True
    return Example(np.concatenate(tokens), np.concatenate(answer))


def length_of_first(tokenizer: Tokenizer, messages: list[Message], prompt: bool, text: str, place: str) -> int:
    """Return the characters of the first messages of a conversation. Raises DataError if it begins in another way."""
    first = marked_chat(tokenizer, messages, prompt)
    if text.startswith(first):
        return len(first)
    if not messages:
        raise DataError(f"{place}: the first message is an answer. Begin with a message of the user")
    raise DataError(
        f"{place}: the chat template writes the first messages differently when others follow, so the answers are "
        "not found. Give each line one question and one answer"
    )


def encode_pieces(pieces: Sequence[str], encode: Callable[[str], Ids]) -> list[Ids]:
    """Return the tokens of each piece of a text: those of the whole text, unless one of them crosses a border.

    Then each piece has tokens of its own, as a model that writes an answer begins with a token of its own. White space
    before an answer is an example: a tokenizer may join it to a line feed of the template.
    """
    whole = encode("".join(pieces))
    found: list[Ids] = []
    text, start = "", 0
    for piece in pieces:
        text += piece
        ids = encode(text)
        if len(ids) < start or not np.array_equal(ids, whole[: len(ids)]):
            return [encode(piece) for piece in pieces]
        found.append(whole[start : len(ids)])
        start = len(ids)
    return found


def encode_pair(tokenizer: Tokenizer, prompt: str, completion: str) -> Example:
    """Return a prompt and its completion in tokens, with the token that ends a text if there is one."""
    before = np.array(prompt_ids(tokenizer, prompt), np.int64)
    after = encode_pieces([prompt, completion], tokenizer.encode)[1].astype(np.int64)
    end = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
    ids = np.concatenate([before, after, np.array(end, np.int64)])
    return Example(ids, np.arange(len(ids)) >= len(before))
