"""Test texts that join and leave a batch: each is what `generate` yields, and no prefix is read twice."""

import dataclasses

import numpy as np
import pytest

import tensorlite as tl
from gpt.config import ModelConfig, SamplingConfig
from gpt.generation import EndOfText, SampleError, generate, generate_with_logprobs
from gpt.generation.continuous import ContinuousBatch, TextRequest
from gpt.model import GPT
from gpt.model.quantized import quantize_model
from gpt.tokenizer import TokenError
from tests.gpt.small_models import small_model
from tests.gpt.test_batch import MODELS

OPTIONS = (
    {"temperature": 0}, {}, {"temperature": 0.7, "top_k": 3}, {"top_p": 0.8}, {"min_p": 0.1, "temperature": 1.5},
    {"typical_p": 0.7}, {"repetition_penalty": 1.3, "temperature": 0}, {"presence_penalty": 0.5},
    {"frequency_penalty": 0.4, "top_k": 5}, {"logit_bias": {3: 2.0}}, {"banned_tokens": (1, (2, 3))},
    {"forced_tokens": {0: 4, 2: 5}},
)  # fmt: skip


def end_after_seven(ids, logits):
    """End a text where a 7 is followed by anything."""
    if len(ids) > 1 and ids[-2] == 7:
        raise EndOfText
    return logits


def random_requests(seed, count, longest=30):
    """Return requests with prompts, options, stop tokens and processors of many kinds; some share prefixes."""
    rng = np.random.default_rng(seed)
    requests, prompts = [], []
    for number in range(count):
        prompt = rng.integers(0, 11, rng.integers(1, longest)).tolist()
        if prompts and rng.random() < 0.4:
            other = prompts[rng.integers(len(prompts))]
            prompt = other[: rng.integers(1, len(other) + 1)] + (prompt[:3] if rng.random() < 0.5 else [])
        prompts.append(prompt)
        options = OPTIONS[rng.integers(len(OPTIONS))]
        requests.append(TextRequest(
            np.array(prompt), int(rng.integers(0, 30)), SamplingConfig(seed=number, **options),
            frozenset([9] if rng.random() < 0.3 else []), (end_after_seven,) if rng.random() < 0.2 else (),
            [None, None, 0, 3][rng.integers(4)],
        ))  # fmt: skip
    return requests


def expected(model, request):
    """Return the tokens of `generate` for a request."""
    return list(generate(
        model, request.prompt, request.max_new_tokens, request.sampling, stop_tokens=request.stop_tokens,
        processors=request.processors,
    ))  # fmt: skip


def write_all(batch, arrivals):
    """Return the items of the texts of requests that arrive at some steps: [(step, request)], and the texts."""
    texts = [(step, batch.make_text(request)) for step, request in arrivals]
    waiting, items = sorted(texts, key=lambda pair: pair[0]), {text: [] for _, text in texts}
    while waiting or batch.texts or batch.new:
        while waiting and waiting[0][0] <= batch.steps and batch.has_room(waiting[0][1]):
            batch.add(waiting.pop(0)[1])
        written = batch.step()
        assert len({text for text, _ in written}) == len(written)
        for text, item in written:
            if item is not None:
                items[text].append(item)
    return [items[text] for _, text in texts], [text for _, text in texts]


def tokens_of(items):
    return [item.token for item in items]


@pytest.mark.parametrize(
    "name", ["learned", "rope", "previous tokens", "dynamic", "all", "context of 1", "context of 3"]
)
def test_texts_are_those_of_generate(name):
    """Let texts with many options arrive at random steps; pieces of 5 tokens also split short prompts."""
    model, rng = small_model(**MODELS[name]), np.random.default_rng(5)
    requests = random_requests(7, 12)
    batch = ContinuousBatch(model, 4, read_at_once=5)
    items, texts = write_all(batch, [(int(rng.integers(0, 40)), request) for request in requests])
    assert [tokens_of(found) for found in items] == [expected(model, request) for request in requests]
    for text, request, found in zip(texts, requests, items, strict=True):
        assert text.finish_reason == ("length" if len(found) == request.max_new_tokens else "stop")


def count_down(ids, logits):
    """Change the list of tokens, which a processor should not do."""
    ids[:] = [0] * len(ids)
    return logits


LONG = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0, 1, 2]
EDGES = {
    "one token": ([4], 9, {}),
    "a full context": (LONG[:12], 9, {}),
    "more than the context": (LONG, 9, {}),
    "nothing": ([4], 0, {}),
    "one new token": (LONG[:12], 1, {}),
    "a stop token at once": ([1, 2], 9, {"sampling": SamplingConfig(forced_tokens={0: 5}), "stop_tokens": {5}}),
    "without end": ([1, 2], None, {"stop_tokens": {9}, "sampling": SamplingConfig(seed=2)}),
    "numbers of NumPy": (np.array([1, 2], np.int32), np.int64(4), {}),
    "several restarts": ([7, 8], 40, {}),
    "a text of the tokens": ([1, 2], 9, {"processors": (count_down,)}),
}


@pytest.mark.parametrize(
    ("rows", "options"),
    [(3, {}), (1, {"read_at_once": 1}), (3, {"max_saved": 0}), (3, {"max_saved": 5, "max_tokens": 1})],
)
def test_texts_at_the_limits_are_those_of_generate(rows, options):
    model = small_model()
    requests = [TextRequest(prompt, count, **more) for prompt, count, more in (*EDGES.values(), EDGES["nothing"])]
    requests = [dataclasses.replace(r, sampling=dataclasses.replace(r.sampling, seed=1)) for r in requests]
    items, _ = write_all(ContinuousBatch(model, rows, **options), [(0, request) for request in requests])
    for name, request, found in zip(EDGES, requests, items, strict=False):
        assert tokens_of(found) == expected(model, request), name


def test_texts_of_the_strict_device_are_those_of_generate():
    model = small_model(**MODELS["all"])
    strict = GPT(model.config).to(tl.float64).eval()
    strict.load_state_dict(model.state_dict())
    strict.to("strict")
    requests = random_requests(8, 5)
    items, _ = write_all(ContinuousBatch(strict, 3, read_at_once=5), [(4 * i, r) for i, r in enumerate(requests)])
    assert [tokens_of(found) for found in items] == [expected(model, request) for request in requests]


@pytest.mark.parametrize("kind", [None, "q8_0", "q4_0"])
def test_compiled_texts_are_those_of_generate(kind):
    """Texts share prefixes, leave, and need more places than the cache has at first. Weights may be quantized."""
    tl.manual_seed(1)
    shape = {"vocab_size": 61, "block_size": 300, "n_layer": 1, "n_head": 2, "n_embd": 32, "n_kv_head": 1}
    model = GPT(ModelConfig(**shape, position="rope", norm="rms", mlp="swiglu", sliding_window=40)).eval()
    for parameter in model.parameters():
        parameter.array *= 4 if parameter.ndim > 1 else 1
    model = model if kind is None else quantize_model(model, kind)
    rng = np.random.default_rng(4)
    base = rng.integers(0, 61, 270).tolist()
    prompts = [base[:250], [*base[:30], 1, 2], base, [5], base[:200] + [3] * 60, rng.integers(0, 61, 25).tolist()]
    requests = [greedy(prompt, 20) for prompt in prompts]
    batch = ContinuousBatch(model, 3, read_at_once=64)
    items, texts = write_all(batch, [(6 * number, request) for number, request in enumerate(requests)])
    assert [tokens_of(found) for found in items] == [expected(model, request) for request in requests]
    assert [text.cached_tokens for text in texts] == [0, 30, 250, 0, 200, 0]


def test_compiled_code_is_used_again_after_a_change_that_is_undone():
    """While a layer has a hook, the model itself reads; texts that begin later are read by compiled code."""
    tl.manual_seed(1)
    model = GPT(ModelConfig(vocab_size=11, block_size=32, n_layer=1, n_head=2, n_embd=16)).eval()
    batch, used = ContinuousBatch(model, 2), []
    calls = []
    for is_hooked in (False, True, False):
        handle = model.h[0].mlp.register_forward_hook(lambda *args: calls.append(1)) if is_hooked else None
        before = len(calls)
        (found,), _ = write_all(batch, [(0, greedy([1, 2, len(used)], 4))])
        used.append((batch.reader.compiled is not None, batch.rows.reader.compiled is not None, len(calls) > before))
        if handle:
            handle.remove()
        assert tokens_of(found) == list(generate(model, [1, 2, len(used) - 1], 4, temperature=0))
    assert used == [(True, True, False), (False, False, True), (True, True, False)]


def test_log_probabilities_are_those_of_generate():
    model = small_model()
    requests = [dataclasses.replace(request, alternatives=4) for request in random_requests(11, 6)]
    items, _ = write_all(ContinuousBatch(model, 3), [(2 * number, request) for number, request in enumerate(requests)])
    for found, r in zip(items, requests, strict=True):
        wanted = generate_with_logprobs(
            model, r.prompt, r.max_new_tokens, r.sampling, stop_tokens=r.stop_tokens, processors=r.processors,
            alternatives=4,
        )  # fmt: skip
        for a, b in zip(found, wanted, strict=True):
            assert a.token == b.token
            assert [token for token, _ in a.alternatives] == [token for token, _ in b.alternatives]
            np.testing.assert_allclose(
                [a.logprob, *(p for _, p in a.alternatives)], [b.logprob, *(p for _, p in b.alternatives)], atol=1e-9
            )


class CountingModel(GPT):
    """A model that counts the tokens that it reads."""

    count = 0

    def hidden_states(self, idx, cache=None):
        self.count += idx.shape[0] * idx.shape[1]
        return super().hidden_states(idx, cache)


def counting_model(**options):
    tl.manual_seed(0)
    shape = {"vocab_size": 11, "block_size": 64, "n_layer": 1, "n_head": 2, "n_embd": 8}
    return CountingModel(ModelConfig(**shape | options)).to(tl.float64).eval()


def greedy(prompt, count, **options):
    return TextRequest(np.array(prompt), count, SamplingConfig(temperature=0), **options)


def test_the_prefix_of_a_conversation_is_not_read_again():
    """Each turn reads the new tokens of the prompt, the last token of the answer before, and those that it writes."""
    model = counting_model()
    batch, prompt = ContinuousBatch(model, 2), [1, 2, 3, 4, 5]
    for turn in range(4):
        before = model.count
        (found,), (text,) = write_all(batch, [(0, greedy(prompt, 4))])
        assert text.cached_tokens == (0 if turn == 0 else len(prompt) - 4)
        assert model.count - before == (5 if turn == 0 else 4) + 3
        assert tokens_of(found) == list(generate(model, prompt, 4, temperature=0))
        prompt = [*prompt, *tokens_of(found), 6, 7, turn]
    assert batch.tokens_cached == 8 + 15 + 22


@pytest.mark.parametrize("count", [1, 3])
def test_the_prompt_of_several_samples_is_read_once(count):
    model = counting_model()
    batch = ContinuousBatch(model, 4)
    prompt = [3, 1, 4, 1, 5, 9, 2, 6]
    requests = [TextRequest(np.array(prompt), count, SamplingConfig(seed=seed)) for seed in range(6)]
    items, texts = write_all(batch, [(0, request) for request in requests])
    assert model.count == 8 + 6 * (count - 1) == batch.tokens_read
    assert [text.cached_tokens for text in texts] == [0, 8, 8, 8, 8, 8]
    assert [tokens_of(found) for found in items] == [expected(model, request) for request in requests]


def test_a_prefix_of_a_text_that_runs_is_copied():
    model = counting_model()
    first = greedy([1, 2, 3, 4, 5, 6], 20)
    others = [greedy([1, 2, 3, 4, 5, 6, 7], 5), greedy([1, 2, 3, 9], 5)]
    items, texts = write_all(ContinuousBatch(model, 4), [(0, first), (4, others[0]), (6, others[1])])
    assert [text.cached_tokens for text in texts[1:]] == [6, 3]
    assert [tokens_of(found) for found in items] == [expected(model, request) for request in (first, *others)]


def test_saved_texts_are_bounded_and_the_oldest_go():
    model = counting_model()
    batch = ContinuousBatch(model, 1, max_saved=20)
    prompts = [[number, *range(1, 8)] for number in range(4)]
    for prompt in prompts:
        write_all(batch, [(0, greedy(prompt, 1))])
        assert batch.saved.num_tokens <= 20
    assert [text.tokens.tolist() for text in batch.saved.texts] == prompts[2:]
    (_,), (text,) = write_all(batch, [(0, greedy(prompts[2], 1))])
    assert text.cached_tokens == 7
    write_all(batch, [(0, greedy([9] * 40, 1))])  # A text that is too long is saved in part.
    assert [len(text.tokens) for text in batch.saved.texts] == [20]
    batch.forget()
    assert batch.saved.num_tokens == 0


def test_a_longer_text_takes_the_place_of_its_beginning():
    batch = ContinuousBatch(counting_model(), 1)
    for prompt in ([1, 2, 3], [1, 2, 3, 4], [1, 2], [1, 2, 3, 4, 5, 6]):
        write_all(batch, [(0, greedy(prompt, 1))])
    assert [text.tokens.tolist() for text in batch.saved.texts] == [[1, 2, 3, 4, 5, 6]]


def test_a_long_prompt_does_not_stall_the_others():
    """While a prompt of 60 tokens is read in pieces of 8, the other text writes a token at each step."""
    batch = ContinuousBatch(counting_model(), 2, read_at_once=8)
    short, long = batch.make_text(greedy([1], 40)), batch.make_text(greedy([2] * 60, 2))
    batch.add(short)
    batch.step()
    batch.add(long)
    steps = []
    while not long.written:
        before = batch.tokens_read
        steps.append([text for text, _ in batch.step()])
        assert batch.tokens_read - before <= 9
    assert steps == [[short]] * 7 + [[short, long]]


def test_room_is_bounded_by_rows_and_tokens():
    batch = ContinuousBatch(counting_model(), 3, max_tokens=40)
    texts = [batch.make_text(greedy([1] * 10, 5)) for _ in range(4)]
    assert batch.has_room(batch.make_text(greedy([1] * 60, None)))  # One text always has room.
    for number, text in enumerate(texts):
        assert batch.has_room(text) == (number < 2)
        if number < 2:
            batch.add(text)
    batch = ContinuousBatch(counting_model(), 3)
    for text in texts[:3]:
        assert batch.has_room(text)
        batch.add(text)
    assert not batch.has_room(texts[3])


def test_the_newest_text_pauses_if_no_room_is_left():
    """Three texts that would need 3 x 45 tokens have 60, and the first ones end first."""
    model = counting_model()
    batch = ContinuousBatch(model, 3, max_tokens=60)
    requests = [greedy([number, 1, 2, 3, 4], 40) for number in range(3)]
    texts, items, ends = [batch.make_text(request) for request in requests], {}, []
    for text in texts:
        assert batch.has_room(batch.make_text(greedy([1] * 5, 10)))
        batch.add(text)
    while batch.texts or batch.new:
        for text, item in batch.step():
            items.setdefault(text, []).append(item)
            if text.finish_reason is not None:
                ends.append(text)
        assert len(batch.texts) <= 1 or len(batch.texts) * max(len(text.context) for text in batch.texts) <= 60
    assert ends == texts
    assert [tokens_of(items[text]) for text in texts] == [expected(model, request) for request in requests]


def test_a_text_may_end_with_the_context():
    model = counting_model(block_size=12)
    (found, other), (text, _) = write_all(
        ContinuousBatch(model), [(0, greedy([1] * 5, 30, ends_with_context=True)), (0, greedy([1] * 5, 30))]
    )
    assert (len(found), len(other), text.finish_reason) == (8, 30, "length")
    assert tokens_of(found) == tokens_of(other)[:8]


def test_texts_that_are_removed_leave_the_others_as_they_are():
    model, rng = small_model(), np.random.default_rng(3)
    batch = ContinuousBatch(model, 4, read_at_once=4)
    requests = [greedy(rng.integers(0, 11, 9).tolist(), 25) for _ in range(8)]
    texts = [batch.make_text(request) for request in requests]
    items, waiting = {text: [] for text in texts}, list(texts)
    while waiting or batch.texts or batch.new:
        while waiting and batch.has_room(waiting[0]):
            batch.add(waiting.pop(0))
        for text, item in batch.step():
            items[text].append(item)
        for text in (texts[1], texts[4], texts[6]):
            if rng.random() < 0.2:
                batch.remove(text)
    for number, (text, request) in enumerate(zip(texts, requests, strict=True)):
        found, wanted = tokens_of(items[text]), expected(model, request)
        assert found == (wanted[: len(found)] if number in (1, 4, 6) else wanted)


def raise_at_third(ids, logits):
    if len(ids) == 5:
        raise RuntimeError("a processor of the user")
    return logits


def test_errors_end_one_text_alone():
    """A processor that raises, a banned vocabulary and a bad prompt end or refuse one text; the others go on."""
    model = small_model()
    good = greedy([1, 2, 3], 12)
    bad = [
        greedy([1, 2, 3], 9, processors=(raise_at_third,)),
        TextRequest(np.array([1, 2]), 9, SamplingConfig(banned_tokens=tuple(range(11)))),
        TextRequest(np.array([1, 2]), 9, SamplingConfig(logit_bias={50: 1.0})),
    ]
    batch = ContinuousBatch(model)
    items, texts = write_all(batch, [(0, good), *((1, request) for request in bad)])
    assert tokens_of(items[0]) == expected(model, good)
    assert [type(text.error) for text in texts] == [type(None), RuntimeError, SampleError, TokenError]
    assert [text.finish_reason for text in texts] == ["length", "error", "error", "error"]
    for prompt, error in (([], TokenError), ([11], TokenError), ([-1], TokenError)):
        with pytest.raises(error):
            batch.make_text(greedy(prompt, 1))
    with pytest.raises(ValueError, match="max_new_tokens"):
        batch.make_text(greedy([1], -1))
    with pytest.raises(ValueError, match="alternatives"):
        batch.make_text(greedy([1], 1, alternatives=-1))


def test_an_error_of_the_model_ends_the_texts_that_it_reads():
    model = counting_model()
    batch = ContinuousBatch(model, 4)
    fails = {"step": False, "read": False}

    def hook(module, args):
        T = args[0].shape[1]
        if (T == 1 and fails["step"]) or (T > 1 and fails["read"]):
            raise RuntimeError("broken")

    handle = model.h[0].register_forward_pre_hook(hook)
    a, b = (batch.make_text(greedy([1, 2], 9)) for _ in range(2))
    batch.add(a)
    batch.step()
    fails["read"] = True
    batch.add(b)
    batch.step()
    assert (a.written, b.written, b.error) == (2, 1, None)  # The prompt of both is the same.
    c = batch.make_text(greedy([5, 6, 7], 9))
    batch.add(c)
    batch.step()
    assert (a.finish_reason, str(c.error)) == (None, "broken")
    fails.update(read=False, step=True)
    assert [(text, str(text.error)) for text, _ in batch.step()] == [(a, "broken"), (b, "broken")]
    fails.update(step=False)
    (found,), _ = write_all(batch, [(0, greedy([1, 2], 9))])
    assert tokens_of(found) == list(generate(model, [1, 2], 9, temperature=0))
    handle.remove()


def test_broken_weights_end_the_text_with_a_sample_error():
    model = counting_model()
    model.ln_f.weight.array[:] = np.nan
    _, (text,) = write_all(ContinuousBatch(model), [(0, greedy([1, 2], 3))])
    assert isinstance(text.error, SampleError)
    assert text.finish_reason == "error"
