"""Test what an engine does with several tokens at once: read them, predict after each, and take the last ones back."""

import numpy as np
import pytest

from gpt.generation import Engine
from gpt.tokenizer import TokenError
from tests.gpt.small_models import small_model
from tests.gpt.test_batch import MODELS


@pytest.mark.parametrize("name", MODELS)
def test_extend_and_truncate_are_steps(name):
    """Compare random calls with an engine that reads the same tokens one by one, past the end of the context."""
    model, rng = small_model(**MODELS[name]), np.random.default_rng(4)
    engine, single = Engine(model), Engine(model)
    engine.prefill([1, 2])
    single.prefill([1, 2])
    for _ in range(30):
        new = rng.integers(0, 11, 1 + rng.integers(0, 5)).tolist()
        if engine.room == 0:
            new = new[:1]
            found = [engine.step(new[0])]
        else:
            new = new[: engine.room]
            found = engine.extend(new)
        expected = [single.step(token) for token in new]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)
        removed = int(rng.integers(0, len(new))) if engine.cache.length > len(new) else 0
        if removed:
            engine.truncate(engine.cache.length - removed)
            single.truncate(single.cache.length - removed)
        assert engine.cached == single.cached
        assert len(engine.cached) == engine.cache.length
    assert engine.cache.length <= model.config.block_size


def test_an_engine_that_was_truncated_goes_on_from_there():
    engine, fresh = Engine(small_model()), Engine(small_model())
    engine.prefill([1, 2, 3])
    engine.extend([4, 5, 6, 7])
    engine.truncate(5)
    np.testing.assert_allclose(engine.step(8), fresh.prefill([1, 2, 3, 4, 5, 8]), rtol=0, atol=1e-10)
    np.testing.assert_allclose(engine.resume([1, 2, 9]), fresh.prefill([1, 2, 9]), rtol=0, atol=1e-10)
    assert engine.cached == [1, 2, 9]


def test_what_does_not_fit_is_refused():
    engine = Engine(small_model())
    engine.prefill([1] * 10)
    for tokens, error, message in (
        ([1, 2, 3], ValueError, r"Engine.extend: expected 1 to 2 tokens, which fit the context, got 3"),
        ([], ValueError, r"expected 1 to 2 tokens, which fit the context, got 0"),
        ([1, 11], TokenError, r"token id 11"),
        ("ab", TokenError, r"got the text 'ab'"),
    ):
        with pytest.raises(error, match=message):
            engine.extend(tokens)
    for length in (0, -1, 11):
        with pytest.raises(ValueError, match=rf"Engine.truncate: expected a length of 1 to 10 tokens, got {length}"):
            engine.truncate(length)
    assert engine.cached == [1] * 10
    assert engine.room == 2
