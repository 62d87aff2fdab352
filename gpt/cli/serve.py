"""The command `serve`, a page to talk to models, and an API for programs."""

import contextlib
import itertools
import json
import shlex
import signal
import sys
import webbrowser
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpt.cli.command import Command
from gpt.cli.options import (
    RUNS,
    Callback,
    adapter_option,
    apply_decorators,
    chosen_quantize,
    load_checkpoint,
    quantize_option,
)
from gpt.known_models import DEFAULT_CHAT_MODEL

if TYPE_CHECKING:
    from gpt.checkpoint import Checkpoint

POSITIVE = click.FloatRange(min=0, min_open=True)


def limit_options(command: Callback) -> Callback:
    """Add the options for who may use the server, and for how much."""
    return apply_decorators(
        command,
        [
            click.option(
                "--token",
                envvar="TENSORLITE_SERVE_TOKEN",
                metavar="TEXT",
                help="What clients send as `Authorization: Bearer TEXT`. TENSORLITE_SERVE_TOKEN is the same, and no "
                "other user of the machine sees it.  [default: none; required if --host is not loopback]",
            ),
            click.option(
                "--allow-host", "allow_hosts", multiple=True, metavar="NAME",
                help="A name of this machine that clients may use. Give it again for more.",
            ),
            click.option(
                "--allow-origin", "allow_origins", multiple=True, metavar="ORIGIN",
                help="Pages that may use the server from a browser, such as https://example.com. Give it again for "
                "more.  [default: its own page]",
            ),
            click.option(
                "--max-batch", type=click.IntRange(min=1), default=8, show_default=True,
                help="Texts that a model writes at once.",
            ),
            click.option(
                "--queue", type=click.IntRange(min=0), default=64, show_default=True,
                help="Texts that may wait for their turn.",
            ),
            click.option(
                "--max-tokens", type=click.IntRange(min=1),
                help="The longest new text, in tokens.  [default: the context of the model]",
            ),
            click.option(
                "--max-body", type=click.IntRange(min=1), default=2**21, show_default=True,
                help="The largest body of a request, in bytes.",
            ),
            click.option(
                "--request-seconds", type=POSITIVE, default=600.0, show_default=True,
                help="The longest time of a request, with its time in the queue.",
            ),
            click.option(
                "--client-seconds", type=POSITIVE, default=20.0, show_default=True,
                help="The longest time in which a client sends its request, reads a part of the answer, or sends "
                "nothing.",
            ),
            click.option(
                "--drain-seconds", type=click.FloatRange(min=0), default=30.0, show_default=True,
                help="The longest time in which texts are finished after SIGTERM or Ctrl-C.",
            ),
        ],
    )  # fmt: skip


@click.command(cls=Command)
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--model", "--checkpoint", "more", multiple=True, metavar="PATH|NAME", help="The same as MODEL.")
@adapter_option
@click.option("--device", default="auto", metavar="DEVICE", show_default=True, help="cpu, cuda or cuda:N.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float64"]),
    default="float32",
    show_default=True,
    help="The type of the numbers of a folder or a GGUF file.",
)
@quantize_option(None)
@click.option("--host", default="127.0.0.1", metavar="ADDRESS", show_default=True, help="The address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="The port; 0 takes a free one."
)
@limit_options
@click.option("--open", "opens", is_flag=True, help="Open the page in the browser.")
def serve(
    models: tuple[str, ...],
    more: tuple[str, ...],
    adapter: str | None,
    device: str,
    dtype: str,
    quantize: str | None,
    host: str,
    port: int,
    opens: bool,
    **limits: Any,
) -> None:
    """Serve models: a page in the browser, and an API in the form of OpenAI's.

    MODEL is a run, a checkpoint, a Hugging Face folder, a GGUF file, or a name that `models` lists. Without one it is
    the newest run below runs/, or else the model of `chat`.
    """
    from gpt.serve.app import create_app
    from gpt.serve.lifecycle import address, listen, make_server
    from gpt.serve.options import ServeOptions

    options = ServeOptions(host=host, **limits)
    with listen(host, port) as listener:  # A port in use is an error before the model is loaded.
        weights = chosen_quantize(quantize) if dtype == "float32" or quantize else "none"
        found = [
            (name, load_checkpoint(name, device, adapter, weights, dtype)) for name in [*models, *more] or default()
        ]
        named = unique_names(found)
        app = create_app({name: (one.model.eval(), one.tokenizer) for name, one in named.items()}, options)
        server = make_server(app, options)
        url = address(listener)
        announce(url, *next(iter(named.items())), options.token is not None)
        if opens:
            webbrowser.open(url)
        try:
            server.run(sockets=[listener])
        finally:
            app.state.served.close()
    if server.force_exit:  # The interpreter would wait for the step of a model, and half a second to free the modules.
        sys.stdout.flush()
        number = server.exit_status - 128
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
    sys.exit(server.exit_status)


def default() -> list[str | None]:
    """Return the newest run, which is None, or else the model of `chat`."""
    from gpt import runs
    from gpt.checkpoint import CheckpointError

    with contextlib.suppress(CheckpointError):
        runs.newest_checkpoint(RUNS)
        return [None]
    return [DEFAULT_CHAT_MODEL]


def unique_names(found: "Iterable[tuple[str | None, Checkpoint]]") -> "dict[str, Checkpoint]":
    """Return models by the names that the API gives them; the name of a second one of the same name ends with -2."""
    named: dict[str, Checkpoint] = {}
    for given, loaded in found:
        base = name = model_name(given, loaded)
        for number in itertools.count(2):
            if name not in named:
                break
            name = f"{base}-{number}"
        named[name] = loaded
    return named


def model_name(given: str | None, loaded: "Checkpoint") -> str:
    """Return the name of a model: that of its folder or GGUF file, or else what the user or the checkpoint calls it."""
    path = Path(given or "").expanduser()
    if given is None or (path.is_file() and path.suffix != ".gguf"):
        return loaded.config.name
    if path.is_dir():
        return path.resolve().name
    return path.stem if path.is_file() else given


def announce(url: str, name: str, model: "Checkpoint", token: bool) -> None:
    """Print where the server is, and a line that uses its first model."""
    path, fields = example(model)
    body = shlex.quote(json.dumps({"model": name, **fields}))
    secret = ' -H "Authorization: Bearer $TENSORLITE_SERVE_TOKEN"' if token else ""
    click.echo(f"page   {url}/")
    click.echo(f"API    {url}/v1")
    click.echo(f"try    curl {url}{path}{secret} -H 'Content-Type: application/json' -d {body}")
    click.echo("Ctrl-C ends the server.", err=True)


def example(model: "Checkpoint") -> tuple[str, dict[str, Any]]:
    """Return the address and the fields of a request that fits in the context and the vocabulary of a model."""
    from gpt.tokenizer import TokenizerError, prompt_ids

    context = model.config.model.block_size
    if model.tokenizer.chat_template:
        messages = [{"role": "user", "content": "Hello"}]  # The template may take half of a short context.
        return "/v1/chat/completions", {"messages": messages, "max_tokens": min(50, max(1, context // 2))}
    prompt = "Once upon a time"
    with contextlib.suppress(TokenizerError):
        if (room := context - len(prompt_ids(model.tokenizer, prompt))) > 0:
            return "/v1/completions", {"prompt": prompt, "max_tokens": min(50, room)}
    return "/v1/completions", {"max_tokens": min(50, max(1, context - 1))}  # The text begins a document.
