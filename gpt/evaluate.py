"""Evaluate a model: log-probabilities and perplexity of a text, and the loss on a split of a data set."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import tensorlite as tl
import tensorlite.nn.functional as F
from gpt.data import Batch, DataError, Dataset, Split
from gpt.model import GPT, eval_mode
from gpt.tokenizer import Ids, TokenError, check_token_ids

# The number of logits in one batch of an evaluation: 16 MB in float32.
MAX_LOGITS = 2**22


def log_probs(
    model: GPT, ids: Sequence[int] | Ids, stride: int | None = None, done: Callable[[int], object] | None = None
) -> NDArray[np.float64]:
    """Return ln p(ids[i] | the tokens before it) for i = 1 .. N - 1, in nats: shape (N - 1,).

    A text of any length N is read through windows of block_size tokens that advance by `stride` (half a window by
    default). Each window scores the tokens that the previous one did not reach. So a token sees all earlier tokens as
    long as they fit. After that it sees at least block_size - stride of them, so stride=1 gives the most context.

    done: a function that is called with the number of tokens of each window that were scored.

    Raises TokenError for fewer than two ids or one outside the vocabulary, ValueError for a stride out of range.
    """
    tokens = check_token_ids(ids, model.config.vocab_size)
    T = model.config.block_size
    stride = max(1, T // 2) if stride is None else stride
    if not hasattr(stride, "__index__") or not 1 <= stride <= T:
        raise ValueError(f"log_probs: expected stride from 1 to block_size = {T}, got {stride!r:.80}")
    if len(tokens) < 2:
        raise TokenError(f"log_probs: expected at least 2 tokens, got {len(tokens)}; the first one is not scored")
    result = np.empty(len(tokens) - 1)
    scored = 0  # The number of targets scored so far; target i is ids[i + 1].
    with eval_mode(model):
        while scored < len(result):
            stop = min(scored + (stride if scored else T), len(result))
            start = max(0, stop - T)
            x = model.hidden_states(tl.tensor(tokens[None, start:stop], device=model.device))[0, scored - start :]
            result[scored:stop] = target_log_probs(model, x, tokens[scored + 1 : stop + 1])
            if done is not None:
                done(stop - scored)
            scored = stop
    return result


def target_log_probs(model: GPT, x: tl.Tensor, targets: Ids) -> NDArray[np.float64]:
    """Return the log-probability of each target (T,) for hidden states (T, C).

    The logits of a few positions are computed at a time, because those of a long context fill gigabytes.
    """
    rows = max(1, MAX_LOGITS // model.config.vocab_size)
    parts = []
    for i in range(0, len(targets), rows):
        logp = F.log_softmax(model.head(x[i : i + rows]), dim=-1).cpu().numpy()  # (rows, V)
        parts.append(logp[np.arange(len(logp)), targets[i : i + rows]])
    return np.concatenate(parts)


def perplexity(model: GPT, ids: Sequence[int] | Ids) -> float:
    """Return exp of the mean negative log-probability per token of ids[1:]; uniform predictions give V, the best is 1.

    Raises TokenError as `log_probs` does.
    """
    return math.exp(-log_probs(model, ids).mean())


def evaluate(
    model: GPT,
    dataset: Dataset,
    split: Split,
    *,
    max_tokens: int | None = None,
    done: Callable[[int], object] | None = None,
) -> float:
    """Return the mean loss in nats per token on a whole split: every token except the first, once.

    The windows do not overlap, and the first token of a window sees only itself. So the loss is a little higher than
    with sliding windows.

    max_tokens: evaluate this number of tokens at most, in windows that are spread evenly over the split; see
        `Dataset.predicted`. done: a function that is called with the number of tokens of each batch.

    Raises DataError if the split has fewer than two tokens.
    """
    if dataset.size(split) < 2:
        raise DataError(f"the {split} split has no tokens to predict. Give a text with --data, or a --val-fraction")
    batches = dataset.windows(split, batch_of(model), model.config.block_size, max_tokens)
    return mean_loss(model, batches if done is None else counted(batches, done))


def batch_of(model: GPT) -> int:
    """Return the number of windows in a batch of an evaluation."""
    return min(64, max(1, MAX_LOGITS // (model.config.block_size * model.config.vocab_size)))


def counted(batches: Iterable[Batch], done: Callable[[int], object]) -> Iterator[Batch]:
    """Yield batches, and call `done` with the number of tokens of each one after it was evaluated."""
    for batch in batches:
        yield batch
        done(int(np.count_nonzero(batch[1] >= 0)))


def mean_loss(model: GPT, batches: Iterable[Batch]) -> float:
    """Return the loss in nats per token on batches, where every token has the same weight.

    A batch has inputs and targets, (B, T) each, and with packed documents their numbers. A target of -1 does not count.
    """
    total = count = 0.0
    with eval_mode(model):
        for batch in batches:
            loss, tokens = batch_loss(model, batch)
            total += loss * tokens
            count += tokens
    return total / count


def batch_loss(model: GPT, batch: Batch) -> tuple[float, int]:
    """Return the loss in nats per token on a batch, and its number of tokens. See `mean_loss`."""
    x, y, *documents = batch
    packed: dict[str, Any] = {"documents": tl.tensor(documents[0], device=model.device)} if documents else {}
    loss = model(tl.tensor(x, device=model.device), tl.tensor(y, device=model.device), **packed)[1]
    return float(loss.item()), int(np.count_nonzero(y >= 0))
