"""Whether the tokens of a text hold all of it.

The package `tokenizers` leaves out, without a word, a character that no token stands for. SmolLM2's vocabulary, for
example, has no token for 21 of the 256 bytes. Other vocabularies make an "unknown" token out of such text.
"""

from collections.abc import Callable, Mapping
from typing import Any

from gpt.tokenizer.base import CharacterError, Ids
from gpt.tokenizer.bpe import byte_alphabet
from gpt.tokenizer.tokenizer_json import SPACE, is_byte_level, steps, uses_byte_tokens

BLANKS = str.maketrans("", "", " \t\n\r" + SPACE)


class Coverage:
    """What a vocabulary can represent.

    values: the content of a `tokenizer.json`. vocab: its tokens. tokenizer: the `tokenizers.Tokenizer` for it.
    """

    def __init__(self, values: Mapping[str, Any], vocab: Mapping[str, int], tokenizer: Any) -> None:
        model = values["model"]
        self._normalizer = tokenizer.normalizer
        self._normal_steps = steps(values.get("normalizer"), "normalizers")
        self._alphabet = byte_alphabet()
        self.has_prefix = has_prefix(values)
        unknown = model["unk_id"] if "unk_id" in model else vocab.get(model.get("unk_token"))
        self._unknown: int | None = unknown
        self._byte_level = is_byte_level(values)
        self._bytes = self._byte_level or uses_byte_tokens(values)
        if self._byte_level:
            missing = [byte for c, byte in self._alphabet.items() if c not in vocab]
        else:
            missing = [byte for byte in range(256) if f"<0x{byte:02X}>" not in vocab]
        self.missing_bytes = bytes(missing)
        known = {token for token in vocab if len(token) == 1}
        # A file may write U+2581 for a space, or may not.
        self._known = known | {" ", SPACE} if known & {" ", SPACE} else known
        added = values.get("added_tokens") or ()
        self._trims = any(token.get("lstrip") or token.get("rstrip") for token in added)
        self._exact = self._byte_level and not self.has_prefix and not self._trims

    def check(self, text: str, ids: Ids, decode: Callable[[Ids], bytes], allow_special: bool) -> None:
        """Raise CharacterError, with the first character that has no token, if `ids` do not hold all of `text`.

        decode: the function that returns the bytes of ids.
        """
        if self._bytes and not self.missing_bytes:
            return
        normal = self._normal(text)
        strange = self._strange(normal)
        if not strange:
            return
        # The characters may be inside tokens that are matched as a whole.
        unknown = not allow_special and self._unknown is not None and bool((ids == self._unknown).any())
        if not unknown and self._same(decode(ids).decode(errors="replace"), normal):
            return
        position, character = next((i, c) for i, c in enumerate(normal) if c in strange)
        if normal != text:
            position = max(text.find(character), 0)
        lost = [f"0x{byte:02x}" for byte in character.encode() if byte in self.missing_bytes]
        lacks = f"the byte {lost[0]}" if self._bytes and lost else "it"
        raise CharacterError(
            f"character {character!r}", position, f"has no token, because the vocabulary lacks {lacks}. Leave it out"
        )

    def _strange(self, normal: str) -> set[str]:
        """Return the characters of a text that no token stands for alone."""
        missing = set(self.missing_bytes)
        if self._byte_level:
            content = normal.encode()
            if len(content.translate(None, self.missing_bytes)) == len(content):
                return set()
            return {c for c in set(normal) if missing.intersection(c.encode())}
        strange = set(normal) - self._known
        return {c for c in strange if missing.intersection(c.encode())} if self._bytes else strange

    def _normal(self, text: str) -> str:
        """Return the text that the tokens stand for. A normalizer may, for example, compose letters and accents."""
        normal: str = text if self._normalizer is None else self._normalizer.normalize_str(text)
        if any(step["type"] == "ByteLevel" for step in self._normal_steps):
            normal = bytes(self._alphabet[c] for c in normal).decode(errors="replace")
        return normal

    def _same(self, found: str, normal: str) -> bool:
        """Return whether tokens hold a text. Some tokenizers add a space, or trim blanks next to special tokens."""
        return found == normal or (not self._exact and found.translate(BLANKS) == normal.translate(BLANKS))


def has_prefix(values: Mapping[str, Any]) -> bool:
    """Return whether a tokenizer puts a space before a text."""
    for step in steps(values.get("pre_tokenizer"), "pretokenizers"):
        if step["type"] == "ByteLevel" and step.get("add_prefix_space", True):
            return True
        if step["type"] == "Metaspace" and step.get("prepend_scheme", "always") != "never":
            return bool(step.get("add_prefix_space", True))
    normalizers = steps(values.get("normalizer"), "normalizers")
    return any(step["type"] == "Prepend" and step.get("prepend") in (SPACE, " ") for step in normalizers)
