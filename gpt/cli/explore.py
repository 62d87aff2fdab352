"""The command `explore`, which writes a page that steps through the backward pass of a model's loss."""

import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpt.cli.command import Command
from gpt.cli.subject import check_model, given_prompt, load_model, model_options, prompt_options
from gpt.errors import short

if TYPE_CHECKING:
    from gpt.checkpoint import Checkpoint

FORMATS = ("html", "text", "dot", "mermaid")
# A page is easy to read up to about this number of layers and tokens.
READABLE_LAYERS, READABLE_TOKENS = 12, 64


@click.command(cls=Command)
@model_options
@prompt_options
@click.option("--layers", type=click.IntRange(min=1), help="Use the first layers only.  [default: all]")
@click.option(
    "--dtype", type=click.Choice(["float32", "float64"]), help="Compute in this type.  [default: that of the weights]"
)
@click.option("--check", is_flag=True, help="Compute each derivative by finite differences, too. It takes a while.")
@click.option("--order", type=click.IntRange(1, 2), default=1, help="2 shows the graph of the gradients, too.")
@click.option("--out", metavar="FILE", help="The file to write.  [default: explore.html; the terminal for text]")
@click.option(
    "--format", "kind", type=click.Choice(FORMATS), default="html", show_default=True,
    help="A page, a table, or the graph for Graphviz or Mermaid.",
)  # fmt: skip
@click.option("--open/--no-open", "show", default=False, help="Open the page in a browser.  [default: --no-open]")
def explore(
    model: str | None, checkpoint: str | None, adapter: str | None, device: str, prompt: str | None,
    prompt_file: str | None, layers: int | None, dtype: str | None, check: bool, order: int, out: str | None, kind: str,
    show: bool,
) -> None:  # fmt: skip
    """Write a page that steps through the backward pass of a model's loss on a text.

    MODEL is a checkpoint, the folder of a run, a Hugging Face folder, a GGUF file, or a name that `models` lists. By
    default it is the newest below runs/. The loss is the mean over the tokens of the text after the first.
    """
    named = check_model(model, checkpoint)
    if show and kind != "html":
        raise click.UsageError(f"--open shows a page, and --format {kind} writes none")
    target = checked_target(out, kind)
    text = given_prompt(prompt, prompt_file)
    loaded = load_model(model, checkpoint, device, adapter, dtype or "float32")
    ids = chosen_ids(loaded, text)
    cut_layers(loaded, layers)
    title = f"loss of {named or 'the newest model'} on {short(text)}"
    write(loaded, ids, dtype, {"check": check, "order": order}, kind, target, title)
    if show and target is not None:
        webbrowser.open(target.resolve().as_uri())
    elif target is not None and kind == "html":
        click.echo("open it in a browser; the arrow keys go through the steps, and a click unfolds a module")


def checked_target(out: str | None, kind: str) -> Path | None:
    """Return the file to write, None for the terminal. Raises UsageError before a model is loaded."""
    if out is None:
        return Path("explore.html") if kind == "html" else None
    target = Path(out).expanduser()
    if target.is_dir():
        raise click.UsageError(f"--out {out}: expected a file, and this is a folder. Write {target / 'explore.html'}")
    if kind == "html" and target.suffix.lower() not in (".html", ".htm"):
        raise click.UsageError(f"--out {out}: expected a name that ends in .html, for a page")
    if not target.parent.is_dir():
        raise click.UsageError(f"--out {out}: the folder {target.parent} does not exist. Make it first")
    return target


def chosen_ids(loaded: "Checkpoint", prompt: str) -> list[int]:
    """Return the ids of the prompt, at most a context and the token after it. Raises UsageError for fewer than 2."""
    from gpt.tokenizer import prompt_ids

    ids = [int(i) for i in prompt_ids(loaded.tokenizer, prompt)]
    if len(ids) < 2:
        raise click.UsageError(
            f"the prompt has {len(ids)} token{'s' * (len(ids) != 1)}, and the loss needs at least 2: it is that of "
            "predicting each token from those before it"
        )
    context = loaded.config.model.block_size
    if len(ids) > context + 1:
        click.echo(f"the prompt has {len(ids):,} tokens, of which the model sees the last {context + 1:,}", err=True)
        ids = ids[-context - 1 :]
    return ids


def cut_layers(loaded: "Checkpoint", layers: int | None) -> None:
    """Leave only the first layers of a model. Say what makes a page that is hard to read."""
    from tensorlite import nn

    blocks = loaded.model.h
    if layers is not None and layers > len(blocks):
        raise click.UsageError(f"--layers {layers}: the model has {len(blocks)}")
    if layers is not None and layers < len(blocks):
        click.echo(
            f"using the first {layers} of {len(blocks)} layers, so the loss is not that of the whole model", err=True
        )
        loaded.model.h = nn.ModuleList(list(blocks)[:layers])
    elif len(blocks) > READABLE_LAYERS:
        click.echo(
            f"the model has {len(blocks)} layers, so the page is large; it shows them folded. --layers 2 cuts the "
            "model to two",
            err=True,
        )


def write(
    loaded: "Checkpoint", ids: list[int], dtype: str | None, options: dict[str, Any], kind: str,
    target: Path | None, title: str,
) -> None:  # fmt: skip
    """Compute the loss of predicting each of the ids from those before it, and write its backward pass."""
    import tensorlite as tl
    from gpt.model.quantized import refuse_quantized

    refuse_quantized(loaded.model, "explore computes gradients, which")
    model = loaded.model.eval().requires_grad_(True)
    if dtype is not None:
        model.to(getattr(tl, dtype))
    if len(ids) > READABLE_TOKENS:
        click.echo(f"the prompt has {len(ids)} tokens; a page of {READABLE_TOKENS} is easier to read", err=True)
    text = tl.tensor([ids], dtype=tl.int64, device=model.device)

    def loss() -> tl.Tensor:
        return model(text[:, :-1], text[:, 1:])[1]

    if kind != "html":
        written = tl.explore(loss, target, model=model, format=kind, **options)
        click.echo(written if target is None else f"wrote {target}")
        return
    page = tl.explore(loss, model=model, **options)
    page.data["title"] = title
    assert target is not None  # checked_target chooses one for a page
    page.save(target)
    for note in page.data["notes"]:
        click.echo(note, err=True)
    click.echo(f"wrote {target} ({target.stat().st_size / 1e6:.1f} MB, {len(page.data['backward'])} steps)")
