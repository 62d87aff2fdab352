"""Test the API with OpenAI's own client, unchanged: its texts are those of `gpt.generate`."""

import asyncio
import importlib.util
import json

import pytest

import gpt
import tensorlite as tl
from gpt.generation import generate, generate_with_logprobs
from gpt.generation.chat import encode_chat
from gpt.tokenizer import prompt_ids
from tests.gpt.serve_models import served_model

openai = pytest.importorskip("openai", reason="the client of OpenAI is not installed: pip install 'tensorlite[test]'")
pytest.importorskip("fastapi", reason="the server needs FastAPI: pip install 'tensorlite[serve]'")

from tests.support.server import running_server  # noqa: E402

MODEL, TOKENIZER = served_model()
PROMPT = "Once é"


@pytest.fixture(scope="module")
def client():
    with (
        running_server({"tiny": (MODEL, TOKENIZER), "other": (MODEL, TOKENIZER)}) as (url, _),
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as found,
    ):
        yield found


def expected(prompt=PROMPT, tokens=12, **options):
    return gpt.generate(MODEL, TOKENIZER, prompt, tokens, **options)


def test_models(client):
    assert [model.id for model in client.models.list()] == ["tiny", "other"]
    model = client.models.retrieve("other")
    assert (model.object, model.owned_by, model.context_length) == ("model", "tensorlite", 64)
    with pytest.raises(openai.NotFoundError, match=r"'a/b'.*This server has tiny, other") as caught:
        client.models.retrieve("a/b")
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize(
    "options",
    [
        {"seed": 1},
        {"seed": 2, "temperature": 0.7, "top_p": 0.8},
        {"temperature": 0.0},
        {"seed": 3, "presence_penalty": 1.5, "frequency_penalty": -0.5},
        {"seed": 4, "logit_bias": {97: 9.0, 98: 8.0, 256: -100.0}},
        {"seed": 5, "top_k": 5, "min_p": 0.01, "repetition_penalty": 1.2, "typical_p": 0.9},
    ],
    ids=lambda options: "-".join(options),
)
def test_a_completion_is_the_text_of_generate(client, options):
    own = {key: options[key] for key in ("top_k", "min_p", "repetition_penalty", "typical_p") if key in options}
    sent = {key: value for key, value in options.items() if key not in own}
    if "logit_bias" in sent:
        sent["logit_bias"] = {str(key): value for key, value in sent["logit_bias"].items()}
    answer = client.completions.create(model="tiny", prompt=PROMPT, max_tokens=12, **sent, extra_body=own)
    assert answer.choices[0].text == expected(**options)
    assert (answer.object, answer.model, answer.id[:5]) == ("text_completion", "tiny", "cmpl-")
    assert (answer.choices[0].finish_reason, answer.choices[0].logprobs) == ("length", None)
    count = len(prompt_ids(TOKENIZER, PROMPT))
    assert answer.usage.prompt_tokens == count
    assert answer.usage.total_tokens == count + answer.usage.completion_tokens == count + 12
    assert answer.usage.prompt_tokens_details.cached_tokens <= count


def test_several_texts_and_prompts(client):
    answer = client.completions.create(model="tiny", prompt=["ab", "c"], n=2, max_tokens=5, seed=7)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    texts = [expected(prompt, 5, seed=seed) for prompt in ("ab", "c") for seed in (7, 8)]
    assert [choice.text for choice in answer.choices] == texts
    assert answer.usage.completion_tokens == 20
    ids = [[int(token) for token in prompt_ids(TOKENIZER, prompt)] for prompt in ("ab", "c")]
    same = client.completions.create(model="tiny", prompt=ids, n=2, max_tokens=5, seed=7)
    assert [choice.text for choice in same.choices] == texts
    one = client.completions.create(model="tiny", prompt=ids[1], max_tokens=5, seed=7)
    assert one.choices[0].text == texts[2]
    chunks = list(client.completions.create(model="tiny", prompt=["ab", "c"], n=2, max_tokens=5, seed=7, stream=True))
    for index, text in enumerate(texts):
        choices = [choice for chunk in chunks for choice in chunk.choices if choice.index == index]
        assert "".join(choice.text for choice in choices) == text
        assert [choice.finish_reason for choice in choices if choice.finish_reason] == ["length"]


def test_best_of_returns_the_likeliest_texts(client):
    answer = client.completions.create(model="tiny", prompt="ab", n=2, best_of=6, max_tokens=6, seed=20)
    found = []
    for seed in range(20, 26):
        steps = list(generate_with_logprobs(MODEL, prompt_ids(TOKENIZER, "ab"), 6, seed=seed, alternatives=0))
        found.append((sum(step.logprob for step in steps) / len(steps), expected("ab", 6, seed=seed)))
    assert [choice.text for choice in answer.choices] == [text for _, text in sorted(found, reverse=True)[:2]]
    assert answer.usage.completion_tokens == 36
    with pytest.raises(openai.BadRequestError, match="best_of: expected n, which is 3"):
        client.completions.create(model="tiny", prompt="ab", n=3, best_of=2)


@pytest.mark.parametrize("echo", [False, True])
def test_log_probabilities_of_a_completion(client, echo):
    options = {"prompt": PROMPT, "max_tokens": 12, "seed": 3, "logprobs": 2, "echo": echo}
    choice = client.completions.create(model="tiny", **options).choices[0]
    ids = prompt_ids(TOKENIZER, PROMPT)
    steps = list(generate_with_logprobs(MODEL, ids, 12, seed=3, alternatives=2))
    found, first = choice.logprobs, len(ids) if echo else 0
    assert choice.text == (PROMPT if echo else "") + expected(seed=3)
    assert found.token_logprobs[first:] == pytest.approx([step.logprob for step in steps])
    assert len(found.tokens) == len(found.top_logprobs) == len(found.text_offset) == first + 12
    for offset, token in zip(found.text_offset, found.tokens):
        if not token.startswith("bytes:"):
            assert choice.text[offset:].startswith(token)
    for top, step in zip(found.top_logprobs[first:], steps):
        assert max(top.values()) == pytest.approx(step.alternatives[0][1])
        assert 2 <= len(top) <= 3
    if echo:
        assert (found.token_logprobs[0], found.top_logprobs[0]) == (None, None)
        logs = tl.log_softmax(MODEL(tl.tensor(ids[None]))[0][0], -1).detach().numpy()
        rows = [logs[place, token] for place, token in enumerate(ids[1:])]
        assert found.token_logprobs[1:first] == pytest.approx(rows)
    chunks = [chunk.choices[0] for chunk in client.completions.create(model="tiny", **options, stream=True)]
    assert "".join(chunk.text for chunk in chunks) == choice.text
    for name in ("tokens", "text_offset", "token_logprobs"):
        joined = [value for chunk in chunks for value in getattr(chunk.logprobs, name)]
        assert joined == (pytest.approx(getattr(found, name)) if name == "token_logprobs" else getattr(found, name))


def test_scoring_a_text_without_a_new_one(client):
    answer = client.completions.create(model="tiny", prompt="abc", max_tokens=0, echo=True, logprobs=0)
    choice = answer.choices[0]
    assert (choice.text, choice.finish_reason) == ("abc", "length")
    assert choice.logprobs.tokens == ["ab", "c"]
    assert choice.logprobs.token_logprobs[0] is None
    assert choice.logprobs.top_logprobs[1] == {"c": choice.logprobs.token_logprobs[1]}
    assert answer.usage.completion_tokens == 0


def test_a_stop_text_ends_a_text_before_it(client):
    text = expected(tokens=30, seed=9)
    stop = text[10:13]
    options = {"model": "tiny", "prompt": PROMPT, "max_tokens": 30, "seed": 9}
    for given in (stop, ["never such a text", stop], [text[20:22], stop]):
        choice = client.completions.create(**options, stop=given, logprobs=0).choices[0]
        assert (choice.text, choice.finish_reason) == (text[: text.find(stop)], "stop")
        assert all(offset < len(choice.text) for offset in choice.logprobs.text_offset)
        chunks = [chunk.choices[0] for chunk in client.completions.create(**options, stop=given, stream=True)]
        assert "".join(chunk.text for chunk in chunks) == choice.text
        assert chunks[-1].finish_reason == "stop"


def test_the_end_token_ends_a_text(client):
    bias = {str(TOKENIZER.eos_id): 100}
    choice = client.completions.create(model="tiny", prompt="ab", logit_bias=bias, max_tokens=5).choices[0]
    assert (choice.text, choice.finish_reason) == ("", "stop")


def test_a_text_may_fill_the_context(client):
    room = 64 - len(prompt_ids(TOKENIZER, "ab"))
    assert client.completions.create(model="tiny", prompt="ab", max_tokens=room, seed=1).usage.total_tokens == 64
    with pytest.raises(openai.BadRequestError, match=f"has 64 tokens.*1 in the prompt and {room + 1}") as caught:
        client.completions.create(model="tiny", prompt="ab", max_tokens=room + 1)
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "max_tokens")
    answer = client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "ab"}], seed=1)
    assert answer.usage.total_tokens == 64


MESSAGES = [{"role": "developer", "content": "Be é"}, {"role": "user", "content": "ab"}]


def answer_of(messages, tokens, **options):
    ids = encode_chat(TOKENIZER, messages)
    new = generate(MODEL, ids, tokens, stop_tokens=TOKENIZER.stop_ids, **options)
    return TOKENIZER.decode_bytes(list(new)).decode(errors="replace")


def test_a_conversation(client):
    chat = client.chat.completions
    answer = chat.create(model="tiny", messages=MESSAGES, max_completion_tokens=8, seed=4, n=2)
    plain = [{"role": "system", "content": "Be é"}, {"role": "user", "content": "ab"}]
    assert [c.message.content for c in answer.choices] == [answer_of(plain, 8, seed=seed) for seed in (4, 5)]
    assert (answer.object, answer.id[:9], answer.choices[1].index) == ("chat.completion", "chatcmpl-", 1)
    assert answer.choices[0].message.role == "assistant"
    # The client sends an answer back with all its empty fields.
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    after = [*MESSAGES, answer.choices[0].message, {"role": "user", "content": parts}]
    more = [*plain, {"role": "assistant", "content": answer.choices[0].message.content}]
    more.append({"role": "user", "content": "a\nb"})
    second = chat.create(model="tiny", messages=after, max_tokens=4, seed=1)
    assert second.choices[0].message.content == answer_of(more, 4, seed=1)
    # The model does not read the first question again.
    assert second.usage.prompt_tokens_details.cached_tokens >= len(encode_chat(TOKENIZER, plain))


def test_a_streamed_conversation(client):
    options = {"model": "tiny", "messages": MESSAGES, "max_tokens": 8, "seed": 4, "n": 2}
    whole = client.chat.completions.create(**options, logprobs=True, top_logprobs=3)
    chunks = list(
        client.chat.completions.create(
            **options, logprobs=True, top_logprobs=3, stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens
    assert all(chunk.usage is None and chunk.object == "chat.completion.chunk" for chunk in chunks[:-1])
    for choice in whole.choices:
        deltas = [c for chunk in chunks for c in chunk.choices if c.index == choice.index]
        assert [c.delta.role for c in deltas if c.delta.role] == ["assistant"]
        assert "".join(c.delta.content or "" for c in deltas) == choice.message.content
        assert [c.finish_reason for c in deltas if c.finish_reason] == ["length"]
        rows = [row for c in deltas if c.logprobs for row in c.logprobs.content]
        # The batch decides in which order the model adds, so the last digit may differ.
        for row, other in zip(rows, choice.logprobs.content, strict=True):
            assert (row.token, row.bytes, len(row.top_logprobs)) == (other.token, other.bytes, 3)
            assert row.logprob == pytest.approx(other.logprob)


def test_log_probabilities_of_a_conversation(client):
    answer = client.chat.completions.create(
        model="tiny", messages=MESSAGES, max_tokens=8, seed=4, logprobs=True, top_logprobs=3
    )
    choice = answer.choices[0]
    data = bytes(byte for row in choice.logprobs.content for byte in row.bytes)
    assert data.decode(errors="replace") == choice.message.content
    for row in choice.logprobs.content:
        assert len(row.top_logprobs) == 3
        assert row.logprob <= row.top_logprobs[0].logprob + 1e-9
        assert row.token.startswith("\\x") or row.token.encode() == bytes(row.bytes)
    with pytest.raises(openai.BadRequestError, match="top_logprobs"):
        client.chat.completions.create(model="tiny", messages=MESSAGES, top_logprobs=3)


@pytest.mark.skipif(importlib.util.find_spec("llguidance") is None, reason="llguidance is not installed")
def test_an_answer_in_json(client):
    schema = {
        "type": "object", "properties": {"a": {"enum": ["x", "yes"]}}, "required": ["a"],
        "additionalProperties": False,
    }  # fmt: skip
    form = {"type": "json_schema", "json_schema": {"name": "one", "schema": schema, "strict": True}}
    for seed in (1, 2):
        answer = client.chat.completions.create(model="tiny", messages=MESSAGES, seed=seed, response_format=form)
        assert json.loads(answer.choices[0].message.content)["a"] in ("x", "yes")
        assert answer.choices[0].finish_reason == "stop"
    answer = client.chat.completions.create(
        model="tiny", messages=MESSAGES, max_tokens=5, response_format={"type": "json_object"}
    )
    assert answer.choices[0].message.content.startswith("{")
    deep = {}
    for _ in range(150):
        deep = {"not": deep}
    for bad in ({"type": "no such type"}, {"type": "string", "pattern": "(?<=a)b"}, {"enum": []}, deep):
        form = {"type": "json_schema", "json_schema": {"name": "one", "schema": bad}}
        with pytest.raises(openai.BadRequestError, match="response_format"):
            client.chat.completions.create(model="tiny", messages=MESSAGES, response_format=form)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"temperature": 2.5}, "temperature: expected a number from 0 to 2, got 2.5"),
        ({"temperature": "hot"}, "temperature: expected a number from 0 to 2, got 'hot'"),
        ({"n": 0}, "n: expected an integer from 1 to 128, got 0"),
        ({"stop": ["a"] * 5}, "stop: expected a text or a list of up to 4 texts"),
        ({"logprobs": 6}, "logprobs: expected an integer from 0 to 5"),
        ({"logit_bias": {"x": 1}}, "logit_bias: expected token ids from 0 to 258, got 'x'"),
        ({"logit_bias": {"1": 101}}, "logit_bias.1: expected an object with a number from -100 to 100"),
        ({"suffix": "end"}, "suffix: expected no text"),
        ({"prompt": [259]}, "prompt: token id 259"),
        ({"prompt": []}, "prompt: expected one prompt at least"),
        ({"prompt": [["a"]]}, "prompt.*: expected a text, a list of texts"),
        ({"stream_options": {"include_usage": True}}, "stream_options: expected none without a stream"),
        ({"extra_body": {"temprature": 1}}, "temprature: no field has this name; did you mean 'temperature'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_a_completion_refuses(client, options, words):
    with pytest.raises(openai.BadRequestError, match=words) as caught:
        client.completions.create(**{"model": "tiny", "prompt": "ab", "max_tokens": 2} | options)
    assert caught.value.status_code == 400
    assert caught.value.type == "invalid_request_error"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"messages": []}, "messages: expected a list of one message at least"),
        ({"messages": [{"role": "tool", "content": ""}]}, r"messages\[0\].role: expected 'system', 'developer'"),
        ({"messages": [{"role": "user"}]}, r"messages\[0\].content: expected a text, or a list.*got nothing"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, r"content\[0\].type: expected 'text'"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "call no tools"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema: expected a schema"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens: expected max_completion_tokens, which is 2"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs: expected an integer from 0 to 20"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_a_conversation_refuses(client, options, words):
    with pytest.raises(openai.BadRequestError, match=words):
        client.chat.completions.create(**{"model": "tiny", "messages": MESSAGES, "max_tokens": 2} | options)


def test_200_requests_of_20_clients_are_all_answered(client):
    async def one_client(number):
        async with openai.AsyncOpenAI(base_url=client.base_url, api_key="none", max_retries=0) as own:
            texts = []
            for k in range(10):
                options = {"model": "tiny", "prompt": f"{number} {k}", "max_tokens": 3, "seed": k}
                if k % 2:
                    texts.append((await own.completions.create(**options)).choices[0].text)
                else:
                    stream = await own.completions.create(**options, stream=True)
                    texts.append("".join([chunk.choices[0].text async for chunk in stream]))
            return texts

    async def all_clients():
        return await asyncio.gather(*map(one_client, range(20)))

    found = asyncio.run(all_clients())
    for number in (0, 7, 19):
        assert found[number] == [expected(f"{number} {k}", 3, seed=k) for k in range(10)]
    assert sum(map(len, found)) == 200
