"""The subject of a command that looks inside a model: which model, on which text."""

from typing import TYPE_CHECKING

import click

from gpt.cli.options import Callback, apply_decorators, checkpoint_options, load_checkpoint

if TYPE_CHECKING:
    from gpt.checkpoint import Checkpoint


def model_options(command: Callback) -> Callback:
    """Add MODEL, --checkpoint, --adapter and --device."""
    return apply_decorators(command, [click.argument("model", required=False), checkpoint_options])


def prompt_options(command: Callback) -> Callback:
    """Add --prompt and --prompt-file."""
    return apply_decorators(
        command,
        [
            click.option("--prompt", help="The text to look at; - reads standard input."),
            click.option("--prompt-file", metavar="FILE", help="A UTF-8 file with the text; - reads standard input."),
        ],
    )


def check_model(model: str | None, checkpoint: str | None) -> str | None:
    """Return the model of a command line, None for the newest. Raises UsageError if it is named twice."""
    if model is not None and checkpoint is not None:
        raise click.UsageError(f"give MODEL ({model:.80}) or --checkpoint {checkpoint:.80}, not both")
    return checkpoint if model is None else model


def load_model(
    model: str | None, checkpoint: str | None, device: str, adapter: str | None, dtype: str = "float32"
) -> "Checkpoint":
    """Return the loaded model of a command line. Raises UsageError if it is named twice."""
    return load_checkpoint(check_model(model, checkpoint), device, adapter, dtype=dtype)


def given_prompt(prompt: str | None, file: str | None) -> str:
    """Return the text of --prompt or --prompt-file. Raises UsageError without one."""
    from gpt.cli.sample_request import read_prompt

    if prompt is not None and file is not None:
        raise click.UsageError("give --prompt or --prompt-file, not both")
    if not (text := read_prompt(prompt, file)):
        raise click.UsageError("give the text to look at: --prompt TEXT")
    return text
