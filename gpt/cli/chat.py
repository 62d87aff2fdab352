"""The command `chat`, a conversation at the terminal."""

import dataclasses
import secrets
from typing import Any

import click

from gpt.cli.command import Command
from gpt.cli.draft import check_draft_tokens, draft_options, load_draft
from gpt.cli.options import adapter_option, chosen_quantize, given_options, quantize_option
from gpt.cli.sample import sampling_options
from gpt.config import SamplingConfig
from gpt.known_models import DEFAULT_CHAT_MODEL

HELP = "/new begins a new conversation, /undo takes the last answer back, /exit ends. Ctrl-C stops an answer."


@click.command(cls=Command)
@click.option(
    "--model",
    "source",
    default=DEFAULT_CHAT_MODEL,
    show_default=True,
    metavar="NAME|PATH",
    help="A Hugging Face folder, a GGUF file, a checkpoint, or a name that `models` lists.",
)
@adapter_option
@click.option("--device", default="auto", metavar="DEVICE", show_default=True, help="cpu, cuda or cuda:N.")
@quantize_option(None)
@click.option("--system", metavar="TEXT", help="The system message.  [default: that of the model]")
@click.option(
    "--tokens", type=click.IntRange(min=1), default=512, show_default=True, help="The longest answer, in tokens."
)
@click.option("--once", metavar="TEXT", help="Answer this message, print nothing else, and end.")
@draft_options
@sampling_options
def chat(
    source: str,
    adapter: str | None,
    device: str,
    quantize: str | None,
    system: str | None,
    tokens: int,
    once: str | None,
    draft: str | None,
    draft_tokens: int | None,
    **fields: Any,
) -> None:
    """Talk to a chat model.

    The answer is printed as it is generated. A message ends with a line break; a line that ends with \\ goes on.
    """
    check_draft_tokens(draft, draft_tokens)
    sampling = SamplingConfig(**{key.partition(".")[2]: value for key, value in given_options(fields).items()})
    if sampling.seed is None:
        sampling = dataclasses.replace(sampling, seed=secrets.randbits(32))
    import tensorlite as tl
    from gpt import sources
    from gpt.errors import UserError
    from gpt.generation import on_terminal
    from gpt.generation.chat import Chat

    tl.keep_freed_memory()  # No backward pass runs, which would do so.
    weights = chosen_quantize(quantize)
    loaded = sources.load(source, device, adapter=adapter, quantize=weights)
    drafts = load_draft(draft, draft_tokens, loaded, device, weights)
    talk = Chat(loaded.model, loaded.tokenizer, system, tokens, sampling, draft=drafts)
    if once is not None:
        answer(talk, once)  # An error ends the command.
        return
    click.echo(f"{loaded.config.name}, seed {sampling.seed}. {HELP}", err=True)
    while (message := read_message()) is not None:
        command = message.strip()
        if command in ("/exit", "/quit", "/bye"):
            return
        if command in ("/new", "/clear", "/reset"):
            talk.restart()
        elif command == "/undo":
            talk.undo()
        elif command in ("/help", "/?"):
            click.echo(HELP, err=True)
        elif command:
            try:
                answer(talk, message)
            except UserError as error:
                if not on_terminal():
                    raise
                click.echo(f"Error: {error}", err=True)


def read_message() -> str | None:
    """Return the next message that the user types, None at the end of the input."""
    lines: list[str] = []
    while True:
        try:
            line = input("  " if lines else "> ")
        except EOFError:
            click.echo(err=True)
            return "\n".join(lines) if lines else None
        except KeyboardInterrupt:
            click.echo(err=True)
            return None
        if not line.endswith("\\"):
            return "\n".join([*lines, line])
        lines.append(line.removesuffix("\\"))


def answer(talk: Any, message: str) -> None:
    """Print the answer to a message as it is generated. Ctrl-C stops it, and the conversation goes on."""
    from gpt.generation import ControlEscaper, gather, on_terminal

    pieces = talk.answer(message)
    try:
        for text in ControlEscaper()(pieces) if on_terminal() else gather(pieces):
            click.echo(text, nl=False, color=True)
    except KeyboardInterrupt:
        pieces.close()
        click.echo(" [stopped]", err=True, nl=False)
    click.echo()
    if talk.forgotten:
        click.echo(f"The context is full: the first {talk.forgotten} messages are forgotten.", err=True)
