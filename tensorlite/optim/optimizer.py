"""Optimizer, the base class of the optimizers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, TypeAlias, TypeVar, overload

from ..autograd import version_counter
from ..autograd.grad_mode import enable_grad
from ..autograd.graph import wrap
from ..autograd.op_hooks import run_op
from ..dtypes import accumulate_dtype, is_floating
from ..errors import DTypeError, GraphError, ShapeError
from ..missing_names import CheckedArguments
from ..nn.parameter import clear_grads
from ..scalars import as_number
from ..tensors.convert import tensor_of
from ..tensors.tensor import Tensor

__all__ = ["Optimizer", "Params"]

Loss = TypeVar("Loss")

Params: TypeAlias = Iterable[Tensor] | Iterable[tuple[str, Tensor]] | Iterable[dict[str, Any]]
"""Tensors; pairs of names and Tensors, as from ``named_parameters()``; or groups ``{"params": ..., option: value}``."""


_HOW_PYTORCH_COMPUTES = frozenset(("capturable", "differentiable", "foreach", "fused"))
"""Options in the states of PyTorch's optimizers that do not change the result."""


class Optimizer(CheckedArguments):
    """Base class of the optimizers. It has the parameters, their options in groups, and the state of each.

    A subclass defines ``_update``, which updates one Tensor, and ``_check``, which checks the options of a group.
    ``_entries`` are the names of the values in the state of a Tensor, ``_optional_entries`` of those that only some
    options need.

    params: Tensors, named Tensors, or groups ``{"params": tensors, option: value, ...}``.
    defaults: the options, and their values in groups that do not set them.

    param_groups: a list of dicts ``{"params": [...], "lr": ..., ...}``. A changed option takes effect at the next step.
    state: for each parameter that was updated, a dict of numbers and Tensors.

    Raises TypeError if ``params`` is one Tensor or not iterable, ValueError if it is empty, and the errors of
    :meth:`add_param_group`.
    """

    _implied: ClassVar[dict[str, Any]] = {}
    """Options that PyTorch's state of this optimizer has, with the only value that is the same here."""
    _entries: tuple[str, ...] = ()
    _optional_entries: tuple[str, ...] = ()

    def __init__(self, params: Params, defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        self.param_groups: list[dict[str, Any]] = []
        self.state: dict[Tensor, dict[str, Any]] = {}
        if isinstance(params, (Tensor, Mapping)) or not isinstance(params, Iterable):
            raise TypeError(
                f"{type(self).__name__}: params must be a list of Tensors or of groups, got {type(params).__name__}. "
                f"Pass model.parameters(), or a list of it."
            )
        given: list[Any] = list(params)
        if not given:
            raise ValueError(
                f"{type(self).__name__}: got no parameters. A generator such as parameters() can be used only once."
            )
        for group in given if isinstance(given[0], Mapping) else [{"params": given}]:
            self.add_param_group(group)

    def _check(self, group: Mapping[str, Any]) -> None:
        """Raise ValueError for an option that is out of range."""

    def _update(self, p: Tensor, g: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Update ``p.array`` and the state in place, given the raw gradient ``g``."""
        raise NotImplementedError(f"{type(self).__name__} does not define _update()")

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Add a group ``{"params": tensors, option: value, ...}``, for example of a layer that is no longer frozen.

        Raises TypeError for a parameter that is not a Tensor, GraphError for one that is not a leaf, and DTypeError if
        it is not of floating point. Raises ValueError for an empty group, a Tensor that is in a group already, and
        options that are unknown or out of range.
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
                raise TypeError(f"{name}: can only optimize Tensors, got {type(p).__name__}. Use nn.Parameter().")
            if not p.is_leaf:
                raise GraphError(
                    f"{name}: can only optimize leaf Tensors, got one of shape {p.shape} that is the result of "
                    f"{p.grad_fn}. Pass the leaf that it was computed from, or detach() it."
                )
            if not is_floating(p.dtype):
                raise DTypeError(f"{name}: can only optimize floating point Tensors, got {p.dtype}{p.shape}")
            if p in taken:
                raise ValueError(f"{name}: a parameter of shape {p.shape} is given twice")
            taken.add(p)
        options = {key: value for key, value in param_group.items() if key != "params"}
        if unknown := sorted(options.keys() - self.defaults.keys() - {"initial_lr"}):
            known = ", ".join(self.defaults)
            raise ValueError(f"{name}: expected options among {known}, got {', '.join(map(repr, unknown))}")
        group = {"params": params, **copy.deepcopy(self.defaults), **options}
        _read_numbers(group)
        self._check(group)
        self.param_groups.append(group)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], Loss]) -> Loss: ...
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient.

        closure: a function that computes the loss and the gradients; it is called first, with gradients enabled.

        Returns the result of the closure, or None. Raises ShapeError for a gradient of another shape or on another
        device than its parameter.
        """
        loss = None
        if closure is not None:
            if not callable(closure):
                raise TypeError(
                    f"{type(self).__name__}.step: expected a function or nothing, got {type(closure).__name__}. "
                    f"Call loss.backward() first, then step()."
                )
            with enable_grad():
                loss = closure()
        for group in self.param_groups:
            if type(group["lr"]) is not float:
                _read_numbers(group)
        # The attribute behind ``grad``, because parameters are leaves and this runs for each of them in every step.
        ready = [[p for p in group["params"] if p.accumulated_grad is not None] for group in self.param_groups]
        for params in ready:
            for p in params:
                g = p.accumulated_grad.array
                if g.shape != p.array.shape or type(g) is not type(p.array):
                    raise ShapeError(
                        f"{type(self).__name__}: a gradient of shape {p.grad.shape} on {p.grad.device} for a parameter "
                        f"of shape {p.shape} on {p.device}"
                    )
        run_op(self._optimizer_step, ready)
        return loss

    def _optimizer_step(self, ready: list[list[Tensor]]) -> None:
        """Update the parameters of each group that have gradients. A profile shows a step under this name."""
        for params, group in zip(ready, self.param_groups, strict=True):
            self._update_group(params, group)
            # so that backward through a graph that saved the old value fails
            version_counter.bump_versions([p.array for p in params])

    def _update_group(self, params: list[Tensor], group: dict[str, Any]) -> None:
        """Update the parameters of one group in place, one after the other."""
        for p in params:
            dtype, g = p.array.dtype, p.accumulated_grad.array
            state, wide = self.state.setdefault(p, {}), accumulate_dtype(dtype)
            if wide is dtype:
                self._update(p, g, state, group)
            else:  # squares of gradients, and products with rates, would vanish in float16
                copy = wrap(p.array.astype(wide))
                self._update(copy, g.astype(wide), state, group)
                p.array[...] = copy.array

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Set the gradients of all parameters to None, or to zeros in place if ``set_to_none`` is False."""
        for group in self.param_groups:
            clear_grads(group["params"], set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """Return ``{"state": {k: {...}}, "param_groups": [{"params": [k, ...], option: value, ...}, ...]}``.

        k numbers the parameters through all groups. JSON can hold all of it except for the Tensors in "state", which
        share memory with the optimizer's.
        """
        index = {p: k for k, p in enumerate(p for group in self.param_groups for p in group["params"])}
        return {
            "state": {index[p]: dict(state) for p, state in self.state.items() if state},
            "param_groups": [{**group, "params": [index[p] for p in group["params"]]} for group in self.param_groups],
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from the result of :meth:`state_dict`, for the same parameters in the same order. Load options too.

        state_dict: keys may be strings, and tuples may be lists, as they are after JSON. Tensors and arrays are copied.
            It may be the state of PyTorch's optimizer of this name.

        Raises ValueError if it is for other groups or options, ShapeError if a Tensor does not have the shape of its
        parameter; then nothing is loaded.
        """
        name = type(self).__name__
        try:
            saved = {int(k): dict(v) for k, v in state_dict["state"].items()}
            groups = [dict(group) for group in state_dict["param_groups"]]
            sizes = [len(group["params"]) for group in groups]
            order = [int(k) for group in groups for k in group["params"]]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                f"{name}: expected the result of state_dict(), got {type(state_dict).__name__} ({error!r})"
            ) from None
        own_sizes = [len(group["params"]) for group in self.param_groups]
        if sizes != own_sizes:
            raise ValueError(f"{name}: expected groups of {own_sizes} parameters, got a state for groups of {sizes}")
        parameters = dict(zip(order, (p for group in self.param_groups for p in group["params"]), strict=True))
        if unknown := sorted(saved.keys() - parameters.keys()):
            raise ValueError(
                f"{name}: the saved state lists parameters {unknown}, but no saved group contains them. Load the "
                f"unchanged result of state_dict()."
            )
        for group in groups:
            for key, default in self.defaults.items():
                if key not in group:
                    raise ValueError(f"{name}: a saved group has no option {key!r}. Load a state of {name}.")
                group[key] = tuple(group[key]) if isinstance(default, tuple) else group[key]
            for key, value in list(group.items()):
                if key in _HOW_PYTORCH_COMPUTES or (key in self._implied and self._implied[key] == value):
                    del group[key]
            if unknown_keys := sorted(group.keys() - self.defaults.keys() - {"params", "initial_lr"}):
                raise ValueError(f"{name}: a saved group has unknown options {', '.join(unknown_keys)}")
            _read_numbers(group)
            self._check(group)
        state = {parameters[k]: self._loaded(k, parameters[k], values) for k, values in saved.items()}
        for group, loaded in zip(self.param_groups, groups, strict=True):
            group.update({key: value for key, value in loaded.items() if key != "params"})
        self.state = state

    def _loaded(self, k: int, p: Tensor, values: dict[str, Any]) -> dict[str, Any]:
        """Return a copy of the saved state of one parameter, on its device and in its dtype (float32 for float16)."""
        values = {key: value for key, value in values.items() if value is not None}
        if "step" not in self._entries:
            values.pop("step", None)  # PyTorch counts the steps of every optimizer
        if values and values.keys() - set(self._optional_entries) != set(self._entries):
            raise ValueError(
                f"{type(self).__name__}: expected a state with {', '.join(sorted(self._entries)) or 'nothing'} for "
                f"parameter {k}, got {', '.join(sorted(values))}"
            )
        result = {}
        for key, value in values.items():
            value = tensor_of(value)
            if isinstance(value, Tensor) and key == "step":  # which PyTorch keeps as a tensor
                value = int(value)
            if isinstance(value, Tensor):
                if value.shape != p.shape:
                    raise ShapeError(
                        f"{type(self).__name__}: the saved {key!r} of parameter {k} has shape {value.shape}, but the "
                        f"parameter has shape {p.shape}"
                    )
                value = value.detach().to(accumulate_dtype(p.dtype), p.device, copy=True)
            result[key] = value
        return result

    def __repr__(self) -> str:
        lines = []
        for i, group in enumerate(self.param_groups):
            count = sum(p.numel() for p in group["params"])
            lines.append(f"  group {i}: {len(group['params'])} parameters, {count:,} numbers")
            lines += [f"    {key}: {value}" for key, value in group.items() if key != "params"]
        return "\n".join([f"{type(self).__name__} (", *lines, ")"])


def _read_numbers(group: dict[str, Any]) -> None:
    """Make Python's numbers of the numbers among the options, so that they upcast nothing and JSON can hold them."""
    for key, value in group.items():
        if key == "params" or isinstance(value, (bool, str, type(None))):
            continue
        if isinstance(value, (tuple, list)):
            group[key] = type(value)(v if (n := as_number(v)) is None else n for v in value)
        elif (number := as_number(value)) is not None:
            group[key] = number


def _format_group(group: Any) -> str:
    return f"a dict with {', '.join(map(repr, group))}" if isinstance(group, Mapping) else type(group).__name__


def require_number(name: str, option: str, value: Any, *, least: float = 0.0, below: float = float("inf")) -> float:
    """Return a number as Python's. Raises ValueError unless it is a number with ``least <= value < below``."""
    number = as_number(value)
    if number is None or not least <= number < below:
        upper = "" if below == float("inf") else f" and below {below:g}"
        raise ValueError(f"{name}: {option} must be a number of at least {least:g}{upper}, got {value!r}")
    return number


def require_betas(name: str, betas: Any) -> None:
    """Raise ValueError unless it is two numbers, each at least 0 and below 1."""
    if not isinstance(betas, (tuple, list)) or len(betas) != 2:
        raise ValueError(f"{name}: betas must be two numbers, got {betas!r}")
    for beta in betas:
        require_number(name, "each of betas", beta, below=1.0)
