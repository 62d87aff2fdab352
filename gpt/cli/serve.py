"""The command `serve`, a page to talk to models, and an API for programs."""

from pathlib import Path
from typing import Any

import click

from gpt.cli.command import Command
from gpt.cli.options import RUNS, adapter_option, chosen_quantize, load_checkpoint, quantize_option
from gpt.known_models import DEFAULT_CHAT_MODEL


@click.command(cls=Command)
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--model", "more", multiple=True, metavar="PATH|NAME", help="The same as MODEL.")
@adapter_option
@click.option("--device", default="auto", metavar="DEVICE", show_default=True, help="cpu, cuda or cuda:N.")
@quantize_option(None)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
def serve(
    models: tuple[str, ...],
    more: tuple[str, ...],
    adapter: str | None,
    device: str,
    quantize: str | None,
    host: str,
    port: int,
    **arguments: Any,
) -> None:
    """Serve models: a page in the browser, and an API in the form of OpenAI's.

    MODEL is a run, a checkpoint, a Hugging Face folder, a GGUF file, or a name that `models` lists.
    """
    from gpt.serve.app import create_app
    from gpt.serve.lifecycle import listen, make_server
    from gpt.serve.options import ServeOptions

    options = ServeOptions(host=host)
    listener = listen(host, port)
    with listener:
        weights = chosen_quantize(quantize)
        names = [*models, *more] or default_models()
        loaded = {Path(name or "x").stem: load_checkpoint(name, device, adapter, weights) for name in names}
        app = create_app({name: (one.model.eval(), one.tokenizer) for name, one in loaded.items()}, options)
        click.echo(f"http://{host}:{listener.getsockname()[1]}")
        make_server(app, options).run(sockets=[listener])


def default_models() -> list[Any]:
    """Return the newest run if there is one, and else the chat model that `chat` takes."""
    return [None] if RUNS.is_dir() and any(RUNS.iterdir()) else [DEFAULT_CHAT_MODEL]
