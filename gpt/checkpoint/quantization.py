"""Which weights of a file stay or become quantized while it is loaded."""

import logging
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import tensorlite as tl
from gpt.checkpoint.base import CheckpointError
from gpt.config import QUANTIZATIONS
from gpt.errors import short
from gpt.model.quantized import quantized
from tensorlite.quantized import QuantizedMatrix

log = logging.getLogger(__name__)


def check_quantize(quantize: str, device: str = "auto", dtype: str = "float32") -> str:
    """Return what becomes of the matrices of a model, one of QUANTIZATIONS: on a GPU and in float64, auto means none.

    Raises CheckpointError for another value, or for int8 and int4 there, and DeviceError.
    """
    if quantize not in QUANTIZATIONS:
        raise CheckpointError(f"load: expected quantize of {', '.join(QUANTIZATIONS)}, got {short(quantize)}")
    if quantize == "none":
        return quantize
    target = tl.device(None if device == "auto" else device)
    # The matrices are arrays of NumPy.
    if dtype == "float32" and isinstance(tl.empty(0, device=target).array, np.ndarray):
        return quantize
    if quantize == "auto":
        return "none"
    raise CheckpointError(
        f"quantize = {quantize}: quantized weights are computed in float32 on the CPU, and not in {dtype} on {target}. "
        "Choose none"
    )


def quantize_parts(name: str, parts: Iterable[NDArray[Any]], kind: str) -> QuantizedMatrix:
    """Return a quantized matrix of parts, float (rows, width), that follow each other along the first dimension.

    name: what an error calls it. Each part is quantized before the next one is read. Raises QuantizationError.
    """
    blocks = [quantized(name, np.asarray(part, np.float32), kind).to_blocks() for part in parts]
    return QuantizedMatrix.from_blocks(blocks[0] if len(blocks) == 1 else np.concatenate(blocks), kind)


def report_kinds(path: Path, kinds: Counter[str], kept: Iterable[str]) -> None:
    """Say in one line which quantized matrices of a file have become float32.

    kinds: the number of such matrices by kind. kept: the kinds that do not.
    """
    if kinds:
        shown = ", ".join(f"{count} of {kind}" for kind, count in sorted(kinds.items()))
        log.warning(
            "%s: %d quantized %s float32 (%s). Only %s are computed as they are in the file",
            path.name, kinds.total(), "matrix becomes" if kinds.total() == 1 else "matrices become", shown,
            ", ".join(kept),
        )  # fmt: skip
