"""The tokenizer in the metadata of a GGUF file.

The keys and the meaning of their values are those of https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Where
it says nothing, the ids are those that llama.cpp gives.
"""

import reprlib
from collections.abc import Mapping
from typing import Any

from gpt.tokenizer.base import TokenizerError
from gpt.tokenizer.folder import TURN_ENDS, added_tokens, byte_level
from gpt.tokenizer.huggingface import HuggingFaceTokenizer
from gpt.tokenizer.patterns import PRE_TOKENIZERS
from gpt.tokenizer.tokenizer_json import SPACE, byte_of

KEY = "tokenizer.ggml."
# The kinds of tokens, `gguf.TokenType`.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
# The tokens that end a text or a turn. llama.cpp finds them by their text, too.
TEXT_ENDS = (*TURN_ENDS, "<|endoftext|>", "<|end_of_text|>", "</s>", "<|return|>", "<EOT>", "< EOT >", "<EOS>")


def from_gguf(metadata: Mapping[str, Any]) -> HuggingFaceTokenizer:
    """Return the tokenizer that the metadata of a GGUF file describes.

    metadata: the values by key, as str, int, float, bool and lists of these.

    `tokenizer.ggml.model` is gpt2 (byte-level BPE, with the expressions that `tokenizer.ggml.pre` names), or llama (a
    SentencePiece model with a score for each token). Raises TokenizerError, with the key.
    """
    models = {"gpt2": bpe, "llama": sentencepiece}
    model = value(metadata, "model", str)
    if model not in models:
        raise TokenizerError(f"{KEY}model: expected one of {', '.join(models)}, got {reprlib.repr(model)}")
    tokens = value(metadata, "tokens", list)
    if not tokens:
        raise TokenizerError(f"{KEY}tokens: expected at least one token")
    types = value(metadata, "token_type", list, [NORMAL] * len(tokens))
    if len(types) != len(tokens):
        raise TokenizerError(f"{KEY}token_type: expected {len(tokens)} types, one for each token, got {len(types)}")
    if wrong := [kind for kind in types if type(kind) is not int]:
        raise TokenizerError(f"{KEY}token_type: expected integers, got {reprlib.repr(wrong[0])}")
    vocab: dict[str, int] = {}
    for i, token in enumerate(tokens):
        if not isinstance(token, str):
            raise TokenizerError(f"{KEY}tokens: expected texts, got {reprlib.repr(token)} for token {i}")
        # An empty token cannot be in a text, and every token has to have another name.
        token = token or f"[EMPTY_{i}]"
        if token in vocab:
            raise TokenizerError(f"{KEY}tokens: {reprlib.repr(token)} is there twice, as {vocab[token]} and {i}")
        vocab[token] = i
    names = list(vocab)
    special = {names[i]: i for i, kind in enumerate(types) if kind in (CONTROL, UNKNOWN)}
    user_defined = {names[i]: i for i, kind in enumerate(types) if kind == USER_DEFINED}
    content, add_bos = models[model](metadata, vocab, types, special, user_defined)
    template = value(metadata, "tokenizer.chat_template", str, None)
    size = len(tokens)
    bos = token_id(metadata, "bos_token_id", size, 1 if model == "llama" else None)
    eos = token_id(metadata, "eos_token_id", size, 2 if model == "llama" else None)
    stop = {
        token_id(metadata, "eot_token_id", size),
        token_id(metadata, "eom_token_id", size),
        *(special[end] for end in TEXT_ENDS if end in special),
    }
    return HuggingFaceTokenizer(
        content,
        bos_id=bos,
        eos_id=eos,
        add_bos=value(metadata, "add_bos_token", bool, add_bos),
        stop_ids={number for number in stop if number is not None},
        chat_template=template,
        vocab_size=size,
    )


def value(metadata: Mapping[str, Any], key: str, kind: type, *default: Any) -> Any:
    """Return a value of the metadata, or the default if there is one. Raises TokenizerError for another type."""
    name = key if "." in key else KEY + key
    if name not in metadata or (metadata[name] is None and default):
        if default:
            return default[0]
        raise TokenizerError(f"{name} is missing: the file has no tokenizer")
    found = metadata[name]
    if kind is list and isinstance(found, tuple):
        found = list(found)
    if type(found) is not kind:
        raise TokenizerError(f"{name}: expected {kind.__name__}, got {reprlib.repr(found)}")
    return found


def token_id(metadata: Mapping[str, Any], key: str, size: int, default: int | None = None) -> int | None:
    """Return the id of a token that the metadata name. Raises TokenizerError if it is outside the vocabulary."""
    number: int | None = value(metadata, key, int, default)
    if KEY + key not in metadata:
        return number if number is None or number < size else None
    if number is not None and not 0 <= number < size:
        raise TokenizerError(f"{KEY}{key}: expected an id below {size}, got {number}")
    return number


def bpe(
    metadata: Mapping[str, Any],
    vocab: Mapping[str, int],
    types: list[int],
    special: Mapping[str, int],
    user_defined: Mapping[str, int],
) -> tuple[dict[str, Any], bool]:
    """Return the `tokenizer.json` of a byte-level BPE, and whether it usually begins a text with a token."""
    name = value(metadata, "pre", str, "default")
    if name not in PRE_TOKENIZERS:
        raise TokenizerError(
            f"{KEY}pre: expected one of {', '.join(PRE_TOKENIZERS)}, got {reprlib.repr(name)}. Without its rules "
            "another text would reach the model"
        )
    rules = PRE_TOKENIZERS[name]
    merges = value(metadata, "merges", list)
    for i, merge in enumerate(merges):
        if not isinstance(merge, str) or merge.count(" ") != 1 or merge[0] == " " or merge[-1] == " ":
            raise TokenizerError(f"{KEY}merges: expected two tokens, got {reprlib.repr(merge)} for merge {i}")
    return (
        byte_level(
            vocab,
            merges,
            special,
            user_defined=user_defined,
            patterns=rules.patterns,
            ignore_merges=rules.ignore_merges,
        ),
        rules.add_bos,
    )


def sentencepiece(
    metadata: Mapping[str, Any],
    vocab: Mapping[str, int],
    types: list[int],
    special: Mapping[str, int],
    user_defined: Mapping[str, int],
) -> tuple[dict[str, Any], bool]:
    """Return the `tokenizer.json` of a SentencePiece BPE model, and that it usually begins a text with a token.

    SentencePiece joins the two neighbours whose token has the highest score. So each way to make a token out of two is
    a merge, in the order of the scores of what they make.
    """
    scores = value(metadata, "scores", list)
    if len(scores) != len(vocab):
        raise TokenizerError(f"{KEY}scores: expected {len(vocab)} scores, one for each token, got {len(scores)}")
    for i, score in enumerate(scores):
        if type(score) not in (int, float) or score != score:
            raise TokenizerError(f"{KEY}scores: expected numbers, got {reprlib.repr(score)} for token {i}")
    unknown = next((token for token, i in vocab.items() if types[i] == UNKNOWN), None)
    pieces = {token: i for token, i in vocab.items() if types[i] in (NORMAL, USER_DEFINED, UNUSED)}
    merges = []
    for token, i in pieces.items():
        cuts = [(token[:at], token[at:]) for at in range(1, len(token))]
        merges += [(-scores[i], i, [left, right]) for left, right in cuts if left in pieces and right in pieces]
    merges.sort(key=lambda merge: merge[:2])
    prefix = value(metadata, "add_space_prefix", bool, True)
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    normalizers = [{"type": "Prepend", "prepend": SPACE}] * prefix + [spaces]
    decoders: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if prefix:
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    values = {
        "version": "1.0",
        "added_tokens": added_tokens(
            {token: i for token, i in special.items() if byte_of(token) is None}, user_defined
        ),
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": unknown,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": dict(vocab),
            "merges": [pair for *_, pair in merges],
        },
    }
    return values, True
