"""The command `sample`."""

import dataclasses
import itertools
import secrets
from typing import Any

import click

from gpt.cli.command import Command
from gpt.cli.options import (
    Callback,
    apply_decorators,
    checkpoint_options,
    given_options,
    load_checkpoint,
    section_options,
)
from gpt.config import SamplingConfig


def sampling_options(command: Callback) -> Callback:
    """Add an option for every field of SamplingConfig."""
    return apply_decorators(command, section_options(SamplingConfig()))


@click.command(cls=Command)
@checkpoint_options
@click.option("--prompt", help="Text to continue.  [default: a line break]")
@click.option("--tokens", type=click.IntRange(min=1), help="Length of the new text in tokens.  [default: see --chars]")
@click.option(
    "--chars", type=click.IntRange(min=1), help="Length of the new text in characters.  [default: 500 characters]"
)
@click.option("--stop", metavar="TEXT", help="Stop before this text.  [default: never]")
@sampling_options
def sample(
    checkpoint: str | None,
    device: str,
    prompt: str | None,
    tokens: int | None,
    chars: int | None,
    stop: str | None,
    **fields: Any,
) -> None:
    """Generate text from a checkpoint, and print it as it is generated.

    On a terminal, control characters in the text are escaped. Into a file or a pipe it goes as it is: ... | cat
    """
    if tokens and chars:
        raise click.UsageError("give --tokens or --chars, not both")
    sampling = SamplingConfig(**{key.partition(".")[2]: value for key, value in given_options(fields).items()})
    if sampling.seed is None:
        sampling = dataclasses.replace(sampling, seed=secrets.randbits(32))
    from gpt.data import unix_lines
    from gpt.generation import ControlEscaper, gather, generate, on_terminal, stream
    from gpt.tokenizer import start_ids

    loaded = load_checkpoint(checkpoint, device)
    tokenizer = loaded.tokenizer
    click.echo(f"seed {sampling.seed}", err=True)
    prompt = prompt and unix_lines(prompt)
    ids = tokenizer.encode(prompt) if prompt else start_ids(tokenizer)
    new = generate(loaded.model, ids, sampling=sampling)
    pieces = stream(tokenizer, new, max_tokens=tokens, max_chars=None if tokens else chars or 500, stop=stop)
    pieces = itertools.chain([prompt or ""], pieces)
    escaper = ControlEscaper()
    for text in escaper(pieces) if on_terminal() else gather(pieces):
        click.echo(text, nl=False, color=True)  # Without a colour, echo would remove escape sequences from the text.
    click.echo()
    if escaper.used:
        click.echo("control characters are escaped; ... | cat prints them", err=True)
