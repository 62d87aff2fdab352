"""The command `prepare`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gpt.cli.command import Command
from gpt.config import TOKENIZERS, DataConfig

if TYPE_CHECKING:
    from gpt.tokenizer import Tokenizer


@click.command(cls=Command)
@click.argument("files", nargs=-1, required=True, metavar="FILES...")
@click.option("--out", required=True, metavar="FOLDER", help="The folder to write.")
@click.option(
    "--tokenizer",
    default="char",
    show_default=True,
    metavar="NAME|MODEL",
    help=f"{', '.join(name for name in TOKENIZERS if name != 'huggingface')}; or the tokenizer of a model (a run, a "
    "checkpoint, a Hugging Face folder, a GGUF file, or a name that `models` lists), or of another prepared folder.",
)
@click.option(
    "--bpe-vocab-size", type=int, default=DataConfig.bpe_vocab_size, show_default=True, metavar="TOKENS",
    help="Size of the trained BPE's vocabulary.",
)  # fmt: skip
@click.option(
    "--field", default="text", show_default=True,
    help="Of files of JSON lines (.jsonl, .ndjson), the field with the text of a document.",
)  # fmt: skip
@click.option(
    "--val-fraction", type=float, default=DataConfig.val_fraction, show_default=True,
    help="Fraction of each file, at its end, that is used for validation; 0 for none.",
)  # fmt: skip
@click.option("--processes", type=click.IntRange(min=1), help="Processes that encode.  [default: one for each core]")
def prepare(
    files: tuple[str, ...], out: str, tokenizer: str, bpe_vocab_size: int, field: str, val_fraction: float,
    processes: int | None,
) -> None:  # fmt: skip
    """Encode FILES once into a folder of tokens, for texts that are larger than memory.

    `train --data FOLDER` maps it into memory. FILES are UTF-8 texts, one document each, or JSON lines. The same command
    continues where an interrupted one stopped, and verifies a folder that is whole.
    """
    import tensorlite as tl
    from gpt.data import prepare as run
    from gpt.train.progress import bar_on_stderr

    chosen = tokenizer if tokenizer in TOKENIZERS else tokenizer_of(tokenizer)
    count = processes or tl.get_num_threads()
    form = "preparing: {percentage:3.0f} % of {total_fmt}B, {remaining} left {bar}"
    with bar_on_stderr(form, unit_scale=True) as bar:

        def done(encoded: int, total: int) -> None:
            bar.total, bar.n = total, encoded
            bar.refresh()

        result = run(
            files, out, tokenizer=chosen, bpe_vocab_size=bpe_vocab_size, field=field, val_fraction=val_fraction,
            processes=count, done=done,
        )  # fmt: skip
    index = result.index
    if not result.new:
        click.echo(f"{out} is whole already, and its files have the SHA-256 of the index")
    elif result.continued:
        click.echo(f"continued the preparation of {out} where it was interrupted")
    for split, what in (("train", "to train on"), ("val", "to validate")):
        click.echo(
            f"{index.tokens[split]:>15,} tokens {what}, of {index.chars[split]:,} characters in "
            f"{index.documents[split]:,} documents"
        )
    click.echo(f"{index.tokenizer} tokenizer with {index.vocab_size:,} tokens, {index.dtype} for each token")
    click.echo(f"to train on it: train --data {out}")


def tokenizer_of(name: str) -> "Tokenizer":
    """Return the tokenizer of a model or of a folder of tokens. Raises UsageError, and the errors of a model."""
    from gpt import checkpoint, sources
    from gpt.data import is_folder
    from gpt.data.token_dataset import load_tokens

    if is_folder(name):
        return load_tokens(Path(name)).tokenizer
    try:
        path = sources.find(name)
    except checkpoint.CheckpointError as error:
        raise click.UsageError(
            f"--tokenizer {name}: expected one of {', '.join(TOKENIZERS)}, or a model. {error}"
        ) from None
    return checkpoint.load(path).tokenizer
