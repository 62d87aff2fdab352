"""Write a tokenizer as the metadata of a GGUF file, which llama.cpp reads."""

import json
from collections.abc import Mapping
from typing import Any

from gpt.tokenizer.base import Tokenizer, TokenizerError
from gpt.tokenizer.export import to_tokenizer_json
from gpt.tokenizer.gguf import CONTROL, KEY, NORMAL, UNUSED, USER_DEFINED, from_gguf
from gpt.tokenizer.patterns import GPT2, PRE_TOKENIZERS, PreTokenizer
from gpt.tokenizer.tokenizer_json import SPACE, is_byte_level, steps


def to_gguf(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the keys `tokenizer.*` that give llama.cpp the same ids.

    The result is read again and compared on every token. Raises TokenizerError if llama.cpp has no such tokenizer.
    """
    values = json.loads(to_tokenizer_json(tokenizer))
    keys = byte_level(values) if is_byte_level(values) else single_characters(values)
    tokens, types = token_table(values, tokenizer)
    # llama.cpp finds the other tokens that end a text or a turn by their names.
    roles = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}
    metadata: dict[str, Any] = {
        **{KEY + key: value for key, value in keys.items()},
        f"{KEY}tokens": [spaced(token) for token in tokens] if keys["model"] == "llama" else tokens,
        f"{KEY}token_type": types,
        **{KEY + key: value for key, value in roles.items() if value is not None},
        f"{KEY}add_bos_token": tokenizer.add_bos,
    }
    if keys["model"] == "llama":
        metadata[f"{KEY}scores"] = [0.0] * len(tokens)
    if tokenizer.chat_template:
        metadata["tokenizer.chat_template"] = tokenizer.chat_template
    check(tokenizer, metadata, tokens)
    return metadata


def token_table(values: Mapping[str, Any], tokenizer: Tokenizer) -> tuple[list[str], list[int]]:
    """Return the tokens by id, and the type of each. Ids without a token get a name that no text has."""
    ids = dict(values["model"]["vocab"])
    kinds = dict.fromkeys(ids, NORMAL)
    for entry in values.get("added_tokens") or []:
        ids[entry["content"]] = entry["id"]
        kinds[entry["content"]] = CONTROL if entry.get("special") else USER_DEFINED
    table = {number: token for token, number in ids.items()}
    tokens = [table.get(i, f"[UNUSED_{i}]") for i in range(tokenizer.vocab_size)]
    return tokens, [kinds.get(token, UNUSED) for token in tokens]


def spaced(token: str) -> str:
    """Return a token with SentencePiece's sign for a space."""
    return token.replace(" ", SPACE)


def byte_level(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a byte-level BPE. Raises TokenizerError for rules that llama.cpp has no name for."""
    if steps(values.get("normalizer"), "normalizers"):
        raise TokenizerError("GGUF: llama.cpp has no name for a byte-level BPE that changes the text first")
    patterns: list[str] = []
    for step in steps(values.get("pre_tokenizer"), "pretokenizers"):
        kind = step["type"]
        if kind == "Split" and isinstance(step.get("pattern"), dict) and "Regex" in step["pattern"]:
            patterns.append(step["pattern"]["Regex"])
        elif kind == "Digits" and step.get("individual_digits"):
            patterns.append(r"\p{N}")
        elif kind == "ByteLevel":
            patterns += [GPT2] if step.get("use_regex", True) else []
        else:
            raise TokenizerError(f"GGUF: llama.cpp has no name for the pre-tokenizer {kind}")
    model = values["model"]
    wanted = (tuple(patterns), bool(model.get("ignore_merges")))

    def same(kind: PreTokenizer) -> bool:
        return (kind.patterns, kind.ignore_merges) == wanted

    name = next((name for name, kind in PRE_TOKENIZERS.items() if same(kind)), None)
    if name is None:
        raise TokenizerError(f"GGUF: llama.cpp has no name for the pre-tokenizer with {patterns!r:.120}")
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    return {"model": "gpt2", "pre": name, "merges": merges}


def single_characters(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a vocabulary of characters, which is SentencePiece's without merges."""
    model = values["model"]
    if model["merges"] or any(len(token) != 1 for token in model["vocab"]) or SPACE in model["vocab"]:
        raise TokenizerError("GGUF: only byte-level BPE and characters can be written for llama.cpp")
    return {"model": "llama", "add_space_prefix": False}


def check(tokenizer: Tokenizer, metadata: Mapping[str, Any], tokens: list[str]) -> None:
    """Raise TokenizerError if the metadata give other ids for the text of a token."""
    back = from_gguf(metadata)
    for i in range(tokenizer.vocab_size):
        text = tokenizer.decode_bytes([i]).decode(errors="replace")
        if text and "\N{REPLACEMENT CHARACTER}" not in text and text not in tokenizer.special_tokens:
            if back.encode(text).tolist() != tokenizer.encode(text).tolist():
                raise TokenizerError(f"GGUF: {text!r:.80}, the token {i}, would get other ids in llama.cpp")
