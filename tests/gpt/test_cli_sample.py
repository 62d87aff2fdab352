"""Test the command `sample` with a small model: every option, and the ones that exclude each other."""

import logging
import math
import re
import sys
import types
from pathlib import Path

import pytest

pytest.importorskip("click")
pytest.importorskip("platformdirs")
from click.testing import CliRunner

import gpt.generation
from gpt.cli import main
from gpt.config import Config
from gpt.tokenizer import CharTokenizer
from tests.gpt.small_models import small_model


@pytest.fixture(autouse=True)
def known(monkeypatch):
    """Give the command a small model of three characters, and leave no log handler behind."""
    loaded = types.SimpleNamespace(
        model=small_model(vocab_size=3), tokenizer=CharTokenizer("\nab"), config=Config.load("gpt-nano"), step=7
    )
    monkeypatch.setattr("gpt.runs.newest_checkpoint", lambda folder: Path("newest.safetensors"))
    monkeypatch.setattr("gpt.runs.describe_choice", lambda folder, path: "the only one")
    monkeypatch.setattr("gpt.checkpoint.load", lambda path, device, quantize: loaded)
    monkeypatch.setattr(logging.getLogger("gpt"), "handlers", [])
    monkeypatch.setattr(logging.getLogger("gpt"), "level", logging.NOTSET)
    return loaded


def succeeds(*arguments):
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    return result


def fails(*arguments):
    """Run a command that fails, and return its one message."""
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exit_code == 2, result.output
    assert result.stderr.count("Error: ") == 1
    return result.stderr.partition("Error: ")[2].rstrip("\n")


def new_text(known, count, prompt="ab", **options):
    """Return a prompt and the text that generate() gives it."""
    ids = known.tokenizer.encode(prompt)
    return prompt + known.tokenizer.decode(list(gpt.generation.generate(known.model, ids, count, **options)))


def test_every_sampling_option_reaches_the_text(known):
    options = {"top_p": 0.7, "min_p": 0.4, "typical_p": 0.5, "repetition_penalty": 3.0, "presence_penalty": 2.0,
               "frequency_penalty": 1.5}  # fmt: skip
    plain, start = new_text(known, 40, seed=2), ["sample", "--prompt", "ab", "--tokens", 40, "--seed", 2]
    assert succeeds(*start).stdout == plain + "\n"
    for name, value in options.items():
        expected = new_text(known, 40, seed=2, **{name: value})
        assert succeeds(*start, "--" + name.replace("_", "-"), value).stdout == expected + "\n"
        assert expected != plain, name


def test_biases_and_bans(known):
    start = ["sample", "--prompt", "ab", "--tokens", 30, "--seed", 2]
    assert succeeds(*start, "--logit-bias", "a=1000").stdout == "ab" + "a" * 30 + "\n"
    assert succeeds(*start, "--logit-bias", "2=1e3").stdout == "ab" + "b" * 30 + "\n"
    assert succeeds(*start, "--logit-bias", "id:2=1000", "--logit-bias", "a=-5").stdout == "ab" + "b" * 30 + "\n"
    text = succeeds(*start, "--ban", "ab", "--ban", "\n").stdout.rstrip("\n")
    assert "ab" not in text[2:]
    assert "\n" not in text
    for bias in ("a", "=1", "a=x", "a=nan"):
        assert fails(*start, "--logit-bias", bias).startswith(f"--logit-bias '{bias}': expected TOKEN=VALUE")
    message = "--logit-bias: 'ab' is neither one token nor an id below 3; it is 2 tokens"
    assert fails(*start, "--logit-bias", "ab=1") == message
    assert fails(*start, "--logit-bias", "id:3=1").startswith("--logit-bias: 'id:3' is neither")
    assert fails(*start, "--ban", "") == "--ban: expected a text, got an empty one"


def test_several_stop_texts_and_samples(known):
    start = ["sample", "--prompt", "ab", "--chars", 25, "--seed", 2]
    plain = new_text(known, 25, seed=2)[2:]
    stops = ["aab", plain[5:8], "bbbb"]
    cut = min(plain.find(stop) for stop in stops if stop in plain)
    options = [part for stop in stops for part in ("--stop", stop)]
    assert succeeds(*start, *options).stdout == "ab" + plain[:cut] + "\n"
    result = succeeds(*start, *options, "--num-samples", 3).stdout
    parts = re.split(r"(?:^|\n\n)--- \d, seed \d ---\n", result.removesuffix("\n"))[1:]
    assert parts == [
        succeeds(*start[:-1], seed, *options).stdout.removesuffix("\n") for seed in (2, 3, 4)
    ]


def test_a_search_prints_the_likeliest_texts(known):
    ids = known.tokenizer.encode("ab")
    best, second = gpt.generation.beam_search(known.model, ids, 3, 7, 0.5, num_return=2)
    start = ["sample", "--prompt", "ab", "--num-beams", 3, "--tokens", 7, "--length-penalty", 0.5]
    result = succeeds(*start)
    assert result.stdout == "ab" + known.tokenizer.decode(best.tokens) + "\n"
    assert "seed" not in result.stderr
    assert succeeds(*start, "--num-samples", 2).stdout == (
        f"--- 1, score {best.score:.4f} ---\nab{known.tokenizer.decode(best.tokens)}\n\n"
        f"--- 2, score {second.score:.4f} ---\nab{known.tokenizer.decode(second.tokens)}\n"
    )


def test_a_table_of_log_probabilities(known):
    start = ["sample", "--prompt", "ab", "--tokens", 4, "--seed", 2, "--logit-bias", "id:0=50"]
    header, *rows = succeeds(*start, "--logprobs", 2).stdout.splitlines()
    assert header.split() == ["token", "logprob", "prob.", "likeliest"]
    ids = known.tokenizer.encode("ab")
    steps = gpt.generation.generate_with_logprobs(
        known.model, ids, 4, seed=2, logit_bias={0: 50.0}, alternatives=2
    )
    names = ["'\\n'", "'a'", "'b'"]
    for row, step in zip(rows, steps, strict=True):
        cells = [names[step.token], f"{step.logprob:.3f}", f"{math.exp(step.logprob):.2%}"]
        for token, logprob in step.alternatives:
            cells += [names[token], f"{logprob:.3f}"]
        assert row.split() == cells
    result = succeeds(*start, "--num-samples", 2, "--logprobs").stdout
    assert result.count("likeliest") == 2
    assert result.count("'\\n'") >= 8


def test_a_prompt_from_a_file_or_standard_input(known, tmp_path):
    (tmp_path / "prompt.txt").write_text("ab")
    expected = new_text(known, 9, seed=2) + "\n"
    start = ["sample", "--tokens", "9", "--seed", "2"]
    assert succeeds(*start, "--prompt-file", tmp_path / "prompt.txt").stdout == expected
    for option in ("--prompt", "--prompt-file"):
        assert CliRunner().invoke(main, [*start, option, "-"], input="ab").stdout == expected
    assert "not UTF-8: byte 1" in CliRunner().invoke(main, [*start, "--prompt", "-"], input=b"a\xff").stderr
    assert "nothing.txt" in fails(*start, "--prompt-file", tmp_path / "nothing.txt")


def test_a_grammar_on_the_command_line(known, tmp_path):
    pytest.importorskip("llguidance")
    start = ["sample", "--prompt", "ab", "--seed", 2]
    for number in ([], ["--num-samples", 2], ["--num-beams", 2]):
        begin = start[:3] if "--num-beams" in number else start
        texts = succeeds(*begin, "--regex", "b{3}a(a|b)", *number).stdout.splitlines()
        assert all(re.fullmatch("abb{3}a[ab]|---.*---|", text) for text in texts)
        assert any("abbbba" in text for text in texts)
    (tmp_path / "schema.json").write_text("{")
    assert "schema.json: the JSON schema is not JSON" in fails(*start, "--json-schema", tmp_path / "schema.json")
    assert "unclosed" in fails(*start, "--regex", "[")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--prompt", "a", "--prompt-file", "f"], "give --prompt or --prompt-file, not both"),
        (["--regex", "a", "--json-schema", "f"], "give --regex or --json-schema, not both"),
        (["--num-beams", 2, "--chars", 5], "give --num-beams or --chars, not both: a search has its length in --tok"),
        (["--num-beams", 2, "--seed", 5], "give --num-beams or --seed, not both: a search samples nothing"),
        (["--num-beams", 2, "--top-p", 0.5], "give --num-beams or --top-p, not both: a search samples nothing"),
        (["--num-beams", 2, "--logprobs"], "give --num-beams or --logprobs, not both: a search prints the score"),
        (["--length-penalty", 2], "--length-penalty compares the texts of a search. Give --num-beams as well"),
        (["--num-beams", 2, "--num-samples", 3], "--num-samples 3: a search with --num-beams 2 finds 2 texts at most"),
        (["--top-p", 2], "--top-p 2.0: must be <= 1"),
        (["--repetition-penalty", 0], "--repetition-penalty 0.0: must be > 0"),
    ],
)
def test_options_that_exclude_each_other(known, options, message):
    assert fails("sample", *options).startswith(message)


def test_a_grammar_without_its_library(known, monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    assert fails("sample", "--regex", "a") == "this needs the package llguidance: pip install 'tensorlite[grammar]'"


def test_drafts(known, monkeypatch):
    """With n-grams a seed has the text without a draft, and with a model the greedy text is the one without."""
    start, rest = ["sample", "--prompt", "abab", "--tokens", 30], ["--draft-tokens", 3]
    small = types.SimpleNamespace(
        model=small_model(vocab_size=3, n_layer=1, n_embd=8), tokenizer=known.tokenizer, config=known.config, step=1
    )
    monkeypatch.setattr("gpt.sources.load", lambda source, device, quantize: {"small": small, "other": other}[source])
    other = types.SimpleNamespace(model=small.model, tokenizer=CharTokenizer("\nac"), config=known.config)
    plain = new_text(known, 30, prompt="abab", seed=2)
    assert succeeds(*start, "--seed", 2, "--draft", "ngram").stdout == plain + "\n"
    assert succeeds(*start, "--seed", 2, "--draft", "ngram", "--logprobs", 0, *rest).stdout.count("\n") == 31
    greedy = new_text(known, 30, prompt="abab", temperature=0)
    assert succeeds(*start, "--temperature", 0, "--draft", "small", *rest).stdout == greedy + "\n"
    assert fails(*start, "--draft", "other").startswith("--draft other: expected a model with the tokenizer of the ")
    assert fails(*start, *rest).startswith("--draft-tokens is the length of a draft. Give --draft as well")
    assert fails(*start, "--draft", "ngram", "--num-samples", 2).startswith("give --draft or --num-samples, not both")
    assert fails(*start, "--draft", "ngram", "--num-beams", 2).startswith("give --num-beams or --draft, not both")
    for count in (0, -2, "x"):
        assert "'--draft-tokens'" in fails(*start, "--draft", "ngram", "--draft-tokens", count)
