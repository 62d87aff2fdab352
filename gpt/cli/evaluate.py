"""The commands `score` and `eval`, which measure how well a model predicts a text."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gpt.cli.command import Command
from gpt.cli.options import checkpoint_options, load_checkpoint, quantize_option
from gpt.config import JSON_LINES

if TYPE_CHECKING:
    from gpt.data import Split


@click.command(cls=Command)
@checkpoint_options
@quantize_option("none")
@click.argument("text", required=False)
@click.option("--file", metavar="FILE", help="A UTF-8 text file, instead of TEXT.")
@click.option(
    "--stride",
    type=click.IntRange(min=1),
    help="By how many tokens the window advances over a text that is longer than the context. Less gives each token "
    "more context, and takes longer.  [default: half of the context]",
)
def score(
    checkpoint: str | None,
    adapter: str | None,
    device: str,
    quantize: str,
    text: str | None,
    file: str | None,
    stride: int | None,
) -> None:
    """Print the log-probability and perplexity of TEXT under a model.

    The first token is given; every other token is predicted. A model that begins each text with a token of its own is
    given that one.
    """
    if (text is None) == (file is None):
        raise click.UsageError("give a TEXT or a --file")
    from gpt.data import read_text, unix_lines
    from gpt.evaluate import log_probs
    from gpt.tokenizer import prompt_ids
    from gpt.train.progress import evaluation_bar

    text = read_text(Path(file)) if file else unix_lines(text or "")
    loaded = load_checkpoint(checkpoint, device, adapter, quantize)
    ids, context = prompt_ids(loaded.tokenizer, text), loaded.config.model.block_size
    if len(ids) < 2:
        raise click.UsageError(f"the text has {len(ids)} tokens, and a score needs at least 2")
    if stride is not None and stride > context:
        raise click.UsageError(f"--stride {stride} is larger than the context of the model, {context}")
    with evaluation_bar(len(ids) - 1) as bar:
        total = float(log_probs(loaded.model, ids, stride, bar.update).sum())
    begins = loaded.tokenizer.add_bos and ids[0] == loaded.tokenizer.bos_id  # This token has no text.
    given = b"" if begins else loaded.tokenizer.decode_bytes(ids[:1])
    bits = -total / math.log(2)
    whole = loaded.tokenizer.decode_bytes(ids[int(begins) :])  # SentencePiece puts a space before a text.
    characters = len(whole.decode(errors="ignore")) - len(given.decode(errors="ignore"))
    echo_loss(-total / (len(ids) - 1), bits / max(1, characters))
    click.echo(f"                  {bits / max(1, len(whole) - len(given)):.4f} bits per byte")
    click.echo(f"log-probability   {total:.3f} nats, of {len(ids) - 1:,} tokens after the first")


@click.command(name="eval", cls=Command)
@checkpoint_options
@quantize_option("none")
@click.option("--data", metavar="NAME|FILE", help="Another text.  [default: the text that the model was trained on]")
@click.option("--tokens", type=click.IntRange(min=1), help="Evaluate this number of tokens at most.  [default: all]")
def evaluate(
    checkpoint: str | None, adapter: str | None, device: str, quantize: str, data: str | None, tokens: int | None
) -> None:
    """Print a model's loss on the validation set.

    The validation set is the last part of the text. If the model was trained without one (--val-fraction 0), it is the
    whole text of --data.
    """
    from gpt.data import described, load_dataset
    from gpt.evaluate import evaluate
    from gpt.train.progress import evaluation_bar

    loaded = load_checkpoint(checkpoint, device, adapter, quantize)
    config = loaded.config
    if data:
        field = config.data.field if data.lower().endswith(JSON_LINES) else ""
        config = config.replace({"data.dataset": data, "data.weights": None, "data.field": field})
    # The model may have learned conversations, and this is a text.
    if data and (Path(data).suffix != ".jsonl" or config.data.field):
        config = config.replace({"data.format": "text"})
    config = config.replace({"data.val_fraction": described(config.data).val_fraction})
    split: Split = "val" if config.data.val_fraction else "train"
    if split == "train" and not data:
        raise click.UsageError("the model was trained without a validation set (--val-fraction 0). Give another --data")
    dataset = load_dataset(config.data, config.model.block_size, loaded.tokenizer)
    T = config.model.block_size
    chosen, whole = dataset.predicted(split, T, tokens), dataset.predicted(split, T)
    with evaluation_bar(chosen) as bar:
        loss = evaluate(loaded.model, dataset, split, max_tokens=tokens, done=bar.update)
    echo_loss(loss, dataset.bits_per_char(loss, split))
    extent = f"{whole:,}, all" if chosen == whole else f"{chosen:,} of {whole:,}, spread evenly,"
    click.echo(f"tokens            {extent} of the {'validation set' if split == 'val' else 'text'}")


def echo_loss(loss: float, bits: float) -> None:
    """Print a loss in nats per token, its perplexity, and bits per character."""
    click.echo(f"loss              {loss:.4f} nats per token")
    click.echo(f"perplexity        {math.exp(loss) if loss < 700 else math.inf:.3f} per token")
    click.echo(f"                  {bits:.4f} bits per character")
