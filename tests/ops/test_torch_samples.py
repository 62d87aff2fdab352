"""Run PyTorch's own operator samples through tensorlite: values, gradients of both orders, dtypes, errors.

``python -m tests.ops.test_torch_samples [OPERATOR ...]`` runs all of them, and prints those that differ.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest")

from tests.support import torch_samples  # noqa: E402  # it needs PyTorch

DTYPES = [torch.float64, torch.float32, torch.float16, torch.int64, torch.uint8, torch.bool]
PARTS = 8
"""The number of tests that share the operators. A list of them at collection would take seconds."""
SAMPLES = 4
"""The largest number of samples of an operator and a dtype that the tests run; the command line runs all."""

# Samples that differ on purpose: the operator, the kinds of differences that are meant, and the reason.
ON_PURPOSE = [
    ("all any", "uint8 value", "PyTorch returns uint8 for uint8, an old habit of it; NumPy and we return booleans"),
    ("__rpow__", "int64 value refused", "an integer to a negative power; PyTorch gives 0 or 1 in silence"),
    ("add sub index_add arange full full_like", "uint8 value", "a negative number; PyTorch wraps it"),
    ("add index_add", "bool value refused", "the factor alpha may not be a boolean"),
    ("arange", "value refused", "start, end and step may not be booleans"),
    ("masked_fill scatter", "int64|uint8|bool", "a value that does not fit the dtype; PyTorch changes it in silence"),
    ("masked_fill", "taken", "a complex value for a float tensor is tried by type, not refused before"),
    ("nn.functional.linear", "int64|uint8", "layers take floats; PyTorch takes integers on a CPU only"),
    *(
        (f"nn.functional.{name}{d}d", "int64|uint8", "layers take floats; PyTorch takes integers on a CPU only")
        for name in ("conv", "conv_transpose", "avg_pool")
        for d in (1, 2)
    ),
    ("nn.functional.batch_norm", "refused", "an input without a batch dimension, which PyTorch takes if it is empty"),
    ("linalg.eigh linalg.svd", "value", "another LAPACK chooses other signs of vectors; see test_factorizations.py"),
    ("histc", "float16 value", "PyTorch computes the intervals in float16"),
    ("linalg.norm linalg.norm.subgradients_at_zero", "second order", "PyTorch's is NaN for a vector of zeros"),
    ("matrix_exp nn.functional.soft_margin_loss", "float16 value", "PyTorch computes in float16 and overflows"),
    ("nn.functional.embedding", "refused", "max_norm and sparse are not among our arguments"),
    ("scatter scatter_add", "taken", "a source of another dtype is converted, as in x[index] = source"),
    ("nn.functional.cosine_embedding_loss", "uint8 value", "PyTorch's products of uint8 wrap"),
    ("sum_to_size", "uint8|bool", "a 0-d tensor of its own shape; PyTorch sums it as int64"),
    ("nn.functional.nll_loss", "float16 value", "PyTorch adds up in float16"),
    ("topk sort argsort", "float16|int64|uint8|bool", "which of several equal entries comes first is left open"),
]


def meant(failure: torch_samples.Failure) -> bool:
    """Return whether a difference is in the list above."""
    return any(
        failure.op in ops.split() and any(kind in failure.kind for kind in kinds.split("|"))
        for ops, kinds, _ in ON_PURPOSE
    )


def runs(name: str, limit: int | None = None) -> tuple[int, list[torch_samples.Failure]]:
    """Return the number of samples of an operator, in every dtype, and those that differ."""
    results = [torch_samples.check_operator(name, dtype, limit) for dtype in DTYPES]
    results.append(torch_samples.check_errors(name))
    return sum(count for count, _ in results), [f for _, failures in results for f in failures]


@pytest.mark.parametrize("part", range(PARTS))
def test_samples(part):
    """Compare values, gradients of both orders, dtypes and errors in some samples of each operator."""
    wrong = [f for name in list(torch_samples.operators())[part::PARTS] for f in runs(name, SAMPLES)[1] if not meant(f)]
    assert not wrong, "\n".join(f"{f.op} {f.sample}: {f.kind}: {f.text}" for f in wrong)


def main(names: list[str]) -> None:
    """Print the samples that differ, of these operators or of all, and how many there are of each kind."""
    kinds: Counter[str] = Counter()
    total, failed = 0, set[Any]()
    chosen = [n for n in torch_samples.operators() if not names or n in names or n.split(".")[0] in names]
    for name in chosen:
        count, failures = runs(name)
        total += count
        for f in failures:
            failed.add((f.op, f.sample, f.kind.split()[0]))
            kinds[f.kind] += 1
            print(f"{f.op} {f.sample}: {f.kind}: {f.text:.170}{' (listed)' * meant(f)}")
    print(f"{len(failed)} of {total} samples of {len(chosen)} operators differ: {dict(kinds)}")


if __name__ == "__main__":
    main(sys.argv[1:])
