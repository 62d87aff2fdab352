"""What a command line of `sample` asks for, and the texts that answer it."""

import dataclasses
import secrets
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from gpt import generation
from gpt.cli.sample_table import HEADER, table_row
from gpt.config import SamplingConfig
from gpt.data import read_text, unix_lines
from gpt.generation import Grammar, GrammarError, Processor, Speculation, TextEnd, stream
from gpt.model import GPT
from gpt.tokenizer import Tokenizer, TokenizerError, prompt_ids, start_ids

DEFAULT_CHARS, DEFAULT_BEAM_TOKENS = 500, 100

# Options that exclude each other, with the reason where it is not plain.
EXCLUSIVE = [
    ("tokens", "chars", ""),
    ("prompt", "prompt_file", ""),
    ("regex", "json_schema", ""),
    ("num_beams", "chars", ": a search has its length in --tokens"),
    ("num_beams", "draft", ": a search has no single text"),
    ("num_beams", "logprobs", ": a search prints the score of a text"),
    *(
        ("num_beams", name, ": a search samples nothing")
        for name in ("temperature", "top_k", "top_p", "min_p", "typical_p", "seed")
    ),
]


def check_together(arguments: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Raise UsageError for options of the command line that exclude or need each other."""
    given = {key for key, value in {**arguments, **options}.items() if value is not None}
    for one, other, reason in EXCLUSIVE:
        if {one, other} <= given:
            raise click.UsageError(f"give {flag(one)} or {flag(other)}, not both{reason}")
    beams = arguments["num_beams"]
    if arguments["length_penalty"] is not None and not beams:
        raise click.UsageError("--length-penalty compares the texts of a search. Give --num-beams as well")
    if arguments["draft"] is not None and arguments["num_samples"] > 1:
        raise click.UsageError("give --draft or --num-samples, not both: a draft is for one text at a time")
    if beams and arguments["num_samples"] > beams:
        raise click.UsageError(
            f"--num-samples {arguments['num_samples']}: a search with --num-beams {beams} finds {beams} texts at most"
        )


def flag(name: str) -> str:
    """Return an option as the user writes it."""
    return "--" + name.replace("_", "-")


def read_prompt(prompt: str | None, file: str | None) -> str:
    """Return the prompt of --prompt or --prompt-file, "" for none. Raises UsageError for input that is not UTF-8."""
    if "-" in (prompt, file):
        try:
            data: bytes = sys.stdin.buffer.read()
            return unix_lines(data.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise click.UsageError(f"standard input is not UTF-8: byte {error.start}") from None
    return read_text(Path(file)) if file is not None else unix_lines(prompt or "")


class SampleRequest:
    """A command line of `sample` for a loaded model; its methods return each text as an iterable of pieces."""

    def __init__(
        self,
        model: GPT,
        tokenizer: Tokenizer,
        prompt: str,
        sampling: SamplingConfig,
        arguments: Mapping[str, Any],
        draft: Speculation | None = None,
    ) -> None:
        self.model, self.tokenizer, self.prompt, self.arguments = model, tokenizer, prompt, arguments
        self.draft = draft
        self.ids = prompt_ids(tokenizer, prompt) if prompt else start_ids(tokenizer)
        tokens, chars = arguments["tokens"], arguments["chars"]
        self.limits: dict[str, Any] = {
            "max_tokens": tokens,
            "max_chars": None if tokens or arguments["num_beams"] else chars or DEFAULT_CHARS,
            "stop": arguments["stop"],
        }
        changes: dict[str, Any] = {"seed": secrets.randbits(32)} if sampling.seed is None else {}
        if arguments["logit_bias"]:
            changes["logit_bias"] = dict(bias_of(tokenizer, text) for text in arguments["logit_bias"])
        if arguments["ban"]:
            changes["banned_tokens"] = [banned(tokenizer, text) for text in arguments["ban"]]
        self.sampling = dataclasses.replace(sampling, **changes)
        self.rules: dict[str, Any] = {}
        stops = set(tokenizer.stop_ids)
        if (grammar := chosen_grammar(tokenizer, arguments["regex"], arguments["json_schema"])) is not None:
            self.rules["processors"] = [grammar]
            stops |= set() if grammar.end_token is None else {grammar.end_token}
        if stops:
            self.rules["stop_tokens"] = stops

    def samples(self) -> Iterator[Iterable[str]]:
        """Yield one text, whose pieces come as they are generated."""
        if self.arguments["logprobs"] is not None:
            steps = generation.generate_with_logprobs(
                self.model, self.ids, self.limits["max_tokens"], self.sampling,
                alternatives=self.arguments["logprobs"], draft=self.draft, **self.rules_with_end(),
            )  # fmt: skip
            yield [HEADER]
            yield (f"\n{table_row(self.tokenizer, step)}" for step in steps)
            return
        yield [self.prompt]
        new = generation.generate(self.model, self.ids, sampling=self.sampling, draft=self.draft, **self.rules)
        yield stream(self.tokenizer, new, **self.limits)

    def batch(self) -> Iterator[Iterable[str]]:
        """Yield the texts of --num-samples, each after a line with its number and seed."""
        count, tokens = self.arguments["num_samples"], self.limits["max_tokens"]
        rows: list[list[Any]] = [[] for _ in range(count)]
        rules, steps = self.rules_with_end(), None
        if (alternatives := self.arguments["logprobs"]) is not None:
            steps = generation.stream_batch_with_logprobs(
                self.model, [self.ids], tokens, self.sampling, num_samples=count, alternatives=alternatives, **rules
            )
        for row, step in steps or generation.stream_batch(
            self.model, [self.ids], tokens, self.sampling, num_samples=count, **rules
        ):
            rows[row].append(step)
        for number, new in enumerate(rows):
            seed = (self.sampling.seed or 0) + number
            yield [heading(number, f"seed {seed}")]
            if steps is not None:
                yield [HEADER, *(f"\n{table_row(self.tokenizer, step)}" for step in new)]
            else:
                yield [self.prompt, *stream(self.tokenizer, new, **self.limits)]

    def beams(self) -> Iterator[Iterable[str]]:
        """Yield the texts that a search finds, each after a line with its score if there are several."""
        count, penalty = self.arguments["num_samples"], self.arguments["length_penalty"]
        names = ("repetition_penalty", "presence_penalty", "frequency_penalty", "logit_bias", "banned_tokens")
        found = generation.beam_search(
            self.model, self.ids, self.arguments["num_beams"], self.limits["max_tokens"] or DEFAULT_BEAM_TOKENS,
            1.0 if penalty is None else penalty, num_return=count, **self.rules_with_end(),
            **{name: getattr(self.sampling, name) for name in names},
        )  # fmt: skip
        for number, beam in enumerate(found):
            yield [heading(number, f"score {beam.score:.4f}")] if count > 1 else []
            yield [self.prompt, *stream(self.tokenizer, beam.tokens, **self.limits)]

    def rules_with_end(self) -> dict[str, Any]:
        """Return the rules with a processor that ends a text by itself, where `stream` cannot."""
        ends = [limit for limit in ("max_chars", "stop") if self.limits[limit]]
        if not ends:
            return self.rules
        end: Processor = TextEnd(self.tokenizer, **{limit: self.limits[limit] for limit in ends})
        return {**self.rules, "processors": [end, *self.rules.get("processors", [])]}


def heading(number: int, text: str) -> str:
    """Return the line before a text, which is the first for number 0."""
    return ("" if number == 0 else "\n\n") + f"--- {number + 1}, {text} ---\n"


def chosen_grammar(tokenizer: Tokenizer, regex: str | None, schema: str | None) -> Grammar | None:
    """Return the grammar of --regex or --json-schema, or None. Raises GrammarError."""
    if regex is not None:
        return Grammar.regex(tokenizer, regex, end_token=tokenizer.eos_id)
    if schema is None:
        return None
    try:
        return Grammar.json_schema(tokenizer, read_text(Path(schema)), end_token=tokenizer.eos_id)
    except GrammarError as error:
        raise GrammarError(f"{schema}: {error}") from None


def bias_of(tokenizer: Tokenizer, text: str) -> tuple[int, float]:
    """Return the token and the number of a --logit-bias. Raises UsageError."""
    name, equals, number = text.rpartition("=")
    try:
        value = float(number)
    except ValueError:
        value = float("nan")
    if not (equals and name) or not abs(value) < float("inf"):
        raise click.UsageError(f"--logit-bias {text!r:.80}: expected TOKEN=VALUE, such as e=-2.5 or id:5=1")
    return one_token(tokenizer, name), value


def one_token(tokenizer: Tokenizer, name: str) -> int:
    """Return the id of a text that is one token, or the id that a text is. Raises UsageError."""
    number = name.removeprefix("id:")
    ids: list[int] = []
    if number == name:
        try:
            ids = tokenizer.encode(name).tolist()
        except TokenizerError:  # It may still be an id.
            ids = []
    if len(ids) == 1:
        return int(ids[0])
    if number.isascii() and number.isdigit() and int(number[:20]) < tokenizer.vocab_size:
        return int(number)
    raise click.UsageError(
        f"--logit-bias: {name!r:.80} is neither one token nor an id below {tokenizer.vocab_size}"
        + (f"; it is {len(ids)} tokens" if ids else "")
    )


def banned(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the tokens of a --ban. Raises UsageError for a text without any."""
    if not text:
        raise click.UsageError("--ban: expected a text, got an empty one")
    return [int(token) for token in tokenizer.encode(text)]
