"""The command `export`, which writes a model in a format of other programs."""

from pathlib import Path

import click

from gpt.cli.command import Command
from gpt.cli.options import adapter_option


@click.command(cls=Command)
@click.argument("source", metavar="RUN|MODEL")
@click.argument("target", metavar="FOLDER|FILE")
@click.option(
    "--to",
    "kind",
    type=click.Choice(["huggingface", "gguf"]),
    required=True,
    help="A folder that transformers loads, or a file that llama.cpp loads.",
)
@click.option(
    "--weights",
    type=click.Choice(["F32", "F16", "Q8_0"]),
    default="F32",
    show_default=True,
    help="The type of the weights in a GGUF file.",
)
@adapter_option
def export(source: str, target: str, kind: str, weights: str, adapter: str | None) -> None:
    """Write a model with its tokenizer in a format of other programs.

    RUN|MODEL is a checkpoint, the folder of a run, a Hugging Face folder, a GGUF file, or a known name.
    """
    from gpt import sources
    from gpt.checkpoint.export import export_gguf, export_huggingface

    path = Path(target)
    if kind == "huggingface":
        if weights != "F32":
            raise click.UsageError("--weights is for --to gguf")
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise click.UsageError(f"{target!r} exists already. Give a new folder")
    elif path.suffix != ".gguf":
        path = path / "model.gguf"
    if kind == "gguf" and path.exists():
        raise click.UsageError(f"{str(path)!r} exists already. Give another name")
    loaded = sources.load(source, "cpu", adapter=adapter)
    if kind == "huggingface":
        export_huggingface(loaded, path)
    else:
        export_gguf(loaded, path, weights)
    click.echo(f"wrote {path}")
