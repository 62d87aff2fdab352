"""A tokenizer from a `tokenizer.json`, as Hugging Face's models have one, run by the package `tokenizers`."""

import copy
import json
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Self

import numpy as np

from gpt.config import DataConfig
from gpt.errors import extra, short
from gpt.tokenizer import tokenizer_json
from gpt.tokenizer.base import (
    Ids,
    TokenizerError,
    check_characters,
    check_text,
    check_token_ids,
    typed,
)
from gpt.tokenizer.bpe import byte_alphabet
from gpt.tokenizer.coverage import Coverage
from gpt.tokenizer.patterns import PRE_TOKENIZERS
from gpt.tokenizer.tokenizer_json import steps

# Expressions that never match over the place between a word and a space. A long text may be cut there.
CUT_PATTERNS = {pattern for kind in PRE_TOKENIZERS.values() for pattern in kind.patterns}

# Options of a BPE model, and of a token that is added to a model, by the names that they have in both.
BPE_OPTIONS = ("dropout", "unk_token", "fuse_unk", "byte_fallback", "ignore_merges")
ADDED_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


class HuggingFaceTokenizer:
    """The tokenizer that a `tokenizer.json` describes: byte-level BPE, or BPE and unigram models as in SentencePiece.

    text: the content of that file, or the object that it describes.
    bos_id, eos_id, add_bos, stop_ids, chat_template: see `gpt.tokenizer.Tokenizer`. `gpt.tokenizer.from_folder` finds
        them in the other files of a model.
    vocab_size: the size of the model's vocabulary, where that is larger. An id without a token has no text.

    Text that the vocabulary has no token for is a CharacterError. (`tokenizers` leaves such text out without a word, or
    makes the unknown token out of it.) SentencePiece makes one space out of U+2581, as the reference does.
    Raises TokenizerError for a description that cannot be used.
    """

    kind = "huggingface"
    by_character = False

    def __init__(
        self,
        text: str | dict[str, Any],
        *,
        bos_id: int | None = None,
        eos_id: int | None = None,
        add_bos: bool | None = None,
        stop_ids: Iterable[int] = (),
        chat_template: str | None = None,
        vocab_size: int | None = None,
    ) -> None:
        with extra():
            import tokenizers  # noqa: F401

        if isinstance(text, dict):
            values = text
        else:
            check_text(text)
            values = tokenizer_json.parse(text)
        self.vocab = tokenizer_json.checked(values)
        # Neither belongs to a vocabulary: they would cut or fill the ids of a text, or choose other ids each time.
        compact = isinstance(text, str) and text.startswith('{"') and not any(
            (values.get("truncation"), values.get("padding"), values["model"].get("dropout"))
        )
        values["truncation"] = values["padding"] = None
        if "dropout" in values["model"]:
            values["model"]["dropout"] = None
        self.special_tokens: Mapping[str, int] = tokenizer_json.special_tokens(values)
        self._bytes = tokenizer_json.token_bytes(values, self.vocab, byte_alphabet())
        self._content: str | dict[str, Any] = text if compact else values
        self._tokenizer = self._plain(values)
        self.vocab_size = self._checked_size(vocab_size)
        self._bytes += [b""] * (self.vocab_size - len(self._bytes))
        self._coverage = Coverage(values, self.vocab, self._tokenizer)
        self._first = tokenizer_json.first_ids(values) if values.get("post_processor") else None
        self.cuts_before = cuts_before(values)
        self.set_roles(bos_id, eos_id, add_bos, stop_ids, chat_template)

    def set_roles(
        self,
        bos_id: int | None,
        eos_id: int | None,
        add_bos: bool | None,
        stop_ids: Iterable[int],
        chat_template: str | None,
    ) -> None:
        """Set what the tokens mean for a model. Raises TokenizerError."""
        if self._first and bos_id is None and add_bos is None:
            bos_id = self._first[0]
        self.bos_id = None if bos_id is None else self._checked_id(bos_id, "bos_id")
        if add_bos is None or self._first is not None:
            add_bos = bool(self._first) and self._first == [self.bos_id]
        self.add_bos = add_bos and self.bos_id is not None
        self.eos_id = None if eos_id is None else self._checked_id(eos_id, "eos_id")
        ends = [*stop_ids, *([] if eos_id is None else [eos_id])]
        self.stop_ids = frozenset(self._checked_id(number, "stop_ids") for number in ends)
        self.chat_template = chat_template
        if chat_template is not None and not isinstance(chat_template, str):
            raise TokenizerError(f"chat_template: expected a text, got {reprlib.repr(chat_template)}")

    def with_roles(
        self,
        *,
        bos_id: int | None = None,
        eos_id: int | None = None,
        add_bos: bool | None = None,
        stop_ids: Iterable[int] = (),
        chat_template: str | None = None,
    ) -> Self:
        """Return the same tokenizer with other roles of its tokens, see the class. Raises TokenizerError."""
        other = copy.copy(self)
        other.set_roles(bos_id, eos_id, add_bos, stop_ids, chat_template)
        return other

    @classmethod
    def create(cls, text: Iterable[str], train_text: Iterable[str], config: DataConfig) -> Self:
        raise TokenizerError(
            "data.tokenizer = 'huggingface': this tokenizer comes with a model. Start from that model, or choose "
            "another tokenizer for a new one"
        )

    @classmethod
    def expected_vocab_size(cls, config: DataConfig) -> int | None:
        return None

    @property
    def json(self) -> str:
        """Return the `tokenizer.json`."""
        return self._content if isinstance(self._content, str) else tokenizer_json.compact(self._content)

    def _plain(self, values: dict[str, Any]) -> Any:
        """Return the `tokenizers.Tokenizer` for which the text of a special token is text. Raises TokenizerError."""
        other = tokenizer_json.without_special(values, self.special_tokens)
        if other["model"] == values["model"]:
            tokenizer = self._made()
        else:
            self._with_special = self._made()  # This also checks the description itself.
            tokenizer = made(json.dumps(other), tokenizer_json.checked(other))
        tokenizer.encode_special_tokens = True
        return tokenizer

    def _checked_size(self, vocab_size: int | None) -> int:
        """Return the size of the vocabulary. Raises TokenizerError if that of the model is too small."""
        size = len(self._bytes)
        if vocab_size is None:
            return size
        if type(vocab_size) is not int or vocab_size > tokenizer_json.MAX_IDS:
            raise TokenizerError(f"vocab_size: expected an integer, got {reprlib.repr(vocab_size)}")
        if vocab_size < size:
            token = next(token for token, number in self.vocab.items() if number == size - 1)
            raise TokenizerError(
                f"vocab_size: {reprlib.repr(token)} has the id {size - 1}, outside a vocabulary of {vocab_size} tokens"
            )
        return vocab_size

    def _checked_id(self, number: object, name: str) -> int:
        """Return the id of a token that a file names. Raises TokenizerError if it is not in the vocabulary."""
        if type(number) is not int or not 0 <= number < self.vocab_size:
            raise TokenizerError(f"{name}: expected ids below {self.vocab_size}, got {number!r:.80}")
        return number

    def _made(self) -> Any:
        """Return the `tokenizers.Tokenizer` of the description."""
        if not isinstance(self._content, str) and self._content["model"]["type"] == "BPE":
            return made_of_parts(self._content, self.vocab)
        return made(self.json, self.vocab)

    @cached_property
    def _with_special(self) -> Any:
        """Return a second `tokenizers.Tokenizer`. A switch in the first one would not be safe in threads."""
        return self._made()

    @cached_property
    def _special_ids(self) -> Ids:
        return np.array(sorted(self.special_tokens.values()), np.int64)

    def encode(self, text: str, allow_special: bool = False) -> Ids:
        check_text(text)
        check_characters(text)
        tokenizer = self._with_special if allow_special else self._tokenizer
        ids = np.array(tokenizer.encode(text, add_special_tokens=False).ids, np.int64)
        self._coverage.check(text, ids, self.decode_bytes, allow_special)
        if not allow_special and self._special_ids.size and np.isin(ids, self._special_ids).any():
            number = int(ids[np.isin(ids, self._special_ids)][0])
            name = next(name for name, value in self.special_tokens.items() if value == number)
            raise TokenizerError(f"the text holds the name that stands for the special token {reprlib.repr(name)}")
        return ids

    def decode_bytes(self, ids: Sequence[int] | Ids) -> bytes:
        table = self._bytes
        return b"".join([table[i] for i in check_token_ids(ids, self.vocab_size).tolist()])

    def decode(self, ids: Sequence[int] | Ids) -> str:
        text = self.decode_bytes(ids).decode(errors="replace")
        return text.removeprefix(" ") if self._coverage.has_prefix else text

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "tokenizer": self.json,
            "bos_id": self.bos_id,
            "eos_id": self.eos_id,
            "add_bos": self.add_bos,
            "stop_ids": sorted(self.stop_ids),
            "chat_template": self.chat_template,
            "vocab_size": self.vocab_size,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        text, stop_ids = typed(values, "tokenizer", str), typed(values, "stop_ids", list)
        return cls(
            text,
            bos_id=None if values.get("bos_id") is None else typed(values, "bos_id", int),
            eos_id=None if values.get("eos_id") is None else typed(values, "eos_id", int),
            add_bos=typed(values, "add_bos", bool),
            stop_ids=stop_ids,
            chat_template=None if values.get("chat_template") is None else typed(values, "chat_template", str),
            vocab_size=typed(values, "vocab_size", int),
        )


def made(text: str, vocab: Mapping[str, int]) -> Any:
    """Return the `tokenizers.Tokenizer` of a description. Raises TokenizerError if it does not have these ids."""
    from tokenizers import Tokenizer

    with package_errors():
        tokenizer = Tokenizer.from_str(text)
    check_ids(vocab, tokenizer.get_vocab(with_added_tokens=True))
    return tokenizer


def made_of_parts(values: Mapping[str, Any], vocab: Mapping[str, int]) -> Any:
    """Return what `made` returns for the JSON of a BPE model, without the time and the memory of that JSON."""
    from tokenizers import AddedToken, Tokenizer, models

    model, added = values["model"], values.get("added_tokens") or []
    empty = {**values, "added_tokens": [], "model": {**model, "vocab": {}, "merges": [], "unk_token": None}}
    with package_errors():
        tokenizer = Tokenizer.from_str(tokenizer_json.compact(empty))
        merges = [tuple(merge.split(" ") if isinstance(merge, str) else merge) for merge in model["merges"]]
        options = {name: model[name] for name in BPE_OPTIONS if model.get(name)}
        tokenizer.model = models.BPE(vocab=model["vocab"], merges=merges, **options)
        for token in added:
            add = tokenizer.add_special_tokens if token.get("special") else tokenizer.add_tokens
            add([AddedToken(token["content"], **{flag: token.get(flag, False) for flag in ADDED_FLAGS})])
    found = {token["content"]: tokenizer.token_to_id(token["content"]) for token in added}
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    if size != len(vocab) or any(vocab[token] != number for token, number in found.items()):
        check_ids(vocab, tokenizer.get_vocab(with_added_tokens=True))
    return tokenizer


@contextmanager
def package_errors() -> Iterator[None]:
    """Context manager that turns the errors and the panics of the package tokenizers into a TokenizerError."""
    try:
        yield
    except Exception as error:
        raise TokenizerError(f"tokenizer.json: {short(str(error))}") from None
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # It is not an Exception; its class cannot be imported.
            raise
        raise TokenizerError(f"tokenizer.json: the package tokenizers cannot read it ({error})") from None


def check_ids(vocab: Mapping[str, int], theirs: Mapping[str, int]) -> None:
    """Raise TokenizerError if the package tokenizers gives a token another id than the description does."""
    if theirs != vocab:
        token = next((token for token, number in vocab.items() if theirs.get(token) != number), None)
        token = next(iter(theirs.keys() - vocab.keys())) if token is None else token
        raise TokenizerError(
            f"tokenizer.json: {reprlib.repr(token)} has the id {vocab.get(token)}, and the package tokenizers gives it "
            f"{theirs.get(token)}. The ids of added tokens have to follow the others"
        )


def cuts_before(values: Mapping[str, Any]) -> str:
    """Return the white space before which a text may be cut, after a word: a space for known expressions, or none."""
    if values["model"]["type"] != "BPE":
        return ""
    if any(step["type"] not in ("NFC", "NFD") for step in steps(values.get("normalizer"), "normalizers")):
        return ""
    if any(any(c.isspace() for c in added["content"]) for added in values.get("added_tokens") or ()):
        return ""
    splits = False
    for step in steps(values.get("pre_tokenizer"), "pretokenizers"):
        kind, pattern = step["type"], step.get("pattern")
        if kind == "ByteLevel" and not step.get("add_prefix_space", True):
            splits |= step.get("use_regex", True)
        elif kind == "Split" and isinstance(pattern, dict) and pattern.get("Regex") in CUT_PATTERNS:
            splits = True
        elif kind != "Digits":
            return ""
    return " " if splits else ""
