"""The training loop."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import numpy as np

import tensorlite as tl
from gpt.checkpoint import SHARED_ON, Checkpoint
from gpt.config import Config
from gpt.data import Batch, Dataset, Split
from gpt.evaluate import mean_loss
from gpt.model import GPT
from gpt.runs import LATEST, RunFolder
from gpt.train import failures
from gpt.train.divergence import Mark, describe_weights, explain, mark
from gpt.train.interrupt import Interrupt, Stopped
from gpt.train.layers import LayerRecorder
from gpt.train.optimizer import collect_state, is_sharded
from gpt.train.output import say
from gpt.train.parallel_step import ParallelStepper
from gpt.train.precision import make_autocast
from gpt.train.progress import format_metrics, progress_bar
from gpt.train.ranks import Ranks
from gpt.train.state import RunState
from gpt.train.step import Batches, Result, Stepper, can_compile
from tensorlite import Tensor

# Steps between two lines of metrics; the progress bar shows the last line.
LOG_INTERVAL = 10


class Trainer(RunState):
    """A run in progress: its state, and the loop that takes the steps, estimates the loss and saves."""

    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        model: GPT,
        folder: RunFolder,
        base: Mapping[str, str] | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        super().__init__(config, dataset, model, folder, base, ranks)
        self.autocast = make_autocast(config.train, model)
        self.layers = LayerRecorder(config, model, folder)
        self.warned = False  # Whether a loss above chance was reported.
        self.best_due = False  # Whether this model has the lowest estimate and is still to be saved.
        self.last_mark: Mark | None = None  # The random states at a step before which all losses were finite.
        self.is_new = False  # Whether the first weights are random numbers of `train.seed`.
        self._stepper: Stepper | None = None
        self.compiled: Callable[[Batches], Result] | None = None  # What takes recorded steps, where they pay.

    # ---- the loop -------------------------------------------------------------------------------------------

    def optimize(self) -> bool:
        """Train to the last step, or until `train.patience` is over, and return True; after a signal, return False.

        Both save a checkpoint. Where a signal stops the run, that checkpoint also has what later lines of metrics need,
        and whether this step's evaluation is still to be done, so that a resumed run writes what this one would have.

        Raises TrainingError if the loss, a gradient or a weight is not finite, and what `Saver.poll` raises.
        """
        t, ranks, first = self.config.train, self.ranks, self.step
        new_bar = progress_bar(first, t.steps, hidden=not ranks.is_first)
        with Interrupt() as interrupt, interrupt.deferred(), new_bar as bar, self.saving(bar):
            while not self.is_done():
                if not self.evaluation_due:
                    lr = self.schedule.get_last_lr()[0]
                    ranks.asked = interrupt.requested
                    with self.meter, ranks.activity(f"step {self.step + 1}"):
                        values = self.train_step()
                    if not self.watch.lost:  # The values of a step that is skipped may not be finite.
                        self.meter.add(*values)
                    if ranks.is_first and self.step == first + 1 and t.save_in_background:
                        self.reserve()
                    self.evaluation_due = self.step == t.steps or self.step % t.eval_interval == 0
                    logging = self.evaluation_due or self.step % t.checkpoint_interval == 0
                    if (logging or self.step % LOG_INTERVAL == 0) and self.meter.has_steps():
                        # log() raises if a loss is not finite, before a checkpoint is written.
                        line = self.log(lr)
                        bar.set_postfix_str(format_metrics(line), refresh=False)
                        if warning := self.warn_above_chance(line["loss"]):
                            self.say_above(bar, warning)
                    bar.update()
                stopping = self.is_stopping(interrupt)
                if self.evaluation_due and not stopping:
                    with suppress(Stopped), ranks.activity(f"evaluation after step {self.step}"):
                        self.say_above(bar, self.estimate(interrupt))
                    stopping = self.is_stopping(interrupt)
                done = self.is_done()
                due = [self.folder.best.name] if self.best_due else []
                if done or stopping or self.step % t.checkpoint_interval == 0:
                    due.append(LATEST)
                if due:
                    self.save_in_background(due)
                    self.best_due = False
                self.saver.poll()
                if done or (LATEST in due and self.is_stopping(interrupt)):
                    self.saver.finish(lambda: interrupt.requested)
                    return done
        return True

    def is_done(self) -> bool:
        """Return whether all steps and evaluations are done, or `train.patience` is over."""
        return not self.evaluation_due and (self.step >= self.config.train.steps or self.patience.is_over())

    def is_stopping(self, interrupt: Interrupt) -> bool:
        """Return whether a signal has asked the run to stop, as far as all ranks know."""
        return interrupt.requested if self.ranks.size == 1 else self.ranks.stopping

    def say_above(self, bar: Any, text: str) -> None:
        """Print a line above a progress bar, on rank 0."""
        if self.ranks.is_first:
            with bar.external_write_mode():
                say(text)

    def record(self, **values: Any) -> None:
        """Write a line of metrics, on rank 0."""
        if self.ranks.is_first:
            self.metrics.write(**values)

    @contextmanager
    def saving(self, bar: Any) -> Iterator[None]:
        """Context manager for training with saves in the background, whose lines appear above a progress bar.

        With `on_save_error = "continue"` a line of metrics that cannot be written is kept until it can.
        """
        self.saver.tell = partial(self.say_above, bar)
        if self.layers.interval and self.ranks.is_first:
            self.folder.layer_records  # noqa: B018 - It opens the file.
        for record in self.folder.records:
            record.postpone_errors = self.config.train.on_save_error == "continue"
        try:
            yield
        finally:
            # An exception, such as that of a second signal, does not lose a checkpoint that is being written.
            self.saver.wait()
            for record in self.folder.records:
                record.postpone_errors = False

    def train_step(self) -> Result:
        """Take one optimizer step. Return the loss and the norm of the gradient before clipping, both 0-d."""
        recorded = self.ranks.is_first and self.layers.is_due(self.step + 1)
        self.optimizer.zero_grad()
        if self.last_mark is None or self.step % LOG_INTERVAL == 0 or self.watch.is_on():
            self.last_mark = mark(self)
        batches = self.draw()
        self.meter.tokens += sum(batch[0].numel() for batch in batches) * self.ranks.size
        self.stepper.stop = self.ranks.asked
        copying = self.saver.is_copying()

        def before_update() -> None:
            self.saver.wait_for_copy()  # Until now the step has only read what is copied.
            if recorded:
                self.layers.before_update()

        if recorded or copying or self.watch.is_on():
            with self.layers.watching(recorded):
                result = self.stepper.step(batches, before_update, self.judge if self.watch.is_on() else None)
        else:
            result = self.compiled(batches) if self.compiled is not None else self.stepper.step(batches)
        self.ranks.stopping = self.ranks.stopping or self.stepper.stopping
        self.step += 1
        if self.average is not None and not self.watch.skips:
            self.saver.wait_for_copy()  # because a checkpoint may still be copied from the average
            self.average.update()
        if recorded:
            self.layers.after_update(self.step)
        return result

    def draw(self) -> list[tuple[Any, ...]]:
        """Return the next batches of a step, on the device of the model: the rows of this rank, for `Stepper.step`."""
        return [self.next_batch() for _ in range(self.config.train.grad_accum)]

    def next_batch(self) -> tuple[Any, ...]:
        """Return the rows of this rank of the next batch."""
        device = self.model.device
        whole = self.order.batch(self.config.train.batch_size, self.config.model.block_size)
        rows, weight = self.ranks.share(whole)
        batch = tuple(tl.tensor(array, device=device) for array in rows)
        if weight is None:
            return batch
        return (*batch, *[None] * (3 - len(batch)), tl.tensor(weight, device=device))

    def judge(self, loss: Tensor, norm: Tensor) -> float:
        """Return the factor of the learning rate of this step, 0 for no update, by `train.on_spike`.

        Raises TrainingError if the run ends here.
        """
        if self.scaler.is_enabled() and not math.isfinite(norm.item()):
            return 1.0  # The scaler leaves this step out.
        spike = self.watch.judge(self.step + 1, float(loss.item()), float(norm.item()))
        if spike is not None:
            self.record(**spike.record())
            if self.watch.ends(spike):
                if not spike.is_finite():
                    raise self.diverged(spike.step, spike.values(), explain(self, spike.step, None))
                self.saver.wait()
                raise failures.stopped_by_spike(self.config.optim, self.folder.latest, spike)
            self.saver.tell(spike.text())
        return 0.0 if self.watch.skips else self.watch.scale

    @property
    def stepper(self) -> Stepper:
        """Return what takes the steps, made at the first call with the schedule and the scaler of then."""
        # cached_property would hold a lock, in which ranks that are threads would wait for each other (Python 3.11).
        if self._stepper is None:
            self._stepper = self.make_stepper()
            recordable = not is_sharded(self.optimizer)  # A step that sends the new weights is not.
            compiles = recordable and can_compile(self.config, self.model, self.config.train.steps - self.step)
            self.compiled = self._stepper.compiled() if compiles else None
        return self._stepper

    def make_stepper(self) -> Stepper:
        """Make what takes the steps, with the schedule and the scaler of now."""
        t, clip = self.config.train, self.config.optim.grad_clip or math.inf
        arguments = (
            self.model, self.optimizer, self.schedule, self.parameters, clip, self.autocast if t.is_mixed else None,
            self.scaler if self.scaler.is_enabled() else None,
        )  # fmt: skip
        return Stepper(*arguments) if self.ranks.size == 1 else ParallelStepper(self.ranks.group, *arguments)

    def batch(self, split: Split, rng: np.random.Generator) -> Batch:
        """Return inputs and targets (B, T) of a random batch, and with packed documents their numbers."""
        return self.dataset.batch(rng, split, self.config.train.batch_size, self.config.model.block_size)

    def check(self) -> None:
        """Raise TrainingError if the loss or the gradient of a step since the last check is not finite."""
        self.layers.flush()
        values = self.meter.read()
        for step, (loss, norm) in enumerate(values, start=self.step - len(values) + 1):
            # The scaler leaves a step out whose gradient is not finite, and lowers its factor.
            if not (math.isfinite(loss) and (math.isfinite(norm) or self.scaler.is_enabled())):
                what = f"the loss is {loss}, the norm of its gradient {norm}"
                raise self.diverged(step, what, explain(self, step, Trainer))
        if self.scaler.get_scale() < 1.0:
            raise self.diverged(self.step, f"the factor of the loss fell to {self.scaler.get_scale():g}")

    def log(self, lr: float) -> dict[str, Any]:
        """Write a line of metrics and return it. Raises the error of `check`."""
        self.check()
        line = {"step": self.step, "lr": lr * self.watch.scale, **self.meter.averages()}
        if (epoch := self.order.epoch(self.config.model.block_size)) is not None:
            line["epoch"] = round(epoch, 6)
        self.record(**line)
        return line

    def estimate(self, interrupt: Interrupt) -> str:
        """Estimate the loss on both splits, note whether it is the best, and return a line of text about the losses.

        Every estimate uses the same random batches. Raises TrainingError if a loss is not finite, and Stopped, with
        nothing changed, if a signal comes.
        """

        def loss(split: Split) -> float:
            rng = np.random.default_rng([self.config.train.seed, 1])  # Leaves the random numbers of training alone.
            batches = (self.batch(split, rng) for _ in range(self.config.train.eval_batches))
            with self.autocast():
                if self.ranks.size > 1:
                    return self.ranks.mean_loss(self.evaluated_model, batches, interrupt)
                return mean_loss(self.evaluated_model, interrupt.until_requested(batches))

        if not self.dataset.size("val"):
            return self.estimate_without_validation(loss("train"))
        train_loss, val_loss = loss("train"), loss("val")
        if not math.isfinite(train_loss + val_loss):
            what = f"in an evaluation the loss is {train_loss + val_loss}"
            raise self.diverged(self.step, what, describe_weights(self.evaluated_model, "now"))
        bits = self.dataset.bits_per_char(val_loss)
        more = self.patience.add(val_loss)
        self.record(step=self.step, train_loss=train_loss, val_loss=val_loss, val_bits_per_char=bits, **more)
        self.evaluation_due = False
        if val_loss < self.best:
            self.best, self.best_due = val_loss, True
        return (
            f"step {self.step:>6}   loss{self.whose()}: train {train_loss:.4f}, validation {val_loss:.4f} nats per "
            f"token ({bits:.4f} bits per character)"
        )

    def estimate_without_validation(self, train_loss: float) -> str:
        """Write an estimate of the loss on the training set, and return a line of text about it.

        No model is kept as the best one, because the loss on the training set does not tell which one is.
        """
        if not math.isfinite(train_loss):
            what = f"in an evaluation the loss is {train_loss}"
            raise self.diverged(self.step, what, describe_weights(self.evaluated_model, "now"))
        self.record(step=self.step, train_loss=train_loss)
        self.evaluation_due = False
        return (
            f"step {self.step:>6}   loss{self.whose()}: train {train_loss:.4f} nats per token (there is no validation "
            "set)"
        )

    def whose(self) -> str:
        """Return words that say that a loss is that of the averaged weights, if it is."""
        return "" if self.average is None else " of the averaged weights"

    def warn_above_chance(self, loss: float) -> str | None:
        """Return a warning if the loss is far above that of guessing, the first time, and otherwise None."""
        if self.warned:
            return None
        warning = failures.above_chance(self.config.optim, self.config.model.vocab_size, self.step, loss)
        self.warned = warning is not None
        return warning

    # ---- checkpoints ----------------------------------------------------------------------------------------

    def save(self, name: str) -> None:
        """Write a checkpoint with everything that decides how the run continues, before returning.

        Every rank calls this, and rank 0 writes. Raises TrainingError if a weight is not finite, CheckpointError if the
        file cannot be written.
        """
        self.agree_on_step()
        if self.ranks.is_first:
            self.saver.write_now([name], self.take_snapshot)

    def save_in_background(self, names: list[str]) -> None:
        """Save a checkpoint to files of these names, once all ranks have agreed on its step. Rank 0 writes it.

        Raises the errors of `check` and `Saver.submit`.
        """
        self.check()
        self.agree_on_step()
        if self.ranks.is_first:
            self.saver.submit(names, self.take_snapshot)

    def agree_on_step(self) -> None:
        """Wait until all ranks have done this step, and get what a checkpoint needs of them.

        These are the states of their random numbers, and the shares of a sharded optimizer.
        """
        if self.ranks.size > 1:
            self.ranks.group.check_equal("step to save", str(self.step))
            self.random_states = self.ranks.gather_random_states()
            collect_state(self.optimizer)

    def reserve(self) -> None:
        """Make the memory of a checkpoint early. Call it when the optimizer has its state."""
        if self.model.device.type in SHARED_ON:
            self.saver.reserve(self.state_arrays())

    def load_state(self, saved: Checkpoint) -> None:
        """Continue from a checkpoint; see `RunState.load_state`."""
        super().load_state(saved)
        self._stepper = self.compiled = None  # They have the schedule of before.
