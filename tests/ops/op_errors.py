"""The calls that each op must refuse, with the error.

    refuses("gather", IndexError, "index 3 at position .* out of range", real(3, 4), 0, given([[0, 3]]))

The message must match the expression. ``{op}`` in it stands for the op's public name.
"""
import math
from collections import defaultdict
from typing import Any

import numpy as np

from tensorlite import DTypeError, ShapeError
from tensorlite.linalg import LinAlgError
from tensorlite.testing import ErrorInput, bools, error, fixed, given, ints, positive, real

ERRORS: dict[str, list[ErrorInput]] = defaultdict(list)
"""By the names of tests/ops/op_table.py."""


def refuses(names: str, exception: type[Exception], match: str, *args: Any, **kwargs: Any) -> None:
    for name in names.split():
        op = name.removeprefix("F.").removeprefix("Tensor.").removeprefix("linalg.")
        ERRORS[name].append(error(exception, match.replace("{op}", op), *args, **kwargs))


BROADCAST = "the shapes do not broadcast"
RANGE = r"dim 2 is out of range for a tensor with 2 dimensions \(expected -2 to 1\)"
FLOATING = r"^{op}.*expected floating point .*[;.] [Cc]onvert with \.(float|to)\("
INDICES = "^{op}: expected an index tensor of integers, got float64"

# ---- elementwise ----------------------------------------------------------------------------

refuses(
    "add sub mul true_divide floor_divide remainder fmod pow maximum minimum logaddexp atan2 eq ne lt le gt ge"
    " logical_and logical_or logical_xor", ShapeError, r"^{op}\(float64\(2, 3\), float64\(2,\)\): " + BROADCAST,
    real(2, 3), real(2),
)  # fmt: skip
refuses("div", ShapeError, BROADCAST, real(2, 3), real(2))
BITS = "bitwise_and bitwise_or bitwise_xor bitwise_left_shift bitwise_right_shift"
refuses(BITS, ShapeError, "^{op}.*" + BROADCAST, ints(4, 2), ints(4, 3))
refuses(BITS, DTypeError, r"^{op}\(float64\(2,\), float64\(2,\)\): .*not defined", real(2), real(2))
refuses("bitwise_not", DTypeError, r"^{op}\(float64\(2,\)\): .*not defined", real(2))
refuses("add mul maximum", TypeError, "^{op}: expected a Tensor or a number, got a str", real(2), "1")
refuses("sub", DTypeError, "^{op}.bool.*not defined", bools(2), bools(2))
refuses("neg", DTypeError, "^{op}.bool.*not defined", bools(2))
refuses(
    "abs sign square reciprocal exp expm1 log log2 log10 log1p sqrt rsqrt tanh sigmoid erf sin cos tan asin acos atan"
    " sinh cosh floor ceil trunc isnan isinf isfinite logical_not F.tanh F.sigmoid", TypeError,
    "^{op}: expected a Tensor, got", 1.5,
)  # fmt: skip
refuses("floor_divide remainder fmod", RuntimeError, "^{op}: division of integers by 0", given([1, 2]), given([1, 0]))
refuses("div", RuntimeError, "division of integers by 0", given([1, 2]), given([1, 0]), rounding_mode="trunc")
refuses("div", ValueError, "rounding_mode must be .* got 'up'", real(2), real(2), rounding_mode="up")
refuses(
    "add sub mul floor_divide remainder maximum minimum", DTypeError,
    r"^{op}.int64.*: 9+ does not fit into a tensor of int64",
    ints(2, 3), int("9" * 30),
)  # fmt: skip
refuses("pow", ValueError, "integers to negative integer powers", ints(3, 2), -1)
refuses("round", TypeError, "^round", real(2), 0.5)
refuses("lerp", ShapeError, "^lerp.*" + BROADCAST, real(2, 3), real(2), 0.5)
refuses("lerp", DTypeError, FLOATING, ints(3, 2), ints(3, 2), 0.5)
refuses("clamp", ShapeError, "^clamp.*" + BROADCAST, real(2, 3), real(2), real(3))
refuses("clamp", ValueError, "at least one of min and max", real(2))
refuses("where", ShapeError, "^where.*" + BROADCAST, bools(2), real(3), real(3))
refuses("where", DTypeError, "condition must be of booleans, got float64", real(2), real(2), real(2))

# ---- reductions -----------------------------------------------------------------------------

SEVERAL = "sum mean var std amax amin all any logsumexp norm linalg.vector_norm"
refuses(f"{SEVERAL} prod argmax argmin cumsum max min", IndexError, "^{op}.*" + RANGE, real(2, 3), dim=2)
refuses(SEVERAL, ValueError, r"^{op}.*dim \(0, -2\) names a dimension twice", real(2, 3), dim=(0, -2))
refuses("sum", TypeError, "dim must be an int or several, got 'rows'", real(2, 3), "rows")
refuses("mean var std norm linalg.vector_norm", DTypeError, FLOATING, ints(3, 2, 3))
refuses("amax amin argmax argmin", ShapeError, "^{op}.*no entries to choose from", real(0))
refuses("max min", ShapeError, "no entries to choose from", real(0))
refuses("amax argmin", ShapeError, "along dim 1", real(2, 0), 1)
refuses("max min", ShapeError, r"imum\(float64\(2, 3\), float64\(2,\)\): " + BROADCAST, real(2, 3), real(2))
refuses("norm", TypeError, "p must be a number, got 'nuclear'", real(2, 3), "nuclear")
refuses("linalg.vector_norm", TypeError, "ord must be a number, got 'fro'", real(2, 3), "fro")
refuses("linalg.vector_norm", ShapeError, "order -inf needs at least one entry along dim", real(2, 0), -math.inf, 1)
refuses("cumprod logcumsumexp median nanmedian", IndexError, RANGE, real(2, 3), dim=2)
refuses("logcumsumexp", DTypeError, FLOATING, ints(3, 2), 0)
refuses("median nanmedian", IndexError, "no entries to choose from along dim 1", real(2, 0), 1)
NO_QUANTILE = "quantile nanquantile"
refuses(NO_QUANTILE, IndexError, RANGE, real(2, 3), 0.5, 2)
refuses(NO_QUANTILE, ShapeError, "no entries to choose from", real(0), 0.5)
refuses(NO_QUANTILE, ValueError, r"q must be a number from 0 to 1, got 1\.5", real(3), 1.5)
refuses(NO_QUANTILE, ValueError, r"q must be from 0 to 1, got \[0\.5, -1\.0\]", real(3), fixed(given([0.5, -1.0])))
refuses(NO_QUANTILE, ShapeError, r"a number or a vector, got shape \(1, 1\)", real(3), fixed(given([[0.5]])))
refuses(NO_QUANTILE, ValueError, "interpolation must be .* got 'cubic'", real(3), 0.5, interpolation="cubic")
refuses(NO_QUANTILE, DTypeError, "expected floating point numbers, got int64", ints(3, 2), 0.5)
refuses("sum_to_size", ShapeError, r"shape \(2,\) does not broadcast to \(2, 3\)", real(2, 3), (2,))

# ---- shapes ---------------------------------------------------------------------------------

refuses("reshape view", ShapeError, r"^{op}.*shape \(4,\) does not fit 6 elements", real(2, 3), (4,))
refuses("reshape view", ShapeError, r"^{op}.*shape \(-1, -1\) may have one -1", real(2, 3), (-1, -1))
refuses("reshape", ShapeError, "no other negative size", real(2, 3), (-2, 3))
refuses("Tensor.view Tensor.reshape", ShapeError, r"^{op}.*shape \(4,\) does not fit 6 elements", real(2, 3), 4)
refuses("flatten", IndexError, "^flatten: " + RANGE, real(2, 3), 2)
refuses("flatten", ValueError, "start_dim 1 comes after end_dim 0", real(2, 3), 1, 0)
refuses("unflatten", ShapeError, r"sizes \(4, 2\) do not multiply to 6", real(2, 6), 1, (4, 2))
refuses("unflatten", IndexError, "^unflatten: " + RANGE, real(2, 6), 2, (3, 2))
refuses("unsqueeze", IndexError, "^unsqueeze: dim 3 is out of range", real(2, 3), 3)
refuses("squeeze", IndexError, "^squeeze: " + RANGE, real(2, 3), 2)
refuses("broadcast_to expand", ShapeError, r"float64\(2, 3\).*does not broadcast to shape \(2, 2\)", real(2, 3), (2, 2))
refuses("expand", ShapeError, r"^expand: cannot expand shape \(3,\) to \(-1, 3\)", real(3), (-1, 3))
refuses("Tensor.expand", ShapeError, r"^expand: cannot expand shape \(2, 3\) to \(2,\)", real(2, 3), 2)
refuses("broadcast_tensors", ShapeError, r"shapes \(2,\), \(3,\) do not broadcast together", real(2), real(3))
refuses("permute", ShapeError, r"dims \(0,\) must name each of the 2 dimensions once", real(2, 3), (0,))
refuses("permute", ShapeError, r"dims \(0, 2\) must name each", real(2, 3), (0, 2))
refuses("transpose swapaxes", IndexError, RANGE, real(2, 3), 0, 2)
refuses("movedim", IndexError, "^movedim: " + RANGE, real(2, 3), 0, 2)
refuses("movedim", ValueError, "expected as many different dimensions", real(2, 3), (0, 1), (0,))
refuses("flip", IndexError, "^flip.*" + RANGE, real(2, 3), (2,))
refuses("flip", ValueError, "names a dimension twice", real(2, 3), (0, 0))
refuses("roll", IndexError, "^roll.*" + RANGE, real(2, 3), 1, 2)
refuses("roll", ValueError, r"one shift for each of dims.* got shifts \(1, 2\), dims 0", real(2, 3), (1, 2), 0)
refuses("narrow", IndexError, "start 2 and length 2 do not fit in dim 1", real(2, 3), 1, 2, 2)
refuses("narrow", IndexError, "^narrow: " + RANGE, real(2, 3), 2, 0, 1)
refuses("split", ShapeError, r"sizes \[2, 2\] do not add up to 5", real(5), (2, 2))
refuses("split", IndexError, "^split: dim 1 is out of range", real(5), 2, 1)
refuses("split", ValueError, "the size must be positive, got -1", real(5), -1)
refuses("split", ShapeError, "a 0-d tensor has no dimension to cut", real(), 1)
refuses("chunk", ValueError, "number of chunks must be positive, got 0", real(5), 0)
refuses("chunk", IndexError, "^chunk: dim 1 is out of range", real(5), 2, 1)
refuses("unbind", ShapeError, "a 0-d tensor has no dimension to unbind", real())
refuses("unbind", IndexError, "^unbind: " + RANGE, real(2, 3), 2)
JOINS = "cat concat stack"
refuses(JOINS, IndexError, "dim -4 is out of range", [real(2, 3), real(2, 3)], -4)
refuses(JOINS, ValueError, "expected at least one Tensor, got none", [])
refuses("cat concat", ShapeError, r"shapes \(2, 3\), \(2, 2\) differ in another dimension", [real(2, 3), real(2, 2)])
refuses("cat concat", ShapeError, r"0-d tensors cannot be joined .* Use stack\(\)", [real(), real()])
refuses("stack", ShapeError, r"shapes must be equal, got \(2,\), \(3,\)", [real(2), real(3)])
refuses("Tensor.repeat", ShapeError, r"for each dimension of shape \(2, 3\), got 1", real(2, 3), 2)
refuses("repeat", ShapeError, r"for each dimension of shape \(2, 3\), got 1", real(2, 3), (2,))
refuses("repeat tile", ShapeError, r"must not be negative, got \(-1,\)", real(2), (-1,))
refuses("repeat_interleave", ShapeError, r"repeats of shape \(2,\) for the 3 entries", real(3), given([1, 2]), 0)
refuses("repeat_interleave", ValueError, "must not be negative, got -1", real(3), -1)
refuses("repeat_interleave", IndexError, "dim 1 is out of range", real(3), 2, 1)

# ---- indices --------------------------------------------------------------------------------

X = real(3, 4)
refuses("getitem", IndexError, "index 3 is out of range for dim 0 of size 3", X, 3)
refuses("getitem", IndexError, "index -5 is out of range for dim 1 of size 4", X, (..., -5))
refuses("getitem", IndexError, r"too many indices: 3 for a tensor of shape \(3, 4\)", X, (0, 0, 0))
refuses("getitem", IndexError, r"index 3 at position \(1,\) is out of range", X, given([0, 3]))
refuses("getitem", IndexError, r"a mask of shape \(2,\) does not fit .*\(3,\)", X, given([True, False]))
refuses("getitem", IndexError, r"shapes \(2,\), \(3,\) do not broadcast", X, (given([0, 1]), given([0, 1, 2])))
refuses("getitem", IndexError, r"1\.0 is not an integer, slice", X, 1.0)
refuses("getitem", IndexError, "expected an index of integers, or a mask", X, real(3))
refuses("getitem", IndexError, r"may have one \.\.\., got 2", X, (..., ...))
refuses("index_put", IndexError, "^index_put: index 3 is out of range for dim 0", X, 3, 1.0)
refuses("index_put", ShapeError, r"shape \(3,\) does not broadcast to the indexed shape \(4,\)", X, 0, real(3))
refuses("index_put", DTypeError, r"0\.5 does not fit into a tensor of int64", ints(5, 3), 0, 0.5)
refuses("gather", IndexError, r"^gather: index 3 at position \(0, 1\) is out of range", X, 0, given([[0, 3]]))
refuses("gather", IndexError, "^gather: " + RANGE, X, 2, given([[0]]))
refuses("gather", ShapeError, "must have as many dimensions as the tensor", X, 0, given([0]))
refuses("gather", ShapeError, r"index of shape \(2, 5\) is larger", X, 0, ints(3, 2, 5))
refuses("gather", DTypeError, INDICES, X, 0, fixed(real(1, 4)))
refuses("take_along_dim", IndexError, r"index 3 at position \(0, 0\) is out of range", X, given([[3]]), 0)
refuses("take_along_dim", ShapeError, "do not broadcast outside of dim 0", X, ints(3, 2, 3), 0)
refuses("take_along_dim", ShapeError, "different numbers of dimensions", X, ints(3, 2), 0)
refuses("take_along_dim", IndexError, RANGE, X, ints(3, 2, 4), 2)
refuses("take_along_dim", DTypeError, INDICES, real(3), fixed(real(1)))
refuses("index_select", IndexError, r"^index_select: index 3 at position \(0,\) is out of range", X, 0, given([3]))
refuses("index_select", IndexError, RANGE, X, 2, given([0]))
refuses("index_select", ShapeError, r"expected a vector of indices, got shape \(1, 1\)", X, 0, given([[0]]))
refuses("index_select", DTypeError, INDICES, real(3), 0, fixed(real(1)))
refuses("index_add", IndexError, r"index 3 at position \(1,\) is out of range", X, 0, given([0, 3]), real(2, 4))
refuses("index_add", ShapeError, r"source of shape \(3, 4\) for 2 indices", X, 0, given([0, 1]), real(3, 4))
refuses("index_add", IndexError, RANGE, X, 2, given([0]), real(3, 4))
PUTS = "scatter scatter_add"
refuses(PUTS, IndexError, r"^{op}: index 3 at position \(0, 1\) is out of range", X, 0, given([[0, 3]]), real(1, 2))
refuses(PUTS, ShapeError, r"src of shape \(1, 1\) has no value for each entry", X, 0, given([[0, 1]]), real(1, 1))
refuses(PUTS, IndexError, "^{op}: " + RANGE, X, 2, given([[0]]), real(1, 1))
refuses(PUTS, DTypeError, INDICES, X, 0, fixed(real(1, 1)), real(1, 1))
refuses("scatter", TypeError, "expected a tensor src, or a number value", real(3), 0, given([0]))
refuses("masked_fill", DTypeError, "expected a mask of booleans, got int64", real(2, 3), ints(2, 2, 3), 1.0)
refuses("masked_fill", ShapeError, BROADCAST, real(2, 3), bools(2), 1.0)
refuses("masked_fill", ShapeError, r"a 0-d tensor as the value, got shape \(3,\)", real(2, 3), bools(3), real(3))
refuses("masked_select", DTypeError, "expected a mask of booleans, got int64", real(2, 3), ints(2, 3))
refuses("masked_select", ShapeError, "do not broadcast", real(2, 3), bools(2))
refuses("tril triu", ShapeError, "^{op}.*at least 2 dimensions", real(3))
refuses("sort argsort", IndexError, "^{op}.*" + RANGE, real(2, 3), 2)
refuses("topk", IndexError, "k=4 is out of range for dim 1 of size 3", real(2, 3), 4)
refuses("topk", IndexError, "k=-1 is out of range", real(2, 3), -1)
refuses("topk", IndexError, RANGE, real(2, 3), 1, 2)
refuses("nonzero", TypeError, "^nonzero: expected a Tensor, got int", 3)
refuses("searchsorted", ShapeError, r"expected a sorted vector, .* got shapes \(2, 3\) and \(2,\)", real(2, 3), real(2))
refuses("searchsorted", ValueError, "side must be", real(3), real(2), side="middle")
refuses("searchsorted", ShapeError, r"sorter has shape \(2,\)", real(3), real(2), sorter=given([0, 1]))
refuses("scatter", ValueError, "reduce must be", real(3), 0, given([0]), real(1), reduce="max")
refuses("logsumexp", TypeError, "dim must be an int or several, got None", real(3), None)
refuses("repeat_interleave", ShapeError, "output_size 3 is not 4", real(2), 2, output_size=3)

# ---- products -------------------------------------------------------------------------------

refuses("matmul", ShapeError, r"the first \(3\) and the last but one of the second \(2\)", real(2, 3), real(2, 3))
refuses("matmul", ShapeError, "0-d tensors have no matrix product", real(), real(2))
refuses("matmul", ShapeError, "before the matrices must broadcast", real(2, 2, 3), real(3, 3, 2))
refuses("matmul", DTypeError, "expected tensors of one dtype", real(2, 3), ints(2, 3, 2))
refuses("matmul", TypeError, "a number has no matrix product", real(2), 2.0)
refuses("mm", DTypeError, r"^mm\(float64\(2, 3\), int64\(3, 2\)\): expected .* one dtype", real(2, 3), ints(2, 3, 2))
refuses("mm", ShapeError, r"^mm: .*got \(2, 3\) and \(2, 3\)", real(2, 3), real(2, 3))
refuses("mm", ShapeError, r"^mm: .*got \(2, 3\) and \(3,\)", real(2, 3), real(3))
refuses("bmm", ShapeError, r"^bmm: .*got \(2, 2, 3\) and \(3, 3, 2\)", real(2, 2, 3), real(3, 3, 2))
refuses("mv", ShapeError, r"^mv: .*got \(2, 3\) and \(2,\)", real(2, 3), real(2))
refuses("dot", ShapeError, r"^dot: .*got \(2,\) and \(3,\)", real(2), real(3))
refuses("outer", ShapeError, r"^outer: expected two vectors, got shapes \(2, 2\) and \(2,\)", real(2, 2), real(2))
refuses("addmm", ShapeError, r"^addmm.*\(2, 3\) and \(2, 4\) are not", real(2, 4), real(2, 3), real(2, 4))
refuses("addmm", ShapeError, r"input of shape \(3, 4\) does not broadcast", real(3, 4), real(2, 3), real(3, 4))
refuses("diagonal", IndexError, "^diagonal.*dim 1 is out of range", real(3))
refuses("diagonal", IndexError, RANGE, real(3, 3), 0, 0, 2)
refuses("diagonal", ShapeError, "dim1 1 and dim2 1 are the same dimension", real(3, 3), 0, 1, 1)
refuses("diag", ShapeError, r"expected a vector or a matrix, got shape \(2, 2, 2\)", real(2, 2, 2))
refuses("trace", ShapeError, r"expected a matrix, got shape \(3,\)", real(3))
refuses("einsum", ShapeError, "'j' has sizes 3 and 2", "ij,jk->ik", real(2, 3), real(2, 3))
refuses("einsum", ShapeError, r"'ij' in 'ij->' does not fit operand 0 of shape \(2,\)", "ij->", real(2))
refuses("einsum", ValueError, "is for 2 operands, got 1", "ij,j", real(2, 3))
refuses("einsum", ValueError, "the output of 'i->j' must have 'j' once", "i->j", real(2))
refuses("einsum", ValueError, r"must consist of letters and at most one '\.\.\.'", "i1", real(2, 2))

# ---- functions of matrices ------------------------------------------------------------------

OF_SQUARES = "inverse linalg.inv det linalg.det slogdet linalg.slogdet logdet linalg.cholesky linalg.eigh"
OF_SQUARES += " linalg.eigvalsh matrix_exp linalg.matrix_exp"
OF_MATRICES = "linalg.pinv pinverse linalg.qr linalg.svd linalg.svdvals"
refuses(OF_SQUARES, ShapeError, r"float64\(2, 3\)\): expected matrices \(\.\.\., n, n\), got shape", real(2, 3))
refuses(f"{OF_SQUARES} {OF_MATRICES}", ShapeError, r"expected matrices \(\.\.\., n, [mn]\), got shape \(3,\)", real(3))
refuses(f"{OF_SQUARES} {OF_MATRICES}", DTypeError, r"expected floating .* got int64\. Convert with", ints(3, 2, 2))
ZEROS = given(np.zeros((2, 2)))
refuses("linalg.inv", LinAlgError, r"^inv\(float64\(2, 2\)\): the matrix is singular", ZEROS)
refuses("linalg.matrix_power", LinAlgError, "the matrix is singular", ZEROS, -1)
refuses("linalg.matrix_power", ShapeError, r"expected matrices \(\.\.\., n, n\)", real(2, 3), 2)
refuses("linalg.matrix_power", TypeError, r"n must be an int, got 0\.5", real(2, 2), 0.5)
refuses("linalg.inv", LinAlgError, r"the matrix at \(1,\) is singular", given([np.eye(2), np.zeros((2, 2))]))
refuses("linalg.solve", LinAlgError, r"^solve.*the matrix is singular", ZEROS, real(2))
refuses("linalg.solve", ShapeError, r"^solve.*\(\.\.\., n, n\) and \(\.\.\., n, k\) or \(n,\)", real(2, 2), real(3))
refuses("linalg.solve", ShapeError, r"^solve: left=False expects", real(2, 2), real(2), left=False)
refuses("linalg.solve", DTypeError, "^solve.*expected tensors of one dtype", real(2, 2), ints(3, 2))
refuses("linalg.cholesky", LinAlgError, "^cholesky.*the matrix is not positive definite", ZEROS)
refuses("linalg.qr", ValueError, "mode must be 'reduced', 'complete' or 'r', got 'full'", real(2, 2), "full")
refuses("linalg.eigh linalg.eigvalsh", ValueError, "^{op}.*UPLO must be 'L' or 'U', got 'X'", real(2, 2), "X")
NOT_FINITE = given([[math.nan, 0.0], [0.0, 1.0]])
refuses("linalg.svd linalg.svdvals linalg.pinv", LinAlgError, "the matrix has no singular values", NOT_FINITE)
refuses("linalg.multi_dot", ShapeError, "have no matrix product", [real(2, 3), real(2, 3)])
refuses("linalg.multi_dot", ValueError, "at least two tensors", [real(2, 3)])
refuses("linalg.vecdot", IndexError, RANGE, real(2, 3), real(2, 3), dim=2)
refuses("linalg.matmul", ShapeError, "must be equal", real(2, 3), real(2, 3))
refuses("linalg.matrix_norm", ShapeError, "expected two dimensions of the matrices", real(3))
refuses("linalg.matrix_norm", ShapeError, "expected two dimensions of the matrices", real(2, 3), dim=(0,))
refuses("linalg.matrix_norm linalg.norm", ValueError, "ord must be 'fro', 'nuc', .* got 3", real(2, 3), 3)
refuses("linalg.norm", ShapeError, "without dim expects a vector or a matrix", real(2, 3, 2), 2)
refuses("linalg.norm", ShapeError, r"expected one dimension or two, got \(0, 1, 2\)", real(2, 3, 2), dim=(0, 1, 2))
refuses("linalg.norm", ValueError, "ord='nuc' is a norm of matrices", real(2, 3), "nuc", 1)
refuses("linalg.norm linalg.matrix_norm", DTypeError, FLOATING.replace("{op}", "vector_norm"), ints(3, 2, 2))
refuses("linalg.cond", ValueError, "ord must be", real(2, 2), 3)

# ---- activations and layers -----------------------------------------------------------------

refuses("relu F.relu leaky_relu F.leaky_relu", TypeError, "^{op}: expected a Tensor", "x")
SMOOTH = "leaky_relu F.leaky_relu elu F.elu silu F.silu log_sigmoid softplus F.softplus gelu F.gelu"
refuses(SMOOTH, DTypeError, FLOATING, ints(3, 2))
refuses("gelu F.gelu", ValueError, "approximate must be 'none' or 'tanh', got 'erf'", real(2), "erf")
ROWS = "softmax log_softmax F.softmax F.log_softmax"
refuses(ROWS, IndexError, "^{op}.*" + RANGE, real(2, 3), 2)
refuses(ROWS, DTypeError, FLOATING, ints(3, 2, 3), 0)
refuses("linear", ShapeError, BROADCAST, real(2, 3), real(4, 3), real(3))
refuses("F.linear", ShapeError, r"^linear.*expected an input \(\.\.\., 2\) for this weight", real(2, 3), real(4, 2))
refuses("F.linear", ShapeError, r"^linear.*, for a bias, \(out,\)", real(2, 3), real(4, 3), real(3))
refuses("F.linear", DTypeError, "^linear.*floating point", real(2, 3), ints(3, 4, 3))
refuses("layer_norm_rows rms_norm_rows", ShapeError, "^{op}.*" + BROADCAST, real(2, 3), real(2))
NORMS = "F.layer_norm F.rms_norm"
refuses(NORMS, DTypeError, FLOATING, ints(3, 2, 3), (3,))
refuses(NORMS, ShapeError, r"^{op}.*last dimensions must be normalized_shape \(2,\)", real(2, 3), (2,))
refuses(NORMS, ShapeError, r"^{op}.*must have normalized_shape \(3,\)", real(2, 3), (3,), real(2))
refuses(NORMS, DTypeError, "^{op}.*floating point", ints(3, 2, 3), (3,))
refuses("F.dropout", ValueError, r"p must be a number from 0 to 1, got 1\.5", real(3), 1.5)
refuses("F.dropout", DTypeError, FLOATING, ints(4, 3), 0.5)
refuses("apply_dropout_mask", ShapeError, BROADCAST, real(2, 3), fixed(real(2)))
refuses("F.embedding", IndexError, r"id 5 at position \(1,\) is not in the table of 5 rows", given([0, 5]), real(5, 2))
refuses("F.embedding", DTypeError, INDICES, fixed(real(2)), real(5, 2))
refuses("F.embedding", ShapeError, r"expected a table \(V, C\), got shape \(5,\)", ints(5, 2), real(5))
refuses("F.embedding", IndexError, "padding_idx 5 is out of range", ints(5, 2), real(5, 2), padding_idx=5)
refuses("embedding", IndexError, r"id 5 at position \(1,\) is not in the table of 5 rows", real(5, 2), given([0, 5]))
refuses("embedding", DTypeError, INDICES, real(5, 2), fixed(real(2)))
HOT = "one_hot F.one_hot"
refuses(HOT, IndexError, r"class 3 at position \(1,\) is not one of 3 \(0 to 2\)", given([0, 3]), 3)
refuses(HOT, IndexError, r"class -1 at position \(0,\) is not one of 3", given([-1, 2]), 3)
refuses(HOT, DTypeError, INDICES, fixed(real(3)), 3)
refuses(HOT, ValueError, "cannot be found from an empty tensor", ints(3, 0))
refuses("F.pad", ShapeError, r"two widths for each of at most 2 dimensions, got \(1,\)", real(2, 3), (1,))
refuses("F.pad", ShapeError, "two widths for each of at most 2 dimensions", real(2, 3), (1, 1, 1, 1, 1, 1))
refuses("F.pad", ShapeError, r"widths \(4, 0\) of dim 2 .* at most 3 in mode", real(2, 3, 4), (4, 0), mode="reflect")
refuses("F.pad", ShapeError, r"widths \(5, 0\) of dim 2 .* at most 4 in mode", real(2, 3, 4), (5, 0), mode="circular")
refuses("F.pad", ShapeError, "cut off more entries than there are", real(2, 3), (-4, 0))
refuses("F.pad", ValueError, "mode must be .* got 'mirror'", real(2, 3), (1, 1), mode="mirror")
refuses("F.normalize", IndexError, RANGE, real(2, 3), dim=2)
refuses("cdist cdist_", ShapeError, r"^cdist.*\(\.\.\., n, k\) and \(\.\.\., m, k\)", real(2, 3), real(4, 2), 2.0)
refuses("cdist cdist_", ValueError, "p must be a number from 0 to inf, got -1", real(2, 3), real(4, 3), -1.0)
refuses("F.pairwise_distance", ShapeError, BROADCAST, real(2, 3), real(2))
COSINE = "cosine_similarity F.cosine_similarity"
refuses(COSINE, ShapeError, r"\(2, 3\), \(2,\) do not broadcast together", real(2, 3), real(2))
refuses(COSINE, IndexError, RANGE, real(2, 3), real(2, 3), dim=2)

# ---- losses and attention -------------------------------------------------------------------

PAIRS = "F.mse_loss F.l1_loss F.binary_cross_entropy_with_logits F.huber_loss F.smooth_l1_loss F.soft_margin_loss"
PAIRS += " F.binary_cross_entropy"
refuses(PAIRS, ShapeError, "^{op}.*input and target must have the same shape", real(2, 3), real(3))
refuses(PAIRS, ValueError, "^{op}: reduction must be .* got 'max'", real(3), real(3), reduction="max")
MORE_LOSSES = "F.kl_div F.hinge_embedding_loss"
refuses(MORE_LOSSES, ValueError, "^{op}: reduction must be .* got 'max'", real(3), real(3), reduction="max")
refuses(MORE_LOSSES, ShapeError, BROADCAST, real(2, 3), real(2))
refuses("bernoulli_cross_entropy", ShapeError, "^bernoulli_cross_entropy.*" + BROADCAST, real(2, 3), real(2))
refuses("huber", ShapeError, "^huber.*" + BROADCAST, real(2, 3), real(2), 1.0)
refuses("F.huber_loss", ValueError, r"delta must be a positive number, got 0\.0", real(3), real(3), delta=0.0)
refuses("F.smooth_l1_loss", ValueError, r"beta must not be negative, got -1\.0", real(3), real(3), beta=-1.0)
refuses("F.margin_ranking_loss", ShapeError, "the same number of dimensions", real(2, 3), real(3), real(3))
refuses("F.multi_margin_loss", ShapeError, r"expected input \(N, C\) or \(C,\)", real(3, 4), ints(4, 2))
refuses("F.multi_margin_loss", DTypeError, "class indices must be integers", real(3, 4), fixed(real(3)))
refuses("F.multi_margin_loss", ValueError, "p must be 1 or 2, got 3", real(3, 4), ints(4, 3), 3)
refuses("F.cosine_embedding_loss", ShapeError, r"inputs \(N, D\) or \(D,\)", real(2, 3), real(2, 3), real(2, 3))
refuses("F.triplet_margin_loss", ShapeError, "the same number of dimensions", real(2, 3), real(3), real(3))
refuses("F.triplet_margin_loss", ValueError, "margin must be a positive number", real(3), real(3), real(3), -1.0)
refuses("F.binary_cross_entropy_with_logits", DTypeError, FLOATING, real(3), ints(2, 3))
CLASSES = "F.cross_entropy F.nll_loss"
refuses(CLASSES, ShapeError, r"^{op}.*expected input \(C,\), \(N, C\)", real(3, 4), ints(4, 2))
refuses(CLASSES, IndexError, "^{op}: target 4 is out of range: expected .* from 0 to 3", real(3, 4), given([0, 4, 1]))
refuses(CLASSES, DTypeError, "class indices must be integers", real(3, 4), fixed(real(3)))
refuses(CLASSES, ShapeError, r"one entry for each class, \(4,\)", real(3, 4), ints(4, 3), fixed(positive(3)))
refuses(CLASSES, ValueError, "reduction must be .* got 'max'", real(3, 4), ints(4, 3), reduction="max")
refuses("F.cross_entropy", ValueError, r"label_smoothing must .* got 2\.0", real(3, 4), ints(4, 3), label_smoothing=2.0)
SDPA = "F.scaled_dot_product_attention"
SHAPES = r"expected query \(\.\.\., T, D\), key \(\.\.\., S, D\)"
refuses(SDPA, ShapeError, SHAPES, real(2, 3), real(4, 2), real(4, 2))
refuses(SDPA, ShapeError, SHAPES, real(2, 3), real(4, 3), real(3, 2))
refuses(SDPA, ShapeError, SHAPES, real(3), real(4, 3), real(4, 2))
refuses(SDPA, ShapeError, r"attn_mask to \(\.\.\., 2, 4\)", real(2, 3), real(4, 3), real(4, 2), bools(3, 4))
refuses(SDPA, ShapeError, "leading dimensions must broadcast", real(2, 2, 3), real(3, 4, 3), real(3, 4, 2))
refuses(SDPA, DTypeError, "attn_mask must hold booleans", real(2, 3), real(4, 3), real(4, 2), ints(2, 2, 4))
refuses(SDPA, DTypeError, FLOATING, ints(3, 2, 3), ints(3, 4, 3), ints(3, 4, 2))
refuses(SDPA, ValueError, "dropout_p must be", real(2, 3), real(4, 3), real(4, 2), dropout_p=-0.5)

# Internal ops leave the checks to the public functions, but require a Tensor.
refuses("convert", TypeError, "^convert: expected a Tensor, got float", 1.5, np.dtype("float64"), np.dtype("float64"))
refuses("convert_to_discrete", TypeError, "^convert_to_discrete: expected a Tensor", 1.5, np.dtype("int64"))

# ---- convolution, pooling and the normalization of channels ---------------------------------

refuses("F.conv1d F.conv_transpose1d", ShapeError, "^{op}.*expected an input with 3 dimensions", real(4), real(2, 1, 2))
CHANNELS = r"^{op}.*expected an input \(N, C"
refuses("F.conv2d F.conv_transpose2d", ShapeError, CHANNELS, real(1, 3, 4, 4), real(2, 2, 2, 2))
refuses("F.max_pool1d F.avg_pool1d", ShapeError, "^{op}.*is larger than the padded input", real(1, 1, 3), 4)
refuses("F.max_pool2d F.avg_pool2d", ValueError, "^{op}: expected a padding of at most half", real(1, 1, 4, 4), 2, 1, 2)
ADAPTIVE = "F.adaptive_avg_pool{0}d F.adaptive_max_pool{0}d"
refuses(ADAPTIVE.format(1), ValueError, "^{op}: expected output_size to be 1 integers", real(1, 1, 3), -1)
refuses(ADAPTIVE.format(2), ShapeError, "^{op}.*expected an input with 4 dimensions", real(3), 1)
refuses("F.batch_norm", ValueError, "^{op}: expected running_mean and running_var", real(2, 3), None, None)
refuses("F.batch_norm F.group_norm", ShapeError, r"^{op}.*expected an input \(N, C, ...\)", real(3), None, None)
refuses("normalize_channels", ShapeError, r"^{op}.*expected numbers of 3 channels", real(2, 3), real(2))
refuses("scale_channels", ShapeError, r"^{op}.*expected numbers of 3 channels", real(2, 3), real(2), real(3), real(3))
refuses("F.group_norm", ShapeError, "^{op}.*expected num_groups to divide C, got 2", real(2, 3), 2)

refuses("linalg.solve_triangular", ShapeError, r"got \(2, 2\) and \(3, 1\)", real(2, 2), real(3, 1), upper=True)
refuses("linalg.solve_triangular", LinAlgError, "the matrix is singular", ZEROS, real(2, 1), upper=True)
refuses("linalg.lstsq", ShapeError, r"^lstsq: expected .* got \(3, 2\) and \(2,\)", real(3, 2), real(2))
refuses("linalg.lstsq", ValueError, "driver to be", real(3, 2), real(3), driver="x")
refuses("linalg.matrix_rank", ShapeError, r"expected matrices \(\.\.\., n, m\)", real(3))
refuses("cross linalg.cross", ShapeError, r"^cross: .*in dim 1, got \(3, 2\), ", real(3, 2), real(3, 2), dim=1)
refuses("cross linalg.cross", ShapeError, r"^cross: .*got \(2, 3\), \(3,\)", real(2, 3), real(3), dim=1)
refuses("cross linalg.cross", IndexError, RANGE, real(2, 3), real(2, 3), dim=2)
refuses("bincount", ShapeError, "expected a vector", ints(3, 2, 2))
refuses("bincount", DTypeError, "expected integers, got float64", real(3))
refuses("bincount", ValueError, "integers of 0 or more, got -1", given([1, -1]))
refuses("bincount", ValueError, "minlength to be 0 or more", given([1]), minlength=-1)
refuses("histc", ValueError, "finite ends with max above min, got min=3 and max=1", real(3), 4, 3, 1)
refuses("histc", ValueError, "bins to be 1 or more", real(3), 0)
refuses("histc", DTypeError, "expected floating point numbers", ints(3, 2))
refuses("unique count_nonzero", IndexError, RANGE, real(2, 3), dim=2)
refuses("meshgrid", ShapeError, r"^meshgrid: expected vectors, got \(2,\), \(1, 2\)", real(2), real(1, 2))
refuses("meshgrid", DTypeError, "tensors of one dtype, got float64, int64", real(2), ints(3, 2))
refuses("meshgrid", ValueError, "indexing to be 'ij' or 'xy'", real(2), indexing="x")
refuses("hstack vstack", ShapeError, "cat", [real(2, 2), real(3, 3)])
