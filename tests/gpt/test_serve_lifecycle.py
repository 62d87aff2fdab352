"""Test a server with sockets: clients that go away or are slow, signals, and the command `serve`."""

import contextlib
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import types

import pytest

pytest.importorskip("click")
from click.testing import CliRunner

from gpt import checkpoint
from gpt.cli import main
from gpt.cli.serve import example
from gpt.config import Config, ModelConfig
from gpt.model import build_model
from gpt.serve.options import ServeError
from gpt.tokenizer import CharTokenizer
from tests.gpt.serve_models import served_model

fastapi = pytest.importorskip("fastapi", reason="the server needs FastAPI: pip install 'tensorlite[serve]'")
httpx = pytest.importorskip("httpx", reason="httpx is not installed: pip install 'tensorlite[test]'")

from gpt.serve import protocol  # noqa: E402
from gpt.serve.lifecycle import listen  # noqa: E402
from tests.support.server import running_server  # noqa: E402

COMPLETIONS = "/v1/completions"
DONE = "data: [DONE]"
LONG = {"prompt": "ab", "max_tokens": 4000, "logit_bias": {"258": -100}}  # without the token that ends a text


@pytest.fixture(scope="module")
def long_model():
    """Return a model whose texts take seconds."""
    return served_model(block_size=4096, position="rope")


def until(condition, what):
    """Wait until a condition holds, and fail after some seconds."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen"
        time.sleep(0.005)


def stats_of(app):
    return app.state.served.find(None).scheduler.stats


def check_work_stops(app):
    """Check that nothing runs any more, soon, and that the texts are not complete."""
    until(lambda: stats_of(app)[:2] == (0, 0), "the end of the texts")
    written = stats_of(app).tokens_written
    time.sleep(0.03)
    assert stats_of(app).tokens_written == written
    assert written < 3 * 4000
    until(lambda: app.state.served.active == 0, "the end of the requests")


# ---- clients --------------------------------------------------------------------------------------


def test_the_work_of_a_client_that_goes_away_stops(long_model):
    with running_server({"long": long_model}, max_batch=1) as (url, app):
        with httpx.stream("POST", url + COMPLETIONS, json=LONG | {"stream": True}) as one:
            lines = one.iter_lines()
            while not json.loads(next(lines).removeprefix("data: ") or "{}").get("choices"):
                pass
            assert stats_of(app).running == 1
            # This one waits for its turn.
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(url + COMPLETIONS, json=LONG | {"n": 2}, timeout=0.1)
            until(lambda: stats_of(app)[:2] == (1, 0), "the end of the texts that wait")
        check_work_stops(app)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(url + COMPLETIONS, json=LONG, timeout=0.1)
        check_work_stops(app)
        assert httpx.post(url + COMPLETIONS, json=LONG | {"max_tokens": 2}).status_code == 200


def talk(url, data):
    """Send bytes to a server, and return what it sends until it ends the connection."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(data)
        found = b""
        while True:
            try:
                piece = connection.recv(2**16)
            except ConnectionResetError:
                break
            if not piece:
                break
            found += piece
    return found


def test_clients_that_are_slow_or_send_something_else(long_model):
    def head(length, more=""):
        lines = [f"POST {COMPLETIONS} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json"]
        return "\r\n".join([*lines, f"Content-Length: {length}", more]).encode() + b"\r\n"

    with running_server({"long": long_model}, client_seconds=0.2) as (url, _):
        for sent, status in (
            (b"", None),
            (b"GET /healthz HT", 408),
            (b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n", 408),
            (head(20), 408),
            (head(20) + b'{"prompt"', 408),
            (head(20, "Expect: 100-continue\r\n"), 100),
            (b"\x16\x03\x01\x02\x00\x01\x00 a client that speaks TLS\r\n\r\n", 400),
            (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
            (b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
            (head(20) + b"\r\nGET / HTTP/1.1\r\n\r\n" * 3, 400),
            (head("x"), 400),
        ):
            begin = time.monotonic()
            found = talk(url, sent)
            assert time.monotonic() - begin < 2
            if status is None:
                assert found == b""
                continue
            assert found.startswith(f"HTTP/1.1 {status} ".encode()), (sent, found)
            if status >= 400:
                length = int(re.search(rb"content-length: (\d+)", found)[1])
                error = json.loads(found.partition(b"\r\n\r\n")[2][:length])["error"]
                assert set(error) == {"message", "type", "param", "code"}
        assert httpx.get(url + "/healthz").json() == {"status": "ok"}


def test_a_connection_too_many_gets_a_reason(long_model, monkeypatch):
    monkeypatch.setattr(protocol, "MAX_CONNECTIONS", 1)
    with running_server({"long": long_model}) as (url, _), httpx.Client() as first:
        assert first.get(url + "/healthz").status_code == 200
        refused = httpx.get(url + "/healthz")
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "too_many_connections"
        assert refused.headers["retry-after"] == "1"
        assert first.get(url + "/healthz").status_code == 200


def test_a_client_that_reads_nothing(long_model):
    with running_server({"long": long_model}, client_seconds=0.2) as (url, app):
        app.add_api_route("/api/large", lambda: fastapi.Response(bytes(2**24)))
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(b"GET /api/large HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            connections = app.state.server.server_state.connections
            until(lambda: connections, "the request")
            until(lambda: not connections, "the end of the connection")


# ---- the end of a server --------------------------------------------------------------------------


def events_of(url, body, found):
    """Add the events of a stream to a list, up to where it is cut."""
    with (
        contextlib.suppress(httpx.RemoteProtocolError),
        httpx.stream("POST", url + COMPLETIONS, json=body | {"stream": True}, timeout=20) as response,
    ):
        found.extend(line for line in response.iter_lines() if line)


def test_a_signal_lets_texts_end(long_model):
    with running_server({"long": long_model}) as (url, app):
        found, server = [], app.state.server
        body = LONG | {"max_tokens": 400}
        thread = threading.Thread(target=events_of, args=(url, body, found))
        thread.start()
        until(lambda: stats_of(app).tokens_written > 2, "the first token")
        server.handle_exit(signal.SIGTERM, None)
        assert httpx.get(url + "/healthz").status_code == 503
        assert httpx.get(url + "/healthz").json() == {"status": "draining"}
        refused = httpx.post(url + COMPLETIONS, json=body)
        assert refused.status_code == 503
        assert refused.json()["error"]["type"] == "service_unavailable_error"
        assert "retry-after" in refused.headers
        thread.join(20)
        assert found[-1] == DONE
        assert json.loads(found[-2].removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
        until(lambda: not server.started or server.should_exit, "the end of the server")
        assert (server.exit_status, server.force_exit) == (0, False)
    with pytest.raises(httpx.ConnectError):
        httpx.get(url + "/healthz")


@pytest.mark.parametrize("signals", [1, 2])
def test_texts_that_take_too_long_after_a_signal(long_model, signals):
    with running_server({"long": long_model}, drain_seconds=0.1 if signals == 1 else 100) as (url, app):
        found, server = [], app.state.server
        thread = threading.Thread(target=events_of, args=(url, LONG, found))
        thread.start()
        until(lambda: stats_of(app).tokens_written > 2, "the first token")
        for _ in range(signals):
            server.handle_exit(signal.SIGINT, None)
        thread.join(20)
        assert DONE not in found
        assert ("error" in json.loads(found[-1].removeprefix("data: "))) == (signals == 1)
        assert server.exit_status == (0 if signals == 1 else 130)


def test_a_second_signal_does_not_wait_for_a_long_step(long_model):
    reached, opened = threading.Event(), threading.Event()

    def step():
        reached.set()
        opened.wait(20)

    with running_server({"long": long_model}) as (url, app):
        server, scheduler = app.state.server, app.state.served.find(None).scheduler
        thread = threading.Thread(target=events_of, args=(url, LONG, []))
        thread.start()
        until(lambda: stats_of(app).running, "the text")
        scheduler.call(step)
        assert reached.wait(10)
        for _ in range(2):
            server.handle_exit(signal.SIGTERM, None)
        thread.join(10)
        until(lambda: not any(one.name == "server" for one in threading.enumerate()), "the end of the server")
        assert (server.exit_status, opened.is_set()) == (143, False)
        opened.set()
        scheduler.close()


# ---- the command ----------------------------------------------------------------------------------


def test_a_port_in_use_and_an_address_of_another_machine():
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ServeError, match=rf"--port {port}: another program uses it. Give --port \d+"):
            listen("127.0.0.1", port)
    with pytest.raises(ServeError, match=r"--host 203\.0\.113\.7: expected an address of this machine"):
        listen("203.0.113.7", 0)
    with pytest.raises(ServeError, match="--host no such host: expected an address of this machine"):
        listen("no such host", 0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", "0.0.0.0"], "--host 0.0.0.0: expected a token for use beyond this machine"),
        (["--token", ""], "--token: expected printable ASCII"),
        (["--port", "99999"], "99999 is not in the range"),
        (["no-such-model"], "there is no checkpoint 'no-such-model'"),
    ],
)
def test_a_command_that_does_not_start(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["serve", "--port", "0", *arguments])
    assert result.exit_code == 2
    assert words in result.stderr


@pytest.mark.parametrize(
    ("characters", "context", "fields"),
    [
        ("\n Onceupatimo", 64, {"prompt": "Once upon a time", "max_tokens": 48}),
        ("\n Onceupatimo", 512, {"prompt": "Once upon a time", "max_tokens": 50}),
        ("\n Onceupatimo", 16, {"max_tokens": 15}),  # The prompt alone fills the context.
        ("\nabcd", 64, {"max_tokens": 50}),  # The vocabulary does not have the prompt.
    ],
)
def test_the_example_that_is_printed_fits_the_model(characters, context, fields):
    config = Config(name="small", model=ModelConfig(block_size=context))
    model = types.SimpleNamespace(config=config, tokenizer=CharTokenizer(characters))
    assert example(model) == (COMPLETIONS, fields)


def test_the_command_serves_a_run_until_a_signal(tmp_path):
    shape = {"vocab_size": 5, "block_size": 8, "n_layer": 1, "n_head": 2, "n_embd": 8}
    config = Config.load("shakespeare-char-cpu", {"name": "tiny", **{f"model.{k}": v for k, v in shape.items()}})
    model = build_model(config.model, "cpu", config.train.dtype)
    folder = tmp_path / "runs" / "tiny"
    folder.mkdir(parents=True)
    checkpoint.save(
        folder / "checkpoint.safetensors", config=config, tokenizer=CharTokenizer("\nabcd"), step=1, model=model
    )
    command = [sys.executable, "-W", "error", "-m", "gpt", "serve", str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        output = "".join(process.stdout.readline() for _ in range(3))
        url = re.search(r"page +(http://127\.0\.0\.1:\d+)/", output)[1]
        body = json.loads(re.search(r"curl .*/v1/completions .* -d '(.*)'", output)[1])
        assert body["model"] == "tiny"
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
        for answer, count in ((body, 7), (body | {"prompt": "ab", "max_tokens": 4}, 4)):
            connection.request("POST", COMPLETIONS, json.dumps(answer), {"Content-Type": "application/json"})
            assert json.loads(connection.getresponse().read())["usage"]["completion_tokens"] == count
        connection.close()
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
