"""Test the processors of logits: values of transformers, the order, and what a user's own may do."""

import math

import numpy as np
import pytest

from gpt.config import ConfigError, SamplingConfig
from gpt.generation import EndOfText, SampleError, generate, generate_with_logprobs, sample_token
from gpt.generation import processors as p
from gpt.tokenizer import TokenError
from tests.gpt.small_models import small_model

INF = math.inf
PROMPT = [1, 0, 1, 2]

# Logits with ties, with -inf, of a tiny vocabulary, and random ones.
LOGITS = {
    "random": np.random.default_rng(0).normal(0, 3, 50),
    "ties": np.array([1.0, 2.0, 2.0, -1.0, 2.0, 1.0, 0.0, -1.0]),
    "equal": np.zeros(8),
    "-inf": np.array([0.5, -INF, 2.0, -INF, -3.0, 1.0]),
    "one left": np.array([-INF, -INF, -1.0]),
    "two": np.array([-0.5, 0.5, 0.0]),
    "large": np.array([800.0, -800.0, 799.0, 0.0]),
}

# Processors, with the class of transformers and its arguments.
PAIRS = [
    (p.Temperature(0.7), "TemperatureLogitsWarper", {"temperature": 0.7}),
    (p.Temperature(30.0), "TemperatureLogitsWarper", {"temperature": 30.0}),
    *((p.TopK(k), "TopKLogitsWarper", {"top_k": k}) for k in (1, 2, 3, 100)),
    *((p.TopP(q), "TopPLogitsWarper", {"top_p": q}) for q in (0.0, 0.1, 0.5, 0.9, 0.99, 1.0)),
    *((p.MinP(q), "MinPLogitsWarper", {"min_p": q}) for q in (0.0, 0.05, 0.3, 1.0)),
    *((p.Typical(q), "TypicalLogitsWarper", {"mass": q}) for q in (0.1, 0.5, 0.9, 0.99)),
    *((p.RepetitionPenalty(q), "RepetitionPenaltyLogitsProcessor", {"penalty": q}) for q in (1.3, 0.5)),
    (p.LogitBias({0: -2.5, 2: 4.0}), "SequenceBiasLogitsProcessor", {"sequence_bias": [[[0], -2.5], [[2], 4.0]]}),
    (p.BannedTokens([0]), "NoBadWordsLogitsProcessor", {"bad_words_ids": [[0]]}),
    (p.BannedTokens([[1, 2, 0], [2, 1], [0, 2]]), "NoBadWordsLogitsProcessor",
     {"bad_words_ids": [[1, 2, 0], [2, 1], [0, 2]]}),
    (p.ForcedTokens({4: 2}), "ForcedBOSTokenLogitsProcessor", None),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", LOGITS)
@pytest.mark.parametrize(("ours", "theirs", "options"), PAIRS, ids=lambda x: repr(x)[:40])
def test_processors_have_the_values_of_transformers(ours, theirs, options, name):
    torch = pytest.importorskip("torch")
    module = pytest.importorskip("transformers.generation.logits_process")
    logits = LOGITS[name]
    before = logits.copy()
    found = ours(PROMPT, logits)
    np.testing.assert_array_equal(logits, before)
    if options is None:  # The forced token comes where the text has one token for transformers, at place 4 for us.
        other, ids = module.ForcedBOSTokenLogitsProcessor(2), PROMPT[:1]
    else:
        other, ids = getattr(module, theirs)(**options), PROMPT
    expected = other(torch.tensor([ids]), torch.tensor(logits)[None].clone())[0].numpy()
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(expected))
    finite = np.isfinite(expected)
    np.testing.assert_allclose(found[finite], expected[finite], rtol=1e-12)


def test_the_order_is_that_of_transformers():
    torch = pytest.importorskip("torch")
    module = pytest.importorskip("transformers.generation.logits_process")
    logits = np.random.default_rng(3).normal(0, 1, 40)
    theirs = [
        module.SequenceBiasLogitsProcessor([[[3], 2.0], [[7], -1.0]]), module.RepetitionPenaltyLogitsProcessor(1.4),
        module.NoBadWordsLogitsProcessor([[5]]), module.TemperatureLogitsWarper(1.7), module.TopKLogitsWarper(20),
        module.TopPLogitsWarper(0.8), module.MinPLogitsWarper(0.2), module.TypicalLogitsWarper(0.8),
    ]  # fmt: skip
    scores = torch.tensor(logits)[None]
    for processor in theirs:
        scores = processor(torch.tensor([PROMPT]), scores)
    probabilities = torch.softmax(scores, -1)[0].numpy()
    sampling = SamplingConfig(
        logit_bias={3: 2.0, 7: -1.0}, repetition_penalty=1.4, banned_tokens=[5], temperature=1.7, top_k=20, top_p=0.8,
        min_p=0.2, typical_p=0.8,
    )  # fmt: skip
    rng, n = np.random.default_rng(0), 800
    drawn = [sample_token(logits, sampling, rng, PROMPT, prompt_length=len(PROMPT)) for _ in range(n)]
    counts = np.bincount(drawn, minlength=40)
    assert 2 < (probabilities > 0).sum() < 20
    assert set(np.flatnonzero(counts)) <= set(np.flatnonzero(probabilities))
    assert (np.abs(counts - n * probabilities) <= 5 * np.sqrt(n * probabilities * (1 - probabilities))).all()


def test_presence_and_frequency_count_the_new_text():
    """The rule of OpenAI's API: mu - count * frequency - (count > 0) * presence."""
    ids, logits = [3, 3, 1, 0, 1], np.zeros(5)
    np.testing.assert_array_equal(p.PresencePenalty(0.5, 2)(ids, logits), [-0.5, -0.5, 0, 0, 0])
    np.testing.assert_array_equal(p.FrequencyPenalty(0.5, 2)(ids, logits), [-0.5, -1.0, 0, 0, 0])
    np.testing.assert_array_equal(p.FrequencyPenalty(-2.0)(ids, logits), [2, 4, 0, 4, 0])
    np.testing.assert_array_equal(p.PresencePenalty(1.0).after_prompt(5)(ids, logits), np.zeros(5))


def test_tiny_temperatures_do_not_overflow():
    assert np.isfinite(p.Temperature(1e-300)([], np.array([5.0, 1.0]))).any()
    for options in ({"top_p": 0.9}, {"min_p": 0.1}, {"typical_p": 0.5}, {"top_k": 2, "top_p": 0.5}):
        sampling = SamplingConfig(temperature=1e-300, **options)
        assert sample_token(np.array([5.0, -700.0, 9.0]), sampling, np.random.default_rng(0)) == 2


def test_an_option_that_changes_nothing_leaves_the_text():
    """The cuts take the same random number to the same token as no cut."""
    model = small_model()
    plain = list(generate(model, [1, 2], 30, seed=5, temperature=0.8, top_k=7))
    full = list(generate(model, [1, 2], 30, seed=5, temperature=0.8, top_k=7, min_p=1e-300))
    assert plain == full
    assert plain == list(generate(model, [1, 2], 30, SamplingConfig(temperature=0.8, top_k=7), seed=5))


# --- in generate()


def test_options_by_name():
    model = small_model()
    assert list(generate(model, [1], 9, temperature=0)) == list(generate(model, [1], 9, SamplingConfig(temperature=0)))
    text = list(generate(model, [1], 40, seed=0, banned_tokens=[3, 4], forced_tokens={0: 7, 2: 8}))
    assert text[0] == 7
    assert text[2] == 8
    assert not {3, 4} & set(text)
    assert set(generate(model, [1], 20, seed=0, logit_bias={6: 1e4})) == {6}
    assert len(set(generate(model, [1], 11, temperature=0, presence_penalty=1e6))) == 11


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"temprature": 0}, TypeError, "no option 'temprature'; did you mean 'temperature'?"),
        ({"top_p": 1.5}, ConfigError, "sampling.top_p = 1.5: must be <= 1"),
        ({"typical_p": 0}, ConfigError, "sampling.typical_p = 0.0: must be > 0"),
        ({"repetition_penalty": 0}, ConfigError, "sampling.repetition_penalty = 0.0: must be > 0"),
        ({"presence_penalty": INF}, ConfigError, "expected a finite number"),
        ({"logit_bias": {1: math.nan}}, ConfigError, "sampling.logit_bias = {1: nan}: expected finite numbers"),
        ({"logit_bias": [1]}, ConfigError, "sampling.logit_bias = [1]: expected finite numbers by token id"),
        ({"banned_tokens": "ab"}, ConfigError, "sampling.banned_tokens = 'ab': expected token ids"),
        ({"forced_tokens": {0: -1}}, ConfigError, "sampling.forced_tokens = {0: -1}: expected token ids by place"),
        ({"processors": [3]}, TypeError, "processors: expected a list of callables (ids, logits) -> logits, got [3]"),
        ({"processors": max}, TypeError, "processors: expected a list of callables"),
    ],
)
def test_wrong_options_are_refused_at_once(options, error, message):
    with pytest.raises(error) as caught:
        generate(small_model(), [1], **options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"banned_tokens": list(range(11))}, SampleError, "leave no token"),
        ({"banned_tokens": [11]}, TokenError, "banned_tokens: token id 11 is outside the vocabulary of 11 tokens"),
        ({"logit_bias": {11: 1}}, TokenError, "logit_bias: token id 11"),
        ({"forced_tokens": {0: 11}}, TokenError, "forced_tokens: token id 11"),
        ({"processors": [lambda ids, logits: None]}, SampleError, "to return logits of the shape (11,), got None"),
        ({"processors": [lambda ids, logits: logits[1:]]}, SampleError, "got (10,)"),
        ({"processors": [lambda ids, logits: logits * math.nan]}, SampleError, "NaN or infinite"),
    ],
)
def test_wrong_results_are_an_error(options, error, message):
    with pytest.raises(error) as caught:
        next(generate(small_model(), [1], **options))
    assert message in str(caught.value)


def test_a_processor_of_ones_own():
    seen = []

    def no_repeats(ids, logits):  # It changes the array that it gets.
        seen.append(list(ids))
        logits[ids[-1]] = -INF
        return logits

    def five_new(ids, logits):
        if len(ids) == 7:
            raise EndOfText
        return logits

    text = list(generate(small_model(), [1, 2], 20, seed=1, processors=[no_repeats, five_new]))
    assert len(text) == 5
    assert seen == [[1, 2, *text[:i]] for i in range(6)]
    assert all(a != b for a, b in zip([2, *text], text))


# --- log-probabilities


def test_log_probabilities_are_those_of_the_model_alone():
    model = small_model()
    options = {"seed": 3, "temperature": 0.3, "banned_tokens": [2], "top_p": 0.8}
    found = list(generate_with_logprobs(model, [1, 2], 8, alternatives=3, **options))
    assert [step.token for step in found] == list(generate(model, [1, 2], 8, **options))
    text = [1, 2]
    for step in found:
        logits = model(np_ids(text))[0].detach().numpy()[0, -1]
        logs = logits - np.logaddexp.reduce(logits)
        assert abs(step.logprob - logs[step.token]) < 1e-10
        order = np.argsort(-logs)[:3]
        assert [token for token, _ in step.alternatives] == order.tolist()
        np.testing.assert_allclose([value for _, value in step.alternatives], logs[order], rtol=0, atol=1e-10)
        text.append(step.token)
    assert next(generate_with_logprobs(model, [1], 1, alternatives=99)).alternatives[10][1] < 0
    assert next(generate_with_logprobs(model, [1], 1, alternatives=0)).alternatives == ()
    with pytest.raises(ValueError, match="alternatives: expected a number of tokens >= 0, got -1"):
        generate_with_logprobs(model, [1], alternatives=-1)
    np.testing.assert_allclose(p.log_softmax(np.array([1e300, 0.0, 1e300])), [-math.log(2), -1e300, -math.log(2)])


def np_ids(text):
    import tensorlite as tl

    return tl.tensor(np.array([text]))


@pytest.mark.parametrize("digits", [0, 15])
def test_many_logits_are_cut_as_by_a_full_sort(digits):
    """Compare with the definitions, with equal logits, banned tokens, and cuts of any size."""
    rng = np.random.default_rng(8)
    for scale in (0.01, 1.0, 5.0):
        logits = np.round(rng.normal(size=2500) * scale, digits)
        for banned in (0, 900, 2480):
            logits[rng.choice(2500, banned, replace=False)] = -np.inf
            order = np.argsort(-logits, kind="stable")
            for k in (1, 7, 300, 2499, 2500, 4000):
                expected = np.full(2500, -np.inf)
                expected[order[:k]] = logits[order[:k]]
                np.testing.assert_array_equal(p.TopK(k, ties=False)([], logits), expected)
            upwards = np.argsort(logits, kind="stable")
            for q in (0.0, 0.3, 0.9, 0.9999, 1.0):
                kept = p.softmax(logits[upwards]).cumsum() > 1 - q
                kept[-1] = True
                found = np.isfinite(p.TopP(q)([], logits)).nonzero()[0]
                near = np.abs(p.softmax(logits[upwards]).cumsum() - (1 - q)) < 1e-12  # Rounding decides there.
                assert set(upwards[kept & ~near]) <= set(found) <= set(upwards[kept | near])
