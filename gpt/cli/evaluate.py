"""The commands `score` and `eval`, which measure how well a model predicts a text."""

import math
from pathlib import Path

import click

from gpt.cli.options import checkpoint_options, load_checkpoint


@click.command()
@checkpoint_options
@click.argument("text", required=False)
@click.option("--file", metavar="FILE", help="A UTF-8 text file, instead of TEXT.")
def score(checkpoint: str | None, device: str, text: str | None, file: str | None) -> None:
    """Print the log-probability and perplexity of TEXT under a model.

    The first token is given; every other token is predicted.
    """
    if (text is None) == (file is None):
        raise click.UsageError("give a TEXT or a --file")
    from gpt.data import read_text
    from gpt.evaluate import log_probs

    text = read_text(Path(file)) if file else text or ""
    loaded = load_checkpoint(checkpoint, device)
    ids = loaded.tokenizer.encode(text)
    if len(ids) < 2:
        raise click.UsageError(f"the text has {len(ids)} tokens, and a score needs at least 2")
    total = float(log_probs(loaded.model, ids).sum())
    given = len(loaded.tokenizer.decode_bytes(ids[:1]).decode(errors="ignore"))
    echo_loss(-total / (len(ids) - 1), -total / math.log(2) / (len(text) - given))
    click.echo(f"log-probability   {total:.3f} nats, of {len(ids) - 1:,} tokens after the first")


@click.command(name="eval")
@checkpoint_options
@click.option("--data", metavar="NAME|FILE", help="Another text.  [default: the text that the model was trained on]")
def evaluate(checkpoint: str | None, device: str, data: str | None) -> None:
    """Print a model's loss on the whole validation set."""
    from gpt.data import load_dataset
    from gpt.evaluate import evaluate

    loaded = load_checkpoint(checkpoint, device)
    config = loaded.config.replace({"data.dataset": data} if data else {})
    dataset = load_dataset(config.data, config.model.block_size, loaded.tokenizer)
    loss = evaluate(loaded.model, dataset, "val")
    echo_loss(loss, dataset.bits_per_char(loss, "val"))


def echo_loss(loss: float, bits: float) -> None:
    """Print a loss in nats per token, its perplexity, and bits per character."""
    click.echo(f"loss              {loss:.4f} nats per token")
    click.echo(f"perplexity        {math.exp(loss) if loss < 700 else math.inf:.3f} per token")
    click.echo(f"                  {bits:.4f} bits per character")
