"""Test the private routes of the page: what they answer, and that each wrong request gets a 4xx with a reason."""

import asyncio
import base64
import json
import os
import threading

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the server needs FastAPI: pip install 'tensorlite[serve]'")
pytest.importorskip("httpx", reason="the client of these tests is not installed: pip install 'tensorlite[test]'")

from fastapi.testclient import TestClient

from gpt import checkpoint
from gpt.config import Config, SamplingConfig
from gpt.generation import generate_with_logprobs
from gpt.inspect import attention_weights, logit_lens
from gpt.model import build_model
from gpt.runs import LATEST, METRICS
from gpt.serve import page_runs
from gpt.serve.app import create_app
from gpt.serve.options import ServeOptions
from gpt.tokenizer import CharTokenizer
from tests.gpt.page_models import SPECIAL, Pieces, page_models
from tests.gpt.serve_models import served_model

MODEL, TOKENIZER = page_models()["talker"]
LINES = [
    {"step": 10, "loss": 3.5, "lr": 1e-3, "ms_per_step": 2.0},
    {"step": 10, "train_loss": 3.25, "val_loss": 3.375},
    {"step": 20, "loss": float("nan")},
    {"step": 20, "train_loss": 3.0, "val_loss": 3.5},
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return a folder with a run that has a checkpoint, and one in a folder of its own that has none."""
    folder = tmp_path_factory.mktemp("serve") / "runs"
    for name in ("one", "deep/two"):
        path = folder / name
        path.mkdir(parents=True)
        path.joinpath(METRICS).write_text("".join(json.dumps(line) + "\n" for line in LINES))
    config = Config.load("shakespeare-char-cpu", {"model.vocab_size": 5, "model.block_size": 8, "model.n_layer": 1})
    model = build_model(config.model, "cpu", "float32")
    checkpoint.save(folder / "one" / LATEST, config=config, tokenizer=CharTokenizer("\nabcd"), step=20, model=model)
    return folder


@pytest.fixture(scope="module")
def client(runs):
    app = create_app(page_models())
    app.state.runs = runs
    with TestClient(app, base_url="http://127.0.0.1:8000") as found:
        yield found


def post(client, path, **body):
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


def written(client, **body):
    """Return the events of a text, as (name, data)."""
    response = client.post("/api/generate", json=body)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    blocks = [block.split("\n") for block in response.text.strip().split("\n\n")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in blocks]


def test_options(client):
    options = client.get("/api/options").json()
    assert [(model["id"], model["chat"], model["context"]) for model in options["models"]] == [
        ("talker", True, 128), ("writer", False, 128), ("endless", False, 128)
    ]  # fmt: skip
    fields = {field["name"]: field for field in options["sampling"]}
    assert list(fields) == [field.name for _, field, _ in SamplingConfig().options()]
    assert {name: field["default"] for name, field in fields.items()} == {
        name.partition(".")[2]: value for name, _, value in SamplingConfig().options()
    }
    assert (fields["top_p"]["minimum"], fields["top_p"]["maximum"]) == (0, 1)
    assert fields["typical_p"]["exclusive_minimum"] == 0
    assert fields["seed"]["type"] == "int"
    assert "random numbers" in fields["seed"]["help"]


def test_a_text_is_that_of_generate(client):
    events = written(client, prompt="the é", max_tokens=20, sampling={"seed": 3, "temperature": 1.5})
    prompt = TOKENIZER.encode("the é")
    expected = list(generate_with_logprobs(
        MODEL, prompt, 20, SamplingConfig(seed=3, temperature=1.5), alternatives=10, stop_tokens=TOKENIZER.stop_ids
    ))  # fmt: skip
    assert [token["id"] for token in events[0][1]["tokens"]] == prompt.tolist()
    tokens = [data for name, data in events if name == "token"]
    assert [token["id"] for token in tokens] == [item.token for item in expected]
    for token, item in zip(tokens, expected, strict=True):
        assert token["logprob"] == pytest.approx(item.logprob, abs=1e-4)
        assert [other["id"] for other in token["alternatives"]] == [i for i, _ in item.alternatives]
    parts = [base64.b64decode(t["bytes"]) if t["text"] is None else t["text"].encode() for t in tokens]
    assert b"".join(parts) == TOKENIZER.decode_bytes([item.token for item in expected])
    assert events[-1][0] == "done"
    # From the same tokens as ids, with the first ones as a continuation, the text goes on as the text did.
    again = written(client, ids=prompt.tolist(), continuation=[expected[0].token], max_tokens=3, sampling={"seed": 1})
    assert [token["id"] for token in again[0][1]["tokens"]] == prompt.tolist()
    assert again[0][1]["count"] == len(prompt) + 1
    assert written(client, max_tokens=1, prompt="")[-1][1]["reason"] in ("length", "stop")  # a start of its own


def test_a_conversation_uses_the_template(client):
    messages = [{"role": "system", "content": "abc"}, {"role": "user", "content": "the"}]
    events = written(client, messages=messages, max_tokens=4, sampling={"seed": 0})
    names = [token.get("special") for token in events[0][1]["tokens"]]
    assert names.count("<|im_start|>") == 3
    assert names.count("<|im_end|>") == 2
    assert all(token.get("stop") for token in events[0][1]["tokens"] if token["id"] == SPECIAL["<|im_end|>"])


def test_tokenize(client):
    data = post(client, "/api/tokenize", text="the é\u202e")
    assert data["count"] == 7
    assert [token["text"] for token in data["tokens"]] == ["t", "h", "e", " ", None, None, "\u202e"]
    assert post(client, "/api/tokenize", text="the", only_count=True) == {"count": 3, "tokens": []}
    assert post(client, "/api/tokenize", text="") == {"count": 0, "tokens": []}


def test_attention_and_lens_are_those_of_the_model(client):
    ids = TOKENIZER.encode("the cat sat on the mat.").tolist()
    data = post(client, "/api/attention", ids=ids, last=5)
    maps = np.frombuffer(base64.b64decode(data["weights"]), np.uint8).reshape(2, 2, 5, 5)
    expected = attention_weights(MODEL, ids)[:, :, -5:, -5:]
    np.testing.assert_allclose((maps / 255.0) ** 2, expected, atol=0.005)
    assert (data["first"], data["read"]) == (len(ids) - 5, len(ids))
    assert [token["id"] for token in data["tokens"]] == ids[-5:]
    data = post(client, "/api/lens", ids=ids, last=3)
    lens = logit_lens(MODEL, ids, 10)
    cells = np.array(data["cells"])  # (L + 1, T, 10, 2)
    np.testing.assert_array_equal(cells[..., 0], lens.ids[:, -3:])
    np.testing.assert_allclose(np.exp(cells[..., 1]), lens.probabilities[:, -3:], atol=1e-3)
    assert set(data["names"]) == {str(token) for token in np.unique(lens.ids[:, -3:])}
    long = post(client, "/api/attention", ids=ids * 100, last=128)  # The model reads what fits its context.
    assert long["read"] == 128


def test_runs(client, runs, monkeypatch):
    monkeypatch.setattr(page_runs, "FRESH_SECONDS", 0.0)
    answer = client.get("/api/runs")
    found = {run["name"]: run for run in answer.json()["runs"]}
    assert set(found) == {"one", "deep/two"}
    assert (found["one"]["step"], found["one"]["val_loss"], found["one"]["best_loss"]) == (20, 3.5, 3.375)
    assert found["deep/two"]["saved"] is None
    assert found["one"]["saved"] == runs.joinpath("one", LATEST).stat().st_mtime
    same = client.get("/api/runs", headers={"If-None-Match": answer.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")
    with runs.joinpath("deep/two", METRICS).open("a") as file:
        file.write('{"step": 30, "loss": 2.5}\n')
    assert client.get("/api/runs", headers={"If-None-Match": answer.headers["etag"]}).status_code == 200
    details = client.get("/api/runs/deep/two").json()
    assert details["curves"]["loss"] == [[10, 3.5], [30, 2.5]]  # NaN is not a point of a curve.
    assert client.get("/api/runs/one").json()["options"]["model.block_size"] == 8
    sample = post(client, "/api/runs/one/sample", seed=1)
    assert sample["step"] == 20
    assert set(sample["text"]) <= set("\nabcd")
    assert page_runs.thinned([(i, 0.0) for i in range(2500)])[-1] == (2499, 0.0)
    assert len(page_runs.thinned([(i, 0.0) for i in range(2500)])) <= page_runs.MOST_POINTS


IDS = {"ids": [1, 2]}
WRONG = [
    ("/api/generate", {}, 400, "one of prompt, ids and messages, got none"),
    ("/api/generate", {"prompt": "a", "ids": [1]}, 400, "got prompt and ids"),
    ("/api/generate", {"prompt": "a", "model": "x"}, 404, "does not exist"),
    ("/api/generate", {"prompt": "7"}, 400, "no token begins with '7'"),
    ("/api/generate", {"prompt": ["a"]}, 400, "prompt: expected a text"),
    ("/api/generate", {"prompt": "a", "max_tokens": 0}, 400, "max_tokens: expected a number from 1"),
    ("/api/generate", {"prompt": "a", "max_tokens": 10**30}, 400, "max_tokens"),
    ("/api/generate", {"prompt": "a", "max_tokens": True}, 400, "max_tokens"),
    ("/api/generate", {"prompt": "a", "max_tokens": 2.0}, 400, "max_tokens"),
    ("/api/generate", {"prompt": "a", "sampling": {"temprature": 1}}, 400, "sampling: expected temperature"),
    ("/api/generate", {"prompt": "a", "sampling": {"temperature": -1}}, 400, "temperature = -1"),
    ("/api/generate", {"prompt": "a", "sampling": {"temperature": 10**400}}, 400, "temperature"),
    ("/api/generate", {"prompt": "a", "sampling": {"top_k": 1.5}}, 400, "top_k = 1.5: expected int"),
    ("/api/generate", {"prompt": "a", "sampling": {"logit_bias": 1}}, 400, "sampling: expected temperature"),
    ("/api/generate", {"prompt": "a", "sampling": [1]}, 400, "sampling"),
    ("/api/generate", {"prompt": "a", "promt": "b"}, 400, "promt: no field has this name"),
    ("/api/generate", {"ids": []}, 400, "ids: expected a list of token ids, one at least"),
    ("/api/generate", {"prompt": "a", "sampling": {"top_p": True}}, 400, "sampling.top_p: expected numbers"),
    ("/api/generate", {"ids": [40]}, 400, "outside the vocabulary"),
    ("/api/generate", {"ids": [-1]}, 400, "outside the vocabulary"),
    ("/api/generate", {"ids": [2**70]}, 400, "outside every vocabulary"),
    ("/api/generate", {"ids": [1.5]}, 400, "ids"),
    ("/api/generate", {"ids": [1], "continuation": [999]}, 400, "outside the vocabulary"),
    ("/api/generate", {"messages": []}, 400, "messages"),
    ("/api/generate", {"messages": [{"role": "tool", "content": "a"}]}, 400, "role"),
    ("/api/generate", {"messages": [{"role": "user"}]}, 400, "content"),
    ("/api/generate", {"messages": [{"role": "user", "content": "a" * 200}]}, 400, "fit"),
    ("/api/generate", {"model": "writer", "messages": [{"role": "user", "content": "a"}]}, 400, "chat template"),
    ("/api/tokenize", {}, 400, "text: expected a text"),
    ("/api/tokenize", {"text": None}, 400, "text"),
    ("/api/tokenize", {"text": "A"}, 400, "no token begins with 'A'"),
    ("/api/attention", {"ids": []}, 400, "ids"),
    ("/api/attention", {**IDS, "last": 0}, 400, "last"),
    ("/api/attention", {**IDS, "last": 129}, 400, "last: expected a number from 1 to 128"),
    ("/api/attention", {"ids": [99]}, 400, "outside the vocabulary"),
    ("/api/lens", {**IDS, "last": 65}, 400, "last: expected a number from 1 to 64"),
    ("/api/lens", {"ids": "abc"}, 400, "ids"),
    ("/api/runs/nothing/sample", {}, 404, "There is no run 'nothing'"),
    ("/api/runs/one/sample", {"seed": -1}, 400, "seed"),
    ("/api/runs/deep/two/sample", {}, 400, "there is no checkpoint.safetensors"),
]


@pytest.mark.parametrize(("path", "body", "status", "words"), WRONG, ids=lambda value: str(value)[:60])
def test_a_wrong_request_gets_a_reason(client, path, body, status, words):
    response = client.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert response.status_code == status, response.text
    assert words in response.json()["error"]["message"]


OUTSIDE = [
    "..", "../secret", "%2e%2e", "%2e%2e/secret", "..%2fsecret", "deep/../../secret", "/etc", "%2Fetc", "one/%00",
    "one\\..\\..\\secret", ".hidden", "deep/.hidden", "one//", "", "a" * 5000, "deep", "x/" * 50, "C:/one",
]  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE, ids=range(len(OUTSIDE)))
def test_no_name_leads_out_of_the_folder(client, runs, name):
    for folder in ("secret", "runs/.hidden", "runs/deep/.hidden"):
        os.makedirs(runs.parent / folder, exist_ok=True)
        (runs.parent / folder / METRICS).write_text('{"step": 1, "loss": 666}\n')
    response = client.get(f"/api/runs/{name}")
    assert "666" not in response.text
    assert response.status_code in (404, 307) or name in ("", ), response.status_code


def test_pictures_of_a_broken_model_and_of_one_that_is_busy():
    broken, tokenizer = served_model(n_embd=16)
    state = broken.ln_f.weight.array.copy()
    broken.ln_f.weight.array[...] = np.nan
    app = create_app({"broken": (broken, tokenizer)}, ServeOptions(request_seconds=0.05))
    with TestClient(app, base_url="http://127.0.0.1:8000") as client:
        lens = client.post("/api/lens", json=IDS)
        assert (lens.status_code, lens.json()["error"]["code"]) == (500, "broken_model")
        (_, error) = written(client, prompt="a")[-1]
        assert error["status"] == 500
        broken.ln_f.weight.array[...] = state
        opened = threading.Event()
        app.state.served.find(None).scheduler.call(opened.wait, 20)
        for path in ("/api/lens", "/api/attention"):
            late = client.post(path, json=IDS)
            assert (late.status_code, late.json()["error"]["code"]) == (408, "timeout")
        opened.set()


def test_a_text_ends_when_nobody_reads_it(client):
    app = client.app
    scheduler = app.state.served.models["endless"].scheduler

    async def leave():
        body = json.dumps({"model": "endless", "prompt": "a", "max_tokens": 4000, "sampling": {"seed": 5}}).encode()
        messages = [{"type": "http.request", "body": body, "more_body": False}, {"type": "http.disconnect"}]
        seen = asyncio.Event()

        async def receive():
            if len(messages) == 1:
                await seen.wait()
            return messages.pop(0)

        async def send(message):
            if b"event: token" in message.get("body", b""):
                seen.set()

        scope = {
            "type": "http", "method": "POST", "path": "/api/generate", "raw_path": b"/api/generate",
            "query_string": b"", "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")],
            "scheme": "http", "http_version": "1.1", "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8000), "root_path": "",
        }  # fmt: skip
        await app(scope, receive, send)

    before = scheduler.stats.tokens_written
    asyncio.run(leave())
    asyncio.run(scheduler.run(lambda: None))  # The step in which the text ends is over then.
    assert scheduler.stats.running == 0
    assert 0 < scheduler.stats.tokens_written - before < 2000


def test_the_tokenizer_of_these_tests_is_one():
    assert Pieces().decode(Pieces().encode("the é שלום")) == "the é שלום"
