"""The content of a `tokenizer.json`: its checks, and the bytes of its tokens.

The package `tokenizers` reads such a file. It accepts two tokens with one id. It silently gives an added token another
id than the file. It ends with a panic where a merge is not as it expects. So all of that is checked before.
"""

import json
import reprlib
from collections.abc import Mapping
from typing import Any

from gpt.tokenizer.base import TokenizerError

# The largest id plus 1. No vocabulary comes near it, and a table of this length takes 32 MB.
MAX_IDS = 2**22
# A character that no token of GPT-2's alphabet has.
SEPARATOR = "\ue0c6"
# SentencePiece writes this character for a space.
SPACE = "\u2581"
MODELS = ("BPE", "Unigram")
# Steps that drop the white space between words, so that no text could be decoded.
DROPS_SPACES = ("Whitespace", "WhitespaceSplit", "BertPreTokenizer", "CharDelimiterSplit")
ADDED_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def parse(text: str, name: str = "tokenizer.json") -> dict[str, Any]:
    """Return the object that a JSON text describes. Raises TokenizerError, also if a key is there twice."""
    try:
        values = json.loads(text, object_pairs_hook=without_repeated_keys)
    except TokenizerError as error:
        raise TokenizerError(f"{name}: {error}") from None
    except (ValueError, RecursionError, TypeError) as error:
        raise TokenizerError(f"{name}: expected JSON, got {reprlib.repr(text)} ({short_reason(error)})") from None
    if not isinstance(values, dict):
        raise TokenizerError(f"{name}: expected a JSON object, got {reprlib.repr(values)}")
    return values


def compact(values: Mapping[str, Any]) -> str:
    """Return the JSON of an object without white space."""
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"))


def short_reason(error: Exception) -> str:
    """Return the reason of an error that `json.loads` has raised."""
    return "too deeply nested" if isinstance(error, RecursionError) else str(error)


def without_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the pairs of a JSON object as a dictionary. Raises TokenizerError if a key is there twice."""
    values = dict(pairs)
    if len(values) != len(pairs):
        seen: set[str] = set()
        repeated = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise TokenizerError(f"the key {reprlib.repr(repeated)} is there twice")
    return values


def field(values: Mapping[str, Any], key: str, kinds: type | tuple[type, ...], where: str) -> Any:
    """Return `values[key]`. Raises TokenizerError if it is missing or of another type."""
    if key not in values:
        raise TokenizerError(f"{where}: the key {key!r} is missing")
    if not isinstance(value := values[key], kinds) or (isinstance(value, bool) and kinds is int):
        names = " or ".join(kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))
        raise TokenizerError(f"{where}.{key}: expected {names}, got {reprlib.repr(value)}")
    return value


def checked(values: dict[str, Any]) -> dict[str, int]:
    """Return the id of each token, special tokens included, after a check of the whole description.

    Raises TokenizerError, with the key, if the description is not one that can be used.
    """
    model = field(values, "model", dict, "tokenizer.json")
    kind = model.setdefault("type", "BPE" if "merges" in model else "Unigram")
    if kind not in MODELS:
        raise TokenizerError(
            f"model.type: expected one of {', '.join(MODELS)}, got {reprlib.repr(kind)}. Other models lose the spaces "
            "of a text"
        )
    for step in steps(values.get("pre_tokenizer"), "pretokenizers"):
        if step["type"] in DROPS_SPACES or step.get("behavior") == "Removed":
            raise TokenizerError(f"pre_tokenizer: {step['type']} drops the white space of a text, which is then lost")
    check_bytes(values)
    vocab = bpe_vocab(model) if kind == "BPE" else unigram_vocab(model)
    check_ids(vocab)
    owners = {number: token for token, number in vocab.items()}
    for i, added in enumerate(field({"added_tokens": []} | values, "added_tokens", list, "tokenizer.json")):
        where = f"added_tokens[{i}]"
        if not isinstance(added, dict):
            raise TokenizerError(f"{where}: expected an object, got {reprlib.repr(added)}")
        token, number = field(added, "content", str, where), field(added, "id", int, where)
        for flag in ADDED_FLAGS:
            field({flag: False} | added, flag, bool, where)
        if not token:
            raise TokenizerError(f"{where}.content: expected a text, got ''")
        if owners.get(number, token) != token:
            raise TokenizerError(f"{where}.id: {number} is the id of {reprlib.repr(owners[number])}, too")
        if vocab.get(token, number) != number:
            raise TokenizerError(f"{where}.id: {reprlib.repr(token)} has the ids {vocab[token]} and {number}")
        vocab[token], owners[number] = number, token
    check_ids(vocab)
    return vocab


def check_bytes(values: Mapping[str, Any]) -> None:
    """Raise TokenizerError if only one of the encoder and the decoder takes characters for bytes."""
    encoder = steps(values.get("pre_tokenizer"), "pretokenizers") + steps(values.get("normalizer"), "normalizers")
    decoder = steps(values.get("decoder"), "decoders")
    writes, reads = ("ByteLevel" in [step["type"] for step in part] for part in (encoder, decoder))
    if reads != writes and (reads or decoder):
        raise TokenizerError(
            f"decoder: ByteLevel is {'' if reads else 'not '}among its steps, but {'not ' if reads else ''}in the "
            "pre-tokenizer, so that a text would not come back"
        )


def check_ids(vocab: Mapping[str, int]) -> None:
    """Raise TokenizerError unless the ids of tokens are different integers in the range of ids."""
    if not vocab:
        raise TokenizerError("model.vocab: expected at least one token")
    numbers = set(vocab.values()) if set(map(type, vocab.values())) == {int} else set()
    if len(numbers) == len(vocab) and 0 <= min(numbers) and max(numbers) < MAX_IDS:
        return
    for token, number in vocab.items():
        if type(number) is not int or not 0 <= number < MAX_IDS:
            raise TokenizerError(
                f"model.vocab: expected ids from 0 to {MAX_IDS - 1}, got {number!r:.40} for {reprlib.repr(token)}"
            )
    owners = {number: token for token, number in vocab.items()}
    if len(owners) != len(vocab):
        token = next(token for token, number in vocab.items() if owners[number] != token)
        raise TokenizerError(
            f"model.vocab: {reprlib.repr(token)} and {reprlib.repr(owners[vocab[token]])} have the same id "
            f"{vocab[token]}"
        )


def bpe_vocab(model: Mapping[str, Any]) -> dict[str, int]:
    """Return the tokens of a byte-pair model, whose merges are checked. Raises TokenizerError."""
    vocab: dict[str, int] = dict(field(model, "vocab", dict, "model"))
    for key in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise TokenizerError(f"model.{key}: expected none, got {reprlib.repr(model[key])}")
    check_unknown(model.get("unk_token"), vocab, "model.unk_token")
    merges = field(model, "merges", list, "model")
    if merges_fit(merges, vocab):
        return vocab
    for i, merge in enumerate(merges):
        parts = merge.split(" ") if isinstance(merge, str) else merge
        pair = isinstance(parts, list) and len(parts) == 2 and type(parts[0]) is type(parts[1]) is str
        if not pair or not (parts[0] and parts[1]):
            raise TokenizerError(f"model.merges[{i}]: expected two tokens, got {reprlib.repr(merge)}")
        if parts[0] not in vocab or parts[1] not in vocab or parts[0] + parts[1] not in vocab:
            token = next(token for token in (*parts, "".join(parts)) if token not in vocab)
            raise TokenizerError(f"model.merges[{i}]: {reprlib.repr(token)} is not in the vocabulary")
    return vocab


def merges_fit(merges: list[Any], vocab: Mapping[str, int]) -> bool:
    """Return whether all merges are texts of two tokens of the vocabulary, which make a third one.

    This takes a fourth of the time of a loop that finds the one that does not fit. False may also mean another form.
    """
    if set(map(type, merges)) != {str} or {merge.count(" ") for merge in merges} != {1} or "" in vocab:
        return False
    known = vocab.keys()
    return known >= set(" ".join(merges).split(" ")) and known >= {merge.replace(" ", "") for merge in merges}


def unigram_vocab(model: Mapping[str, Any]) -> dict[str, int]:
    """Return the tokens of a unigram model. Raises TokenizerError."""
    vocab: dict[str, int] = {}
    for i, entry in enumerate(field(model, "vocab", list, "model")):
        pair = isinstance(entry, list) and len(entry) == 2 and type(entry[0]) is str
        if not pair or type(entry[1]) not in (int, float) or entry[1] != entry[1]:
            raise TokenizerError(f"model.vocab[{i}]: expected a token and its score, got {reprlib.repr(entry)}")
        if entry[0] in vocab:
            raise TokenizerError(f"model.vocab[{i}]: {reprlib.repr(entry[0])} is there twice")
        vocab[entry[0]] = i
    unknown = model.get("unk_id")
    if unknown is not None and (type(unknown) is not int or not 0 <= unknown < len(vocab)):
        raise TokenizerError(f"model.unk_id: expected an id below {len(vocab)}, got {reprlib.repr(unknown)}")
    return vocab


def check_unknown(token: object, vocab: Mapping[str, int], where: str) -> None:
    """Raise TokenizerError unless the token for unknown text is None or in the vocabulary."""
    if token is not None and (not isinstance(token, str) or token not in vocab):
        raise TokenizerError(f"{where}: {reprlib.repr(token)} is not in the vocabulary")


def steps(part: object, inner: str) -> list[dict[str, Any]]:
    """Return the steps of a normalizer, a pre-tokenizer or a decoder, which may be sequences of sequences.

    inner: the key of the steps in a sequence. Raises TokenizerError.
    """
    if part is None:
        return []
    if not isinstance(part, dict) or not isinstance(part.get("type"), str):
        raise TokenizerError(f"tokenizer.json: expected a step with a type, got {reprlib.repr(part)}")
    if part["type"] != "Sequence":
        return [part]
    return [step for entry in field(part, inner, list, "Sequence") for step in steps(entry, inner)]


def first_ids(values: Mapping[str, Any]) -> list[int]:
    """Return the ids that the post-processor puts before a text: at most one. Raises TokenizerError."""
    for step in steps(values.get("post_processor"), "processors"):
        where = f"post_processor.{step['type']}"
        if step["type"] in ("BertProcessing", "RobertaProcessing"):
            pair = field(step, "cls", list, where)
            return [pair[1]] if len(pair) == 2 and type(pair[1]) is int else []
        if step["type"] == "TemplateProcessing":
            single = field(step, "single", list, where)
            special = single[0].get("SpecialToken") if single and isinstance(single[0], dict) else None
            if isinstance(special, dict):
                known = field(step, "special_tokens", dict, where).get(special.get("id"))
                ids = known.get("ids") if isinstance(known, dict) else None
                if not isinstance(ids, list) or not all(type(i) is int for i in ids):
                    raise TokenizerError(f"{where}: expected the ids of a special token, got {reprlib.repr(known)}")
                return ids[:1]
    return []


def is_byte_level(values: Mapping[str, Any]) -> bool:
    """Return whether each character of a token stands for a byte, as in GPT-2's files."""
    kinds = {step["type"] for step in steps(values.get("pre_tokenizer"), "pretokenizers")}
    kinds |= {step["type"] for step in steps(values.get("decoder"), "decoders")}
    return "ByteLevel" in kinds


def replacements(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what the decoder replaces in each token. Raises TokenizerError for a decoder that has other rules."""
    found = []
    for step in steps(values.get("decoder"), "decoders"):
        kind = step["type"]
        if kind == "Metaspace":
            found.append((field({"replacement": SPACE} | step, "replacement", str, "decoder"), " "))
        elif kind == "Replace":
            pattern = step.get("pattern")
            if not isinstance(pattern, dict) or not isinstance(pattern.get("String"), str):
                raise TokenizerError(f"decoder.Replace: expected a text to replace, got {reprlib.repr(pattern)}")
            found.append((pattern["String"], field(step, "content", str, "decoder")))
        elif kind not in ("ByteFallback", "Fuse", "Strip", "ByteLevel"):
            raise TokenizerError(
                f"decoder: expected ByteLevel, ByteFallback, Fuse, Metaspace, Replace or Strip, got {kind!r:.40}"
            )
    if not values.get("decoder"):  # Then the pre-tokenizer tells what the tokens stand for.
        parts = steps(values.get("pre_tokenizer"), "pretokenizers")
        found += [(SPACE, " ") for step in parts if step["type"] == "Metaspace"]
    return found


def token_bytes(values: Mapping[str, Any], vocab: Mapping[str, int], alphabet: Mapping[str, int]) -> list[bytes]:
    """Return the UTF-8 bytes of each id; an id that no token has gives b"".

    alphabet: the byte of each character of a byte-level token.
    """
    table = [b""] * (max(vocab.values()) + 1)
    changes, byte_level = replacements(values), is_byte_level(values)
    fallback = uses_byte_tokens(values)
    # A letter of the alphabet is one of the first 512 characters, so Latin-1 can hold the byte of each.
    letters = str.maketrans({c: chr(byte) for c, byte in alphabet.items()})
    joined = SEPARATOR.join(vocab)
    if byte_level and alphabet.keys() >= set(joined) - {SEPARATOR} and joined.count(SEPARATOR) == len(vocab) - 1:
        found = joined.translate(letters).split(SEPARATOR)  # All at once takes a third of the time.
        for number, text in zip(vocab.values(), found, strict=True):
            table[number] = text.encode("latin-1")
        vocab = {}
    for token, number in vocab.items():
        if byte_level and alphabet.keys() >= set(token):
            table[number] = token.translate(letters).encode("latin-1")
        elif fallback and (value := byte_of(token)) is not None:
            table[number] = bytes([value])
        else:
            for old, new in changes:
                token = token.replace(old, new)
            table[number] = utf8(token)
    for added in values.get("added_tokens") or ():
        if not fallback or byte_of(added["content"]) is None:
            table[added["id"]] = utf8(added["content"])  # An added token stands for its own text.
    return table


def special_tokens(values: Mapping[str, Any]) -> dict[str, int]:
    """Return the ids of the special tokens. Tokens for bytes are none, though some files mark them so."""
    fallback = uses_byte_tokens(values)
    return {
        added["content"]: added["id"]
        for added in values.get("added_tokens") or ()
        if added.get("special") and not (fallback and byte_of(added["content"]) is not None)
    }


def without_special(values: Mapping[str, Any], special: Mapping[str, int]) -> dict[str, Any]:
    """Return a description for which the text of a special token is text.

    `tokenizers` has a switch, `encode_special_tokens`, for the search of such tokens in a text. It does not keep a
    unigram model, a merge, or `ignore_merges` from making them. So there they get another name, which no text has.
    """
    model = dict(values["model"])
    joined = [m.replace(" ", "") if isinstance(m, str) else m[0] + m[1] for m in model.get("merges", ())]
    if model["type"] == "Unigram" or model.get("ignore_merges"):
        hidden = dict(special)
    else:
        hidden = {token: special[token] for token in special.keys() & set(joined)}
    if not hidden:
        return dict(values)
    names = {token: f"\ufdd0{number}\ufdd1" for token, number in hidden.items()}
    if model["type"] == "Unigram":
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in model["vocab"]]
    else:
        model["vocab"] = {names.get(token, token): number for token, number in model["vocab"].items()}
        parts = [m.split(" ") if isinstance(m, str) else m for m in model["merges"]]
        model["merges"] = [m for m, token in zip(parts, joined, strict=True) if not names.keys() & {*m, token}]
        model["unk_token"] = names.get(str(model.get("unk_token")), model.get("unk_token"))
    added = [
        {**token, "content": names.get(token["content"], token["content"])} for token in values["added_tokens"]
    ]
    return {**values, "model": model, "added_tokens": added}


def uses_byte_tokens(values: Mapping[str, Any]) -> bool:
    """Return whether a token such as <0x0A> stands for a byte."""
    kinds = [step["type"] for step in steps(values.get("decoder"), "decoders")]
    return bool(values["model"].get("byte_fallback")) or "ByteFallback" in kinds


def byte_of(token: str) -> int | None:
    """Return the byte that a token such as <0x0A> stands for, or None for another token."""
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        digits = token[3:5]
        if all(digit in "0123456789ABCDEFabcdef" for digit in digits):
            return int(digits, 16)
    return None


def utf8(token: str) -> bytes:
    """Return the UTF-8 bytes of a token. Raises TokenizerError for half a surrogate pair."""
    try:
        return token.encode()
    except UnicodeEncodeError:
        raise TokenizerError(f"model.vocab: {reprlib.repr(token)} is not a text") from None
