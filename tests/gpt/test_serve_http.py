"""Test the routes, the errors and the checks of the server below the level of a client's library."""

import json
import re

import numpy as np
import pytest

from gpt.generation.continuous import TextRequest
from gpt.serve.options import ServeError, ServeOptions
from tests.gpt.serve_models import served_model

pytest.importorskip("fastapi", reason="the server needs FastAPI: pip install 'tensorlite[serve]'")
pytest.importorskip("httpx", reason="the client of these tests is not installed: pip install 'tensorlite[test]'")

from fastapi.testclient import TestClient

from gpt.serve.app import create_app
from gpt.serve.security import HEADERS

LOCAL = "http://127.0.0.1:8000"
COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
JSON = {"Content-Type": "application/json"}
USER = [{"role": "user", "content": "ab"}]


def client_of(model=None, **options):
    """Return a client of a new server; a failure of the server is an error of the test."""
    return TestClient(create_app({"tiny": model or served_model()}, ServeOptions(**options)), base_url=LOCAL)


@pytest.fixture(scope="module")
def client():
    with client_of() as found:
        yield found


def check_error(response, status, words="", **fields):
    """Check that a response is an error in OpenAI's form."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert list(response.json()) == ["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert re.search(words, error["message"]), error["message"]
    assert error["message"].endswith(".")
    assert {name: error[name] for name in fields} == fields


# ---- routes ---------------------------------------------------------------------------------------


def test_routes_without_a_body(client):
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.head("/healthz").status_code == 200
    (model,) = client.get("/v1/models").json()["data"]
    assert client.get("/v1/models/tiny").json() == model
    assert client.get("/openapi.json").json()["paths"].keys() >= {COMPLETIONS, CHAT, "/v1/models", "/metrics"}
    for path in ("/docs", "/redoc"):  # Their pages load scripts from elsewhere.
        check_error(client.get(path), 404, "no such address")


def test_metrics_count_requests_and_tokens():
    with client_of() as client:
        for status, body in ((200, {"seed": 1, "max_tokens": 3}), (400, {"n": 0}), (404, {"model": "x"})):
            assert client.post(COMPLETIONS, json=body).status_code == status
        client.get("/no/such/route")
        response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    for line in (
        'tensorlite_requests_total{method="POST",route="/v1/completions",status="200"} 1.0',
        'tensorlite_requests_total{method="POST",route="/v1/completions",status="400"} 1.0',
        'tensorlite_requests_total{method="POST",route="/v1/completions",status="404"} 1.0',
        'tensorlite_requests_total{method="GET",route="none",status="404"} 1.0',
        'tensorlite_texts_running{model="tiny"} 0.0',
        'tensorlite_texts_waiting{model="tiny"} 0.0',
        'tensorlite_tokens_written_total{model="tiny"} 3.0',
        'tensorlite_time_to_first_token_seconds_count{model="tiny"} 1.0',
        'tensorlite_time_per_token_seconds_count{model="tiny"} 2.0',
    ):
        assert line in response.text.splitlines()


def test_events_of_a_stream(client):
    body = {"prompt": "ab", "max_tokens": 2, "seed": 1, "stream": True}
    response = client.post(COMPLETIONS, json=body)
    assert response.headers["content-type"].startswith("text/event-stream")
    events = response.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    parts = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    whole = client.post(COMPLETIONS, json={**body, "stream": False}).json()
    assert "".join(part["choices"][0]["text"] for part in parts) == whole["choices"][0]["text"]
    assert all(set(part) == set(whole) - {"usage"} for part in parts)
    assert len({part["id"] for part in parts}) == 1


def test_an_error_in_a_stream_is_its_last_event():
    model, tokenizer = served_model(n_embd=8)
    for parameter in model.parameters():
        parameter.array[...] = np.nan
    with client_of((model, tokenizer)) as client:
        for path, body in ((COMPLETIONS, {"prompt": "ab"}), (CHAT, {"messages": USER})):
            response = client.post(path, json={**body, "stream": True})
            assert response.status_code == 200
            assert "not finite" in last_error(response)["message"]
            failure = client.post(path, json=body)
            check_error(failure, 500, "not finite", type="server_error", code="broken_model")
            assert failure.headers["x-should-retry"] == "false"
        scored = client.post(COMPLETIONS, json={"prompt": "abab", "echo": True, "logprobs": 1, "max_tokens": 0})
        check_error(scored, 500, "not finite")


def last_error(response):
    """Return the error in the last event of a stream."""
    error = json.loads(response.text.strip().split("\n\n")[-1].removeprefix("data: "))["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return error


# ---- bodies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[1", b"nothing", b'{"prompt": "ab",}', b'{"prompt": NaN}', b'{"temperature": Infinity}',
        b'{"prompt": "\xff"}', b'{"prompt": "\\ud800"}', b'{"prompt": "a\nb"}', b"[" * 100_000,
        b'{"seed": ' + b"9" * 5000 + b"}", b"\xef\xbb\xbf{}", "{}".encode("utf-16"),
    ],
    ids=lambda body: repr(body[:18]),
)  # fmt: skip
def test_what_is_not_json(client, body):
    response = client.post(COMPLETIONS, content=body, headers=JSON)
    assert response.status_code == 400
    check_error(response, 400, "body is not JSON|no body")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("[]", "The body: expected a JSON object, got"),
        ('"ab"', "The body: expected a JSON object, got 'ab'"),
        ("null", "The body: expected a JSON object, got"),
        ('{"max_tokens": 1e400}', "max_tokens: expected an integer|not JSON"),
        ('{"max_tokens": 99999999999999999999999999}', "max_tokens: expected an integer from 0 on"),
        ('{"max_tokens": true}', "max_tokens: expected an integer from 0 on, got True"),
        ('{"max_tokens": "5"}', "max_tokens: expected an integer from 0 on, got '5'"),
        ('{"max_tokens": 2.5}', "max_tokens: expected an integer from 0 on, got 2.5"),
        ('{"seed": 18446744073709551616}', "seed: expected an integer of 64 bits"),
        ('{"temperature": 1e308}', "temperature: expected a number from 0 to 2"),
        ('{"prompt": {"a": 1}}', "prompt: expected a text, a list of texts"),
        ('{"prompt": [1, "a"]}', "prompt.*: expected a text, a list of texts"),
        ('{"prompt": [1.5]}', "prompt.*: expected a text, a list of texts"),
        ('{"prompt": [-1]}', "prompt.*: expected a text, a list of texts"),
        ('{"prompt": [[]]}', "prompt: expected one token id at least"),
        ('{"stop": "%s"}' % ("a" * 1001), "stop: expected a text or a list"),
        ('{"model": 1}', "model: expected the name of a model, got 1"),
        ('{"logit_bias": {"-1": 1}}', "logit_bias: expected token ids"),
        ('{"logit_bias": {"²": 1}}', "logit_bias: expected token ids"),
        ('{"logit_bias": {"%s": 1}}' % ("0" * 5000), "logit_bias: expected token ids"),
        ('{"store": true}', "store: expected false, because nothing is stored, got True"),
        ('{"store": 0}', "store: expected false"),
        ('{"str": 1}', "str: no field has this name"),
    ],
)
def test_values_that_are_wrong(client, body, words):
    check_error(client.post(COMPLETIONS, content=body.encode(), headers=JSON), 400, words)


def test_a_seed_may_be_negative_and_null_is_the_default(client):
    given = {"prompt": None, "seed": -1, "stop": None, "n": None, "logit_bias": None, "stream": None, "user": "me"}
    one, two = (client.post(COMPLETIONS, json={**given, "max_tokens": 4}) for _ in range(2))
    assert one.json()["choices"] == two.json()["choices"]


def test_other_addresses_methods_and_types(client):
    check_error(client.get("/v1/engines"), 404, "GET /v1/engines: no such address")
    check_error(client.get(COMPLETIONS), 405, "another method")
    assert client.get(COMPLETIONS).headers["allow"] == "POST"
    check_error(client.post("/v1/models", json={}), 405)
    check_error(client.post(COMPLETIONS + "/", json={}), 404)
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1", ""):
        response = client.post(COMPLETIONS, content=b"{}", headers={"Content-Type": kind})
        check_error(response, 415, "Content-Type: expected application/json")
    response = client.post(COMPLETIONS, content=b"{}", headers={"Content-Type": "Application/JSON; charset=UTF-8"})
    assert response.status_code == 200


def test_a_model_without_a_template_has_no_conversations():
    model, tokenizer = served_model()
    plain = type(tokenizer)(tokenizer.tokens, tokenizer.pattern, tokenizer.special_tokens)
    with TestClient(create_app({"plain": (model, plain)}), base_url=LOCAL) as client:
        check_error(client.post(CHAT, json={"messages": USER}), 400, "no chat template", param="messages")


# ---- limits ---------------------------------------------------------------------------------------


def test_a_body_that_is_too_large():
    with client_of(max_body=1000) as client:
        large = json.dumps({"prompt": "a" * 1000}).encode()
        check_error(client.post(COMPLETIONS, content=large, headers=JSON), 413, "more than 1,000 bytes")
        # Without a length in the header, the bytes are counted.
        parts = (large[k : k + 100] for k in range(0, len(large), 100))
        check_error(client.post(COMPLETIONS, content=parts, headers=JSON), 413, "more than 1,000 bytes")
        assert client.post(COMPLETIONS, json={"prompt": "a" * 20}).status_code == 200


def test_limits_of_texts():
    with client_of(max_tokens=5, max_batch=2, queue=1) as client:
        check_error(client.post(COMPLETIONS, json={"max_tokens": 6}), 400, "max_tokens: expected 5 at most")
        answer = client.post(CHAT, json={"messages": USER, "seed": 1})
        assert answer.json()["usage"]["completion_tokens"] == 5
        check_error(client.post(COMPLETIONS, json={"n": 4}), 400, "4 texts, and this server has 3 places")
        many = client.post(COMPLETIONS, json={"prompt": ["a"] * 100, "n": 2})
        check_error(many, 400, "expected 128 texts in all")


def test_a_full_queue():
    model, tokenizer = served_model(block_size=4096, position="rope")
    with client_of((model, tokenizer), max_batch=1, queue=0) as client:
        long = client.app.state.served.find(None).scheduler.submit(TextRequest(np.zeros(1, np.int64), None))
        response = client.post(COMPLETIONS, json={"max_tokens": 1})
        check_error(response, 429, "places for requests are taken", type="rate_limit_error", code="queue_full")
        assert response.headers["retry-after"] == "1"
        long.cancel()


def test_a_request_that_takes_long():
    with client_of(served_model(block_size=4096, position="rope"), request_seconds=0.05) as client:
        body = {"max_tokens": 4000, "logit_bias": {"258": -100}}  # without the token that ends a text
        check_error(client.post(COMPLETIONS, json=body), 408, "took longer than", code="timeout")
        stream = client.post(COMPLETIONS, json={**body, "stream": True})
        assert last_error(stream)["code"] == "timeout"
        scoring = {"prompt": "ac" * 2000, "echo": True, "logprobs": 5, "max_tokens": 0}
        check_error(client.post(COMPLETIONS, json=scoring), 408, "took longer than", code="timeout")
        stats = client.app.state.served.find(None).scheduler.stats
        assert stats.tokens_written < 4000


# ---- who may use it -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200), ("localhost", 200), ("LOCALHOST.:80", 200), ("[::1]:8000", 200), ("127.5.6.7", 200),
        ("evil.example", 403), ("localhost.evil.example", 403), ("127.0.0.1.nip.io", 403), ("10.0.0.1", 403),
        ("", 403), ("localhost@evil.example", 403), ("localhost:x", 403), ("localhost/a", 403), ("[::1", 403),
    ],
)  # fmt: skip
def test_only_names_of_this_machine_are_hosts(client, host, status):
    response = client.get("/healthz", headers={"Host": host})
    assert response.status_code == status
    if status == 403:
        check_error(response, 403, "Host: expected a name of this server", code="host_not_allowed")


def test_names_that_are_allowed():
    with client_of(allow_hosts=["box.local"]) as client:
        assert client.get("/healthz", headers={"Host": "Box.Local:8000"}).status_code == 200
        assert client.get("/healthz", headers={"Host": "other.local"}).status_code == 403
    with client_of(host="0.0.0.0", token="t") as client:  # Each address may be one of this machine.
        assert client.get("/healthz", headers={"Host": "10.0.0.1:8000"}).status_code == 200
        assert client.get("/healthz", headers={"Host": "evil.example"}).status_code == 403


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({"Origin": LOCAL}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, True),
        ({"Origin": "null"}, False),
        ([("Origin", LOCAL), ("Origin", "http://evil.example")], False),
        ({"Origin": "http://127.0.0.1:8001"}, False),
        ({"Origin": "https://127.0.0.1:8000"}, False),
        ({"Origin": "http://evil.example"}, False),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, False),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"}, False),
    ],
)
def test_pages_elsewhere_are_refused(client, headers, allowed):
    response = client.get("/v1/models", headers=headers)
    assert response.status_code == (200 if allowed else 403)
    assert "access-control-allow-origin" not in response.headers
    if not allowed:
        check_error(response, 403, "may not use this server", code="origin_not_allowed")


def test_origins_that_are_named():
    there = {"Origin": "https://app.example"}
    ask = {**there, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    with client_of(allow_origins=["https://app.example/"], token="secret") as client:
        preflight = client.options(COMPLETIONS, headers=ask)  # A browser sends it without the token.
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == "https://app.example"
        refused = client.post(COMPLETIONS, json={}, headers=there)
        check_error(refused, 401)
        assert refused.headers["access-control-allow-origin"] == "https://app.example"
        assert client.get("/v1/models", headers={"Origin": "https://other.example"}).status_code == 403
    with client_of() as client:
        check_error(client.options(COMPLETIONS, headers=ask), 403)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (None, "expected Bearer TOKEN, got none"), ("Bearer", "got none"), ("Basic secret", "got none"),
        ("Bearer secre", "got another"), ("Bearer secret2", "got another"), ("Bearer Secret", "got another"),
        (b"Bearer \xff", "got another"), ("secret", "got none"),
    ],
)  # fmt: skip
def test_a_wrong_token(header, words):
    with client_of(token="secret") as client:
        headers = {} if header is None else {"Authorization": header}
        for path in ("/v1/models", "/metrics", "/openapi.json", "/api/anything", "/page", "/healthz/x"):
            response = client.get(path, headers=headers)
            check_error(response, 401, words, type="authentication_error")
            assert response.headers["www-authenticate"] == "Bearer"
        assert client.get("/healthz", headers=headers).status_code == 200
        assert client.get("/v1/models", headers={"Authorization": "bearer secret"}).status_code == 200


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"host": "0.0.0.0"}, "--host 0.0.0.0: expected a token for use beyond this machine.*--token TEXT"),
        ({"host": "::"}, "expected a token"),
        ({"host": "192.168.1.5"}, "expected a token"),
        ({"host": "box.local"}, "expected a token"),
        ({"token": ""}, "--token: expected printable ASCII"),
        ({"token": "a\nb"}, "--token: expected printable ASCII"),
        ({"token": " a"}, "--token: expected no space"),
        ({"token": "é"}, "--token: expected printable ASCII"),
        ({"allow_origins": ["*"]}, "every page on the web"),
        ({"allow_origins": ["example.com"]}, "--allow-origin example.com: expected an origin"),
        ({"allow_origins": ["https://example.com/path"]}, "expected an origin such as https://example.com"),
        ({"allow_hosts": ["http://box"]}, "--allow-host http://box: expected a name"),
    ],
)
def test_options_that_a_server_does_not_start_with(options, words):
    with pytest.raises(ServeError, match=words):
        ServeOptions(**options)


@pytest.mark.parametrize("path", ["/", "/healthz", "/v1/models", "/no/such", "/page/no-such.js"])
def test_headers_of_security(client, path):
    response = client.get(path)
    assert {name: response.headers.get(name) for name in HEADERS} == HEADERS
    assert "default-src 'self'" in response.headers["content-security-policy"]
    assert "unsafe" not in response.headers["content-security-policy"]


@pytest.mark.parametrize(
    "path",
    ["/page/../app.py", "/page/%2e%2e/app.py", "/page/..%2fapp.py", "/page/%2e%2e%2fapp.py", "/page//etc/passwd",
     "/page/..%5capp.py", "/page/%00", "/page/" + "a" * 5000, "/page/", "/page/."],
)  # fmt: skip
def test_files_outside_the_page_are_not_served(client, path):
    response = client.get(path, headers={"Host": "127.0.0.1"})
    assert response.status_code in (404, 405), response.text[:200]
    assert "create_app" not in response.text


# ---- 500 malformed requests -----------------------------------------------------------------------

VALUES = [
    None, True, False, 0, -1, 1, 2, 1.5, -0.0, 1e308, 2**31, 2**63, -(2**63), 2**70, "", "a", "é\x00😀", "a" * 300,
    [], [1], [[]], [[1]], ["a"], [None], {}, {"a": 1}, {"0": 100}, [{}], [{"role": "user"}], [[["a"]]],
    {"type": "text"}, {"type": "json_schema", "json_schema": {"schema": {"$ref": "#"}}}, {"include_usage": True},
]  # fmt: skip
FIELDS = [
    "model", "prompt", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "n", "best_of",
    "stream", "stream_options", "logprobs", "top_logprobs", "echo", "stop", "seed", "suffix", "logit_bias", "user",
    "presence_penalty", "frequency_penalty", "response_format", "tools", "top_k", "min_p", "repetition_penalty", "x",
]  # fmt: skip


def malformed(rng):
    """Return the path, the body and the headers of a request with random mistakes."""
    path = str(rng.choice([COMPLETIONS, CHAT]))
    body = {"prompt": "ab", "max_tokens": 2} if path == COMPLETIONS else {"messages": USER, "max_tokens": 2}
    for _ in range(rng.integers(0, 3)):
        body[str(rng.choice(FIELDS))] = VALUES[rng.integers(len(VALUES))]
    data = bytearray(json.dumps(body).encode())
    if rng.random() < 0.4:  # Change, cut or repeat bytes.
        for _ in range(rng.integers(1, 5)):
            place = rng.integers(len(data))
            data[place : place + rng.integers(0, 3)] = rng.bytes(rng.integers(0, 4))
    kinds = ["application/json"] * 8 + ["text/plain", "application/json; charset=utf-16"]
    return path, bytes(data), {"Content-Type": str(rng.choice(kinds))}


def test_500_malformed_requests_are_no_failures_of_the_server(client):
    rng = np.random.default_rng(0)
    statuses = {}
    for number in range(500):
        path, body, headers = malformed(rng)
        response = client.post(path, content=body, headers=headers)
        status = response.status_code
        statuses[status] = statuses.get(status, 0) + 1
        assert status < 500, (number, body, response.text)
        if status != 200:
            check_error(response, status)
    assert statuses[400] > 250
    assert statuses[415] > 20
    assert statuses[200] > 20
    assert client.get("/healthz").status_code == 200
    assert client.post(COMPLETIONS, json={"prompt": "ab", "max_tokens": 2}).status_code == 200
