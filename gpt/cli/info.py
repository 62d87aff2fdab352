"""The commands `info` and `presets`, which describe configurations."""

import time
from pathlib import Path
from typing import Any

import click

from gpt.cli.command import Command
from gpt.cli.options import RUNS, ConfigCommand, chosen_config, config_options, given_options
from gpt.cli.units import Bandwidth, Seconds
from gpt.config import Config, preset_names


@click.command(cls=ConfigCommand)
@config_options
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    metavar="N",
    help="Print what to expect of training on 1 to N processes, such as machines like this one. Needs --bandwidth.",
)
@click.option(
    "--bandwidth",
    type=Bandwidth(),
    metavar="RATE",
    help="Bandwidth of the link of each process, in each direction: 10Gbit, 100Mbit, 1GB/s.",
)
@click.option(
    "--latency", type=Seconds(), default="50us", show_default=True, metavar="TIME", help="Time of an empty message."
)
@click.option(
    "--step-time",
    type=Seconds(above_zero=True),
    metavar="TIME",
    help="Time of a step on one process, such as 0.9s.  [default: measured here, or estimated for a large model]",
)
def info(
    preset: str | None,
    config: str | None,
    processes: int | None,
    bandwidth: float | None,
    latency: float,
    step_time: float | None,
    **fields: Any,
) -> None:
    """Print the parameters, memory and FLOPs of a configuration.

    PRESET is the name of a preset, a checkpoint, the folder of a run, a Hugging Face folder, or a GGUF file.
    """
    if (processes is None) != (bandwidth is None):
        given, other = ("--bandwidth", "--processes") if processes is None else ("--processes", "--bandwidth")
        raise click.UsageError(f"{given}: expected {other}, too. An example is --processes 4 --bandwidth 10Gbit")
    if processes is None and step_time is not None:
        raise click.UsageError("--step-time: expected --processes and --bandwidth, too")
    if preset and not config and (run := run_of(preset)):
        from gpt import checkpoint, sources
        from gpt.model.size import summary

        found = sources.find(run)
        kept = checkpoint.load_info(found)
        chosen = kept.config.replace(given_options(fields))
        saved = time.strftime("%Y-%m-%d %H:%M", time.localtime(found.stat().st_mtime))
        if kept.step:
            click.echo(f"checkpoint {found}: step {kept.step:,} of {chosen.train.steps:,}, saved {saved}")
            click.echo(f"text {chosen.data.title!r}, {chosen.data.tokenizer} tokenizer\n")
        else:
            click.echo(f"model {found}, saved {saved}\n")
        click.echo(summary(chosen))
        echo_scaling(chosen, processes, bandwidth, latency, step_time)
        return
    chosen = chosen_config(preset, config, given_options(fields))
    from gpt.model.size import summary
    from gpt.tokenizer import expected_vocab_size

    if size := expected_vocab_size(chosen.data):
        chosen = chosen.with_vocab_size(size)
    click.echo(summary(chosen))
    echo_scaling(chosen, processes, bandwidth, latency, step_time)


def echo_scaling(
    config: Config, processes: int | None, bandwidth: float | None, latency: float, step_time: float | None
) -> None:
    """Print what to expect of several processes, if they were asked for."""
    if processes is not None and bandwidth is not None:
        from gpt.cli.scaling import scaling_text
        from gpt.model.scaling import Link

        click.echo(f"\n{scaling_text(config, processes, Link(bandwidth, latency), step_time)}")


def run_of(name: str) -> Path | None:
    """Return the path of a run or a checkpoint that `name` means, None for a preset or a name that nothing has."""
    if name in preset_names():
        return None
    return next((path for path in (Path(name), RUNS / name) if path.exists() and path.suffix != ".toml"), None)


@click.command(cls=Command)
@click.argument("preset", required=False)
def presets(preset: str | None) -> None:
    """List the presets, or print PRESET as TOML.

    The TOML is a start for a --config FILE of your own.
    """
    if preset:
        click.echo(Config.load(preset).to_toml(), nl=False)
        return
    from gpt.model.size import format_si, parameter_count

    row = "{:<22}{:>7}{:>7}{:>7}{:>9}{:>11}{:>12}{:>9}"
    click.echo(
        row.format("preset", "layers", "heads", "width", "context", "tokenizer", "parameters", "steps")
    )
    for name in preset_names():
        c = Config.load(name)
        m, count = c.model, format_si(parameter_count(c.model), "")
        click.echo(
            row.format(
                name, m.n_layer, m.n_head, m.n_embd, m.block_size, c.data.tokenizer, count, c.train.steps
            )
        )
