"""The command `train`."""

from pathlib import Path
from typing import Any

import click

from gpt.cli.options import ConfigCommand, chosen_config, config_options, given_options
from gpt.config import DEFAULT_PRESET

INTERRUPTED = 130  # The exit status of a process that SIGINT ended, in any shell.


@click.command(cls=ConfigCommand, epilog=f"Defaults are those of {DEFAULT_PRESET}; each preset sets its own.")
@config_options
@click.option(
    "--resume",
    is_flag=False,
    flag_value="",
    metavar="[PATH]",
    help="Continue from a checkpoint: PATH, or without PATH the run's own. It keeps its configuration, except for the "
    "options that are given.",
)
@click.option(
    "--profile", is_flag=True, help="Take 25 steps, print the time of each op in them, and write nothing."
)
def train(preset: str | None, config: str | None, resume: str | None, profile: bool, **fields: Any) -> None:
    """Train a model, evaluate it, and print a sample of its text.

    PRESET is one of those that `presets` lists. Ctrl-C finishes the step and saves; --resume continues.
    """
    overrides = given_options(fields)
    chosen = chosen_config(preset, config, overrides)
    import gpt.train
    from gpt import checkpoint, runs

    if profile:
        if resume is not None:
            raise click.UsageError("give --profile or --resume, not both")
        click.echo(gpt.train.profile(chosen))
        return
    if resume is None:
        done = gpt.train.train(chosen)
    else:
        path = runs.find_checkpoint(Path(resume) if resume else chosen.run_dir)
        done = gpt.train.train(checkpoint.load_config(path).replace(overrides), resume=path)
    if not done:
        raise click.exceptions.Exit(INTERRUPTED)
