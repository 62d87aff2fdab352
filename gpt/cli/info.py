"""The commands `info` and `presets`, which describe configurations."""

from typing import Any

import click

from gpt.cli.options import ConfigCommand, chosen_config, config_options, given_options
from gpt.config import Config, preset_names


@click.command(cls=ConfigCommand)
@config_options
def info(preset: str | None, config: str | None, **fields: Any) -> None:
    """Print the parameters, memory and FLOPs of a configuration."""
    chosen = chosen_config(preset, config, given_options(fields))
    from gpt.model.size import summary
    from gpt.tokenizer import expected_vocab_size

    if size := expected_vocab_size(chosen.data):
        chosen = chosen.with_vocab_size(size)
    click.echo(summary(chosen))


@click.command()
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
