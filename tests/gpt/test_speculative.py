"""Test speculative decoding: the exact distribution of its text, greedy texts, ends inside a draft, and errors."""

import functools
import math

import numpy as np
import pytest

from gpt.generation import (
    EndOfText,
    Engine,
    NGrams,
    Speculation,
    beam_search,
    generate,
    generate_batch,
    generate_with_logprobs,
)
from gpt.generation.sampling import Sampler
from gpt.generation.speculative import DraftLength, Lookup
from gpt.model import GPT
from gpt.tokenizer import TokenError
from tests.gpt.small_models import small_model
from tests.gpt.test_batch import MODELS

PROMPT = [1, 2, 3, 1, 2]
DRAFTS = {
    "ngrams": lambda **_: NGrams(3, 1),
    "small": lambda **o: small_model(n_layer=1, n_head=2, n_embd=8, **o),
    "short": lambda **o: small_model(n_layer=1, n_head=2, n_embd=8, block_size=5, **o),
    "itself": lambda **o: small_model(**o),
}


# ---- the distribution ---------------------------------------------------------------------------


def distribution(run, monkeypatch):
    """Return the exact probability of each text that run() can return, by all outcomes of all random draws."""
    found, open_paths = {}, [[]]
    state = {}

    def draw(self, weights):
        p, made = weights / weights.sum(), state["made"]
        if len(made) < len(state["path"]):
            place = state["path"][len(made)]
        else:
            place, *others = p.nonzero()[0].tolist()
            open_paths.extend([*made, other] for other in others)
        made.append(place)
        state["probability"] *= p[place]
        return place

    with monkeypatch.context() as patch:
        patch.setattr(Sampler, "draw", draw)
        while open_paths:
            state.update(path=open_paths.pop(), made=[], probability=1.0)
            text = tuple(run())
            found[text] = found.get(text, 0) + state["probability"]
    return found


def no_repeats(ids, logits):
    logits[ids[-1]] -= 2.0
    return logits


def three_ones(ids, logits):
    if ids[-2:] == [1, 1]:
        raise EndOfText
    return logits


@pytest.mark.parametrize("options", [
    {}, {"temperature": 0.6, "top_k": 2}, {"top_p": 0.7}, {"min_p": 0.3}, {"typical_p": 0.6},
    {"repetition_penalty": 1.7, "logit_bias": {1: 1.5}, "top_k": 2}, {"banned_tokens": [0, [1, 2]]},
    {"presence_penalty": 0.8, "frequency_penalty": -0.5, "top_k": 2}, {"forced_tokens": {2: 1}}, {"temperature": 0},
    {"processors": [no_repeats, three_ones], "top_k": 2}, {"stop_tokens": [2], "temperature": 2.0},
    {"temperature": 1.4, "top_k": 2, "top_p": 0.9, "frequency_penalty": 0.4, "processors": [no_repeats]},
], ids="-".join)  # fmt: skip
@pytest.mark.parametrize("kind", ["small", "ngrams"])
def test_the_distribution_is_exactly_that_without_a_draft(kind, options, monkeypatch):
    """Sum over every draft, acceptance and draw: the probabilities of all texts agree to 1e-12."""
    model = small_model(vocab_size=3)
    draft = NGrams(2, 1) if kind == "ngrams" else small_model(vocab_size=3, n_layer=1, n_head=1, n_embd=4)
    counts = Speculation(draft, tokens=2)
    expected = distribution(lambda: generate(model, [0, 1, 1, 0], 4, **options), monkeypatch)
    found = distribution(lambda: generate(model, [0, 1, 1, 0], 4, draft=counts, **options), monkeypatch)
    assert found.keys() == expected.keys()
    for text, probability in expected.items():
        assert abs(found[text] - probability) < 1e-12, text
    assert abs(sum(found.values()) - 1) < 1e-12
    assert counts.drafted > 0
    assert len(expected) == 1 or 0 < counts.accepted < counts.drafted


def test_the_distribution_where_a_draft_never_agrees(monkeypatch):
    """The draft has all its probability where the model has none, and the other way round."""
    model, draft = small_model(vocab_size=3), small_model(vocab_size=3, n_layer=1, n_head=1, n_embd=4)

    def only_two(ids, logits):  # The draft does not know it, because it has no after_prompt.
        logits[:2] = -np.inf
        return logits

    counts = Speculation(draft, tokens=3)
    options = {"processors": [only_two], "logit_bias": {2: -900.0}}
    assert distribution(lambda: generate(model, [0], 4, draft=counts, **options), monkeypatch).keys() == {(2,) * 4}
    assert counts.drafted > 0
    assert counts.accepted == 0


# ---- texts --------------------------------------------------------------------------------------


@functools.cache
def plain_text(model, prompt):
    return list(generate(model, prompt, 22, temperature=0))


@pytest.mark.parametrize("kind", DRAFTS)
@pytest.mark.parametrize("name", MODELS)
def test_greedy_texts_are_those_without_a_draft(name, kind):
    """Compare far past the end of the context, for every family, prompts of any length, and drafts of any kind."""
    model, draft = small_model(**MODELS[name]), DRAFTS[kind]()
    counts = Speculation(draft)
    for prompt in (PROMPT, [3] * 20):
        expected = plain_text(model, tuple(prompt))
        assert list(generate(model, prompt, len(expected), temperature=0, draft=counts)) == expected
    assert counts.accepted <= counts.drafted
    assert counts.drafted > 0 or model.config.block_size == 1


@pytest.mark.parametrize("options", [{}, {"temperature": 0.7, "top_k": 4}], ids=str)
def test_a_seed_determines_the_text(options):
    model = small_model()
    for kind, make in DRAFTS.items():
        texts = [list(generate(model, PROMPT, 20, seed=seed, draft=make(), **options)) for seed in (1, 1, 2)]
        assert texts[0] == texts[1] != texts[2]
        assert len(texts[0]) == 20
        shared = Speculation(make())
        assert [list(generate(model, PROMPT, 20, seed=s, draft=shared, **options)) for s in (1, 1, 2)] == texts
        if kind == "ngrams":  # They change nothing, because what they propose is certain.
            assert texts[0] == list(generate(model, PROMPT, 20, seed=1, **options))


@pytest.mark.parametrize("kind", DRAFTS)
def test_texts_end_inside_a_draft(kind):
    """End after each number of tokens, at each stop token, and where a processor ends the text."""
    model, draft = small_model(), DRAFTS[kind]()
    whole = list(generate(model, PROMPT, 18, temperature=0))
    for count in (0, 1, 2, 3, 7, 18):
        assert list(generate(model, PROMPT, count, temperature=0, draft=draft)) == whole[:count]

        def end(ids, logits, count=count):
            if len(ids) == len(PROMPT) + count:
                raise EndOfText
            return logits

        assert list(generate(model, PROMPT, temperature=0, draft=draft, processors=[end])) == whole[:count]
    for stop in set(whole):
        text = list(generate(model, PROMPT, 18, temperature=0, draft=draft, stop_tokens=[stop]))
        assert text == whole[: whole.index(stop)]


def test_a_draft_that_agrees_saves_passes(monkeypatch):
    model, passes, forward = small_model(block_size=128), [], GPT.hidden_states

    def counted(self, idx, cache):
        if self is model:
            passes.append(idx.shape[1])
        return forward(self, idx, cache)

    monkeypatch.setattr(GPT, "hidden_states", counted)
    twin = GPT(model.config).to(model.wte.weight.dtype)
    twin.load_state_dict(model.state_dict())
    for draft, options in ((twin, {"temperature": 0}), (twin, {"seed": 3}), (NGrams(), {"logit_bias": {5: 1000.0}})):
        passes.clear()
        counts = Speculation(draft, tokens=8)
        assert len(list(generate(model, PROMPT, 100, draft=counts, **options))) == 100
        assert passes[0] == len(PROMPT)
        assert len(passes) < 50
        assert counts.accepted == counts.drafted == sum(passes) - len(passes) - len(PROMPT) + 1
        assert max(passes[1:]) <= 9


def test_processors_see_what_they_see_without_a_draft():
    """A function with a state is called for the model's tokens only, with the text that came true."""
    model, calls = small_model(), []

    def record(ids, logits):
        calls.append((tuple(ids), logits.round(6).tolist()))
        return logits

    for draft in (None, NGrams(3, 1), DRAFTS["small"]()):
        list(generate(model, PROMPT, 25, temperature=0, repetition_penalty=1.2, draft=draft, processors=[record]))
    assert calls[:25] == calls[25:50] == calls[50:]


def test_log_probabilities_are_those_without_a_draft():
    model = small_model()
    plain = list(generate_with_logprobs(model, PROMPT, 20, temperature=0))
    for make in DRAFTS.values():
        found = list(generate_with_logprobs(model, PROMPT, 20, temperature=0, draft=make()))
        assert [step.token for step in found] == [step.token for step in plain]
        np.testing.assert_allclose([s.logprob for s in found], [s.logprob for s in plain], rtol=0, atol=1e-10)


def test_a_draft_whose_weights_change_is_read_anew():
    model, draft = small_model(block_size=64), GPT(small_model(n_layer=1, block_size=64).config)
    shared = Speculation(draft)
    for scale in (5.0, -1.0):
        for parameter in draft.parameters():
            parameter.array *= scale
        text = list(generate(model, PROMPT, 20, seed=1, draft=shared))
        assert text == list(generate(model, PROMPT, 20, seed=1, draft=Speculation(draft)))


def test_an_engine_goes_on_after_a_text_that_was_left():
    model = small_model(block_size=64)
    engine = Engine(model)
    for count in (1, 2, 5, 9):
        stream = generate(model, PROMPT, temperature=0, draft=NGrams(3, 1), engine=engine)
        text = [next(stream) for _ in range(count)]
        expected = list(generate(model, [*PROMPT, *text, 4], 9, temperature=0))
        assert list(generate(model, [*PROMPT, *text, 4], 9, temperature=0, engine=engine, draft=NGrams())) == expected


# ---- drafts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ids", "ngrams", "expected"),
    [
        ([1, 2, 3, 4, 1, 2], NGrams(), [3, 4, 1, 2]),
        ([9, 2, 3, 1, 2, 7, 8, 6, 9, 2], NGrams(1, 1), [7, 8, 6, 9]),  # the last occurrence
        ([9, 1, 2, 5, 1, 2, 6, 9, 1, 2], NGrams(3, 1), [5, 1, 2, 6]),  # the longest one
        ([1, 2, 1, 2], NGrams(), [1, 2, 1, 2]),  # a period goes on
        ([5, 5], NGrams(1, 1), [5, 5, 5, 5]),
        ([1, 2, 3], NGrams(), []),
        ([7], NGrams(), []),
    ],
)
def test_ngrams_go_on_as_they_did(ids, ngrams, expected):
    assert [p.token for p in Lookup(ngrams).propose(ids, 4)] == expected
    lookup = Lookup(ngrams)
    for end in range(1, len(ids) + 1):  # The text may come in any pieces.
        found = lookup.propose(ids[:end], 4)
    assert [p.token for p in found] == expected
    assert all(p.probabilities is None for p in found)


def test_the_length_of_drafts_follows_what_is_accepted():
    length = DraftLength(8, cost=0.3)
    first = length.next()
    assert 1 <= first < 8
    for _ in range(60):
        length.saw(True)
    assert length.next() == 8
    for _ in range(60):
        length.saw(False)
    later = [length.next() for _ in range(1000)]
    assert later[0] == 0  # It is not worth a draft any more,
    assert max(later) == 1 or max(later) <= first  # and tries again after a while.
    assert later.index(1) > 10


def test_a_grammar_holds_for_drafts():
    grammar = pytest.importorskip("gpt.generation.grammar")
    pytest.importorskip("llguidance")
    from gpt.tokenizer import CharTokenizer

    tokenizer = CharTokenizer("0123456789,")
    model = small_model()
    for make in DRAFTS.values():
        rule = grammar.Grammar.regex(tokenizer, "([0-9]{2},){5}")
        found = list(generate(model, [1], 40, seed=3, draft=make(), processors=[rule]))
        text = tokenizer.decode(found)
        assert [len(part) for part in text.split(",")] == [2, 2, 2, 2, 2, 0]


# ---- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: small_model(vocab_size=7), ValueError, "a draft with the 11 tokens of the model, got one with 7"),
        (lambda: Speculation(small_model(vocab_size=7)), ValueError, "Use a model with the same tokenizer"),
        (lambda: "ngram", TypeError, r"expected a GPT or NGrams\(\) as the draft, got 'ngram'"),
        (lambda: NGrams, TypeError, "expected a GPT or"),
        (lambda: NGrams(2, 3), ValueError, "NGrams: expected 1 <= shortest <= longest, got shortest=3, longest=2"),
        (lambda: NGrams(2, 0), ValueError, "got shortest=0"),
        (lambda: NGrams(2.0, 1), ValueError, "longest=2.0"),
        (lambda: Speculation(NGrams(), tokens=0), ValueError, "expected tokens >= 1 in a draft, got 0"),
        (lambda: Speculation(NGrams(), tokens=-3), ValueError, "got -3"),
        (lambda: Speculation(NGrams(), tokens=True), ValueError, "got True"),
    ],
)  # fmt: skip
def test_wrong_drafts_are_refused_at_once(make, error, message):
    with pytest.raises(error, match=message):
        generate(small_model(), [1], draft=make())


def test_a_draft_is_for_one_text():
    with pytest.raises(TypeError, match="a draft is for one text at a time"):
        generate_batch(small_model(), [[1]], 2, draft=NGrams())
    with pytest.raises(TypeError, match="draft"):
        beam_search(small_model(), [1], 2, 2, draft=NGrams())
    with pytest.raises(TokenError):
        generate(small_model(), [], draft=NGrams())
    assert math.isclose(Speculation(small_model()).cost(small_model()), 0.6)
