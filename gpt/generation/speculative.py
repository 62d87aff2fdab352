"""Speculative decoding: a cheap draft proposes the next tokens, and the model reads all of them in one pass.

The time of a token is mostly that of reading the weights, which several tokens share. A token of the draft is accepted
with such a probability that the text has the distribution of the model, with all sampling options and processors:
`Sampler.follow` has the rule. A temperature of 0 gives the text without a draft, except where rounding decides. It
decides nothing in the compiled reader with at most 15 tokens in a draft: the logits are the same to the bit.

Sources: Leviathan et al. 2023, "Fast Inference from Transformers via Speculative Decoding"; Chen et al. 2023,
"Accelerating Large Language Model Decoding with Speculative Sampling"; for n-grams, Saxena 2023, "Prompt Lookup
Decoding".
"""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from gpt.config import SamplingConfig
from gpt.errors import short
from gpt.generation.engine import Engine
from gpt.generation.processors import EndOfText, Logits, Processor, SampleError
from gpt.generation.request import is_integer
from gpt.generation.sampling import Proposal, Sampler, probabilities
from gpt.model import GPT
from gpt.model.size import parameter_count
from gpt.tokenizer import Ids

# The longest draft, unless the user says otherwise. Up to 16 tokens, the draft's and the one before it, have the bits
# in the compiled reader that each has alone; BLAS sums more of them in another order.
DRAFT_TOKENS = 15

# The time to read one more token in a pass, as a part of that of a pass for one, and the highest cost of a draft.
READ_COST, HIGHEST_COST = 0.2, 0.6
# How fast the estimated rate of accepted tokens follows what is seen, or returns to its first value without.
FOLLOW, RETURN = 1 / 8, 1 / 64


@dataclass(frozen=True)
class NGrams:
    """A draft without a model: the last tokens occurred before, and are continued as they went on then.

    longest, shortest: how many tokens at the end are looked for. The longest that occurred before counts, and of its
    occurrences the last. Raises ValueError unless 1 <= shortest <= longest.
    """

    longest: int = 6
    shortest: int = 2

    def __post_init__(self) -> None:
        if not (is_integer(self.shortest, least=1) and is_integer(self.longest, least=self.shortest)):
            raise ValueError(
                f"NGrams: expected 1 <= shortest <= longest, got shortest={self.shortest!r:.40}, "
                f"longest={self.longest!r:.40}"
            )


class Speculation:
    """A draft, its longest length, and the count of its tokens.

    draft: a smaller GPT with the same tokenizer, or NGrams. tokens: the most tokens that it proposes at a time; it
    proposes fewer where few are accepted. One object can serve several texts, one after the other. Raises TypeError for
    another draft, and ValueError for tokens < 1.
    """

    drafted: int
    """The tokens that were proposed so far."""
    accepted: int
    """Those of them that became part of a text."""

    def __init__(self, draft: GPT | NGrams, tokens: int = DRAFT_TOKENS) -> None:
        if not isinstance(draft, GPT | NGrams):
            raise TypeError(
                f"Speculation: expected a GPT or NGrams() as the draft, got {short(draft)}. "
                "Load one: gpt.load(path).model"
            )
        if not is_integer(tokens, least=1):
            raise ValueError(f"Speculation: expected tokens >= 1 in a draft, got {tokens!r:.80}")
        self.draft, self.tokens = draft, int(tokens)
        self.drafted = self.accepted = 0
        self.engine: Engine | None = None  # It keeps what it has read of the last text, until `forget`.

    def forget(self) -> None:
        """Read the next text from its beginning, because the weights of the draft may have changed."""
        self.engine = None

    def drafter(self, sampler: Sampler, processors: Sequence[Processor]) -> "Drafter":
        """Return what proposes tokens for the text of a sampler, which has the prompt only."""
        if isinstance(self.draft, NGrams):
            return Lookup(self.draft)
        # A processor with this method has a state for each text. Others may have one that a draft would disturb.
        own = [processor for processor in processors if hasattr(processor, "after_prompt")]
        drafts = Sampler(sampler.sampling, sampler.ids, own)
        drafts.rng = sampler.rng  # Numbers of the same seed would not be independent of those that accept.
        self.engine = self.engine or Engine(self.draft)
        return ModelDraft(self.engine, drafts)

    def cost(self, model: GPT) -> float:
        """Return the time of one more token in a draft, as a part of that of a token of the model without a draft."""
        if isinstance(self.draft, NGrams):
            return READ_COST
        # A draft that costs as much as the model is still tried, because the caller asks for it.
        return min(READ_COST + parameter_count(self.draft.config) / parameter_count(model.config), HIGHEST_COST)


def check_draft(draft: object, model: GPT) -> Speculation | None:
    """Return the speculation that a caller of `generate` asks for, or None.

    Raises TypeError for anything but a GPT, NGrams or a Speculation, and ValueError for a GPT of another vocabulary.
    """
    if draft is None:
        return None
    speculation = draft if isinstance(draft, Speculation) else Speculation(draft)  # type: ignore[arg-type]
    if isinstance(small := speculation.draft, GPT) and small.config.vocab_size != model.config.vocab_size:
        raise ValueError(
            f"generate: expected a draft with the {model.config.vocab_size} tokens of the model, got one with "
            f"{small.config.vocab_size}. Use a model with the same tokenizer"
        )
    return speculation


class Drafter(Protocol):
    """What proposes tokens for one text."""

    def propose(self, ids: list[int], count: int) -> list[Proposal]:
        """Return at most `count` tokens that may follow ids, those of the text so far."""


class Lookup:
    """The n-grams of one text, with the place after the last occurrence of each."""

    def __init__(self, ngrams: NGrams) -> None:
        self.lengths = range(ngrams.shortest, ngrams.longest + 1)
        self.places: dict[tuple[int, ...], int] = {}
        self.read = 0  # the tokens whose n-grams are in `places`

    def propose(self, ids: list[int], count: int) -> list[Proposal]:
        """See `Drafter.propose`. The text only grows from call to call."""
        for place in range(self.read, len(ids)):
            for n in self.lengths:
                if n <= place:
                    self.places[tuple(ids[place - n : place])] = place
        self.read = len(ids)
        for n in reversed(self.lengths):
            after = self.places.get(tuple(ids[-n:])) if n <= len(ids) else None
            if after is not None:
                # What follows the occurrence is followed by itself, so that a text with a period goes on.
                period = len(ids) - after
                return [Proposal(ids[after + i % period]) for i in range(count)]
        return []


class ModelDraft:
    """A smaller model that writes on for one text, by the sampling options of the text.

    sampler: one of its own, with the random numbers of the text.
    """

    def __init__(self, engine: Engine, sampler: Sampler) -> None:
        self.engine, self.sampler = engine, sampler
        self.start = 0  # where its context begins in the text

    def propose(self, ids: list[int], count: int) -> list[Proposal]:
        """See `Drafter.propose`."""
        size = self.engine.model.config.block_size
        if len(ids) - self.start + count - 1 > size:  # It does not read the last one that it proposes.
            self.start = max(self.start, len(ids) - max(1, size // 2))
            count = min(count, size - len(ids) + self.start + 1)
        self.sampler.ids = list(ids)
        logits = self.engine.resume(ids[self.start :])
        proposals: list[Proposal] = []
        while True:
            try:
                tokens, weights = self.sampler.candidates(logits)
            except (EndOfText, SampleError):  # The model decides whether the text ends.
                return proposals
            token = int(tokens[self.sampler.draw(weights)])
            q = None if len(tokens) == 1 else probabilities(tokens, weights, len(logits))
            proposals.append(Proposal(token, q))
            if len(proposals) == count:
                return proposals
            self.sampler.ids.append(token)
            logits = self.engine.step(token)


class DraftLength:
    """The number of tokens that are worth a draft, by how many were accepted so far in a text.

    A token is worth it as long as the probability that it and those before it are accepted is at least its cost. The
    length depends on the text alone, and not on a clock, so that a seed gives the same text each time.
    """

    def __init__(self, most: int, cost: float) -> None:
        self.most, self.cost = most, cost
        self.first = self.rate = (1 + cost) / 2  # The first drafts are short where a token costs little.

    def next(self) -> int:
        """Return the length of the next draft."""
        if self.rate >= 1:
            return self.most
        if self.rate < self.cost:
            self.rate += RETURN * (self.first - self.rate)  # It tries again after a while.
            return 0
        return min(self.most, int(math.log(self.cost) / math.log(self.rate)))

    def saw(self, accepted: bool) -> None:
        """Count a token that the model has accepted or refused."""
        self.rate += FOLLOW * (accepted - self.rate)


def speculative_steps(
    engine: Engine,
    prompt: Ids,
    max_new_tokens: int | None,
    sampling: SamplingConfig,
    stops: Collection[int],
    processors: Sequence[Processor],
    speculation: Speculation,
) -> Iterator[tuple[int, Logits]]:
    """Yield what `gpt.generation.single.steps` yields, with fewer passes of the model."""
    sampler = Sampler(sampling, prompt.tolist(), processors)
    drafter = speculation.drafter(sampler, processors)
    length = DraftLength(speculation.tokens, speculation.cost(engine.model))
    left: float = math.inf if max_new_tokens is None else max_new_tokens
    if left == 0:
        return
    proposals: list[Proposal] = []
    rows = [engine.resume(prompt)]
    while True:
        accepted = 0
        for row, proposal in zip(rows, [*proposals, None], strict=True):
            try:
                token = sampler(row) if proposal is None else sampler.follow(row, proposal)
            except EndOfText:
                return
            agreed = proposal is not None and token == proposal.token
            if proposal is not None:
                length.saw(agreed)
                speculation.accepted += agreed
            if token in stops:
                return
            yield token, row
            left -= 1
            if left == 0:
                return
            if not agreed:
                break
            accepted += 1
        if refused := len(proposals) - accepted:
            engine.truncate(engine.cache.length - refused)
        count = int(min(length.next(), engine.room - 1, left - 1))  # The pass reads the last token as well.
        proposals = drafter.propose(sampler.ids, count) if count > 0 else []
        speculation.drafted += len(proposals)
        rows = [*engine.extend([token, *(p.token for p in proposals)])] if proposals else [engine.step(token)]
