"""Optimizer: what all optimizers share. Parameters, their options in groups, and their state."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias, TypeVar, overload

from ..autograd import version_counter
from ..autograd.grad_mode import enable_grad
from ..autograd.op_hooks import run_op
from ..errors import DTypeError, GraphError, ShapeError
from ..nn.parameter import clear_grads
from ..tensors.tensor import Tensor

__all__ = ["Optimizer", "Params"]

Loss = TypeVar("Loss")

Params: TypeAlias = Iterable[Tensor] | Iterable[tuple[str, Tensor]] | Iterable[dict[str, Any]]
"""Tensors, named tensors as ``named_parameters()`` gives them, or groups ``{"params": tensors, option: value}``."""


class Optimizer:
    """Base class of the optimizers. A subclass defines ``_update`` (one tensor), ``_check`` (a group's options), and
    ``_entries`` (the names of what it keeps for each tensor).

    param_groups: a list of dicts ``{"params": [...], "lr": ..., ...}``; changing an option there takes effect at the
        next step. An option that a group does not name has the value given to the optimizer.
    state: for each parameter that was ever updated, a dict of numbers and Tensors.
    """

    _entries: tuple[str, ...] = ()

    def __init__(self, params: Params, defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        self.param_groups: list[dict[str, Any]] = []
        self.state: dict[Tensor, dict[str, Any]] = {}
        if isinstance(params, (Tensor, Mapping)) or not isinstance(params, Iterable):
            raise TypeError(
                f"{type(self).__name__}: params must be a list of Tensors or of groups, got {type(params).__name__}; "
                f"pass model.parameters(), or put it in a list"
            )
        given: list[Any] = list(params)
        if not given:
            raise ValueError(f"{type(self).__name__}: got no parameters: parameters() can be used up only once")
        for group in given if isinstance(given[0], Mapping) else [{"params": given}]:
            self.add_param_group(group)

    def _check(self, group: Mapping[str, Any]) -> None:
        """Raise ValueError for an option that cannot be."""

    def _update(self, p: Tensor, g: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Change ``p.array``, and the state, in place with the raw gradient g."""
        raise NotImplementedError(f"{type(self).__name__} does not define _update()")

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Optimize further tensors, ``{"params": tensors, option: value, ...}``: a layer that thaws, say.

        Raises TypeError for what is not a Tensor, GraphError for a Tensor that is not a leaf, ValueError for an empty
        group, a Tensor that some group has already, and unknown or impossible options.
        """
        name = type(self).__name__
        if not isinstance(param_group, Mapping) or "params" not in param_group:
            raise TypeError(f"{name}: a group must be a dict with the key 'params', got {_format_group(param_group)}")
        params = param_group["params"]
        params = [params] if isinstance(params, Tensor) else list(params)
        params = [p[1] if isinstance(p, tuple) and len(p) == 2 and isinstance(p[0], str) else p for p in params]
        if not params:
            raise ValueError(f"{name}: a parameter group has no parameters")
        taken = {p for group in self.param_groups for p in group["params"]}
        for p in params:
            if not isinstance(p, Tensor):
                raise TypeError(f"{name}: can only optimize Tensors, got {type(p).__name__}")
            if not p.is_leaf:
                raise GraphError(
                    f"{name}: can only optimize leaf Tensors, and this one of shape {p.shape} is the result of "
                    f"{p.grad_fn}; pass what it was computed from, or detach() it"
                )
            if p.dtype.kind != "f":
                raise DTypeError(f"{name}: can only optimize floating point Tensors, got {p.dtype}{p.shape}")
            if p in taken:
                raise ValueError(f"{name}: a parameter of shape {p.shape} is given twice")
            taken.add(p)
        options = {key: value for key, value in param_group.items() if key != "params"}
        if unknown := sorted(options.keys() - self.defaults.keys() - {"initial_lr"}):
            known = ", ".join(self.defaults)
            raise ValueError(f"{name}: unknown option {', '.join(map(repr, unknown))}; there are {known}")
        group = {"params": params, **copy.deepcopy(self.defaults), **options}
        self._check(group)
        self.param_groups.append(group)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], Loss]) -> Loss: ...
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient. A ``closure`` computes the loss first, which is returned.

        Raises ShapeError if a gradient does not fit its parameter, TypeError if it is no Tensor.
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        ready = [(p, group) for group in self.param_groups for p in group["params"] if p.grad is not None]
        for p, _ in ready:
            if not isinstance(p.grad, Tensor):
                raise TypeError(
                    f"{type(self).__name__}: the grad of a parameter of shape {p.shape} must be a Tensor or None, got "
                    f"{type(p.grad).__name__}"
                )
            if p.grad.array.shape != p.array.shape or type(p.grad.array) is not type(p.array):
                raise ShapeError(
                    f"{type(self).__name__}: a gradient of shape {p.grad.shape} on {p.grad.device} for a parameter of "
                    f"shape {p.shape} on {p.device}"
                )
        run_op(self._optimizer_step, ready)
        return loss

    def _optimizer_step(self, ready: list[tuple[Tensor, dict[str, Any]]]) -> None:
        """The updates of a step, under the name that a profile shows."""
        for p, group in ready:
            self._update(p, p.grad.array, self.state.setdefault(p, {}), group)  # type: ignore[union-attr]  # step() has checked it
            version_counter.bump_version(p.array)  # so that graphs which saved the old value notice

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or make them zero in place."""
        for group in self.param_groups:
            clear_grads(group["params"], set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """``{"state": {k: {...}}, "param_groups": [{"params": [k, ...], option: value, ...}, ...]}``.

        k counts the parameters through all groups. All but the Tensors in "state" is what JSON can hold. The Tensors
        share the optimizer's memory.
        """
        index = {p: k for k, p in enumerate(p for group in self.param_groups for p in group["params"])}
        return {
            "state": {index[p]: dict(state) for p, state in self.state.items() if state},
            "param_groups": [{**group, "params": [index[p] for p in group["params"]]} for group in self.param_groups],
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave, for the same parameters in the same order; options come from it too.

        Keys may be strings and tuples lists, as JSON makes them. Either all is loaded or nothing: raises ValueError if
        it is not for such groups or options, ShapeError if a Tensor has the wrong shape for its parameter.
        """
        name = type(self).__name__
        try:
            saved = {int(k): dict(v) for k, v in state_dict["state"].items()}
            groups = [dict(group) for group in state_dict["param_groups"]]
            sizes = [len(group["params"]) for group in groups]
            order = [int(k) for group in groups for k in group["params"]]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{name}: this is not what state_dict() gives: {type(error).__name__}: {error}") from None
        mine = [len(group["params"]) for group in self.param_groups]
        if sizes != mine:
            raise ValueError(f"{name}: the saved groups have {sizes} parameters, those of this optimizer {mine}")
        parameters = dict(zip(order, (p for group in self.param_groups for p in group["params"]), strict=True))
        if unknown := sorted(saved.keys() - parameters.keys()):
            raise ValueError(f"{name}: there is state for parameters {unknown}, which no saved group has")
        for group in groups:
            for key, default in self.defaults.items():
                if key not in group:
                    raise ValueError(f"{name}: a saved group has no option {key!r}; it is that of another optimizer")
                group[key] = tuple(group[key]) if isinstance(default, tuple) else group[key]
            if unknown_keys := sorted(group.keys() - self.defaults.keys() - {"params", "initial_lr"}):
                raise ValueError(f"{name}: a saved group has unknown options {', '.join(unknown_keys)}")
            self._check(group)
        state = {parameters[k]: self._loaded(k, parameters[k], values) for k, values in saved.items()}
        for group, loaded in zip(self.param_groups, groups, strict=True):
            group.update({key: value for key, value in loaded.items() if key != "params"})
        self.state = state

    def _loaded(self, k: int, p: Tensor, values: dict[str, Any]) -> dict[str, Any]:
        """The saved state of one parameter: copies of its Tensors, in the dtype and on the device of the parameter."""
        if values and values.keys() != set(self._entries):
            raise ValueError(
                f"{type(self).__name__}: the state of parameter {k} has {', '.join(sorted(values))} instead of "
                f"{', '.join(sorted(self._entries)) or 'nothing'}"
            )
        result = {}
        for key, value in values.items():
            if isinstance(value, Tensor):
                if value.shape != p.shape:
                    raise ShapeError(
                        f"{type(self).__name__}: the saved {key!r} of parameter {k} has shape {value.shape}, the "
                        f"parameter {p.shape}"
                    )
                value = value.detach().to(p.dtype, p.device, copy=True)
            result[key] = value
        return result

    def __repr__(self) -> str:
        lines = []
        for i, group in enumerate(self.param_groups):
            count = sum(p.numel() for p in group["params"])
            lines.append(f"  group {i}: {len(group['params'])} parameters, {count:,} numbers")
            lines += [f"    {key}: {value}" for key, value in group.items() if key != "params"]
        return "\n".join([f"{type(self).__name__} (", *lines, ")"])


def _format_group(group: Any) -> str:
    return f"one with {', '.join(map(repr, group))}" if isinstance(group, Mapping) else type(group).__name__


def require_number(name: str, option: str, value: Any, *, least: float = 0.0, below: float = float("inf")) -> None:
    """Raise ValueError unless it is a number with ``least <= value < below``."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value < below:
        upper = "" if below == float("inf") else f" and below {below:g}"
        raise ValueError(f"{name}: {option} must be a number of at least {least:g}{upper}, got {value!r}")
