"""The table of the classes of ops: the dtype that each op computes in inside ``autocast``.

- ``lower``: in the dtype of the context. Products, convolutions, attention and recurrent cells, which take most of the
  time and add up in float32 in any case.
- ``float32``: sums, norms, losses, and functions whose result has a much larger range than their argument.
- ``widest``: in the widest dtype among the inputs.
- ``follow``: in the dtype of the inputs, as without autocast. The arithmetic ops among them promote their inputs.

Only float32, float16 and bfloat16 are converted. The lists are PyTorch's for CUDA, joined with those for the CPU
(https://docs.pytorch.org/docs/stable/amp.html#autocast-op-reference), except that all sums, means and norms are in
float32. Names are those of ops and of functions of several ops, without underscores at the ends. A test fails for an op
that is not here.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["OP_CLASSES"]

_LISTS = {
    "lower": """
        matmul wide_matmul linear addmm attention correlate correlate_input correlate_weight
    """,
    "float32": """
        sum sum_to_size mean var std prod cumsum cumprod logsumexp logcumsumexp recurrence running_maximum exp_below
        quantile nanquantile histc
        vector_norm norm cdist cosine_similarity normalize pairwise_distance
        exp expm1 log log1p log2 log10 logaddexp pow square reciprocal rsqrt tan asin acos sinh cosh softplus
        softmax log_softmax layer_norm_rows rms_norm_rows normalize_channels scale_channels
        matrix_exp cholesky qr eigh eigvalsh svd svdvals inv solve det slogdet logdet cofactors cofactors_gradient pinv
        sizes matrix_rank lstsq solve_triangular cond
        huber squared_error bernoulli_cross_entropy logistic_cross_entropy cross_entropy_rows nll_rows nll_gradient
        binary_cross_entropy binary_cross_entropy_with_logits cosine_embedding_loss cross_entropy hinge_embedding_loss
        huber_loss kl_div l1_loss margin_ranking_loss mse_loss multi_margin_loss nll_loss smooth_l1_loss
        soft_margin_loss triplet_margin_loss
    """,
    "widest": "lerp dot adaptive_avg_pool",
    "follow": """
        eq ne lt le gt ge count_all logical_and logical_or logical_xor logical_not isnan isinf isfinite all any
        bitwise_and bitwise_or bitwise_xor bitwise_not bitwise_left_shift bitwise_right_shift
        add sub mul outer true_divide div floor_divide remainder fmod neg abs sign floor ceil round trunc sqrt
        tanh sigmoid sigmoid_slope erf sin cos atan atan2 maximum minimum clamp where
        relu relu_slope leaky_relu elu silu log_sigmoid gelu apply_dropout_mask embedding one_hot
        clone convert convert_to_discrete transfer alias module_hook distance
        all_gather all_reduce broadcast reduce_scatter
        reshape view broadcast_to permute transpose flip roll crop pad_dims split unbind cat diagonal tril triu
        slice index index_put with_view select unselect select_last put
        argwhere amax amin argmax argmin argsort topk searchsorted bincount unique
        median_index median_of_all whole_rank
        wraps power_derivative share bell atan_slope over_square zero unslice unindex undiagonal embedding_backward
        deviations pick unpick share_out softmax_gradient log_softmax_gradient
    """,
}

OP_CLASSES: Mapping[str, str] = {name: kind for kind, names in _LISTS.items() for name in names.split()}
"""The class of each op and function by its name."""
