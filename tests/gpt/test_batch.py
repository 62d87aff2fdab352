"""Test batches of texts: each row is what it is alone, with prompts of any lengths and past the context."""

import numpy as np
import pytest

import tensorlite as tl
from gpt.config import SamplingConfig
from gpt.generation import (
    BatchEngine,
    EndOfText,
    Engine,
    generate,
    generate_batch,
    generate_with_logprobs,
    stream_batch,
    stream_batch_with_logprobs,
)
from gpt.generation.batch_engine import SeparateEngines, batch_engine
from gpt.model import GPT
from gpt.tokenizer import TokenError
from tests.gpt.small_models import small_model

ROPE = {"position": "rope"}
MODELS = {
    "learned": {},
    "sinusoidal": {"position": "sinusoidal"},
    "rope": ROPE,
    "yarn": ROPE | {"rope_scaling": "yarn", "rope_factor": 2.0},
    # With more layers, cached values of the second one keep the frequencies of their time.
    "dynamic": ROPE | {"rope_scaling": "dynamic", "rope_factor": 2.0, "n_layer": 1},
    "window": ROPE | {"sliding_window": 5},
    "grouped": {"n_kv_head": 2},
    "previous tokens": ROPE | {"previous_tokens": 3},
    "all": ROPE | {"n_kv_head": 1, "sliding_window": 4, "norm": "rms", "mlp": "swiglu", "qk_norm": True,
                   "full_layers": 1, "tied": False},
    "context of 1": {"block_size": 1},
    "context of 3": {"block_size": 3},
}  # fmt: skip
LENGTHS = [3, 12, 1, 7, 20, 3]


def prompts():
    rng = np.random.default_rng(1)
    return [rng.integers(0, 11, length).tolist() for length in LENGTHS]


def uncached(model, text):
    """Return the logits after a text by the forward pass of the model."""
    with tl.no_grad():
        return model(tl.tensor(np.array([text])))[0].numpy()[0, -1]


@pytest.mark.parametrize("name", MODELS)
def test_each_row_predicts_what_it_predicts_alone(name):
    """Compare logits in a ragged batch with an engine for each row, and with the model without a cache."""
    model, texts = small_model(**MODELS[name]), prompts()
    size, half = model.config.block_size, max(1, model.config.block_size // 2)
    batch, alone = batch_engine(model), [Engine(model) for _ in texts]
    contexts = [text[-size:] for text in texts]
    rng = np.random.default_rng(2)
    for step in range(2 * model.config.block_size + 2):
        if step == 0:
            found, expected = batch.prefill(texts), [e.prefill(text) for e, text in zip(alone, texts)]
        else:
            tokens = rng.integers(0, 11, len(alone)).tolist()
            found, expected = batch.step(tokens), [e.step(token) for e, token in zip(alone, tokens)]
            contexts = [[*(c if len(c) < size else c[len(c) - half + 1 :] if half > 1 else []), token]
                        for c, token in zip(contexts, tokens)]  # fmt: skip
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)
        if step % 5 == 0:
            np.testing.assert_allclose(found, [uncached(model, c) for c in contexts], rtol=0, atol=1e-9)
        if step == 6:  # Row 4 ends, and row 0 goes on twice.
            rows = [0, 5, 1, 0, 2, 3]
            batch.select(rows)
            contexts = [contexts[row] for row in rows]
            alone = [replayed(model, context) for context in contexts]


def replayed(model, context):
    """Return an engine that has read a context."""
    engine = Engine(model)
    engine.prefill(context)
    return engine


def test_float32_agrees_to_1e_5():
    for position in ("learned", "rope"):
        model = GPT(small_model(position=position).config)
        model.load_state_dict({k: v.float() for k, v in small_model(position=position).state_dict().items()})
        batch, exact = BatchEngine(model.eval()), BatchEngine(small_model(position=position))
        found, expected = batch.prefill(prompts()), exact.prefill(prompts())
        for step in range(20):
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
            tokens = [(3 * step + row) % 11 for row in range(len(LENGTHS))]
            found, expected = batch.step(tokens), exact.step(tokens)


@pytest.mark.parametrize("options", [{"temperature": 0}, {"temperature": 1.2, "top_p": 0.9, "presence_penalty": 0.5}])
@pytest.mark.parametrize("name", ["learned", "all", "dynamic"])
def test_each_text_is_the_one_of_its_seed(name, options):
    model = small_model(**MODELS[name])
    found = generate_batch(model, prompts(), 20, SamplingConfig(seed=40, **options), stop_tokens=[5])
    expected = [
        list(generate(model, text, 20, seed=40 + row, stop_tokens=[5], **options)) for row, text in enumerate(prompts())
    ]
    assert found == expected
    assert options["temperature"] == 0 or len({len(text) for text in found}) > 1


def test_samples_of_one_prompt_read_it_once(monkeypatch):
    model, shapes, forward = small_model(), [], GPT.hidden_states

    def counted(self, idx, cache):
        shapes.append(tuple(idx.shape))
        return forward(self, idx, cache)

    monkeypatch.setattr(GPT, "hidden_states", counted)
    found = generate_batch(model, [[1, 2, 3], [4]], 3, num_samples=3, seed=9)
    assert shapes == [(2, 3), (6, 1), (6, 1)]
    monkeypatch.undo()
    expected = [list(generate(model, [1, 2, 3] if row < 3 else [4], 3, seed=9 + row)) for row in range(6)]
    assert found == expected
    assert generate_batch(model, [[1]], 4, num_samples=2, seeds=[7, 7]) == [list(generate(model, [1], 4, seed=7))] * 2


def test_tokens_come_in_turn_and_texts_leave():
    model = small_model()

    def three_new(ids, logits):
        if len(ids) == 4 and ids[0] == 1:
            raise EndOfText
        return logits

    steps = list(stream_batch(model, [[1], [2]], 5, seed=0, processors=[three_new]))
    assert [row for row, _ in steps] == [0, 1, 0, 1, 0, 1, 1, 1]
    endless = stream_batch(model, [[1], [2]], seed=0)
    assert [next(endless)[0] for _ in range(60)] == [0, 1] * 30
    rows = list(stream_batch_with_logprobs(model, [[1], [2]], 4, seed=0, alternatives=2))
    for row, prompt in enumerate([[1], [2]]):
        alone = list(generate_with_logprobs(model, prompt, 4, seed=row, alternatives=2))
        for (_, found), expected in zip([step for step in rows if step[0] == row], alone, strict=True):
            assert found.token == expected.token
            assert abs(found.logprob - expected.logprob) < 1e-10
            assert [token for token, _ in found.alternatives] == [token for token, _ in expected.alternatives]


def test_dynamic_scaling_reads_each_row_alone():
    assert isinstance(batch_engine(small_model(**MODELS["dynamic"])), SeparateEngines)


@pytest.mark.parametrize(
    ("prompts", "options", "error", "message"),
    [
        ([], {}, TokenError, "expected one prompt at least"),
        ([1, 2], {}, TokenError, "expected a list with the ids of each prompt, such as [[1, 2], [3]], got [1, 2]"),
        ("ab", {}, TokenError, "got 'ab'"),
        (None, {}, TokenError, "got None"),
        ([[1], []], {}, TokenError, "a prompt needs at least one token"),
        ([[1], [99]], {}, TokenError, "token id 99"),
        ([[1]], {"num_samples": 0}, ValueError, "expected num_samples >= 1, got 0"),
        ([[1]], {"num_samples": 2, "seeds": [1]}, ValueError, "expected 2 seeds, one for each text, got 1"),
        ([[1]], {"top_q": 1}, TypeError, "no option 'top_q'; did you mean 'top_"),
        ([[1]], {"max_new_tokens": -1}, ValueError, "expected max_new_tokens >= 0"),
    ],
)
def test_wrong_arguments(prompts, options, error, message):
    with pytest.raises(error) as caught:
        generate_batch(small_model(), prompts, **{"max_new_tokens": 2} | options)
    assert message in str(caught.value)
    with pytest.raises(ValueError, match="expected a token for each row"):
        BatchEngine(small_model()).step([1])
