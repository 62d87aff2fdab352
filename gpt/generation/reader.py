"""Read tokens with the compiled reader if it computes what the model computes, else with the model itself."""

from typing import TYPE_CHECKING
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

import tensorlite as tl
from gpt.model import GPT, KVCache, eval_mode

if TYPE_CHECKING:
    from gpt.model.compiled_reader import CompiledReader

Logits = NDArray[np.float64]

# The compiled reader and the model agree if they differ by less than this fraction of the largest logit. With float32
# weights, rounding differs by a hundredth of that, another formula by more. With quantized ones, activations are
# rounded to 8 bits. The last bit of a sum decides which way, and the logits differ more.
TOLERANCE, QUANTIZED_TOLERANCE = 1e-3, 1e-1

# Models for which the compiled reader has agreed with the model before.
_agreed: WeakSet[GPT] = WeakSet()


class Reader:
    """What reads the tokens of one text, or of several at once, for a model.

    The compiled reader is compared with the model on the first token that it reads: on the last one of the prompt, or
    on the one after it, if the two have agreed for this model before. A module that is replaced in the middle of a
    text is noticed at the start of the next one, the array of a weight at once.
    """

    def __init__(self, model: GPT) -> None:
        self.model = model
        self.eval_mode: eval_mode | None = None
        self.compiled: CompiledReader | None = None
        self.sought = self.compared = False

    def begin_text(self) -> None:
        """Look at the modules of the model again, because the user may have changed them since the last text."""
        self.eval_mode = None
        if self.compiled is None or not self.compiled.is_valid():
            self.compiled, self.sought, self.compared = None, False, False

    def logits(self, ids: NDArray[np.int64], cache: KVCache, count: int = 1) -> Logits:
        """Read ids, (B, T), which follow those in a cache; return the logits (B, count, V) after each of the last ones.

        Raises ValueError if there is none or they do not fit into the cache, IndexError for a token outside the
        vocabulary.
        """
        if not ids.size:
            raise ValueError(f"GPT: expected at least one token to read, got token ids of shape {ids.shape}")
        if not self._is_current(cache):
            self._find_compiled(cache)
        if self.compiled is None:
            return self._by_model(ids, cache, count)
        if self.compared or (ids.shape[1] > 1 and self.model in _agreed):
            return self.compiled.logits(ids, count).astype(np.float64)
        length = cache.length
        found = self.compiled.logits(ids, count).astype(np.float64)
        cache.length -= 1
        views = [tensor.array[:, :, cache.length] for tensor in (*cache.keys, *cache.values)]
        copies = [view.copy() for view in views]
        expected = self._by_model(ids[:, -1:], cache, 1)
        # The model wrote its own, whose last bits differ. A quantized model would go on with another text than later.
        for view, copy in zip(views, copies, strict=True):
            view[:] = copy
        self.compared = True
        tolerance = QUANTIZED_TOLERANCE if self.compiled.plan.is_quantized else TOLERANCE
        if agree(found[:, -1:], expected, tolerance):
            _agreed.add(self.model)
            return found
        # The user has modified a layer, and the compiled reader computes the unmodified one.
        _agreed.discard(self.model)
        self.compiled, cache.length = None, length
        return self._by_model(ids, cache, count)

    def _is_current(self, cache: KVCache) -> bool:
        """Return whether what was found for the model and the cache is what would be found now."""
        if self.compiled is None:
            return self.sought
        return self.compiled.cache is cache and self.compiled.is_current()

    def _find_compiled(self, cache: KVCache) -> None:
        """Look for a compiled reader. One for another cache of the same weights need not be compared again."""
        same = self.compiled is not None and self.compiled.is_current()
        self.compared, self.sought, self.compiled = self.compared and same, True, None
        try:
            from gpt.model.compiled_reader import CompiledReader
        except ImportError:  # numba is not installed.
            return
        self.compiled = CompiledReader.for_model(self.model, cache)

    def _by_model(self, ids: NDArray[np.int64], cache: KVCache, count: int) -> Logits:
        if self.eval_mode is None:  # The search of the modules takes longer than a token of a small model.
            self.eval_mode = eval_mode(self.model)
        with self.eval_mode:
            x = self.model.hidden_states(tl.tensor(ids, device=self.model.device), cache)  # (B, T, C)
            # The head reads the last positions only.
            logits: Logits = self.model.head(x[:, -count:]).cpu().numpy().astype(np.float64)
        return logits


def agree(found: Logits, expected: Logits, tolerance: float) -> bool:
    """Return whether logits differ by at most this fraction of the largest one. NaN does not agree with anything."""
    with np.errstate(invalid="ignore"):  # Sampling then reports broken weights.
        return bool((np.abs(found - expected) <= tolerance * np.abs(expected).max(-1, keepdims=True)).all())
