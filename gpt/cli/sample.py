"""The command `sample`."""

import itertools
from typing import Any

import click

from gpt.cli.command import Command
from gpt.cli.draft import check_draft_tokens, draft_options, load_draft
from gpt.cli.options import (
    Callback,
    apply_decorators,
    checkpoint_options,
    chosen_quantize,
    given_options,
    load_checkpoint,
    quantize_option,
    section_options,
)
from gpt.config import SamplingConfig


def sampling_options(command: Callback) -> Callback:
    """Add an option for every field of SamplingConfig."""
    return apply_decorators(command, section_options(SamplingConfig()))


def length_options(command: Callback) -> Callback:
    """Add the options for the prompt, and for where the text ends."""
    return apply_decorators(
        command,
        [
            click.option("--prompt", help="Text to continue; - reads standard input.  [default: a line break]"),
            click.option("--prompt-file", metavar="FILE", help="A UTF-8 file to continue; - reads standard input."),
            click.option(
                "--tokens",
                type=click.IntRange(min=1),
                help="Length of the new text in tokens.  [default: see --chars; 100 tokens with --num-beams]",
            ),
            click.option(
                "--chars",
                type=click.IntRange(min=1),
                help="Length of the new text in characters.  [default: 500 characters]",
            ),
            click.option(
                "--stop",
                metavar="TEXT",
                multiple=True,
                help="Stop before this text. Give it again for more texts.  [default: never]",
            ),
        ],
    )


def choice_options(command: Callback) -> Callback:
    """Add the options that need the tokens of a vocabulary, and those for several texts."""
    return apply_decorators(
        command,
        [
            click.option(
                "--logit-bias",
                metavar="TOKEN=VALUE",
                multiple=True,
                help="Add VALUE to the logit of a token: a text that is one token, or else an id; id:5 is always an "
                "id. Give it again for more tokens.",
            ),
            click.option("--ban", metavar="TEXT", multiple=True, help="Never write the tokens of TEXT in a row."),
            click.option("--regex", metavar="PATTERN", help="Write text that matches a regular expression as a whole."),
            click.option("--json-schema", metavar="FILE", help="Write JSON that follows the schema in FILE."),
            click.option(
                "--num-samples", type=click.IntRange(min=1), default=1, help="Number of texts.  [default: 1]"
            ),
            click.option(
                "--num-beams",
                type=click.IntRange(min=1),
                help="Search for the likeliest texts with this number of beams, instead of sampling.",
            ),
            click.option(
                "--length-penalty",
                type=float,
                help="Divide log-probabilities by length^PENALTY to compare beams.  [default: 1]",
            ),
            click.option(
                "--logprobs",
                type=click.IntRange(min=0),
                is_flag=False,
                flag_value=5,
                metavar="[N]",
                help="Print a table of the tokens with log-probabilities and the N likeliest instead; N is 5 if not "
                "given.",
            ),
        ],
    )


@click.command(cls=Command)
@checkpoint_options
@quantize_option(None)
@length_options
@sampling_options
@choice_options
@draft_options
def sample(checkpoint: str | None, adapter: str | None, device: str, quantize: str | None, **arguments: Any) -> None:
    """Generate text from a checkpoint, and print it as it is generated.

    On a terminal, control characters in the text are escaped. Into a file or a pipe it goes as it is: ... | cat
    """
    from gpt.cli import sample_request as request

    fields = given_options({key: arguments.pop(key) for key in list(arguments) if "__" in key})
    options = {key.partition(".")[2]: value for key, value in fields.items()}
    request.check_together(arguments, options)
    check_draft_tokens(arguments["draft"], arguments["draft_tokens"])
    sampling = SamplingConfig(**options)
    prompt = request.read_prompt(arguments["prompt"], arguments["prompt_file"])
    weights = chosen_quantize(quantize)
    loaded = load_checkpoint(checkpoint, device, adapter, weights)
    draft = load_draft(arguments["draft"], arguments["draft_tokens"], loaded, device, weights)
    chosen = request.SampleRequest(loaded.model, loaded.tokenizer, prompt, sampling, arguments, draft)
    if len(chosen.ids) > (context := loaded.config.model.block_size):
        click.echo(f"the prompt has {len(chosen.ids):,} tokens, of which the model sees the last {context:,}", err=True)
    if arguments["num_beams"]:
        texts = chosen.beams()
    else:
        click.echo(f"seed {chosen.sampling.seed}", err=True)
        texts = chosen.samples() if arguments["num_samples"] == 1 else chosen.batch()
    print_pieces(itertools.chain.from_iterable(texts))


def print_pieces(pieces: itertools.chain[str]) -> None:
    """Print the pieces of a text, and a line break at the end."""
    from gpt.generation import ControlEscaper, gather, on_terminal

    escaper = ControlEscaper()
    for text in escaper(pieces) if on_terminal() else gather(pieces):
        click.echo(text, nl=False, color=True)  # Without a colour, echo would remove escape sequences from the text.
    click.echo()
    if escaper.used:
        click.echo("control characters are escaped; ... | cat prints them", err=True)
