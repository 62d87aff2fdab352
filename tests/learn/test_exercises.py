"""Test the hidden tests: they accept right solutions, reject wrong ones with a hint, and agree with tensorlite."""

import doctest
import importlib
import inspect

import numpy as np
import pytest

import tensorlite as tl
from tensorlite.learn.chapters import CHAPTERS
from tensorlite.learn.exercises import Exercise
from tensorlite.learn.judging import judge
from tensorlite.learn.learner_file import load_functions
from tensorlite.testing import GradientError, check_grad

EXERCISES = [exercise for chapter in CHAPTERS.values() for exercise in chapter.exercises]
MISTAKES = [(exercise, mistake) for exercise in EXERCISES for mistake in exercise.mistakes]


def exercise_of(name: str) -> Exercise:
    return next(exercise for exercise in EXERCISES if exercise.name == name)


def verdict(function):
    return judge(exercise_of(function.__name__), function)


# ---- every exercise ---------------------------------------------------------------------------------------------


def test_a_chapter_has_three_exercises():
    assert all(len(chapter.exercises) == 3 for chapter in CHAPTERS.values())


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.name)
def test_the_solution_is_right(exercise):
    assert judge(exercise, exercise.solution).state == "right"


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.name)
def test_the_examples_of_the_docstring_hold(exercise):
    module = importlib.import_module(exercise.solution.__module__)
    tests = doctest.DocTestFinder().find(exercise.solution, globs=vars(module))
    assert sum(len(test.examples) for test in tests)
    for test in tests:
        assert doctest.DocTestRunner().run(test).failed == 0


@pytest.mark.parametrize(("exercise", "mistake"), MISTAKES, ids=lambda x: getattr(x, "name", x.__class__.__name__))
def test_a_mistake_gets_its_own_hint(exercise, mistake):
    found = judge(exercise, mistake.function)
    assert found.state == "wrong"
    assert found.lines[-1] == f"Hint: {mistake.hint}"


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.name)
def test_the_stub_is_not_written_yet(exercise, tmp_path):
    (tmp_path / "stub.py").write_text(exercise.stub(), "utf-8")
    stub = load_functions(tmp_path / "stub.py")[exercise.name]
    assert judge(exercise, stub).state == "not written"
    assert list(inspect.signature(stub).parameters) == list(inspect.signature(exercise.solution).parameters)
    assert inspect.getdoc(stub).strip() == inspect.getdoc(exercise.solution).strip()


# ---- other solutions, right and wrong ---------------------------------------------------------------------------


def test_a_recursive_backward_pass_is_right():
    """The gradient of a number is the sum over its uses: another way to the same values."""

    def gradients(records, result):
        def of(name):
            uses = [(out, k) for out, inputs in records for inp, k in inputs if inp == name]
            return (name == result) + sum(of(out) * k for out, k in uses if needed(out))

        def needed(name):
            return name == result or any(needed(out) for out, inputs in records if name in dict(inputs))

        names = {name for out, inputs in records for name in (out, *dict(inputs))}
        return {name: float(of(name)) for name in names if needed(name)}

    assert verdict(gradients).state == "right"


def test_numpys_own_shape_is_right():
    def broadcast_shape(a, b):
        return np.broadcast_shapes(a, b)

    assert verdict(broadcast_shape).state == "right"


def test_an_answer_to_shapes_that_do_not_fit_is_wrong():
    def broadcast_shape(a, b):
        try:
            return np.broadcast_shapes(a, b)
        except ValueError:
            return a

    found = verdict(broadcast_shape)
    assert found.lines[:3] == ("broadcast_shape((2, 3), (2,))", "expected: a ValueError", "got:      (2, 3)")


def test_a_solution_that_changes_its_argument_changes_only_a_copy():
    def linear_gradients(g, x, weight):
        results = g @ weight, g.T @ x, g.sum(axis=0)
        g[:] = 0
        return results

    assert verdict(linear_gradients).state == "right"
    assert exercise_of("linear_gradients").calls[0][0].any()


def test_names_are_compared():
    def stale_nodes(saved, writes):
        return [*exercise_of("stale_nodes").solution(saved, writes)]

    def numbers(saved, writes):
        return tuple(range(len(stale_nodes(saved, writes))))

    exercise = exercise_of("stale_nodes")
    assert judge(exercise, stale_nodes).state == "right"
    assert judge(exercise, numbers).lines[3] == "In entry 0: 0 is not 'mul'."


# ---- the solutions agree with tensorlite -------------------------------------------------------------------------


def test_divide_gradients_agrees_with_tensorlite():
    exercise = exercise_of("divide_gradients")
    for g, a, b in exercise.calls:
        x, y = (tl.tensor(number, requires_grad=True, dtype=tl.float64) for number in (a, b))
        (x / y).backward(tl.tensor(g, dtype=tl.float64))
        np.testing.assert_allclose(exercise.solution(g, a, b), (x.grad.item(), y.grad.item()), rtol=1e-12)


def test_sum_to_agrees_with_tensorlite():
    exercise = exercise_of("sum_to")
    for g, shape in exercise.calls:
        x = tl.zeros(shape, dtype=tl.float64, requires_grad=True)
        (x + tl.zeros(g.shape, dtype=tl.float64)).backward(tl.tensor(g))
        np.testing.assert_allclose(exercise.solution(g, shape), x.grad.numpy(), rtol=1e-12)


def test_broadcast_shape_agrees_with_numpy():
    exercise = exercise_of("broadcast_shape")
    refused = 0
    for a, b in exercise.calls:
        try:
            expected = np.broadcast_shapes(a, b)
        except ValueError:
            refused += 1
            with pytest.raises(ValueError, match="do not fit"):
                exercise.solution(a, b)
        else:
            assert exercise.solution(a, b) == expected
    assert refused == 2


def test_linear_gradients_agrees_with_tensorlite():
    exercise = exercise_of("linear_gradients")
    for g, x, weight in exercise.calls:
        inputs = [tl.tensor(array, requires_grad=True) for array in (x, weight, np.zeros(len(weight)))]
        tl.nn.functional.linear(*inputs).backward(tl.tensor(g))
        for value, tensor in zip(exercise.solution(g, x, weight), inputs):
            np.testing.assert_allclose(value, tensor.grad.numpy(), rtol=1e-12)


def test_cross_entropy_and_its_gradient_agree_with_tensorlite():
    loss, gradient = exercise_of("cross_entropy"), exercise_of("cross_entropy_gradient")
    for logits, targets in loss.calls:
        x = tl.tensor(logits, requires_grad=True)
        y = tl.nn.functional.cross_entropy(x, tl.tensor(targets))
        y.backward()
        np.testing.assert_allclose(loss.solution(logits, targets), y.item(), rtol=1e-12)
        np.testing.assert_allclose(gradient.solution(logits, targets), x.grad.numpy(), rtol=1e-12, atol=1e-15)


def test_adamw_agrees_with_tensorlite():
    exercise = exercise_of("adamw")
    for weight, gradients, *options in exercise.calls:
        lr, weight_decay = options or (0.1, 0.01)
        x = tl.tensor(weight, requires_grad=True, dtype=tl.float64)
        optimizer = tl.optim.AdamW([x], lr=lr, weight_decay=weight_decay)
        for g in gradients:
            x.grad = tl.tensor(g, dtype=tl.float64)
            optimizer.step()
        np.testing.assert_allclose(exercise.solution(weight, gradients, *options), x.item(), rtol=1e-12)


def test_attention_gradients_agrees_with_tensorlite():
    exercise = exercise_of("attention_gradients")
    for g, *arrays in exercise.calls:
        inputs = [tl.tensor(array, requires_grad=True) for array in arrays]
        tl.nn.functional.scaled_dot_product_attention(*inputs).backward(tl.tensor(g))
        for value, tensor in zip(exercise.solution(g, *arrays), inputs, strict=True):
            np.testing.assert_allclose(value, tensor.grad.numpy(), rtol=1e-12, atol=1e-15)


def test_causal_attention_agrees_with_tensorlite():
    exercise = exercise_of("causal_attention")
    for *arrays, heads in exercise.calls:
        parts = [tl.tensor(array).unflatten(-1, (heads, -1)).transpose(0, 1) for array in arrays]
        result = tl.nn.functional.scaled_dot_product_attention(*parts, is_causal=True)
        np.testing.assert_allclose(exercise.solution(*arrays, heads), result.transpose(0, 1).flatten(1).numpy(), 1e-12)


def test_windowed_softmax_agrees_with_a_loop():
    exercise = exercise_of("windowed_softmax")
    for scores, window in exercise.calls:
        weights = exercise.solution(scores, window)
        for t, row in enumerate(scores):
            first = max(0, t + 1 - window)
            expected = np.zeros(len(row))
            expected[first : t + 1] = tl.softmax(tl.tensor(row[first : t + 1]), 0).numpy()
            np.testing.assert_allclose(weights[t], expected, rtol=1e-12)


def test_leaf_gradients_agrees_with_tensorlite():
    """The rules of the exercise are linear, so each of them is also the forward function of its op."""
    exercise = exercise_of("leaf_gradients")
    for nodes, result, g in exercise.calls:
        leaves = {name: tl.zeros(2, dtype=tl.float64, requires_grad=True) for name in "xyz"}
        values = {}
        for number in sorted(nodes):
            values[number] = sum(
                tl.tensor(rule(np.ones(2))) * (leaves[edge] if edge in leaves else values[edge])
                for edge, rule in nodes[number]
            )
        values[result].backward(tl.tensor(g))
        expected = {name: leaf.grad.numpy() for name, leaf in leaves.items() if leaf.grad is not None}
        got = exercise.solution(nodes, result, g)
        assert got.keys() == expected.keys()
        for name, gradient in expected.items():
            np.testing.assert_allclose(got[name], gradient, rtol=1e-12)


def test_mean_gradient_agrees_with_tensorlite():
    exercise = exercise_of("mean_gradient")
    for g, shape, axis in exercise.calls:
        x = tl.zeros(shape, dtype=tl.float64, requires_grad=True)
        x.mean(axis).backward(tl.tensor(g))
        np.testing.assert_allclose(exercise.solution(g, shape, axis), x.grad.numpy(), rtol=1e-12)


def test_stale_nodes_agrees_with_tensorlite():
    exercise = exercise_of("stale_nodes")
    for saved, writes in exercise.calls:
        names = sorted({name for _, arrays in saved.values() for name in arrays} | {name for _, name in writes})
        tensors = {name: tl.ones(2, requires_grad=True) for name in names}
        made, events = {}, {number: (node, arrays) for node, (number, arrays) in saved.items()} | dict(writes)
        for _, event in sorted(events.items()):
            if isinstance(event, str):
                with tl.no_grad():
                    tensors[event].add_(1.0)
            else:
                node, arrays = event
                made[node] = sum((tensors[name].square() for name in arrays), tl.ones(2, requires_grad=True) + 0.0)
        stale = []
        for node, result in made.items():
            try:
                result.sum().backward()
            except tl.VersionError:
                stale.append(node)
        assert exercise.solution(saved, writes) == tuple(node for node in saved if node in stale)


@pytest.mark.parametrize("sizes", [(10, 4, 1, 2, 1, 8), (10, 4, 3, 2, 2, 8), (65, 128, 4, 8, 2, 352)])
def test_count_llama_agrees_with_gpt(sizes):
    from gpt.config import ModelConfig
    from gpt.model import GPT

    assert sizes in exercise_of("count_llama").calls
    names = ("vocab_size", "n_embd", "n_layer", "n_head", "n_kv_head", "n_inner")
    config = ModelConfig(**dict(zip(names, sizes)), position="rope", norm="rms", mlp="swiglu")
    assert exercise_of("count_llama").solution(*sizes) == GPT(config).num_params()


def test_nucleus_agrees_with_a_loop():
    exercise = exercise_of("nucleus")
    for logits, temperature, top_p in exercise.calls:
        p = tl.softmax(tl.tensor(logits / temperature), 0).numpy()
        expected = np.zeros(len(p))
        while expected.sum() < top_p - 1e-12:
            largest = np.argmax(np.where(expected > 0, 0, p))
            expected[largest] = p[largest]
        np.testing.assert_allclose(exercise.solution(logits, temperature, top_p), expected / expected.sum(), rtol=1e-12)


def test_next_position_agrees_with_tensorlite():
    exercise = exercise_of("next_position")
    for q, k, v, kept_k, kept_v in exercise.calls:
        keys, values = np.concatenate([kept_k, k[:, None]], 1), np.concatenate([kept_v, v[:, None]], 1)
        read = tl.nn.functional.scaled_dot_product_attention(*(tl.tensor(a) for a in (q[:, None], keys, values)))
        for value, expected in zip(exercise.solution(q, k, v, kept_k, kept_v), (read[:, 0].numpy(), keys, values)):
            np.testing.assert_allclose(value, expected, rtol=1e-12)


def test_directional_slope_agrees_with_the_complex_step():
    exercise = exercise_of("directional_slope")
    for f, x, g, v, *step in exercise.calls:
        expected = (g * f(x + 1e-20j * v).imag).sum() / 1e-20
        np.testing.assert_allclose(exercise.solution(f, x, g, v, *step), expected, rtol=1e-7)


def test_a_slope_in_the_range_is_one_that_check_grad_accepts():
    @tl.op(lambda g, x, slope: g * tl.where(x == 0, slope, tl.sign(x)), None)
    def absolute(xp, x, slope):
        return xp.abs(x)

    low, high = exercise_of("slope_range").solution(abs, 0.0)
    for slope in (low, 0.0, high):
        check_grad(absolute, np.array([0.0]), slope, order=1)
    with pytest.raises(GradientError, match="between"):
        check_grad(absolute, np.array([0.0]), high + 0.5, order=1)


def test_shrink_from_the_last_number_is_right():
    def shrink(fails, numbers):
        numbers, changed = list(numbers), True
        while changed:
            changed = False
            for fewer in (True, False):
                for i in reversed(range(len(numbers))):
                    trial = numbers[:i] + ([] if fewer else [0]) + numbers[i + 1 :]
                    if not changed and trial != numbers and fails(trial):
                        numbers, changed = trial, True
        return numbers

    assert verdict(shrink).state == "right"


def test_learning_rate_agrees_with_gpt():
    pytest.importorskip("platformdirs")  # because the gpt package needs it
    from gpt.train.optimizer import linear_factor

    exercise = exercise_of("learning_rate")
    for step, peak, lowest, warmup, total in exercise.calls:
        expected = peak * linear_factor(step, warmup, total, lowest / peak)
        np.testing.assert_allclose(exercise.solution(step, peak, lowest, warmup, total), expected, rtol=1e-12)


def test_clip_agrees_with_tensorlite():
    exercise = exercise_of("clip")
    for gradients, max_norm in exercise.calls:
        tensors = {name: tl.zeros(g.shape, dtype=tl.float64, requires_grad=True) for name, g in gradients.items()}
        for name, g in gradients.items():
            tensors[name].grad = tl.tensor(g)
        norm = tl.nn.utils.clip_grad_norm_(tensors.values(), max_norm)
        expected, clipped = exercise.solution(gradients, max_norm)
        np.testing.assert_allclose(norm.item(), expected, rtol=1e-12)
        for name, g in clipped.items():
            np.testing.assert_allclose(tensors[name].grad.numpy(), g, rtol=1e-5)
