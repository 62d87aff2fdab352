"""Module, the base class of layers and models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, ParamSpec, Protocol, Self, TypeVar, cast, overload

import numpy as np

from ..autograd import version_counter
from ..autograd.grad_mode import no_grad
from ..autograd.removable_handle import RemovableHandle
from ..backends.registry import DeviceLike
from ..dtypes import DTypeLike, as_dtype, float16, float32, float64, is_floating
from ..errors import DTypeError
from ..missing_names import CheckedArguments, missing_attribute
from ..tensors.convert import tensor_of
from ..tensors.tensor import Tensor
from .hooks import Hook, add_hook, call_with_hooks
from .parameter import Parameter, clear_grads

__all__ = ["LoadResult", "Module"]

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)


class LoadResult(NamedTuple):
    """A result of :meth:`Module.load_state_dict`.

    missing_keys: names of the module without a value in the state.
    unexpected_keys: names of the state that the module does not have.
    """

    missing_keys: list[str]
    unexpected_keys: list[str]


class _HasForward(Protocol[P, R_co]):
    """A protocol that gives a call of a module the types of its ``forward``, for type checkers and editors."""

    _hooks: list[Hook] | None

    def forward(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...


class Module(CheckedArguments):
    """Base class of all layers and models. A subclass calls ``super().__init__()`` and defines ``forward``.

    A Parameter or Module that is assigned to an attribute becomes part of the module: ``parameters()``,
    ``state_dict()``, ``to()`` and other methods find it under the attribute's name, in the order of assignment. One
    that is assigned to several attributes is not copied (tied weights). ``parameters()`` lists it once, and
    ``state_dict()`` lists it under each of its names.

        class Net(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.hidden = nn.Linear(2, 16)
                self.head = nn.Linear(16, 1)

            def forward(self, x: Tensor) -> Tensor:
                return self.head(self.hidden(x).relu())

        y = Net()(x)  # calls forward, and the module's hooks
    """

    training: bool
    """Whether layers such as Dropout behave as in training. Set it with :meth:`train` and :meth:`eval`."""

    _buffers: dict[str, bool]  # maps each name to whether the buffer is part of the state_dict
    _hooks: list[Hook] | None = None  # the first hook makes it an attribute of the module

    def __init__(self) -> None:
        self._buffers = {}
        self.training = True

    def __call__(self: _HasForward[P, R_co], *args: P.args, **kwargs: P.kwargs) -> R_co:
        if self._hooks:
            return cast("R_co", call_with_hooks(self, self.forward, self._hooks, args, kwargs))
        return self.forward(*args, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the result of a call of the module. Every subclass defines its own. Call the module instead of this.

        Raises NotImplementedError if the subclass defines none.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define forward()")

    # ---- attributes -------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, (Parameter, Module)):
            self._require_init(f"assigning {name!r}")
            if name in self._buffers:
                del self._buffers[name]
        elif value is not None:
            before = vars(self).get(name)
            if isinstance(before, (Parameter, Module)):
                kind = "Parameter" if isinstance(before, Parameter) else "Module"
                raise TypeError(
                    f"{type(self).__name__}.{name} is a {kind}: expected a {kind} or None, got {type(value).__name__}. "
                    + ("Use nn.Parameter(), or copy_() under no_grad()." if kind == "Parameter" else "Delete it first.")
                )
            if name in vars(self).get("_buffers", ()) and not isinstance(value, Tensor):
                raise TypeError(
                    f"{type(self).__name__}.{name} is a buffer: expected a Tensor or None, got {type(value).__name__}. "
                    f"Make one with tl.tensor()."
                )
        object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:  # Python calls it for attributes that do not exist
        self._require_init(f"asking for {name!r}", name)
        error = missing_attribute("nn.Module", name, dir(self), f"{type(self).__name__!r} module")
        error.name, error.obj = name, self
        raise error

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        vars(self).get("_buffers", {}).pop(name, None)

    def _require_init(self, doing: str, name: str = "") -> None:
        if "_buffers" not in vars(self):
            cls = type(self).__name__
            message = f"{cls}: call super().__init__() in {cls}.__init__ before {doing}"
            raise AttributeError(message, name=name, obj=self)

    def _register(self, what: str, name: str, value: Any, kind: type) -> None:
        self._require_init(f"registering {name!r}")
        cls = type(self).__name__
        if not isinstance(name, str) or not name or "." in name:
            raise KeyError(f"{cls}: the name of a {what} must be a string, not empty and without dots, got {name!r}")
        if hasattr(self, name) and not isinstance(vars(self).get(name, ...), (Tensor, Module, type(None))):
            raise KeyError(
                f"{cls}: a {what} cannot be called {name!r}, because the module has an attribute of that name"
            )
        if value is not None and not isinstance(value, kind):
            raise TypeError(
                f"{cls}: {what} {name!r} must be a {kind.__name__} or None, got {type(value).__name__}"
                + (". Make one with tl.tensor()." if kind is Tensor else "")
            )
        setattr(self, name, value)

    def register_parameter(self, name: str, value: Parameter | None) -> None:
        """Assign a Parameter to the attribute ``name``. None stands for an optional parameter that is not used.

        Raises TypeError for another value, KeyError if the module has another kind of attribute of that name.
        """
        self._register("parameter", name, value, Parameter)

    def register_buffer(self, name: str, value: Tensor | None, persistent: bool = True) -> None:
        """Assign a Tensor to the attribute ``name`` and make it part of the module, without training it.

        ``to()`` moves and converts buffers, ``buffers()`` lists them.

        persistent: whether ``state_dict()`` includes it.

        Raises TypeError for another value, KeyError if the module has another kind of attribute of that name.
        """
        self._register("buffer", name, value, Tensor)
        self._buffers[name] = persistent

    def add_module(self, name: str, module: Module | None) -> None:
        """Assign a Module to the attribute ``name``, which need not be an identifier.

        Raises TypeError for another value, KeyError if the module has another kind of attribute of that name.
        """
        self._register("module", name, module, Module)

    # ---- hooks --------------------------------------------------------------------------------

    def _add_hook(self, hook: Hook, prepend: bool) -> RemovableHandle:
        hooks = [] if self._hooks is None else self._hooks
        handle = add_hook(hooks, hook, prepend)
        object.__setattr__(self, "_hooks", hooks)
        return handle

    def has_hooks(self) -> bool:
        """Return whether a hook is registered on this module itself, not on the modules inside it."""
        return bool(self._hooks)

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call ``hook(module, args)`` before each forward. A result that is not None replaces the arguments.

        hook: returns None, a tuple of positional arguments, or one argument. With ``with_kwargs`` it is called as
            ``hook(module, args, kwargs)``, and returns None or a tuple ``(args, kwargs)``.
        prepend: call it before the hooks that are registered already, instead of after them.

        Returns a handle whose ``remove()`` removes the hook; it can be used as a context manager. Hooks are copied by
        ``deepcopy`` and pickled with the module; they are not part of its ``state_dict``.
        """
        return self._add_hook(Hook("forward_pre", hook, with_kwargs), prepend)

    def register_forward_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False, always_call: bool = False
    ) -> RemovableHandle:
        """Call ``hook(module, args, output)`` after each forward. A result that is not None replaces the output.

        prepend: call it before the hooks that are registered already, instead of after them.
        with_kwargs: call it as ``hook(module, args, kwargs, output)``.
        always_call: call it even if the forward or another hook raises an error; then ``output`` may be None.

        Only a call of the module runs its hooks; ``module.forward(...)`` does not. Returns a handle, see
        :meth:`register_forward_pre_hook`.

            activations = {}
            with model.head.register_forward_hook(lambda module, args, output: activations.update(head=output)):
                model(x)
        """
        return self._add_hook(Hook("forward", hook, with_kwargs, always_call), prepend)

    def register_full_backward_pre_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call ``hook(module, grad_output)`` in backward, once the gradients of the module's outputs are known.

        grad_output: a tuple with a gradient for each output; None for those that no gradient has reached.
        hook: returns None, or the gradients to use instead. It must not change ``grad_output`` in place.
        prepend: call it before the hooks that are registered already, instead of after them.

        The module must return a Tensor or a tuple of Tensors. Returns a handle, see :meth:`register_forward_pre_hook`.
        """
        return self._add_hook(Hook("full_backward_pre", hook), prepend)

    def register_full_backward_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call ``hook(module, grad_input, grad_output)`` in backward, once the gradients of the inputs are known.

        grad_input: a tuple with a gradient for each positional argument, None for those that are not Tensors. It is
            zeros for Tensors that do not require gradients, and for those that no gradient has reached.
        grad_output: a tuple with a gradient for each output; None for those that no gradient has reached.
        hook: returns None, or the gradients to use instead of ``grad_input``. It must not change its arguments in
            place.
        prepend: call it before the hooks that are registered already, instead of after them.

        If no argument requires gradients, the hook is called when the gradients of the outputs are known. The module
        must return a Tensor or a tuple of Tensors. Returns a handle, see :meth:`register_forward_pre_hook`.
        """
        return self._add_hook(Hook("full_backward", hook), prepend)

    # ---- modules, parameters and buffers ---------------------------------------------------------------------

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Iterate over the names and modules directly inside this one, each module once."""
        seen = set()
        for name, value in list(vars(self).items()):
            if isinstance(value, Module) and value not in seen:
                seen.add(value)
                yield name, value

    def children(self) -> Iterator[Module]:
        """Iterate over the modules directly inside this one, each once."""
        return (module for _, module in self.named_children())

    def named_modules(self, prefix: str = "", remove_duplicate: bool = True) -> Iterator[tuple[str, Module]]:
        """Iterate over the dotted names and modules of this module and all inside it, outermost first.

        prefix: the name of this module, which is put before the others.
        remove_duplicate: whether a module with several names comes once.
        """
        return self._iterate_modules(prefix, set() if remove_duplicate else None)

    def _iterate_modules(self, prefix: str, seen: set[Module] | None) -> Iterator[tuple[str, Module]]:
        if seen is not None:
            if self in seen:
                return
            seen.add(self)
        yield prefix, self
        for name, value in list(vars(self).items()):
            if isinstance(value, Module):
                yield from value._iterate_modules(f"{prefix}.{name}" if prefix else name, seen)

    def modules(self) -> Iterator[Module]:
        """Iterate over this module and all inside it, each once."""
        return (module for _, module in self.named_modules())

    def get_submodule(self, target: str) -> Module:
        """Return the module of a dotted name, as ``named_modules`` gives it. Raises AttributeError if there is none."""
        found = dict(self.named_modules(remove_duplicate=False)).get(target)
        if found is None:
            raise AttributeError(f"{type(self).__name__}: expected the name of a module inside, got {target!r}")
        return found

    def get_parameter(self, target: str) -> Parameter:
        """Return the parameter of a dotted name. Raises AttributeError if there is none."""
        found = dict(self.named_parameters(remove_duplicate=False)).get(target)
        if found is None:
            raise AttributeError(f"{type(self).__name__}: expected the name of a parameter, got {target!r}")
        return found

    def get_buffer(self, target: str) -> Tensor:
        """Return the buffer of a dotted name. Raises AttributeError if there is none."""
        found: Tensor | None = dict(self.named_buffers(remove_duplicate=False)).get(target)
        if found is None:
            raise AttributeError(f"{type(self).__name__}: expected the name of a buffer, got {target!r}")
        return found

    def _named_tensors(
        self, own: Callable[[Module], Iterator[tuple[str, Any]]], prefix: str, recurse: bool, remove_duplicate: bool
    ) -> Iterator[tuple[str, Any]]:
        seen = set()
        for path, module in self.named_modules(prefix, remove_duplicate) if recurse else [(prefix, self)]:
            for name, value in own(module):
                if remove_duplicate and value in seen:
                    continue
                seen.add(value)
                yield f"{path}.{name}" if path else name, value

    def _own_parameters(self) -> Iterator[tuple[str, Parameter]]:
        self._require_init("asking for its parameters")
        return ((name, value) for name, value in vars(self).items() if isinstance(value, Parameter))

    def _own_buffers(self, transient: bool = True) -> Iterator[tuple[str, Tensor]]:
        self._require_init("asking for its buffers")
        for name, persistent in self._buffers.items():
            value = getattr(self, name)
            if value is not None and (persistent or transient):
                yield name, value

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """Iterate over the dotted names and parameters of this module and of all inside it.

        prefix: the name of this module, which is put before the others.
        recurse: whether the modules inside it are included.
        remove_duplicate: whether a parameter with several names (tied weights) comes once.
        """
        return self._named_tensors(Module._own_parameters, prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Iterate over the parameters, each once. Optimizers take this."""
        return (parameter for _, parameter in self.named_parameters(recurse=recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """Iterate over the dotted names and buffers, persistent or not. See :meth:`named_parameters`."""
        return self._named_tensors(Module._own_buffers, prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """Iterate over the buffers, each once."""
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    # ---- state ------------------------------------------------------------------------------

    def _named_state(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        def own(module: Module) -> Iterator[tuple[str, Tensor]]:
            yield from module._own_parameters()
            yield from module._own_buffers(transient=False)

        return self._named_tensors(own, prefix, True, False)

    def state_dict(self, prefix: str = "", keep_vars: bool = False) -> dict[str, Tensor]:
        """Return the parameters and persistent buffers by name, as detached Tensors that share the module's memory.

        prefix: a text to put before every name.
        keep_vars: whether to return the Parameters and buffers themselves.
        """
        named = self._named_state(prefix.removesuffix("."))
        return {name: value if keep_vars else value.detach() for name, value in named}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> LoadResult:
        """Copy values into the parameters and persistent buffers, converted to their dtype and device.

        state_dict: Tensors by name, or arrays of NumPy, PyTorch or another library. One name of a tied parameter is
            enough.
        strict: whether missing and unexpected names are errors.

        Raises TypeError if ``state_dict`` is not a mapping. Raises one RuntimeError that lists every missing or
        unexpected name and every value that is not a Tensor of the right shape; then nothing is loaded.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(
                f"{type(self).__name__}.load_state_dict: expected a dict of names and Tensors, got "
                f"{type(state_dict).__name__}"
            )
        values: dict[str, Any] = {}
        unreadable = []
        for name, value in state_dict.items():
            try:
                values[name] = tensor_of(value)
            except TypeError as error:
                unreadable.append(f"{name}: {error}")
        own = dict(self._named_state())
        given = {own[name] for name in state_dict if name in own}
        missing = [name for name, value in own.items() if name not in state_dict and value not in given]
        unexpected = [name for name in state_dict if name not in own]
        problems = [f"missing: {name}" for name in missing] + [f"unexpected: {name}" for name in unexpected]
        problems = unreadable + (problems if strict else [])
        for name, value in values.items():
            if not isinstance(value, Tensor):
                problems.append(f"not a Tensor: {name} is {type(value).__name__}. Make one with tl.tensor().")
            elif name in own and value.shape != own[name].shape:
                problems.append(
                    f"wrong shape: {name} is {own[name].shape} in the module, {value.shape} in the state_dict"
                )
        if problems:
            listed = "".join(f"\n  {problem}" for problem in problems)
            raise RuntimeError(f"{type(self).__name__}.load_state_dict: the state_dict does not fit the module{listed}")
        for name, value in values.items():
            if name in own:
                target = own[name]
                target.array[...] = value.detach().to(device=target.device, dtype=target.dtype).array
                version_counter.bump_version(target.array)
        return LoadResult(missing, unexpected)

    # ---- modes, devices, dtypes ---------------------------------------------------------------

    def apply(self, f: Callable[[Module], object]) -> Self:
        """Call ``f`` on every module inside, innermost first, and then on this one. Return the module."""
        for child in self.children():
            child.apply(f)
        f(self)
        return self

    def train(self, mode: bool = True) -> Self:
        """Put this module and all inside it into training mode, or into evaluation mode if ``mode`` is False.

        Returns the module. Raises TypeError if ``mode`` is not a bool.
        """
        if not isinstance(mode, bool):
            raise TypeError(f"{type(self).__name__}.train: mode must be a bool, got {type(mode).__name__}")
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Put this module and all inside it into evaluation mode: no dropout. Return the module.

        Gradients are still recorded; use ``no_grad`` to switch that off.
        """
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Make all parameters trainable, or freeze them if ``requires_grad`` is False. Return the module."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Set the gradients of all parameters to None, or to zeros in place if ``set_to_none`` is False."""
        clear_grads(self.parameters(), set_to_none)

    def _convert(self, f: Callable[[Tensor], Tensor]) -> Self:
        """Replace the values of parameters, gradients and buffers by ``f`` of them, and keep the Parameter objects."""
        buffers: dict[Tensor, Tensor] = {}
        with no_grad():
            for parameter in self.parameters():
                gradient = parameter.grad
                parameter.grad = None
                parameter.array = f(parameter).array
                parameter.grad = None if gradient is None else f(gradient)
            for module in self.modules():
                for name, buffer in module._own_buffers():
                    if buffer not in buffers:
                        buffers[buffer] = f(buffer)
                    setattr(module, name, buffers[buffer])
        return self

    @overload
    def to(self, device: DeviceLike = None, dtype: DTypeLike | None = None) -> Self: ...
    @overload
    def to(self, dtype: DTypeLike, /) -> Self: ...
    @overload
    def to(self, tensor: Tensor, /) -> Self: ...
    def to(self, device: Any = None, dtype: Any = None) -> Self:
        """Move parameters and buffers to a device, convert those of floating point to a dtype, or both. Works in place.

        Forms: ``to(device)``, ``to(dtype)``, ``to(device, dtype)``, ``to(tensor)``. Make optimizers afterwards, because
        their state does not move.

        Returns the module. Raises DTypeError if the dtype is not a floating point one.
        """
        if isinstance(device, Tensor):
            device, dtype = device.device, device.dtype
        elif isinstance(device, (np.dtype, type)):
            device, dtype = None, device
        if dtype is not None and not is_floating(dtype):
            cls = type(self).__name__
            raise DTypeError(f"{cls}.to: parameters must be floating point numbers, got {np.dtype(dtype)}")

        def move(x: Tensor) -> Tensor:
            return x.to(device=device, dtype=dtype if is_floating(x.dtype) else None)

        return self._convert(move)

    def cpu(self) -> Self:
        """Move parameters and buffers: the same as ``to("cpu")``."""
        return self.to("cpu")

    def cuda(self) -> Self:
        """Move parameters and buffers: the same as ``to("cuda")``."""
        return self.to("cuda")

    def float(self) -> Self:
        """Convert parameters and buffers: the same as ``to(float32)``."""
        return self.to(float32)

    def double(self) -> Self:
        """Convert parameters and buffers: the same as ``to(float64)``."""
        return self.to(float64)

    def half(self) -> Self:
        """Convert parameters and buffers: the same as ``to(float16)``."""
        return self.to(float16)

    def bfloat16(self) -> Self:
        """Convert parameters and buffers: the same as ``to(bfloat16)``. Raises DTypeError without ml_dtypes."""
        return self.to(as_dtype("bfloat16"))

    # ---- repr ---------------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """Return the text that ``repr`` shows between the parentheses. Subclasses return their options."""
        return ""

    def _child_reprs(self) -> list[tuple[str, str]]:
        """Return a label and a repr for each line of the nested repr."""
        return [(name, repr(value)) for name, value in vars(self).items() if isinstance(value, Module)]

    def __repr__(self) -> str:
        extra, children = self.extra_repr(), self._child_reprs()
        if not children:
            return f"{type(self).__name__}({extra})"
        lines = extra.split("\n") if extra else []
        lines += [line for label, text in children for line in f"({label}): {text}".split("\n")]
        return f"{type(self).__name__}(\n  " + "\n  ".join(lines) + "\n)"

    def _repr_html_(self) -> str:
        from .html import module_html  # imported here, because only notebooks need it

        return module_html(self)
