"""The options --draft and --draft-tokens, which several commands share."""

from typing import TYPE_CHECKING

import click

from gpt.cli.options import Callback, apply_decorators

if TYPE_CHECKING:
    from gpt.checkpoint import Checkpoint
    from gpt.generation import Speculation

NGRAM = "ngram"  # ./ngram is a path.


def draft_options(command: Callback) -> Callback:
    """Add --draft and --draft-tokens."""
    return apply_decorators(
        command,
        [
            click.option(
                "--draft",
                metavar=f"{NGRAM}|PATH|NAME",
                help="Let a smaller model with the same tokenizer propose tokens, or the n-grams of the text so far. "
                "The text stays as likely as it was, and may take less time.",
            ),
            click.option(
                "--draft-tokens",
                type=click.IntRange(min=1),
                metavar="N",
                help="The most tokens that --draft proposes at a time.  [default: 15 tokens]",
            ),
        ],
    )


def check_draft_tokens(draft: str | None, tokens: int | None) -> None:
    """Raise UsageError for --draft-tokens without --draft."""
    if tokens is not None and draft is None:
        raise click.UsageError(f"--draft-tokens is the length of a draft. Give --draft as well: --draft {NGRAM}")


def load_draft(
    draft: str | None, tokens: int | None, loaded: "Checkpoint", device: str, quantize: str
) -> "Speculation | None":
    """Return what --draft asks for, for the model of a command. Raises UsageError for a model with other tokens.

    device, quantize: those of the command's model.
    """
    if draft is None:
        return None
    from gpt import sources
    from gpt.generation import NGrams, Speculation
    from gpt.generation.speculative import DRAFT_TOKENS
    from gpt.tokenizer import same_tokens

    longest = tokens or DRAFT_TOKENS
    if draft == NGRAM:
        return Speculation(NGrams(), longest)
    small = sources.load(draft, device, quantize=quantize)
    if small.config.model.vocab_size != loaded.config.model.vocab_size or not same_tokens(
        small.tokenizer, loaded.tokenizer
    ):
        raise click.UsageError(
            f"--draft {draft}: expected a model with the tokenizer of the other one, of "
            f"{loaded.tokenizer.vocab_size:,} tokens, got one with other tokens ({small.tokenizer.vocab_size:,}). "
            f"Use --draft {NGRAM}, which needs no model"
        )
    return Speculation(small.model, longest)
