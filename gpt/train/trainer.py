"""The training loop."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import numpy as np

import tensorlite as tl
from gpt import checkpoint
from gpt.checkpoint import SHARED_ON, Checkpoint, Snapshot
from gpt.config import Config
from gpt.data import Batch, Dataset, Split, make_order
from gpt.errors import UserError
from gpt.evaluate import mean_loss
from gpt.model import GPT
from gpt.runs import LATEST, Metrics, RunFolder
from gpt.train.average import WeightAverage
from gpt.train.divergence import Mark, describe_weights, explain, mark
from gpt.train.interrupt import Interrupt, Stopped
from gpt.train.layers import LayerRecorder
from gpt.train.optimizer import configure_optimizer, configure_schedule
from gpt.train.output import say
from gpt.train.parallel_step import ParallelStepper
from gpt.train.patience import Patience
from gpt.train.precision import make_autocast, make_scaler
from gpt.train.progress import Meter, format_metrics, progress_bar
from gpt.train.ranks import Ranks
from gpt.train.saver import Saver
from gpt.train.spikes import Spike, SpikeWatch
from gpt.train.step import Batches, Result, Stepper, can_compile
from tensorlite import Tensor
from tensorlite.optim import lr_scheduler

# Steps between two lines of metrics; the progress bar shows the last line.
LOG_INTERVAL = 10


class TrainingError(UserError, RuntimeError):
    """A run that cannot continue."""


class Trainer:
    """A run in progress: the state that changes from step to step, and the steps."""

    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        model: GPT,
        folder: RunFolder,
        base: Mapping[str, str] | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self.config = config
        self.ranks = ranks or Ranks()
        self.dataset = dataset
        self.model = model
        self.model.activation_checkpointing = config.train.activation_checkpointing
        self.folder = folder
        if self.ranks.is_first:
            folder.metrics  # noqa: B018 - It opens the file, and tells of a folder that cannot be written.
        self.base = base  # Of low-rank adaptation: `path` and `sha256` of the model, which no checkpoint has in it.
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        decay = config.train.ema_decay
        self.average = None if decay is None else WeightAverage(model, self.parameters, decay)
        self.optimizer = configure_optimizer(model, config.optim)
        self.schedule = self.schedule_after(0)
        self.autocast, self.scaler = make_autocast(config.train, model), make_scaler(config.train, model)
        self.rng = np.random.default_rng(config.train.seed)  # Draws the batches.
        self.order = make_order(config.data.sampling, dataset, self.rng, config.train.seed)
        self.step = 0  # The number of finished steps.
        self.best = math.inf  # The lowest estimate of the validation loss.
        self.warned = False  # Whether a loss above chance was reported.
        self.evaluation_due = False  # Whether this step's evaluation is still to be done.
        self.patience = Patience(config.train)
        self.watch = SpikeWatch(config.train)
        self.last_mark: Mark | None = None  # The random states at a step before which all losses were finite.
        self.is_new = False  # Whether the first weights are random numbers of `train.seed`.
        self.best_due = False  # Whether this model has the lowest estimate and is still to be saved.
        self.layers = LayerRecorder(config, model, folder)
        t = config.train
        self.saver = Saver(folder, config.train)
        self._stepper: Stepper | None = None
        self.compiled: Callable[[Batches], Result] | None = None  # what takes recorded steps, where they pay
        self.meter = Meter(t.grad_accum * t.batch_size * config.model.block_size)

    @property
    def evaluated_model(self) -> GPT:
        """Return the model that is evaluated and saved as the best one: with the averaged weights, if there are any."""
        return self.model if self.average is None else self.average.model

    @property
    def metrics(self) -> Metrics:
        """Return the file of metrics. Only rank 0 may ask for it."""
        return self.folder.metrics

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
                        if warning := self.warn_above_chance(self.step, line["loss"]):
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
                raise self.spike_error(spike) if spike.is_finite() else self.diverged(
                    spike.step, spike.values(), explain(self, spike.step, None)
                )
            self.saver.tell(spike.text())
        return 0.0 if self.watch.skips else self.watch.scale

    @property
    def stepper(self) -> Stepper:
        """Return what takes the steps, made at the first call with the schedule and the scaler of then."""
        # cached_property would hold a lock, in which ranks that are threads would wait for each other (Python 3.11).
        if self._stepper is None:
            self._stepper = self.make_stepper()
            compiles = can_compile(self.config, self.model, self.config.train.steps - self.step)
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

    def schedule_after(self, step: int) -> lr_scheduler.LRScheduler:
        """Return the schedule of the learning rate in its state after `step` steps."""
        return configure_schedule(self.optimizer, self.config.optim, self.config.train.steps, step)

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

    def warn_above_chance(self, step: int, loss: float) -> str | None:
        """Return a warning if the loss is far above that of guessing, the first time, and otherwise None.

        A new model guesses: its loss is ln V, and at most 0.4 more with the presets. Training lowers it.
        """
        V = self.config.model.vocab_size
        chance = math.log(V)
        if self.warned or loss <= 1.2 * chance + 0.5:
            return None
        self.warned = True
        return (
            f"Warning: the loss is {loss:.3g} at step {step}, and guessing among the {V:,} tokens gives ln {V} = "
            f"{chance:.2f}. The model does not learn. Stop (Ctrl-C) and start again with {self.remedy()}."
        )

    def diverged(self, step: int, what: str, details: str = "") -> TrainingError:
        """Return the error for a value that is not finite, with what to try next. details: sentences about it."""
        path = self.folder.latest
        self.saver.wait()
        kept = f"{path} is kept, from an earlier step" if path.exists() else "there is no checkpoint yet"
        return TrainingError(
            f"training diverged at step {step}: {what}. {details}{' ' if details else ''}"
            f"Start again with {self.remedy()}. "
            f"Nothing was saved since; {kept}."
        )

    def spike_error(self, spike: Spike) -> TrainingError:
        """Return the error for a spike that stops the run."""
        path = self.folder.latest
        self.saver.wait()
        then = f"Resume from {path}, of an earlier step," if path.exists() else "Nothing was saved yet; start again"
        return TrainingError(
            f"spike at step {spike.step}: {spike.values()}. The update was not made. {then} with --on-spike skip or "
            f"lower, or start again with {self.remedy()}."
        )

    def remedy(self) -> str:
        """Return what to try where the loss grows."""
        o = self.config.optim
        rates = f"a lower --lr (it is {o.lr:g})"
        if o.optimizer == "muon":
            rates = f"a lower --muon-lr ({o.muon_lr:g}) and --lr ({o.lr:g})"
        clip = f"a lower --grad-clip ({o.grad_clip:g})" if o.grad_clip else "--grad-clip 1 (it is off)"
        return f"{rates}, more --warmup-steps ({o.warmup_steps}) or {clip}"

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
        """Wait until all ranks have done this step, and get the states of their random numbers."""
        if self.ranks.size > 1:
            self.ranks.group.check_equal("step to save", str(self.step))
            self.random_states = self.ranks.gather_random_states()

    def reserve(self) -> None:
        """Make the memory of a checkpoint early. Call it when the optimizer has its state."""
        if self.model.device.type in SHARED_ON:
            self.saver.reserve(self.state_arrays())

    def state_arrays(self) -> dict[str, Any]:
        """Return the arrays of a checkpoint, those of a CPU without a copy."""
        return checkpoint.snapshot(
            config=self.config, tokenizer=self.dataset.tokenizer, step=self.step, model=self.model,
            optimizer=self.optimizer, average=self.average.model if self.average is not None else None,
        ).arrays  # fmt: skip

    def take_snapshot(self) -> Snapshot:
        """Return the content of a checkpoint of now: everything that decides how the run continues.

        Raises TrainingError if a weight is not finite.
        """
        state: dict[str, Any] = {
            "batches": self.rng.bit_generator.state,
            "dropout": tl.get_rng_state(),
            "best": self.best if math.isfinite(self.best) else None,
            "text": self.dataset.digest,
            "meter": self.meter.get_state(),
            "evaluation_due": self.evaluation_due,
        }
        if self.ranks.size > 1:
            state["dropout_of_ranks"] = self.random_states  # of the last agreement
        for key, part in (("order", self.order), ("patience", self.patience), ("average", self.average),
                          ("spikes", self.watch)):  # fmt: skip
            if part is not None and (own := part.get_state()) is not None:
                state[key] = own
        if self.scaler.is_enabled():
            state["scaler"] = self.scaler.state_dict()
        if self.base is not None:
            state["base"] = dict(self.base)
        content = checkpoint.snapshot(
            config=self.config,
            tokenizer=self.dataset.tokenizer,
            step=self.step,
            model=self.model,
            optimizer=self.optimizer,
            state=state,
            average=self.average.model if self.average is not None else None,
        )
        if not content.is_finite():
            weights = describe_weights(self.model, "now")
            raise self.diverged(self.step, "there are weights that are not finite", weights)
        return content

    def load_state(self, saved: Checkpoint) -> None:
        """Continue from the step, the optimizer and the random numbers of a checkpoint.

        Raises KeyError, TypeError or ValueError, with the key, if the checkpoint is damaged.
        """
        state = saved.state
        if missing := [key for key in ("batches", "dropout", "best", "text") if key not in state]:
            raise KeyError(f"state.{missing[0]}")
        self.check_optimizer(saved)
        try:
            self.optimizer.load_state_dict(saved.optimizer or {})
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"optimizer: {error}") from error
        self.watch.set_state(state.get("spikes"))
        if saved.step > self.watch.skipped and len(self.optimizer.state) < len(self.parameters):
            raise ValueError("optimizer: a parameter has no state")
        if self.average is not None:
            if saved.average is None or "average" not in state:
                raise KeyError("state.average, which config.train.ema_decay needs")
            self.average.set_state(state["average"], saved.average)
        self.rng.bit_generator.state = state["batches"]
        of_ranks = state.get("dropout_of_ranks", [])
        self.ranks.restore_dropout(state["dropout"], of_ranks, self.config.train.seed, saved.step)
        self.step = saved.step
        self.schedule = self.schedule_after(saved.step - self.watch.skipped)
        self.best = math.inf if state["best"] is None else float(state["best"])
        self.meter.set_state(state.get("meter", {"losses": [], "seconds": 0.0}))  # Format 1 does not have it.
        self.patience.set_state(state.get("patience"), self.best)
        self.evaluation_due = state.get("evaluation_due", False)
        if self.order.get_state() is not None:
            if "order" not in state:
                raise KeyError("state.order")
            self.order.set_state(state["order"])
        if "scaler" in state:  # A run that has another dtype now ignores it.
            self.scaler.load_state_dict(state["scaler"])
        self._stepper = self.compiled = None  # They have the schedule of before.

    def check_optimizer(self, saved: Checkpoint) -> None:
        """Raise ValueError if the options of the saved optimizer are not those of its configuration and step."""
        if saved.step > saved.config.train.steps:
            raise ValueError(f"step: {saved.step} of {saved.config.train.steps} steps")
        found = (saved.optimizer or {})["param_groups"]
        expected = json.loads(json.dumps(self.optimizer.state_dict()["param_groups"]))
        if len(found) != len(expected):
            raise ValueError(f"optimizer.param_groups: expected {len(expected)} groups, got {len(found)}")
        for i, (group, own) in enumerate(zip(found, expected)):
            own["lr"] = group.get("lr")
            for key in sorted(own.keys() | group.keys()):
                if repr(group.get(key)) != repr(own.get(key)):  # 1, 1.0 and True are different.
                    raise ValueError(
                        f"optimizer.param_groups[{i}].{key:.80}: expected {own.get(key)!r:.80}, as the configuration "
                        f"says, got {group.get(key)!r:.80}"
                    )
            lr, peak = group["lr"], own["initial_lr"]
            if type(lr) is not float or not 0 <= lr <= max(peak, self.config.optim.min_lr) * (1 + 1e-9):
                raise ValueError(f"optimizer.param_groups[{i}].lr: expected a number from 0 to {peak}, got {lr!r:.80}")
        for index, values in (saved.optimizer or {})["state"].items():
            count = values.get("step", 0)
            if type(count) is not int or not 0 <= count <= saved.step:
                raise ValueError(
                    f"optimizer.numbers.{index}.step: expected an integer from 0 to {saved.step}, got {count!r:.80}"
                )
