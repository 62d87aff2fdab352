"""Test beam search: the results of transformers, and of an exhaustive search on tiny vocabularies."""

import itertools

import numpy as np
import pytest

import tensorlite as tl
from gpt.generation import Beam, EndOfText, beam_search
from gpt.generation.processors import log_softmax
from tests.gpt.small_models import small_model


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Give a small Llama of ours, and the same in transformers."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from gpt.checkpoint.huggingface import load_model, save_model

    folder = tmp_path_factory.mktemp("llama")
    options = {"position": "rope", "norm": "rms", "mlp": "swiglu", "tied": False, "n_kv_head": 2, "vocab_size": 13}
    save_model(small_model(block_size=64, **options), folder)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="float64").eval()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # More take longer for such small matrices.
    yield load_model(folder, dtype="float64"), theirs
    torch.set_num_threads(threads)


CASES = [
    {"num_beams": 4, "num_return": 4}, {"num_beams": 3, "length_penalty": 0.0},
    {"num_beams": 2, "length_penalty": 2.0, "num_return": 2}, {"num_beams": 4, "length_penalty": -1.0},
    {"num_beams": 4, "early_stopping": True, "num_return": 3},
    {"num_beams": 3, "early_stopping": "never", "length_penalty": 1.5, "num_return": 3},
    {"num_beams": 3, "stop_tokens": [2, 5, 7], "num_return": 3, "repetition_penalty": 1.5},
    {"num_beams": 5, "max_new_tokens": 1, "num_return": 5, "stop_tokens": []},
]  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_beams_are_those_of_transformers(pair, case):
    import torch

    ours, theirs = pair
    options = {"stop_tokens": [4, 9], "max_new_tokens": 8} | case
    prompt, stops = [1, 2, 3], options["stop_tokens"]
    found = beam_search(ours, prompt, **options)
    output = theirs.generate(
        torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long), do_sample=False,
        num_beams=options["num_beams"], max_new_tokens=options["max_new_tokens"],
        length_penalty=options.get("length_penalty", 1.0), early_stopping=options.get("early_stopping", False),
        num_return_sequences=options.get("num_return", 1), eos_token_id=stops or None, pad_token_id=0,
        bos_token_id=None, repetition_penalty=options.get("repetition_penalty", 1.0), output_scores=True,
        return_dict_in_generate=True, use_cache=True,
    )  # fmt: skip
    np.testing.assert_allclose([beam.score for beam in found], output.sequences_scores.tolist(), rtol=2e-5)
    for beam, row in zip(found, output.sequences.tolist(), strict=True):
        expected = list(itertools.takewhile(lambda token: token not in stops, row[len(prompt) :]))
        # transformers fills up shorter texts without a stop token.
        assert beam.tokens == expected[: len(beam.tokens)]
        assert set(expected[len(beam.tokens) :]) <= {0}


def all_texts(model, prompt, length, stops):
    """Return {new tokens, with the stop token: log-probability} of each text of a length or up to a stop token."""
    texts, done = {(): 0.0}, {}
    for _ in range(length):
        with tl.no_grad():
            logits = model(tl.tensor(np.array([[*prompt, *text] for text in texts])))[0].numpy()[:, -1]
        texts = {
            (*text, token): logprob + log_softmax(row)[token]
            for (text, logprob), row in zip(texts.items(), logits)
            for token in range(len(row))
        }
        done |= {text: value for text, value in texts.items() if text[-1] in stops}
        texts = {text: value for text, value in texts.items() if text[-1] not in stops}
    return done | texts


@pytest.mark.parametrize("stops", [[], [2]])
@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
def test_many_beams_find_the_best_text(penalty, stops):
    model = small_model(vocab_size=3)
    texts = all_texts(model, [0, 1], 4, stops)
    ranked = sorted(((value / len(text) ** penalty, text) for text, value in texts.items()), reverse=True)
    found = beam_search(model, [0, 1], 81, 4, penalty, stops, 5, early_stopping="never")
    assert [beam.tokens for beam in found] == [[t for t in text if t not in stops] for _, text in ranked[:5]]
    np.testing.assert_allclose([beam.score for beam in found], [score for score, _ in ranked[:5]], rtol=1e-12)
    np.testing.assert_allclose([beam.logprob for beam in found], [texts[text] for _, text in ranked[:5]], rtol=1e-12)
    assert [beam.complete for beam in found] == [text[-1] in stops for _, text in ranked[:5]]


def test_beams_go_on_past_the_context():
    """With one beam and no stop token, the search is the greedy text."""
    from gpt.generation import generate

    model = small_model()
    [beam] = beam_search(model, [1, 2, 3], 1, 40)
    assert beam.tokens == list(generate(model, [1, 2, 3], 40, temperature=0))
    assert not beam.complete
    assert len(beam_search(model, [1, 2, 3], 3, 40, num_return=3)) == 3


def test_processors_and_their_end():
    def only_five_then_end(ids, logits):
        if len(ids) == 4:
            raise EndOfText
        logits[:5] = logits[6:] = -np.inf
        return logits

    [beam] = beam_search(small_model(), [1, 2], 2, 9, processors=[only_five_then_end])
    assert beam == Beam([5, 5], beam.logprob, beam.logprob / 2, True)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_beams": 0}, ValueError, "expected num_beams >= 1, got 0"),
        ({"max_new_tokens": None}, ValueError, "expected max_new_tokens >= 1, got None"),
        ({"num_return": 5}, ValueError, "expected num_return <= num_beams = 4, got 5"),
        ({"early_stopping": "maybe"}, ValueError, "expected early_stopping True, False or 'never', got 'maybe'"),
        ({"length_penalty": float("nan")}, ValueError, "expected a finite length_penalty, got nan"),
        ({"length_penalty": "1"}, ValueError, "expected a finite length_penalty, got '1'"),
        ({"temperature": 0.5}, TypeError, "temperature is an option of sampling"),
        ({"length_penality": 1}, TypeError, "no option 'length_penality'"),
    ],
)
def test_wrong_arguments(options, error, message):
    with pytest.raises(error) as caught:
        beam_search(small_model(), [1], **options)
    assert message in str(caught.value)
