"""Hooks: functions that a module calls before or after its forward, or when its gradients are known."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from ..autograd.function import op
from ..autograd.grad_mode import is_grad_enabled
from ..autograd.removable_handle import RemovableHandle
from ..tensors.creation import zeros, zeros_like
from ..tensors.tensor import Tensor

__all__ = ["Hook", "HookKind", "add_hook", "call_with_hooks"]

HookKind: TypeAlias = Literal["forward_pre", "forward", "full_backward_pre", "full_backward"]
Gradients: TypeAlias = tuple[Tensor | None, ...]


@dataclass(slots=True, eq=False)
class Hook:
    """A function that a module calls.

    kind: the time at which it is called.
    with_kwargs: whether a forward hook also gets the keyword arguments.
    always_call: whether a forward hook is called although the forward raised an error.
    """

    kind: HookKind
    function: Callable[..., Any]
    with_kwargs: bool = False
    always_call: bool = False


def add_hook(hooks: list[Hook], hook: Hook, prepend: bool) -> RemovableHandle:
    """Add a hook to a module's list, at its front if ``prepend``. Return a handle that removes it."""
    if not callable(hook.function):
        raise TypeError(f"register_{hook.kind}_hook: expected a function, got {type(hook.function).__name__}")
    hooks.insert(0 if prepend else len(hooks), hook)
    # A partial of a module-level function can be copied and pickled, so a module may keep its handles.
    return RemovableHandle(functools.partial(_remove, hooks, hook))


def _remove(hooks: list[Hook], hook: Hook) -> None:
    if hook in hooks:
        hooks.remove(hook)


def call_with_hooks(
    module: Any, forward: Callable[..., Any], hooks: list[Hook], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Call ``forward`` with the hooks of its module around it, in PyTorch's order, and return the result."""
    result = None
    called: list[Hook] = []
    try:
        for hook in _of_kind(hooks, "forward_pre"):
            args, kwargs = _call_forward_pre_hook(hook, module, args, kwargs)
        backward = None
        if any(hook.kind in ("full_backward_pre", "full_backward") for hook in hooks):
            backward = _BackwardHooks(module, hooks)
            args = backward.watch_inputs(args)
        result = forward(*args, **kwargs)
        for hook in _of_kind(hooks, "forward"):
            called.append(hook)
            result = _call_forward_hook(hook, module, args, kwargs, result)
        return result if backward is None else backward.watch_outputs(result)
    except Exception:
        for hook in _of_kind(hooks, "forward"):
            if hook.always_call and hook not in called:
                try:
                    result = _call_forward_hook(hook, module, args, kwargs, result)
                except Exception as error:
                    warnings.warn(
                        f"a forward hook with always_call=True raised {type(error).__name__}: {error}. It is ignored, "
                        f"because the module's forward has raised an error before.",
                        stacklevel=3,
                    )
        raise


def _of_kind(hooks: list[Hook], kind: HookKind) -> list[Hook]:
    return [hook for hook in hooks if hook.kind == kind]


def _call_forward_pre_hook(
    hook: Hook, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments for the forward: those that the hook returned, or the old ones if it returned None."""
    if not hook.with_kwargs:
        changed = hook.function(module, args)
        if changed is None:
            return args, kwargs
        return changed if isinstance(changed, tuple) else (changed,), kwargs
    changed = hook.function(module, args, kwargs)
    if changed is None:
        return args, kwargs
    if not isinstance(changed, tuple) or len(changed) != 2:
        raise RuntimeError(
            f"{type(module).__name__}: a forward pre-hook with kwargs must return None or a tuple (args, kwargs), got "
            f"{type(changed).__name__}"
        )
    return changed


def _call_forward_hook(hook: Hook, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
    """Return the module's result: that of the hook, or ``result`` if the hook returned None."""
    extra = (kwargs,) if hook.with_kwargs else ()
    changed = hook.function(module, args, *extra, result)
    return result if changed is None else changed


class _BackwardHooks:
    """The backward hooks of one call of a module. Hooks that are removed later still run for this call."""

    def __init__(self, module: Any, hooks: list[Hook]) -> None:
        self.module = module
        self.pre_hooks = [hook.function for hook in _of_kind(hooks, "full_backward_pre")]
        self.hooks = [hook.function for hook in _of_kind(hooks, "full_backward")]
        self.grad_output: Gradients | None = None
        self.inputs_are_watched = False
        self.kinds: list[tuple[Any, ...] | None] = []  # shape, dtype and device of each argument that is a Tensor

    def watch_inputs(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the arguments for the forward. The hooks will get their gradients."""
        self.kinds = [(x.shape, x.dtype, x.device) if isinstance(x, Tensor) else None for x in args]
        self.inputs_are_watched = _can_watch(args)
        return _watch(args, self.on_grad_input) if self.inputs_are_watched else args

    def watch_outputs(self, result: Any) -> Any:
        """Return the result of the module. The hooks will get its gradients."""
        if isinstance(result, Tensor):
            return _watch((result,), self.on_grad_output)[0] if _can_watch((result,)) else result
        if isinstance(result, tuple):
            watched = _watch(result, self.on_grad_output) if _can_watch(result) else result
            return watched if type(result) is tuple else type(result)(*watched)  # a named tuple
        warnings.warn(
            f"{type(self.module).__name__}: its backward hooks are not called, because its forward returned "
            f"{type(result).__name__}. Return a Tensor or a tuple of Tensors.",
            stacklevel=4,
        )
        return result

    def on_grad_output(self, gradients: Gradients) -> Gradients:
        """Call the pre-hooks, and without watched inputs the hooks. Return the gradients of the outputs to use."""
        for hook in self.pre_hooks:
            gradients = self._replaced(hook(self.module, gradients), gradients, "grad_output")
        if self.inputs_are_watched:
            self.grad_output = gradients
            return gradients
        for hook in self.hooks:  # because no input requires gradients, so no gradient of an input will call them
            changed = hook(self.module, (None,) * len(self.kinds), gradients)
            if changed is not None and any(g is not None for g in changed):
                raise RuntimeError(
                    f"{type(self.module).__name__}: a backward hook must return None, because no input requires "
                    f"gradients"
                )
        return gradients

    def on_grad_input(self, gradients: Gradients) -> Gradients:
        """Call the hooks. Return the gradients of the inputs to use."""
        if self.grad_output is None:  # gradients of a second derivative need not have come through the outputs
            return gradients
        gradients = tuple(
            zeros(kind[0], dtype=kind[1], device=kind[2]) if g is None and kind is not None else g
            for g, kind in zip(gradients, self.kinds, strict=True)
        )
        for hook in self.hooks:
            gradients = self._replaced(hook(self.module, gradients, self.grad_output), gradients, "grad_input")
        self.grad_output = None
        return gradients

    def _replaced(self, changed: Any, gradients: Gradients, what: str) -> Gradients:
        """Return the gradients that a hook returned, as a tuple, or ``gradients`` if it returned None."""
        if changed is None:
            return gradients
        changed = (changed,) if isinstance(changed, Tensor) else tuple(changed)
        if len(changed) != len(gradients):
            raise RuntimeError(
                f"{type(self.module).__name__}: a backward hook must return None or {len(gradients)} gradients for "
                f"{what}, got {len(changed)}"
            )
        return changed


def _can_watch(values: Sequence[Any]) -> bool:
    """Return whether one of the values gets a gradient."""
    return is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in values)


@op(lambda g: g, view=True)
def module_hook(xp: Any, x: Any) -> Any:
    """Return ``x`` as a new node of the graph, which can have gradient hooks."""
    return x


def _watch(values: Sequence[Any], when_known: Callable[[Gradients], Gradients]) -> tuple[Any, ...]:
    """Return views of the Tensors among ``values``; backward passes their gradients through ``when_known``, together.

    Each Tensor that requires gradients becomes a view of a view. All inner views are older than all outer ones, and
    backward goes from new to old. So it collects the gradients at the outer views and passes them on at the inner
    views.
    """
    watched = [i for i, x in enumerate(values) if isinstance(x, Tensor) and x.requires_grad]
    inner = [module_hook(values[i]) for i in watched]
    outer = [module_hook(x) for x in inner]
    count = len(values)
    collected: dict[int, Tensor] = {}
    results: dict[int, Tensor | None] = {}

    # The hooks refer to no Tensor of the graph, because a reference cycle would keep its memory.
    def pass_on(i: int, g: Tensor) -> Tensor:
        if i not in results:
            changed = when_known(tuple(collected.get(j) for j in range(count)))
            results.update((j, changed[j]) for j in collected)
            collected.clear()
        result = results.pop(i)
        if result is None:
            return zeros_like(g)
        # Return a copy, because backward may add to this memory later, and the user may keep the gradients.
        return result if result.requires_grad else result.clone()

    for i, x, y in zip(watched, inner, outer, strict=True):
        y.register_hook(functools.partial(collected.__setitem__, i))
        x.register_hook(functools.partial(pass_on, i))
    views = dict(zip(watched, outer, strict=True))
    return tuple(views.get(i, x) for i, x in enumerate(values))
