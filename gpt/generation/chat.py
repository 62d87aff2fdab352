"""A conversation with a chat model: its messages, its tokens, and the answers."""

import dataclasses
import re
from collections.abc import Generator, Mapping, Sequence
from typing import Any, Self

import numpy as np

from gpt.config import SamplingConfig
from gpt.errors import UserError
from gpt.generation.batch import generate_batch
from gpt.generation.chat_template import ChatTemplate, Message
from gpt.generation.engine import Engine
from gpt.generation.processors import EndOfText, Logits
from gpt.generation.request import check_length, check_model
from gpt.generation.single import generate
from gpt.generation.speculative import NGrams, Speculation, check_draft
from gpt.generation.text_stream import stream
from gpt.model import GPT
from gpt.tokenizer import Ids, Tokenizer

# A character of the private use area of Unicode. No text that means something has it.
MARK = "\ue0c5"


class ChatError(UserError, ValueError):
    """A model that is not made for conversations, or a conversation that does not fit its context."""


def encode_chat(tokenizer: Tokenizer, messages: Sequence[Message], add_generation_prompt: bool = True) -> Ids:
    """Return the token ids of a conversation, by the chat template of the tokenizer.

    Special tokens in the template become special. What users and models have written does not, also where it looks
    like a special token. Raises ChatError if there is no template, ChatTemplateError, and TokenizerError.
    """
    return encode_marked(tokenizer, marked_chat(tokenizer, messages, add_generation_prompt))


def marked_chat(tokenizer: Tokenizer, messages: Sequence[Message], add_generation_prompt: bool = True) -> str:
    """Return the text of a conversation. Marks divide what looks like a special token in the texts of messages.

    Raises ChatError if there is no template, and ChatTemplateError.
    """
    if not tokenizer.chat_template:
        raise ChatError("the model has no chat template, so it was not made for conversations. Use sample")
    pattern = special_pattern(tokenizer)
    template = ChatTemplate(tokenizer.chat_template, named_tokens(tokenizer))
    return template.render([hide_specials(message, pattern) for message in messages], add_generation_prompt)


def encode_marked(tokenizer: Tokenizer, text: str) -> Ids:
    """Return the token ids of a text of `marked_chat`, or of a part of one. Raises TokenizerError."""
    ids: list[int] = []
    position = 0
    for match in special_pattern(tokenizer).finditer(text):
        ids += encode_plain(tokenizer, text[position : match.start()])
        ids.append(tokenizer.special_tokens[match[0]])
        position = match.end()
    ids += encode_plain(tokenizer, text[position:])
    return np.array(ids, np.int64)


def special_pattern(tokenizer: Tokenizer) -> re.Pattern[str]:
    """Return a pattern of the special tokens of a tokenizer that no mark divides."""
    names = sorted(tokenizer.special_tokens, key=len, reverse=True)
    return re.compile(f"(?:{'|'.join(map(re.escape, names))})(?!{MARK})" if names else r"(?!)")


def encode_plain(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the ids of a text between two special tokens."""
    text = text.replace(MARK, "")
    return tokenizer.encode(text).tolist() if text else []


def hide_specials(message: Message, pattern: re.Pattern[str]) -> dict[str, Any]:
    """Return a message where marks divide each special token in its texts, so that the pattern does not find it.

    The texts may be inside lists and dicts, such as the parts of a content.
    """

    def divide(value: Any) -> Any:
        if isinstance(value, str):
            # A mark after each character, because a part of one special token may begin another.
            return pattern.sub(lambda match: MARK.join([*match[0], ""]), value.replace(MARK, ""))
        if isinstance(value, Mapping):
            return {key: divide(entry) for key, entry in value.items()}
        if isinstance(value, list | tuple):
            return [divide(entry) for entry in value]
        return value

    return {key: divide(value) for key, value in message.items()}


def named_tokens(tokenizer: Tokenizer) -> Mapping[str, str]:
    """Return the texts of the tokens that templates use by name, `bos_token` and `eos_token`."""
    texts = {number: text for text, number in tokenizer.special_tokens.items()}
    ids = {"bos_token": tokenizer.bos_id, "eos_token": tokenizer.eos_id}
    return {name: "" if number is None else texts.get(number, "") for name, number in ids.items()}


class Conversation:
    """The messages of a conversation, cut to the context of a model.

    system: the system message; None takes the one that the template has, if any.
    context: the number of tokens that the model sees. reserve: those that are kept free for an answer.
    """

    def __init__(self, tokenizer: Tokenizer, context: int, system: str | None = None, reserve: int = 256) -> None:
        self.tokenizer = tokenizer
        self.limit = max(1, context - reserve)
        self.messages: list[dict[str, str]] = [] if system is None else [{"role": "system", "content": system}]
        self.kept = len(self.messages)  # the system message, which is never forgotten
        self.forgotten = 0

    @classmethod
    def of(cls, tokenizer: Tokenizer, messages: Sequence[Message], context: int, max_new_tokens: int) -> Self:
        """Return a conversation that has these messages already, with room for an answer of `max_new_tokens`."""
        talk = cls(tokenizer, context, None, min(max_new_tokens, context // 2))
        talk.messages = [dict(message) for message in messages]
        talk.kept = int(bool(talk.messages) and talk.messages[0].get("role") == "system")
        return talk

    def add(self, role: str, content: str) -> None:
        """Append a message."""
        self.messages.append({"role": role, "content": content})

    def prompt(self) -> Ids:
        """Return the tokens up to the beginning of the next answer.

        The oldest messages are forgotten, in pairs of question and answer, until the others fit. Raises ChatError if
        the last question alone does not fit; no message is then forgotten.
        """
        dropped, rest = 0, self.messages
        while len(ids := encode_chat(self.tokenizer, rest)) > self.limit:
            if len(rest) - self.kept < 3:
                raise ChatError(
                    f"the message has {len(ids):,} tokens with its template, and {self.limit:,} fit. Shorten it"
                )
            dropped += 2
            rest = self.messages[: self.kept] + self.messages[self.kept + dropped :]
        self.messages, self.forgotten = rest, self.forgotten + dropped
        return ids

    def undo(self) -> None:
        """Take back the last question, for example after an error."""
        if len(self.messages) > self.kept:
            self.messages.pop()


def answer_batch(
    model: GPT,
    tokenizer: Tokenizer,
    conversations: Sequence[Sequence[Message]],
    max_new_tokens: int = 512,
    sampling: SamplingConfig | None = None,
    **options: Any,
) -> list[str]:
    """Return the next answer in each of several conversations; the model writes all answers in one batch.

    conversations: the messages of each, such as [{"role": "user", "content": "Hello"}], up to a question. The oldest
        are left out where they do not fit the context, as in a `Chat`.
    max_new_tokens: the longest answer. sampling, options: see `gpt.generation.generate_batch`; with a seed, answer i
        has the seed plus i.

    Raises ChatError if a model has no chat template, or a question does not fit, and the errors of `generate_batch`.
    """
    check_model(model)
    check_length(max_new_tokens)
    context = model.config.block_size
    prompts = []
    for messages in conversations:
        if isinstance(messages, Mapping | str) or not all(isinstance(message, Mapping) for message in messages):
            raise ChatError(
                f"answer_batch: expected a list with the messages of each conversation, got {messages!r:.80}. "
                "Write [[{'role': 'user', 'content': 'Hello'}]]"
            )
        prompts.append(Conversation.of(tokenizer, messages, context, max_new_tokens).prompt())
    stops = tokenizer.stop_ids
    answers = generate_batch(
        model, prompts, max_new_tokens, sampling, stop_tokens=stops, processors=[ContextEnd(context)], **options
    )
    return ["".join(stream(tokenizer, answer)) for answer in answers]


class ContextEnd:
    """A processor that ends a text where the context of the model is full."""

    def __init__(self, context: int) -> None:
        self.context = context

    def __call__(self, ids: Sequence[int], logits: Logits) -> Logits:
        """Return the logits as they are. Raises EndOfText."""
        if len(ids) >= self.context:
            raise EndOfText
        return logits


class Chat:
    """A conversation with a model: each question gets an answer, as a stream of text.

    system: see `Conversation`. max_new_tokens: the longest answer. sampling: see `gpt.generation.generate`; the seed
    of answer k is its seed + k, so that the same questions get the same answers. draft: see `generate`.
    """

    def __init__(
        self,
        model: GPT,
        tokenizer: Tokenizer,
        system: str | None = None,
        max_new_tokens: int = 512,
        sampling: SamplingConfig | None = None,
        draft: GPT | NGrams | Speculation | None = None,
    ) -> None:
        if not tokenizer.chat_template:
            raise ChatError("the model has no chat template, so it was not made for conversations. Use sample")
        self.model, self.tokenizer, self.system = model, tokenizer, system
        self.max_new_tokens = max_new_tokens
        self.sampling = sampling or SamplingConfig()
        self.draft = check_draft(draft, model)
        self.engine = Engine(model)  # It keeps what it has read of the conversation.
        self.restart()

    def restart(self) -> None:
        """Forget the conversation."""
        context = self.model.config.block_size
        self.conversation = Conversation(self.tokenizer, context, self.system, min(self.max_new_tokens, context // 2))
        self.answers = 0

    @property
    def forgotten(self) -> int:
        """Return how many messages at the beginning did not fit the context any more."""
        return self.conversation.forgotten

    def undo(self) -> None:
        """Take back the last question and its answer."""
        self.conversation.undo()
        self.conversation.undo()

    def answer(self, question: str) -> Generator[str, None, None]:
        """Yield the answer to a question in pieces.

        The conversation keeps what was yielded, also if the caller stops early. Raises ChatError if the question does
        not fit the context; the conversation is then as before.
        """
        self.conversation.add("user", question)
        try:
            ids = self.conversation.prompt()
        except BaseException:  # An interrupt, too.
            self.conversation.undo()
            raise
        sampling = self.sampling
        if sampling.seed is not None:
            sampling = dataclasses.replace(sampling, seed=sampling.seed + self.answers)
        self.answers += 1
        room = min(self.max_new_tokens, self.model.config.block_size - len(ids))
        stops = self.tokenizer.stop_ids
        new = generate(self.model, ids, room, sampling, stop_tokens=stops, engine=self.engine, draft=self.draft)
        pieces: list[str] = []
        try:
            for piece in stream(self.tokenizer, new):
                pieces.append(piece)
                yield piece
        finally:
            self.conversation.add("assistant", "".join(pieces))
