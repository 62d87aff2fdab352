"""The functions of the library that a step may call, because a replay needs nothing of what they do outside of ops.

A function is in these tables if its way does not depend on the values of arrays, except through ops and ``run_op``. It
changes nothing that lasts, except through the calls that ``recorder`` repeats.
"""

from __future__ import annotations

import types

__all__ = ["CAPTURABLE_OPS", "is_known"]

_PUBLIC = {
    "autograd/function.py": {"make_op_function.<locals>.call"},
    "backends/registry.py": {"Device.__str__"},
    "autograd/usual_call.py": {"with_usual_call.<locals>.call"},
    "autograd/grad_mode.py": {"is_grad_enabled"},
    "autograd/version_counter.py": {"VersionCounter.__init__"},  # its callback runs whenever memory is freed
    "nn/activation.py": {"GELU.forward", "ReLU.forward", "SiLU.forward", "Sigmoid.forward", "Tanh.forward"},
    "nn/containers.py": {"Sequential.forward", "_IndexedModule.__iter__", "_IndexedModule.__len__",
                         "_IndexedModule.__getitem__"},
    "nn/dropout.py": {"Dropout.forward"},
    "nn/embedding.py": {"Embedding.forward"},
    "nn/functional.py": {"dropout", "embedding", "layer_norm", "linear", "rms_norm", "scaled_dot_product_attention",
                         "cross_entropy", "mse_loss"},
    "nn/functional_losses.py": {"mse_loss"},
    "nn/linear.py": {"Identity.forward", "Linear.forward"},
    "nn/loss.py": {"CrossEntropyLoss.forward", "MSELoss.forward"},
    "nn/module.py": {"Module.__call__", "Module.parameters"},
    "nn/normalization.py": {"LayerNorm.forward", "RMSNorm.forward"},
    "nn/utils.py": {"clip_grad_norm_"},
    "ops/arguments.py": {"numpy_names.<locals>.named"},
    "ops/gather_scatter.py": {"where"},
    "ops/half_precision.py": {"rounds_once.<locals>.widened"},
    "ops/index.py": {"getitem"},
    "ops/shape.py": {"cat", "chunk", "flatten", "narrow", "split", "squeeze", "stack", "unsqueeze"},
    "distributed/data_parallel.py": {"DataParallel.average_gradients"},
    "distributed/zero_redundancy.py": {"ZeroRedundancyOptimizer.step", "ZeroRedundancyOptimizer.zero_grad"},
    "optim/combined.py": {"CombinedOptimizer.step", "CombinedOptimizer.zero_grad"},
    "tensors/method_makers.py": {"reflected.<locals>.method", "to_method.<locals>.method",
                                 "with_sizes.<locals>.method"},
    "tensors/tensor.py": {"Tensor.backward", "Tensor.dtype", "Tensor.ndim", "Tensor.shape", "Tensor.split",
                          "Tensor.dim", "Tensor.device", "Tensor.T", "Tensor.mT", "Tensor.numel", "Tensor.size",
                          "Tensor.detach", "Tensor.requires_grad", "Tensor.is_leaf", "Tensor.__len__",
                          "Tensor.to"},
}  # fmt: skip
"""By file, what code of a user may call."""

_INTERNAL = {
    "autograd/autocast_mode.py": {"can_combine"},
    "autograd/engine.py": {"fill_missing_with_zeros", "run_backward"},
    "autograd/gradient_observers.py": {"active_observers", "finish", "observe"},
    "autograd/grad_mode.py": {"set_grad_enabled.__enter__", "set_grad_enabled.__exit__", "set_grad_enabled.__init__"},
    "autograd/function.py": {"make_op_function.<locals>.general"},
    "autograd/gradients.py": {"_as_list", "_seeds", "backward"},
    "autograd/graph.py": {"Output.__init__", "topological_order", "wrap"},
    "autograd/op_definition.py": {"Op.bind", "Op._order", "Op.check_constant", "Op.plan", "Op.record",
                                  "Op.result_array", "Op.argument_names"},
    "autograd/op_hooks.py": {"run_op"},
    "autograd/usual_call.py": {"_given"},
    "autograd/version_counter.py": {"base_array", "check_saved"},
    "autograd/views.py": {"record_view"},
    "distributed/data_parallel.py": {"check_values"},
    "backends/registry.py": {"_load_cpu", "backend_of", "device", "device_of"},
    "dtypes.py": {"_bits", "_check_scalars", "_choose", "_compare", "_convert", "_float", "_float_scale",
                  "_floating", "_is_exact", "_numpy_dtype", "_promote", "_round", "_rounded_numbers", "_same",
                  "_scalar_dtype", "_scale", "_with_wide_numbers", "accumulate_dtype", "as_dtype",
                  "bfloat16_among", "check_number", "finfo", "is_floating", "kind_of", "narrow_beside_number",
                  "narrow_dtype", "promote_types", "result_type"},
    "nn/checks.py": {"check_attention", "check_class_targets", "check_class_weight", "check_floating", "check_linear",
                     "check_normalized_shape", "check_reduction", "check_same_shape",
                     "check_tensors", "check_tensors_or_none"},
    "nn/containers.py": {"_IndexedModule._names"},
    "nn/functional.py": {"_class_targets", "_reduce_rows", "_weights_of"},
    "nn/functional_losses.py": {"reduce_losses"},
    "nn/module.py": {"Module.named_parameters", "Module._named_tensors", "Module._iterate_modules",
                     "Module.named_modules", "Module._require_init"},
    "nn/utils.py": {"_gradients"},
    "ops/arguments.py": {"array_of", "dim_in", "numpy_names.<locals>.named", "shape_of", "dims_in"},
    "ops/index.py": {"_parse"},
    "ops/shape.py": {"_sequence"},
    "scalars.py": {"_dimensions", "_kind", "as_integer", "as_number", "flag_in", "fraction_in", "int_in", "ints_in",
                   "number_in"},
    "tensors/convert.py": {"is_dtype_name", "to_device", "to_dtype"},
    "tensors/tensor.py": {"Tensor.grad"},
}  # fmt: skip
"""By file, what functions of the library call besides."""

_RECORDING = {"capture/guards.py", "capture/recorder.py", "capture/tape.py", "capture/user_code.py"}
"""The files whose own code runs while a step is recorded."""

CAPTURABLE_OPS = frozenset(
    "_cat _slice _split abs add add_ apply_dropout_mask attention average_over_ranks bitwise_and "
    "bitwise_not bitwise_or bitwise_xor broadcast_to "
    "cat check_class_indices clamp clip_grad_norm convert convert_to_discrete cos count_targets "
    "cross_entropy_rows cumsum div dropout_mask dropout_mask_of_shape embedding eq exp expand expm1 gather ge gelu "
    "getitem gt huber isfinite isinf isnan layer_norm_rows le linear log log1p log_softmax logical_and logical_not "
    "logical_or logical_xor logsumexp lt masked_fill matmul max maximum mean min minimum movedim mul ne neg permute "
    "pow reciprocal relu reshape rms_norm_rows rsqrt sigmoid silu sin slice slice_ softmax softplus split sqrt "
    "square squared_error squeeze stack sub sum tanh transpose tril triu true_divide unsqueeze var view where "
    "wide_matmul".split()
)  # fmt: skip
"""The functions of ops, and others in ``run_op``, whose results have a shape that does not depend on values."""


def is_known(code: types.CodeType, folder: str, from_user: bool) -> bool:
    """Return whether a step that calls this code of the library can be captured.

    folder: that of the library. from_user: whether code of a user calls it.
    """
    name, _, inner = code.co_qualname.partition(".<locals>.<")
    if not inner:
        name = code.co_qualname
    file = code.co_filename[len(folder) + 1 :].replace("\\", "/")
    return file in _RECORDING or name in _PUBLIC.get(file, ()) or (not from_user and name in _INTERNAL.get(file, ()))
