"""Test that a compiled step gives the same bits as the plain one, while what it depends on changes."""

import gc
import math
import random
import threading
import time
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tensorlite as tl
import tensorlite.nn.functional as F
from tensorlite import nn, optim
from tensorlite.pytree import tree_leaves

CALLS = 14
CHANGED_AT = 7  # The calls before it are eager three times, and then replayed.

FACTOR = 1.0
SETTINGS = {"scale": 1.0}


def double(x: tl.Tensor) -> tl.Tensor:
    return x * 2.0


def triple(x: tl.Tensor) -> tl.Tensor:
    return x * 3.0


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.body = nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Dropout(0.2), nn.LayerNorm(12))
        self.head = nn.Linear(12, 11)
        self.scale = 1.0
        self.double = False

    def forward(self, ids: tl.Tensor) -> tl.Tensor:
        x = self.body(self.embed(ids)) * self.scale
        if self.double:
            x = x + x
        return self.head(x)


class Program:
    """A model with its optimizer and a step, of which tests replace a part."""

    def __init__(self) -> None:
        tl.manual_seed(0)
        self.model = Net()
        self.parameters = list(self.model.parameters())
        self.optimizer = optim.AdamW(self.parameters, lr=0.01)
        self.schedule = optim.lr_scheduler.StepLR(self.optimizer, 3)
        self.batch = (4, 5)

    def make_step(self) -> Callable[..., Any]:
        model, parameters, optimizer, schedule = self.model, self.parameters, self.optimizer, self.schedule

        def step(x: tl.Tensor, y: tl.Tensor) -> Any:
            loss = F.cross_entropy(model(x).view(-1, 11), y.reshape(-1))
            loss.backward()
            norm = nn.utils.clip_grad_norm_(parameters, 0.5)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            return {"loss": loss, "norm": norm}

        return step

    def arguments(self, k: int) -> tuple[Any, ...]:
        ids = np.random.default_rng(k).integers(0, 11, (2, *self.batch))
        return tl.tensor(ids[0]), tl.tensor(ids[1])

    def change(self) -> None:
        """Change something between two calls."""

    def state(self) -> list[bytes]:
        tensors = [p.array.tobytes() for p in self.parameters]
        held = [v for s in self.optimizer.state.values() for v in s.values()]
        means = [v.array.tobytes() for v in held if isinstance(v, tl.Tensor)]
        grads = [b"" if p.grad is None else p.grad.array.tobytes() for p in self.parameters]
        return tensors + means + grads


def run(kind: type[Program], compiled: bool) -> tuple[list[Any], Any]:
    program = kind()
    step = program.make_step()
    step = tl.compile(step) if compiled else step
    seen: list[Any] = []
    for k in range(CALLS):
        if k == CHANGED_AT:
            program.change()
        try:
            result = step(*program.arguments(k))
        except Exception as error:
            seen.append((type(error), str(error)))
            continue
        seen.append([(t.array.tobytes(), t.requires_grad, str(t.grad_fn)) if isinstance(t, tl.Tensor) else t
                     for t in tree_leaves(result)])  # fmt: skip
    return [seen, program.state(), tl.get_rng_state()], step


def check(kind: type[Program], least: int) -> str:
    """Assert that both ways give the same, that ``least`` calls were replayed, and return what explain() says."""
    before = FACTOR, dict(SETTINGS)
    results = []
    for compiled in (False, True):
        result, step = run(kind, compiled)
        results.append(result)
        globals()["FACTOR"], double_ = before[0], DOUBLE
        SETTINGS.clear()
        SETTINGS.update(before[1])
        globals()["double"] = double_
        tl.set_default_dtype(tl.float32)
    assert results[0] == results[1]
    replayed = sum(s.replays for s in step._signatures.values())
    assert replayed >= least if least else replayed == 0, step.explain()
    return str(step.explain())


DOUBLE = double

# ---- changes between two calls, after which the step must do as the plain one ------------------


class Nothing(Program):
    pass


class Shape(Program):
    def change(self) -> None:
        self.batch = (3, 5)


class Strides(Program):
    def arguments(self, k: int) -> tuple[Any, ...]:
        x, y = super().arguments(k)
        return (x, y) if k < CHANGED_AT else (tl.tensor(x.numpy().T.copy()).T, y)


class ArgumentDType(Program):
    def arguments(self, k: int) -> tuple[Any, ...]:
        x, y = super().arguments(k)
        return (x, y) if k < CHANGED_AT else (x.int(), y)


class SameTensorTwice(Program):
    def arguments(self, k: int) -> tuple[Any, ...]:
        x, y = super().arguments(k)
        return (x, x) if k < CHANGED_AT else (x, y)


class Constant(Program):
    def make_step(self) -> Any:
        inner = super().make_step()

        def step(x: Any, y: Any, twice: bool, weight: float) -> Any:
            return inner(x, y) if not twice else {**inner(x, y), "weight": weight}

        return step

    def arguments(self, k: int) -> tuple[Any, ...]:
        return (*super().arguments(k), k >= CHANGED_AT, 0.0 if k < CHANGED_AT + 4 else -0.0)


class Global(Program):
    def make_step(self) -> Any:
        inner = super().make_step()

        def step(x: Any, y: Any) -> Any:
            found = inner(x, y)
            return found["norm"] * FACTOR * SETTINGS["scale"]

        return step

    def change(self) -> None:
        globals()["FACTOR"] = 3.0


class GlobalDict(Global):
    def change(self) -> None:
        SETTINGS["scale"] = 2.0


class GlobalFunction(Program):
    def make_step(self) -> Any:
        inner = super().make_step()
        return lambda x, y: double(inner(x, y)["norm"])

    def change(self) -> None:
        globals()["double"] = triple


class Closure(Program):
    limit = 0.5

    def make_step(self) -> Any:
        model, parameters, optimizer, limit = self.model, self.parameters, self.optimizer, 0.5

        def step(x: Any, y: Any) -> Any:
            loss = F.cross_entropy(model(x).view(-1, 11), y.reshape(-1))
            loss.backward()
            norm = nn.utils.clip_grad_norm_(parameters, limit)
            optimizer.step()
            optimizer.zero_grad()
            return norm

        def set_limit() -> None:
            nonlocal limit
            limit = 0.01

        self.set_limit = set_limit
        return step

    def change(self) -> None:
        self.set_limit()


class BoundMethod(Program):
    def make_step(self) -> Any:
        self.inner, self.tries = super().make_step(), [1.0, 1.0]
        return self.step

    def step(self, x: Any, y: Any) -> Any:
        return self.inner(x, y)["norm"] * sum(self.tries)

    def change(self) -> None:
        self.tries.append(1.0)


class Evaluation(Program):
    def change(self) -> None:
        self.model.eval()


class Attribute(Program):
    def change(self) -> None:
        self.model.double = True


class DropoutRate(Program):
    def change(self) -> None:
        self.model.body[2].p = 0.5


class Replaced(Program):
    def change(self) -> None:
        self.model.body[1] = nn.ReLU()


class PatchedForward(Program):
    def change(self) -> None:
        forward = self.model.forward
        object.__setattr__(self.model, "forward", lambda x: forward(x) * 2.0)


class PatchedClass(Program):
    def change(self) -> None:
        kind = type("Other", (Net,), {"forward": lambda self, x: self.head(self.body(self.embed(x))) * 0.5})
        self.model.__class__ = kind


class ModuleHook(Program):
    def change(self) -> None:
        self.model.body.register_forward_hook(lambda module, args, out: out * 2.0)


class TensorHook(Program):
    def change(self) -> None:
        self.parameters[1].register_hook(lambda g: g * 2.0)


class Seed(Program):
    def change(self) -> None:
        tl.manual_seed(9)


class LearningRate(Program):
    def change(self) -> None:
        group = self.optimizer.param_groups[0]
        group["lr"], group["betas"], group["weight_decay"] = 0.5, (0.5, 0.6), 0.3


class Frozen(Program):
    def change(self) -> None:
        self.parameters[2].requires_grad = False


class Data(Program):
    def change(self) -> None:
        self.parameters[1].data = tl.ones(self.parameters[1].shape)


class NewParameter(Program):
    def change(self) -> None:
        self.model.head.weight = nn.Parameter(tl.ones(11, 12))


class WithoutBias(Program):
    def change(self) -> None:
        self.model.head.bias = None


class Loaded(Program):
    def change(self) -> None:
        self.model.load_state_dict({k: v * 0.5 for k, v in self.model.state_dict().items()})
        state = self.optimizer.state_dict()
        self.optimizer.load_state_dict({**state, "state": {0: state["state"][0]}})


class GradientBefore(Program):
    def change(self) -> None:
        self.parameters[1].grad = tl.ones(self.parameters[1].shape)


class Accumulated(Program):
    def make_step(self) -> Any:
        model = self.model

        def step(x: Any, y: Any) -> Any:
            loss = F.cross_entropy(model(x).view(-1, 11), y.reshape(-1))
            loss.backward()
            return loss.detach()

        return step

    def change(self) -> None:
        self.model.zero_grad()


class ArgumentIsBuffer(Program):
    """The step first gets a tensor that it reads as an attribute of the model as well."""

    def __init__(self) -> None:
        super().__init__()
        self.model.last = super().arguments(0)[0]

    def make_step(self) -> Any:
        inner, model = super().make_step(), self.model
        return lambda x, y: inner(x, model.last)

    def arguments(self, k: int) -> tuple[Any, ...]:
        x, y = super().arguments(k)
        return (self.model.last if 2 <= k < 4 or k == CHANGED_AT + 4 else x), y


class GradMode(Program):
    def make_step(self) -> Any:
        model = self.model
        return lambda x, y: model(x).detach() if x.shape else y

    def arguments(self, k: int) -> tuple[Any, ...]:
        tl.set_grad_enabled(k < CHANGED_AT or k > 10)
        return super().arguments(k)


class WrongId(Program):
    def arguments(self, k: int) -> tuple[Any, ...]:
        x, y = super().arguments(k)
        if k in (8, 9):
            (x if k == 8 else y)[0, 0] = 99
        return x, y


class DefaultDType(Program):
    def change(self) -> None:
        tl.set_default_dtype(tl.float64)


class NewTensors(Program):
    """A step that makes tensors of constants, and returns them with what it computes from them."""

    def make_step(self) -> Any:
        inner = super().make_step()

        def step(x: Any, y: Any) -> Any:
            T = x.shape[1]
            mask = (tl.arange(T).unsqueeze(1) >= tl.arange(T)).float()
            half = tl.full((1, T), 0.5, dtype=mask.dtype, device=x.device)
            pad = tl.cat([tl.full_like(x[:, :1], 3), tl.zeros_like(x[:, :1]), x], dim=1)
            table = tl.tensor([[1.0, 2.0], [3.0, 4.0]]) @ tl.eye(2) + tl.linspace(0, 1, 2)
            chosen = tl.where(mask > 0, F.rms_norm(mask, (T,)), -1.0)
            with_half = tl.stack([mask.sum(0), half.squeeze(0).to(tl.float64).to(mask.dtype)])
            return [inner(pad[:, :T], y), mask, half, pad, table, with_half, chosen, tl.ones(2, 2), tl.ones_like(half)]

        return step


class TwoSteps(Program):
    """A step that accumulates the gradient of two batches."""

    def make_step(self) -> Any:
        model, optimizer = self.model, self.optimizer

        def step(x: Any, y: Any) -> Any:
            losses = []
            for k in range(2):
                loss = F.cross_entropy(model(x[2 * k : 2 * k + 2]).view(-1, 11), y[2 * k : 2 * k + 2].reshape(-1)) / 2
                loss.backward()
                losses.append(loss.detach())
            optimizer.step()
            optimizer.zero_grad()
            return sum(losses[1:], losses[0])

        return step


REPLAYED = [
    Nothing, Shape, Strides, ArgumentDType, SameTensorTwice, Constant, Global, GlobalDict, GlobalFunction, Closure,
    BoundMethod, Evaluation, Attribute, DropoutRate, Replaced, PatchedForward, PatchedClass, ModuleHook, TensorHook,
    Seed, LearningRate, Frozen, Data, NewParameter, WithoutBias, Loaded, GradientBefore, Accumulated,
    ArgumentIsBuffer, GradMode, WrongId,
    DefaultDType, NewTensors, TwoSteps,
]  # fmt: skip


class GradientsLeft(Program):
    """A step that ends with gradients. Between two calls they are used and set to None, and later they add up."""

    def __init__(self) -> None:
        super().__init__()
        self.cleared, self.kept = True, []

    def make_step(self) -> Callable[..., Any]:
        model = self.model

        def step(x: tl.Tensor, y: tl.Tensor) -> Any:
            loss = F.cross_entropy(model(x).view(-1, 11), y.reshape(-1))
            loss.backward()
            return {"loss": loss}

        return step

    def arguments(self, k: int) -> tuple[Any, ...]:
        if k:
            assert [g.array.tobytes() for g, _ in self.kept] == [before for _, before in self.kept]
            nn.utils.clip_grad_norm_(self.parameters, 0.5)
            self.optimizer.step()
            self.kept = []
            if self.cleared:
                self.kept = [(p.grad, p.grad.array.tobytes()) for p in self.parameters]
                self.optimizer.zero_grad()
        return super().arguments(k)

    def change(self) -> None:
        self.cleared = False


@pytest.mark.parametrize("kind", [*REPLAYED, GradientsLeft])
def test_change_is_noticed(kind: type[Program]) -> None:
    with tl.enable_grad():
        check(kind, least=2 if kind is ArgumentIsBuffer else CHANGED_AT - 3)


# ---- steps that cannot be captured -----------------------------------------------------------


def with_tail(tail: Callable[..., Any], *held: Any) -> type[Program]:
    """Return a program whose step ends with ``tail(found, x, held)``, in which found has the loss and the norm."""

    class WithTail(Program):
        def make_step(self) -> Any:
            inner = Program.make_step(self)
            return lambda x, y: tail(inner(x, y), x, *held)

    return WithTail


class Counter:
    def __init__(self) -> None:
        self.count = 0

    def add(self) -> int:
        self.count += 1
        return self.count


def branch(found: Any, x: Any) -> Any:
    return found["loss"] if found["loss"] > 2.0 else found["norm"]


def set_attribute(found: Any, x: Any, holder: Any) -> Any:
    holder.last = found["loss"]
    return found


def handles_errors(found: Any, x: Any) -> Any:
    try:
        return found["norm"]
    except ValueError:
        return None


def counts(found: Any, x: Any, numbers: list[int]) -> Any:
    numbers += [1]
    return found["norm"] * float(len(numbers))


HISTORY: list[Any] = []
LOCAL = threading.local()
LOCAL.scale = 1.0
ARRAY = np.ones(3, np.float32)

NOT_CAPTURED = {
    "item": (with_tail(lambda found, x: found["loss"].item()), "Tensor.item"),
    "branch": (with_tail(branch), "Tensor.__bool__"),
    "float": (with_tail(lambda found, x: float(found["loss"])), "Tensor.__float__"),
    "text": (with_tail(lambda found, x: f"{found['norm']}"), "Tensor.__format__"),
    "numpy": (with_tail(lambda found, x: found["norm"].numpy()), "Tensor.numpy"),
    "array": (with_tail(lambda found, x: found["norm"].array), "reads the attribute array"),
    "asarray": (with_tail(lambda found, x: np.asarray(found["norm"]).sum()), "asarray()"),
    "ufunc": (with_tail(lambda found, x: found["norm"] * np.add(1.0, 1.0)), "np.add"),
    "random": (with_tail(lambda found, x: found["norm"] * random.random()), "Random.random()"),
    "generator": (with_tail(lambda found, x, rng: found["norm"] * rng.random(), np.random.default_rng(0)), "Generator"),
    "time": (with_tail(lambda found, x: found["norm"] * (time.time() > 0)), "time()"),
    "counter": (with_tail(lambda found, x, c: found["norm"] * c.add(), Counter()), "sets the attribute count"),
    "iterator": (with_tail(lambda found, x, it: found["norm"] * next(it), iter(range(99))), "next"),
    "attribute": (with_tail(set_attribute, types.SimpleNamespace()), "sets the attribute last"),
    "errors": (with_tail(handles_errors), "with or try"),
    "grows": (with_tail(counts, []), "changes in every call"),
    "appends": (with_tail(lambda found, x: (HISTORY.append(found["norm"]), found["norm"])[1]), "changes in every call"),
    "held array": (with_tail(lambda found, x: found["norm"] * float(ARRAY[0])), "ARRAY"),
    "thread": (with_tail(lambda found, x: found["norm"] * LOCAL.scale), "the class _local"),
    "empty": (with_tail(lambda found, x: found["norm"] + 0 * tl.empty(1)), "empty"),
    "full of a value": (with_tail(lambda found, x: tl.full((2,), found["norm"])), "full() gets a Tensor"),
    "tensor of a value": (with_tail(lambda found, x: tl.tensor([found["norm"]])), "tensor() gets a list"),
    "arange to a value": (with_tail(lambda found, x: tl.arange(x[0, 0])), "arange() gets a Tensor"),
    "zeros in place": (with_tail(lambda found, x: tl.zeros(3).add_(1.0)), "in_place"),
    "leaf": (with_tail(lambda found, x: tl.zeros(3, requires_grad=True)), "a leaf that requires gradients"),
    "rand": (with_tail(lambda found, x: found["norm"] * tl.rand(1)), "rand"),
    "in place": (with_tail(lambda found, x: found["norm"].mul_(2.0)), "in_place"),
    "mask": (with_tail(lambda found, x: (found["norm"], x[x > 3].sum())), "cannot be replayed"),
    "no_grad": (with_tail(lambda found, x: tl.set_grad_enabled(True) and found["norm"]), "set_grad_enabled"),
    "getattr": (with_tail(lambda found, x: getattr(found, "copy")()), "getattr"),  # noqa: B009
    "returns what it reads": (with_tail(lambda found, x, d: d, {"a": 1}), "a container that lives on"),
    "live graph": (with_tail(lambda found, x, p: p * 2.0, nn.Parameter(tl.ones(2))), "graph"),
}


@pytest.mark.parametrize("name", NOT_CAPTURED)
def test_step_that_is_not_captured(name: str) -> None:
    kind, reason = NOT_CAPTURED[name]
    HISTORY.clear()
    program = kind()
    step = tl.compile(program.make_step())
    for k in range(12):
        step(*program.arguments(k))
    text = step.explain()
    assert "0 replayed; not captured" in text
    assert reason in text


def test_step_that_changes_between_all_calls_is_soon_a_plain_one() -> None:
    model = Net()
    step = tl.compile(lambda x: model(x).sum())
    for k in range(20):
        model.scale = float(k)
        step(tl.tensor([[k % 11]]))
    assert step.explain().endswith("20 calls, 0 replayed; not captured: something that the step reads changes between "
                                   "all calls")  # fmt: skip


def test_buffers_that_change_in_place_are_not_captured() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    step = tl.compile(lambda x: model(x).detach())
    for _ in range(5):
        step(tl.ones(6, 3))
    assert "0 replayed; not captured" in step.explain()
    assert model[1].num_batches_tracked.item() == 5


def test_op_of_a_user_is_not_captured() -> None:
    @tl.op(lambda g: g)
    def plus_random(xp: Any, x: Any) -> Any:
        return x + random.random()

    step = tl.compile(lambda x: plus_random(x))
    results = {step(tl.ones(2)).tolist()[0] for _ in range(6)}
    assert len(results) == 6


def test_modes_make_the_step_eager() -> None:
    program = Program()
    step = tl.compile(program.make_step())
    for k in range(5):
        step(*program.arguments(k))
    replays = [s.replays for s in step._signatures.values()]
    with tl.autocast("cpu", enabled=False):
        step(*program.arguments(5))
    with tl.detect_anomaly():
        step(*program.arguments(6))
    with tl.profiler.profile() as profile:
        step(*program.arguments(7))
    assert "linear" in profile.table()
    assert [s.replays for s in step._signatures.values()] == replays == [2]


def test_result_is_like_that_of_the_plain_step() -> None:
    program = Program()
    step = tl.compile(program.make_step())
    for k in range(4):
        loss = step(*program.arguments(k))["loss"]
    with pytest.raises(tl.GraphError, match="a backward pass has freed"):
        loss.backward()
    kept = [step(*program.arguments(k))["norm"] for k in range(3)]
    assert len({norm.item() for norm in kept}) == 3


def test_parameters_keep_their_versions() -> None:
    program = Program()
    step = tl.compile(program.make_step())
    for k in range(4):
        step(*program.arguments(k))
    outside = (program.parameters[1] * program.parameters[1]).sum()
    step(*program.arguments(5))
    with pytest.raises(tl.VersionError):
        outside.backward()


def test_new_tensors_are_new_in_each_call() -> None:
    with tl.no_grad():
        step = tl.compile(lambda x: (tl.zeros(3), tl.ones(2, 2).reshape(4), tl.arange(3)[1:], x + 1.0))
        for _ in range(7):
            results = step(tl.ones(3))
            assert [t.tolist() for t in results] == [[0.0] * 3, [1.0] * 4, [1, 2], [2.0] * 3]
            for t in results:
                t.add_(5)
    assert "4 replayed" in step.explain()


def test_the_default_device_is_noticed() -> None:
    step = tl.compile(lambda x: x.shape[0] * tl.zeros(3))
    for _ in range(5):
        assert step(tl.ones(3, device="cpu")).device.type == "cpu"
    assert "2 replayed" in step.explain()
    tl.set_default_device("strict")
    try:
        assert step(tl.ones(3, device="cpu")).device.type == "strict"
    finally:
        tl.set_default_device(None)


def test_functions_that_read_nothing() -> None:
    inner = tl.compile(lambda x: x * 2.0)
    outer = tl.compile(lambda x: inner(x) + x)
    for k in range(6):
        assert inner(tl.tensor([1.0 + k])).item() == 2.0 * (1.0 + k)
        assert outer(tl.tensor([1.0 + k])).item() == 3.0 * (1.0 + k)
    assert "captured" in inner.explain()
    assert "not captured" in outer.explain()


def test_threads_share_a_step() -> None:
    model = Net().eval()
    step = tl.compile(lambda x: model(x).detach())
    inputs = [tl.tensor(np.random.default_rng(k).integers(0, 11, (4, 5))) for k in range(20)]
    expected = [model(x).array for x in inputs]
    wrong: list[int] = []

    def work() -> None:
        wrong.extend(k for k, x in enumerate(inputs) if (step(x).array != expected[k]).any())

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_explain_and_reset() -> None:
    program = Program()
    step = tl.compile(program.make_step())
    assert step.explain() == "no calls with arguments that can be captured"
    for k in range(4):
        step(*program.arguments(k))
    assert step.explain() == "(int64(4, 5), int64(4, 5)): 4 calls, 1 replayed; captured"
    step.reset()
    assert "captured" not in step.explain().replace("can be captured", "")
    with pytest.raises(TypeError, match="compile: expected a function, got int"):
        tl.compile(3)  # type: ignore[arg-type]


def test_gpt_has_the_same_bits_for_50_steps() -> None:
    from gpt.config import ModelConfig, OptimConfig
    from gpt.model import GPT
    from gpt.train import configure_optimizer

    def train(compiled: bool) -> tuple[list[float], list[bytes], Any]:
        tl.manual_seed(0)
        model = GPT(ModelConfig(vocab_size=17, block_size=8, n_layer=2, n_head=2, n_embd=16, dropout=0.1))
        model.h[0].mlp.c_fc.weight.requires_grad = False
        parameters = list(model.parameters())
        optimizer = configure_optimizer(model, OptimConfig(lr=1e-2, weight_decay=0.1, grad_clip=1.0))
        schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, 50)

        def step(x: tl.Tensor, y: tl.Tensor) -> tl.Tensor:
            _, loss = model(x, y)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            return loss

        run_step = tl.compile(step) if compiled else step
        losses = []
        for k in range(50):
            ids = np.random.default_rng(k).integers(0, 17, (4, 9))
            losses.append(run_step(tl.tensor(ids[:, :-1].copy()), tl.tensor(ids[:, 1:].copy())).item())
        return losses, [p.array.tobytes() for p in parameters], run_step

    plain, captured = train(False), train(True)
    assert plain[:2] == captured[:2]
    assert "50 calls, 47 replayed; captured" in captured[2].explain()
    assert math.isfinite(plain[0][-1])


def test_a_garbage_collection_does_not_spoil_a_recording():
    """hypothesis, for example, has a callback that reads the clock in each collection."""
    before = gc.get_threshold()
    gc.callbacks.append(lambda phase, info: time.perf_counter())
    gc.set_threshold(1)
    try:
        step = tl.compile(lambda x: (x * 2).sum())
        for _ in range(5):
            step(tl.ones(3))
    finally:
        gc.set_threshold(*before)
        gc.callbacks.pop()
    assert step.explain().endswith("captured")
