"""The command `train`."""

from pathlib import Path
from typing import Any

import click

from gpt.cli.options import RUNS, ConfigCommand, chosen_config, config_options, given_options
from gpt.cli.processes import exit_status, processes_options, say_checkpoint, start_processes, waiting
from gpt.config import DEFAULT_PRESET, Config


@click.command(cls=ConfigCommand, epilog=f"Defaults are those of {DEFAULT_PRESET}; each preset sets its own.")
@config_options
@click.option(
    "--resume",
    is_flag=False,
    flag_value="",
    metavar="[PATH]",
    help="Continue from a checkpoint: PATH; without PATH that of the named run (by a preset, --name, --out or --data), "
    "or else the newest below runs/. It keeps its configuration, except for the options that are given.",
)
@click.option(
    "--init-from",
    metavar="PATH|NAME",
    help="Start from the weights of a model: a run, a checkpoint, a Hugging Face folder, a GGUF file, or a known name. "
    "It gives the shape and the tokenizer, too. --block-size and --dropout are those of this run.",
)
@processes_options
@click.option(
    "--profile", is_flag=True, help="Take 25 steps, print the time of each op in them, and write nothing."
)
def train(
    preset: str | None,
    config: str | None,
    resume: str | None,
    init_from: str | None,
    profile: bool,
    processes: int | None,
    timeout: float | None,
    **fields: Any,
) -> None:
    """Train a model, evaluate it, and print a sample of its text.

    PRESET is one of those that `presets` lists. Ctrl-C or SIGTERM finishes the step and saves; --resume continues.
    """
    overrides = given_options(fields)
    chosen = chosen_config(preset, config, overrides)
    if init_from is not None:
        check_together(init_from, resume, profile, overrides)
    check_folders(chosen, overrides)
    if profile and (processes or 1) > 1:
        raise click.UsageError("give --profile or --processes, not both")
    start_processes(processes)
    import gpt.train
    from gpt import checkpoint

    if profile:
        if resume is not None:
            raise click.UsageError("give --profile or --resume, not both")
        click.echo(gpt.train.profile(chosen))
        return
    path = None if resume is None else chosen_checkpoint(resume, bool(preset or config), chosen, overrides)
    with gpt.train.Interrupt() as interrupt:
        if path is None:
            start: dict[str, Any] = {} if init_from is None else {"init_from": init_from}
            done = gpt.train.train(chosen, **start, **waiting(timeout))
        else:
            done = gpt.train.train(checkpoint.load_config(path).replace(overrides), resume=path, **waiting(timeout))
    if not done:
        raise click.exceptions.Exit(exit_status(interrupt))


def check_folders(chosen: Config, overrides: dict[str, Any]) -> None:
    """Raise UsageError for an option that has another value than the folders of tokens were prepared with."""
    given = {name for name in ("data.tokenizer", "data.bpe_vocab_size", "data.val_fraction") if name in overrides}
    if not given:
        return
    from gpt.data import described

    kept = described(chosen.data)
    for name in sorted(given):
        field = name.partition(".")[2]
        if (value := getattr(kept, field)) != getattr(chosen.data, field):
            raise click.UsageError(
                f"--{field.replace('_', '-')} {overrides[name]} does not fit: {chosen.data.title} was prepared with "
                f"{value}. Leave it out, or prepare the texts again"
            )


def check_together(init_from: str, resume: str | None, profile: bool, overrides: dict[str, Any]) -> None:
    """Raise UsageError for an option that cannot be given with --init-from."""
    if resume is not None or profile:
        other = "--profile" if profile else "--resume"
        raise click.UsageError(f"give --init-from or {other}, not both")
    own = {"model.block_size", "model.dropout"}
    for name in overrides:
        if (name.startswith("model.") and name not in own) or name in ("data.tokenizer", "data.bpe_vocab_size"):
            flag = "--" + name.partition(".")[2].replace("_", "-")
            raise click.UsageError(f"{flag} is that of the model {init_from!r}. Leave it out")


def chosen_checkpoint(resume: str, named: bool, chosen: Config, overrides: dict[str, Any]) -> Path:
    """Return the checkpoint that --resume means, and print its path to stderr. Raises CheckpointError and UsageError.

    resume: the argument, "" for none. named: whether the command line has a preset or a --config.
    """
    from gpt import runs

    if resume and named:
        raise click.UsageError(
            f"--resume {resume} takes the configuration from its checkpoint. Leave out the preset or --config, or give "
            "--resume last, without a PATH, for the run of that preset"
        )
    if resume:
        found = runs.find_checkpoint(Path(resume))
    elif named or overrides.keys() & {"name", "train.out_dir"}:
        found = runs.find_checkpoint(chosen.run_dir)
    elif chosen.run_dir != Config.load().run_dir and (chosen.run_dir / runs.LATEST).is_file():
        found = runs.find_checkpoint(chosen.run_dir)  # The run of the text that --data names.
    else:
        found = runs.newest_checkpoint(RUNS)
        say_checkpoint(found, f" ({runs.describe_choice(RUNS, found)})")
        return found
    say_checkpoint(found)
    return found
