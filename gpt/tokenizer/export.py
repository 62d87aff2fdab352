"""Write a tokenizer as the files that Hugging Face's libraries read."""

import json
import random
from collections.abc import Iterable, Iterator
from typing import Any

from gpt.errors import extra
from gpt.tokenizer.base import Tokenizer, TokenizerError
from gpt.tokenizer.bpe import BPETokenizer, byte_alphabet, known_patterns
from gpt.tokenizer.char import CharTokenizer
from gpt.tokenizer.folder import added_tokens, byte_level_json
from gpt.tokenizer.huggingface import HuggingFaceTokenizer
from gpt.tokenizer.patterns import GPT2, GPT4O, LLAMA3

# The number of random texts that a conversion is tried on, each of a few tokens.
SAMPLES = 2000
# Characters on which regular expressions of two libraries may differ, and blanks before and after them.
TRICKY = " \t\n\r\u00a0\u3000\u2028\x85\x0b'sS1٣½aé\u0301\u200d🙂一.ſ"


def to_tokenizer_json(tokenizer: Tokenizer, samples: Iterable[str] = ()) -> str:
    """Return the `tokenizer.json` that gives the same ids in the package `tokenizers`.

    tiktoken merges any neighbours that are a token together, `tokenizers` only the pairs in a list. So each pair that
    makes a token is listed, and the result is compared with `tokenizer`: on every token, on random texts, and on
    `samples`. Raises TokenizerError where they differ: such a vocabulary has no `tokenizer.json`.
    """
    if isinstance(tokenizer, HuggingFaceTokenizer):
        return tokenizer.json
    if isinstance(tokenizer, CharTokenizer):
        return char_json(tokenizer)
    if not isinstance(tokenizer, BPETokenizer):
        raise TokenizerError(f"to_tokenizer_json: expected a char, bpe or gpt2 tokenizer, got {tokenizer.kind!r:.80}")
    tried = [*tried_texts(tokenizer), *samples]
    # tiktoken never merges inside a word that is a token. Few vocabularies need that, so it is the second attempt.
    problem = None
    for ignore_merges in (False, True):
        text = bpe_json(tokenizer, ignore_merges)
        if (problem := difference(tokenizer, text, tried)) is None:
            return text
    raise TokenizerError(f"to_tokenizer_json: {problem}. This vocabulary cannot be converted: keep it in a checkpoint")


def bpe_json(tokenizer: BPETokenizer, ignore_merges: bool = False) -> str:
    """Return the `tokenizer.json` of a byte-pair encoding, whose merges are all pairs that make a token."""
    ours = known_patterns()
    theirs = dict(zip(ours, (GPT2, GPT2, LLAMA3, GPT4O, GPT2), strict=True))
    if tokenizer.pattern not in theirs:
        raise TokenizerError(f"to_tokenizer_json: no rule for the pattern {tokenizer.pattern!r:.80}")
    letters = {byte: letter for letter, byte in byte_alphabet().items()}
    names = ["".join(letters[byte] for byte in token) for token in tokenizer.tokens]
    vocab = {name: i for i, name in enumerate(names)}
    merges = []
    for name in names:
        pairs = [(name[:at], name[at:]) for at in range(1, len(name))]
        known = [(vocab[left], vocab[right]) for left, right in pairs if left in vocab and right in vocab]
        merges += [[names[left], names[right]] for left, right in sorted(known)]
    special = dict(tokenizer.special_tokens)
    used = set(special.values())
    # `tokenizers` counts the ids of added tokens without gaps.
    special |= {f"<|unused_{i}|>": i for i in range(len(names), tokenizer.vocab_size) if i not in used}
    return byte_level_json(vocab, merges, special, patterns=(theirs[tokenizer.pattern],), ignore_merges=ignore_merges)


def char_json(tokenizer: CharTokenizer) -> str:
    """Return the `tokenizer.json` of single characters: a byte-pair encoding without merges."""
    vocab = {character: i for i, character in enumerate(tokenizer.vocab)}
    model: dict[str, Any] = {"type": "BPE", "unk_token": None, "byte_fallback": False, "vocab": vocab, "merges": []}
    return json.dumps(
        {"version": "1.0", "added_tokens": added_tokens({}, {}), "decoder": {"type": "Fuse"}, "model": model},
        ensure_ascii=False,
        separators=(",", ":"),
    )


def difference(tokenizer: BPETokenizer, text: str, tried: list[str]) -> str | None:
    """Return where a `tokenizer.json` gives other ids than a tokenizer on some texts, or None."""
    with extra():
        from tokenizers import Tokenizer as Theirs

    theirs = Theirs.from_str(text)
    theirs.encode_special_tokens = True
    for sample, found in zip(tried, theirs.encode_batch(tried, add_special_tokens=False), strict=True):
        if found.ids != (expected := tokenizer.encode(sample).tolist()):
            return f"{sample!r:.80} has the ids {expected!r:.80} and would get {found.ids!r:.80}"
    return None


def tried_texts(tokenizer: BPETokenizer) -> Iterator[str]:
    """Yield each token that is a text, and seeded random texts of tokens and of unusual characters."""
    texts = []
    for token in tokenizer.tokens:
        try:
            texts.append(token.decode())
        except UnicodeDecodeError:
            continue
    yield from texts
    rng = random.Random(0)
    for _ in range(SAMPLES):
        yield "".join(rng.choices(texts, k=rng.randint(2, 8)))
        yield "".join(rng.choices(TRICKY, k=rng.randint(2, 8)))


def to_files(tokenizer: Tokenizer) -> dict[str, str]:
    """Return the content of `tokenizer.json` and `tokenizer_config.json` for a folder of transformers, by their names.

    Raises TokenizerError for a tokenizer that has no such files.
    """
    text = to_tokenizer_json(tokenizer)
    names = {number: name for name, number in tokenizer.special_tokens.items()}
    bos = None if tokenizer.bos_id is None else names.get(tokenizer.bos_id)
    if tokenizer.add_bos and bos is not None:
        values = json.loads(text)
        if not values.get("post_processor"):
            values["post_processor"] = first_token(bos, tokenizer.bos_id)
            text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    config["add_bos_token"] = tokenizer.add_bos
    if bos is not None:
        config["bos_token"] = bos
    if tokenizer.eos_id in names:
        config["eos_token"] = names[tokenizer.eos_id]
    if tokenizer.chat_template is not None:
        config["chat_template"] = tokenizer.chat_template
    return {"tokenizer.json": text, "tokenizer_config.json": json.dumps(config, ensure_ascii=False, indent=2) + "\n"}


def first_token(name: str, number: int | None) -> dict[str, Any]:
    """Return the post-processor that puts a token before a text."""
    first = {"SpecialToken": {"id": name, "type_id": 0}}
    single = [first, {"Sequence": {"id": "A", "type_id": 0}}]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {name: {"id": name, "ids": [number], "tokens": [name]}},
    }
