"""The commands `attention`, `lens`, `embeddings` and `gradients`, which draw what is inside a model or a run."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gpt.cli.command import Command
from gpt.cli.options import Decorator
from gpt.cli.subject import given_prompt, load_model, model_options, prompt_options

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gpt.tokenizer import Ids, Tokenizer

# Tokens of a prompt that are drawn. The weights of a model take layers x heads x tokens^2 numbers.
MOST_TOKENS = 400


def out_option(default: str) -> Decorator:
    """Return the option --out. default: the name of the picture in the current folder."""
    return click.option(
        "--out", metavar="FILE", default=default, show_default=True, help="The picture, a .png or .svg."
    )


def layer_option(what: str) -> Decorator:
    """Return the option for layers or heads, which can be given again."""
    return click.option(
        f"--{what}", f"{what}s", type=int, multiple=True, metavar="N",
        help=f"Draw this {what} only, counted from 0, or from the end below 0. Give it again for more.  [default: all]",
    )  # fmt: skip


def tokens_of(tokenizer: "Tokenizer", text: str, context: int) -> "Ids":
    """Return the ids of a prompt, the last ones if they are too many for the model or the picture."""
    from gpt.tokenizer import prompt_ids

    ids, most = prompt_ids(tokenizer, text), min(context, MOST_TOKENS)
    if len(ids) > most:
        click.echo(f"the prompt has {len(ids):,} tokens, of which the last {most:,} are read and drawn", err=True)
    return ids[-most:]


def checked(out: str) -> Path:
    """Return the path of --out before a model is loaded for it. Raises PictureError."""
    from gpt.inspect.figures import check_path

    return check_path(out)


def save(figure: "Figure", path: Path) -> None:
    """Write a figure, and print its path."""
    from gpt.inspect import save_figure

    click.echo(f"wrote {save_figure(figure, path)}")


@click.command(cls=Command)
@model_options
@prompt_options
@layer_option("layer")
@layer_option("head")
@out_option("attention.png")
def attention(
    model: str | None, checkpoint: str | None, adapter: str | None, device: str, prompt: str | None,
    prompt_file: str | None, layers: tuple[int, ...], heads: tuple[int, ...], out: str,
) -> None:  # fmt: skip
    """Draw what each token of a text attends to, by layer and head.

    MODEL is what --checkpoint takes.
    """
    text, path = given_prompt(prompt, prompt_file), checked(out)
    from gpt.inspect import plot_attention

    loaded = load_model(model, checkpoint, device, adapter)
    ids = tokens_of(loaded.tokenizer, text, loaded.config.model.block_size)
    save(plot_attention(loaded.model, loaded.tokenizer, ids, layers or None, heads or None), path)


@click.command(cls=Command)
@model_options
@prompt_options
@layer_option("layer")
@click.option(
    "--top", type=click.IntRange(1, 20), default=1, show_default=True, help="The likeliest tokens in each cell."
)
@out_option("lens.png")
def lens(
    model: str | None, checkpoint: str | None, adapter: str | None, device: str, prompt: str | None,
    prompt_file: str | None, layers: tuple[int, ...], top: int, out: str,
) -> None:  # fmt: skip
    """Draw what each layer would predict after each token of a text.

    This is the logit lens: the last norm and the head read the layer. MODEL is what --checkpoint takes.
    """
    text, path = given_prompt(prompt, prompt_file), checked(out)
    from gpt.inspect import plot_lens

    loaded = load_model(model, checkpoint, device, adapter)
    ids = tokens_of(loaded.tokenizer, text, loaded.config.model.block_size)
    save(plot_lens(loaded.model, loaded.tokenizer, ids, layers or None, top), path)


@click.command(cls=Command)
@model_options
@click.option(
    "--top", type=click.IntRange(1, 2000), default=200, show_default=True,
    help="The number of tokens: the first ones of the vocabulary that can be read.",
)  # fmt: skip
@click.option("--tokens", metavar="TEXT", help="Draw the tokens of TEXT instead; - reads standard input.")
@click.option("--positions", is_flag=True, help="Draw the embeddings of the positions, too.")
@out_option("embeddings.png")
def embeddings(
    model: str | None, checkpoint: str | None, adapter: str | None, device: str, top: int, tokens: str | None,
    positions: bool, out: str,
) -> None:  # fmt: skip
    """Draw the embeddings of tokens in two dimensions, their first two principal components.

    MODEL is what --checkpoint takes.
    """
    path = checked(out)
    text = None if tokens is None else given_prompt(tokens, None)
    from gpt.inspect import plot_embeddings

    loaded = load_model(model, checkpoint, device, adapter)
    ids = None if text is None else loaded.tokenizer.encode(text).tolist()
    save(plot_embeddings(loaded.model, loaded.tokenizer, ids, top, positions), path)


@click.command(cls=Command)
@click.argument("run", required=False)
@out_option("gradients.png")
def gradients(run: str | None, out: str) -> None:
    """Draw the gradients, updates and activations of each layer over a run.

    RUN is the folder of a run, or its name below runs/. Without it, the run that was changed last is drawn.
    """
    path = checked(out)
    from gpt.cli.runs import collect, ordered
    from gpt.inspect import plot_gradients

    found, skipped = collect([] if run is None else [run], archived=False)
    if not found:
        raise click.UsageError(skipped[0] if skipped else "there is no run in runs/. python -m gpt train makes one")
    if len(found) > 1 and run is not None:
        raise click.UsageError(f"there are {len(found)} runs in {run!r:.200}. Name one of them: {found[0].path}")
    newest = ordered(found, "when")[0]
    if run is None:
        click.echo(f"run {newest.path}", err=True)
    save(plot_gradients(newest), path)
