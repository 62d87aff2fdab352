"""Report on a run: its summary at the start, and its results at the end."""

from gpt.config import SamplingConfig
from gpt.evaluate import evaluate
from gpt.generation import ControlEscaper, generate, on_terminal, stream
from gpt.runs import loss_curve, read
from gpt.tokenizer import start_ids
from gpt.train.output import say
from gpt.train.trainer import Trainer
from tensorlite import serialization


def summary(trainer: Trainer) -> str:
    """Return the size of the model, the text and the length of the run, in a few lines."""
    c, t, d = trainer.config, trainer.config.train, trainer.dataset
    return (
        f"{c.name}: {trainer.model.num_params():,} parameters ({t.dtype}, {trainer.model.device})\n"
        f"{ControlEscaper().escape(c.data.dataset)}: {len(d.train):,} tokens to train on, {len(d.val):,} to validate; "
        f"{d.tokenizer.kind} tokenizer, {d.tokenizer.vocab_size:,} tokens\n"
        f"steps {trainer.step} to {t.steps}, each of {t.grad_accum * t.batch_size} sequences of "
        f"{c.model.block_size} tokens; writes to {trainer.folder.path}"
    )


def report(trainer: Trainer) -> None:
    """Print the loss on the whole validation set and a sample, draw the loss curve, and list the files."""
    loss = evaluate(trainer.model, trainer.dataset, "val")
    bits = trainer.dataset.bits_per_char(loss)
    trainer.metrics.write(step=trainer.step, final_val_loss=loss, final_val_bits_per_char=bits)
    say(
        f"validation loss {loss:.4f} nats per token, {bits:.4f} bits per character "
        f"(the whole set: {trainer.dataset.chars['val']:,} characters)"
    )
    print_sample(trainer)
    folder = trainer.folder
    written = [folder.latest, folder.best, folder.metrics.path]
    if draw_curve(trainer):
        written.append(folder.curve)
    for path in written:
        say(f"wrote {path}")


def print_sample(trainer: Trainer) -> None:
    """Print a generated text of `train.sample_chars` characters."""
    chars, tokenizer = trainer.config.train.sample_chars, trainer.dataset.tokenizer
    if chars:
        ids = generate(trainer.model, start_ids(tokenizer), sampling=SamplingConfig(seed=trainer.config.train.seed))
        say(f"\nA sample of {chars} characters:\n")
        pieces = stream(tokenizer, ids, max_chars=chars)
        for text in ControlEscaper()(pieces) if on_terminal() else pieces:
            say(text, end="")
        say("\n")


def draw_curve(trainer: Trainer) -> bool:
    """Draw the loss curve, or print why there is none. Return whether it was drawn."""
    folder = trainer.folder
    try:
        with serialization.atomic_write(folder.curve) as temporary:
            loss_curve(read(folder.metrics.path), temporary, trainer.config.name)
    except ImportError:
        say(f"no {folder.curve.name}: it needs matplotlib (pip install 'tensorlite[plot]')")
        return False
    except OSError as error:  # The other files are written, so the run itself has succeeded.
        say(f"no {folder.curve.name}: {error.strerror}")
        return False
    return True
