"""Test grammars: texts match a regular expression or a JSON schema."""

import json
import re
import sys

import numpy as np
import pytest

from gpt.generation import Grammar, GrammarError, SampleError, beam_search, generate, generate_batch
from gpt.tokenizer import BPETokenizer, CharTokenizer
from tests.gpt.small_models import small_model

CHARACTERS = '\n 0123456789-+.E{}[]":,abcdefghijklmnopqrstuvwxyzé'


@pytest.fixture(scope="module")
def char():
    pytest.importorskip("llguidance")
    return CharTokenizer(CHARACTERS)


@pytest.fixture(scope="module")
def bpe():
    pytest.importorskip("llguidance")
    pytest.importorskip("tiktoken")
    tokens = [*(bytes([b]) for b in range(256)), b"ab", b"abc", b'{"', b"12", b'":', "é!".encode(), b"ca"]
    return BPETokenizer(tokens, r"\p{L}+", {"<|endoftext|>": len(tokens)})


def written(tokenizer, grammar, seed=0, count=60, **options):
    model = small_model(vocab_size=tokenizer.vocab_size, block_size=32)
    return tokenizer.decode(list(generate(model, [1], count, seed=seed, processors=[grammar], **options)))


PATTERNS = [r"[0-9]{3}-[a-c]+é", r"(abc|cab)x", r"abcabc", r"é{2}", r"[^a]b?c{4}"]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_texts_match_the_pattern(kind, pattern, request):
    tokenizer = request.getfixturevalue(kind)
    grammar = Grammar.regex(tokenizer, pattern)
    texts = {written(tokenizer, grammar, seed, top_p=0.9) for seed in range(3)}
    for text in texts:
        whole = re.fullmatch(pattern, text)
        assert whole or len(text) >= 30  # [a-c]+ may go on until the limit.


def test_json_follows_the_schema(char, bpe):
    schema = {
        "type": "object", "additionalProperties": False, "required": ["age", "name"],
        "properties": {"age": {"type": "integer", "maximum": 120, "minimum": 0}, "name": {"enum": ["ann", "bob"]}},
    }  # fmt: skip
    for tokenizer in (char, bpe):
        for given in (schema, json.dumps(schema)):
            values = json.loads(written(tokenizer, Grammar.json_schema(tokenizer, given)))
            assert set(values) == {"age", "name"}
            assert 0 <= values["age"] <= 120
            assert values["name"] in ("ann", "bob")


def test_an_end_token_ends_where_the_text_matches(bpe):
    end = bpe.special_tokens["<|endoftext|>"]
    grammar = Grammar.regex(bpe, "[ab]{2,}", end_token=end)
    logits = np.zeros(bpe.vocab_size + 3)  # The model has more tokens than the tokenizer.
    allowed = np.flatnonzero(np.isfinite(grammar([], logits))).tolist()
    assert allowed == [97, 98, 256]
    assert np.flatnonzero(np.isfinite(grammar([97], logits))).tolist() == [97, 98, 256]
    assert np.flatnonzero(np.isfinite(grammar([256], logits))).tolist() == [97, 98, 256, end]
    model = small_model(vocab_size=bpe.vocab_size, block_size=32)
    for stops in ([end], []):
        text = list(generate(model, [1], 90, seed=0, processors=[grammar], logit_bias={end: 9}, stop_tokens=stops))
        assert re.fullmatch(b"[ab]{2,}", bpe.decode_bytes([token for token in text if token != end]))
        assert len(text) < 90


def test_batches_and_beams_share_a_grammar(char):
    grammar = Grammar.regex(char, "[a-z]{2}[0-9]{2,4}!?;|x{5}".replace("!?;", "e"))
    model = small_model(vocab_size=char.vocab_size, block_size=32)
    texts = generate_batch(model, [[1], [2, 3]], 20, seed=0, num_samples=2, processors=[grammar])
    alone = [list(generate(model, [1] if i < 2 else [2, 3], 20, seed=i, processors=[grammar])) for i in range(4)]
    assert texts == alone
    beams = beam_search(model, [1], 4, 20, processors=[grammar], num_return=4)
    for text in [*texts, *(beam.tokens for beam in beams)]:
        assert re.fullmatch("[a-z]{2}[0-9]{2,4}e|x{5}", char.decode(text))
    assert len({tuple(beam.tokens) for beam in beams}) == 4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda t: Grammar.regex(t, "[a"), "unclosed character class"),
        (lambda t: Grammar.regex(t, "(?=a)b"), "grammar: "),
        (lambda t: Grammar.json_schema(t, "{"), "the JSON schema is not JSON"),
        (lambda t: Grammar.json_schema(t, "[]"), "the JSON schema: expected an object, got []"),
        (lambda t: Grammar.json_schema(t, {"type": "foo"}), "foo"),
        (lambda t: Grammar.json_schema(t, {"type": {1}}), "the JSON schema is not JSON"),
    ],
)
def test_wrong_grammars(make, message, char):
    with pytest.raises(GrammarError) as caught:
        make(char)
    assert message in str(caught.value)


def test_texts_that_the_vocabulary_cannot_write(char):
    with pytest.raises(SampleError, match="grammar: no token of the vocabulary can follow"):
        written(char, Grammar.regex(char, "abZ"))
    with pytest.raises(SampleError, match="grammar: the text 'b' does not match"):
        Grammar.regex(char, "a")(char.encode("b").tolist(), np.zeros(char.vocab_size))


def test_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(ModuleNotFoundError, match=r"llguidance: pip install 'tensorlite\[grammar\]'"):
        Grammar.regex(CharTokenizer("ab"), "a")
