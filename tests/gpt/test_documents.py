"""Test documents that are kept apart: the sequences of a data set, packing, and attention inside of documents."""

import numpy as np
import pytest

pytest.importorskip("hypothesis")
import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

import tensorlite as tl
from gpt.config import DataConfig, ModelConfig
from gpt.data import Dataset, load_dataset
from gpt.data.documents import separate
from gpt.data.packing import pack
from gpt.evaluate import evaluate
from gpt.model import GPT, KVCache
from gpt.tokenizer import CharTokenizer


def documents_of(lengths, vocab=50):
    """Return a data set whose tokens tell their document (the tens) and differ from their neighbours."""
    rng = np.random.default_rng(0)
    tokens = np.concatenate([rng.integers(0, vocab, n) for n in lengths]).astype(np.uint8)
    ends = np.cumsum(lengths).astype(np.int64)
    both = {"train": ends, "val": ends}
    sizes = {"train": len(tokens), "val": len(tokens)}
    return Dataset(CharTokenizer("".join(map(chr, range(65, 65 + vocab)))), tokens, tokens, sizes, ends=both)


LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=30).filter(lambda lengths: max(lengths) > 1)


@given(LENGTHS, st.integers(1, 12), st.booleans(), st.integers(1, 5))
@settings(max_examples=100, deadline=None)
def test_each_token_but_the_first_of_a_document_is_predicted_once(lengths, T, packed, batch):
    source = documents_of(lengths)
    data = separate(source, packed)
    found, count = [], 0
    for x, y, *numbers in data.windows("train", batch, T):
        assert x.shape == y.shape == (len(x), T)
        assert len(x) <= batch
        count += int((y >= 0).sum())
        for row in range(len(x)):
            number = numbers[0][row] if packed else np.where(y[row] >= 0, 0, 1)
            for i in range(int(number.max()) + 1):
                inside = (number == i) & (y[row] >= 0)
                places = np.flatnonzero(inside)
                if len(places):
                    assert np.array_equal(places, np.arange(places[0], places[-1] + 1))
                    assert np.array_equal(x[row][places[1:]], y[row][places[:-1]])  # The tokens follow each other.
                    found.append((x[row][places[0]], *y[row][places]))
    borders = np.split(source.train.astype(np.int64), source.borders("train")[:-1])
    expected = [tuple(d[k : k + T + 1]) for d in borders for k in range(0, len(d) - 1, T)]
    assert sorted(found) == sorted(expected)
    assert count == data.predicted("train", T) == sum(n - 1 for n in lengths)
    assert data.predicted("train", T, 10) == sum(int((y >= 0).sum()) for _, y, *_ in data.windows("train", 2, T, 10))


@given(st.lists(st.integers(1, 30), max_size=80), st.integers(30, 45))
@settings(max_examples=100, deadline=None)
def test_packing_is_best_fit_decreasing(lengths, size):
    order, first = pack(np.array(lengths, np.int64), size)
    assert sorted(order.tolist()) == list(range(len(lengths)))
    rooms = sorted(size - sum(lengths[i] for i in order[a:b]) for a, b in itertools.pairwise(first))
    expected: list[int] = []
    for length in sorted(lengths, reverse=True):
        if fits := [room for room in expected if room >= length]:
            expected.remove(min(fits))
            expected.append(min(fits) - length)
        else:
            expected.append(size - length)
    assert rooms == sorted(expected)


def test_packed_sequences_are_nearly_full():
    lengths = np.random.default_rng(0).lognormal(4, 1, 3000).astype(int).clip(2, 900)
    data = separate(documents_of(lengths), True)
    used = data.predicted("train", 256) / (256 * data.count("train", 256))
    apart = separate(documents_of(lengths), False)
    assert used > 0.99 > 0.5 > apart.predicted("train", 256) / (256 * apart.count("train", 256))


# --- the model

FAMILIES = {
    "learned": {},
    "sinusoidal": {"position": "sinusoidal"},
    "rope": {"position": "rope", "n_kv_head": 1, "norm": "rms", "mlp": "swiglu", "qk_norm": True},
    "window": {"position": "rope", "sliding_window": 3, "full_layers": 1},
    "dynamic": {"position": "rope", "rope_scaling": "dynamic", "rope_factor": 2.0, "rope_original_context": 32},
    "previous": {"previous_tokens": 2},
}


def model_of(**options):
    tl.manual_seed(0)
    config = ModelConfig(vocab_size=11, block_size=16, n_layer=2, n_head=2, n_embd=16, init_std=0.3, **options)
    return GPT(config).to(dtype=tl.float64)


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_documents_have_the_logits_and_gradients_of_each_alone(family):
    model = model_of(**FAMILIES[family])
    rng, lengths = np.random.default_rng(0), [[5, 1, 7, 3], [16], [2, 14]]
    ids, targets = rng.integers(0, 11, (2, 3, 16))
    numbers = np.array([np.repeat(np.arange(len(row)), row) for row in lengths])
    targets[0, 4] = -1
    logits, loss = model(tl.tensor(ids), tl.tensor(targets), documents=tl.tensor(numbers))
    loss.backward()
    gradients = [p.grad.numpy().copy() for p in model.parameters()]
    model.zero_grad()
    total, count = 0.0, int((targets >= 0).sum())
    for row, sizes in enumerate(lengths):
        for stop, size in zip(np.cumsum(sizes), sizes):
            part = slice(stop - size, stop)
            alone, mean = model(tl.tensor(ids[row : row + 1, part]), tl.tensor(targets[row : row + 1, part]))
            assert np.allclose(alone.detach().numpy(), logits.detach().numpy()[row : row + 1, part], rtol=0, atol=1e-12)
            if np.any(targets[row, part] >= 0):
                share = mean * (int((targets[row, part] >= 0).sum()) / count)
                share.backward()
                total += share.item()
    assert total == pytest.approx(loss.item(), rel=1e-12)
    for expected, parameter in zip(gradients, model.parameters()):
        assert np.allclose(parameter.grad.numpy(), expected, rtol=0, atol=1e-12)


def test_blocks_that_are_computed_again_have_the_same_bits():
    model, rng = model_of(), np.random.default_rng(0)
    ids, numbers = tl.tensor(rng.integers(0, 11, (2, 8))), tl.tensor(np.array([[0] * 3 + [1] * 5, [4] * 8]))
    gradients = []
    for model.activation_checkpointing in (False, True):
        model.zero_grad()
        model(ids, ids, documents=numbers)[1].backward()
        gradients.append([p.grad.numpy().copy() for p in model.parameters()])
    assert all(map(np.array_equal, *gradients))


def test_documents_of_another_shape_or_with_a_cache_are_errors():
    model, ids = model_of(), tl.tensor(np.zeros((2, 4), np.int64))
    with pytest.raises(ValueError, match=r"numbers of documents in the shape of the tokens, \(2, 4\), got \(2, 3\)"):
        model(ids, documents=ids[:, :3])
    with tl.no_grad(), pytest.raises(ValueError, match="expected documents or a cache, got both"):
        model(ids, cache=KVCache(model, 2), documents=ids)


def test_the_loss_of_documents_is_that_of_each_alone(tmp_path):
    """Packed or not, an evaluation gives every document's own loss."""
    path = tmp_path / "a.jsonl"
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("abcdefghijk"), rng.integers(1, 25))) for _ in range(40)]
    path.write_text("".join(f'{{"text": "{text}"}}\n' for text in texts))
    model, losses, bits = model_of(), [], []
    for form in ("apart", "packed"):
        data = load_dataset(DataConfig(dataset=str(path), field="text", documents=form, val_fraction=0.5), 16)
        losses.append(evaluate(model, data, "val"))
        bits.append(data.bits_per_char(losses[-1]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)
    total = count = 0.0
    for text in texts[20:]:
        ids = data.tokenizer.encode(text)
        for k in range(0, len(ids) - 1, 16):
            part = ids[k : k + 17]
            total += model(tl.tensor(part[None, :-1]), tl.tensor(part[None, 1:]))[1].item() * (len(part) - 1)
            count += len(part) - 1
    assert losses[0] == pytest.approx(total / count, rel=1e-12)
    assert bits[0] == pytest.approx(losses[0] / np.log(2), rel=1e-12)  # A token is a character.
