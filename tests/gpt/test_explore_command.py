"""Test the command `explore` with a small model: what it writes, and what it says to mistakes."""

import json
import logging
import re
import types
from pathlib import Path

import pytest

pytest.importorskip("click")
pytest.importorskip("platformdirs")
from click.testing import CliRunner

import tensorlite as tl
from gpt.cli import main
from gpt.config import Config, ModelConfig
from gpt.model import GPT, quantize_model
from gpt.tokenizer import CharTokenizer


@pytest.fixture(autouse=True)
def known(monkeypatch, tmp_path):
    """Give the command a small model of three characters, in an empty folder."""
    tl.manual_seed(0)
    shape = ModelConfig(vocab_size=3, block_size=12, n_layer=2, n_head=1, n_embd=4, dropout=0.5)
    loaded = types.SimpleNamespace(
        model=GPT(shape), tokenizer=CharTokenizer("\nab"), config=Config(name="small", model=shape), step=7
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gpt.runs.newest_checkpoint", lambda folder: Path("newest.safetensors"))
    monkeypatch.setattr("gpt.runs.describe_choice", lambda folder, path: "the only one")
    monkeypatch.setattr("gpt.checkpoint.load", lambda path, **options: loaded)
    monkeypatch.setattr("gpt.sources.find", Path)
    monkeypatch.setattr(logging.getLogger("gpt"), "handlers", [])
    monkeypatch.setattr(logging.getLogger("gpt"), "level", logging.NOTSET)
    return loaded


def explore(*arguments):
    result = CliRunner().invoke(main, ["explore", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result


def fails(*arguments):
    """Run the command, which fails, and return its one message."""
    result = CliRunner().invoke(main, ["explore", *map(str, arguments)])
    assert result.exit_code == 2, result.output
    assert result.stderr.count("Error: ") == 1
    assert not list(Path().glob("*.html"))
    return result.stderr.partition("Error: ")[2].rstrip("\n")


def data_of(path):
    """Return the data that a page holds."""
    text = Path(path).read_text("utf-8")
    return json.loads(re.search(r'<script[^>]*type="application/json"[^>]*>(.*?)</script>', text, re.DOTALL)[1])


def test_it_writes_a_page_and_says_what_to_do(known):
    result = explore("--prompt", "abba")
    assert re.fullmatch(
        r"wrote explore\.html \(\d\.\d MB, \d+ steps\)\nopen it in a browser; the arrow keys [^\n]+\n", result.stdout
    )
    data = data_of("explore.html")
    assert data["title"] == "loss of the newest model on 'abba'"
    names = {node["name"] for node in data["nodes"]}
    assert {name for name, _ in known.model.named_parameters()} <= names
    assert {"", "wte", "h.0.mlp.c_fc", "h.1.attn"} <= {module["name"] for module in data["modules"]}
    root = next(node for node in data["nodes"] if node["root"])
    with tl.no_grad():  # the command has put the model into evaluation mode, without dropout
        _, loss = known.model(tl.tensor([[1, 2, 2]]), tl.tensor([[2, 2, 1]]))
    assert data["values"][root["value"]]["numbers"] == pytest.approx(loss.item(), rel=1e-6)
    assert any("gpt.py:" in node.get("line", "") for node in data["nodes"])
    assert len(data["gradients"]) == len(list(known.model.parameters()))
    explore("--prompt", "ab")  # a page of its own is replaced


def test_a_frozen_model_has_gradients_too(known):
    known.model.requires_grad_(False)
    explore("model.safetensors", "--prompt", "ab", "--out", "a.html")
    assert data_of("a.html")["gradients"]
    assert data_of("a.html")["title"] == "loss of model.safetensors on 'ab'"


def test_layers_dtype_check_and_order(known):
    result = explore("--prompt", "ab", "--layers", 1, "--dtype", "float64", "--check", "--order", 2)
    assert "using the first 1 of 2 layers" in result.stderr
    data = data_of("explore.html")
    assert not any(module["name"].startswith("h.1") for module in data["modules"])
    assert {node["dtype"] for node in data["nodes"] if node["kind"] == "parameter"} == {"float64"}
    assert {node["order"] for node in data["nodes"]} == {1, 2}
    assert data["checks"]
    assert all(check["ok"] for check in data["checks"] if not check.get("why_not"))
    assert "Finite differences in float64 confirm" in result.stderr


def test_other_formats():
    text = explore("--prompt", "ab", "--format", "text").stdout
    assert re.search(r"h\.0\.mlp\.c_fc\.weight", text)
    assert explore("--prompt", "ab", "--format", "dot").stdout.startswith("digraph")
    result = explore("--prompt", "ab", "--format", "mermaid", "--out", "a.mmd")
    assert result.stdout == "wrote a.mmd\n"
    assert Path("a.mmd").read_text("utf-8").startswith("flowchart")


def test_the_text_can_come_from_standard_input_or_a_file():
    written = explore("--prompt", "ab\nba", "--format", "text").stdout
    Path("text.txt").write_bytes(b"ab\r\nba")
    assert explore("--prompt-file", "text.txt", "--format", "text").stdout == written
    for option in ("--prompt", "--prompt-file"):
        result = CliRunner().invoke(main, ["explore", option, "-", "--format", "text"], input="ab\nba")
        assert result.stdout == written


def test_open(monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    assert "open it" not in explore("--prompt", "ab", "--open").stdout
    assert opened == [Path("explore.html").resolve().as_uri()]


def test_long_prompts_and_deep_models(known, monkeypatch):
    monkeypatch.setattr("gpt.cli.explore.READABLE_LAYERS", 1)
    monkeypatch.setattr("gpt.cli.explore.READABLE_TOKENS", 5)
    result = explore("--prompt", "ab" * 10, "--format", "text")
    assert "the prompt has 20 tokens, of which the model sees the last 13" in result.stderr
    assert "the model has 2 layers, so the page is large" in result.stderr
    assert "--layers 2 cuts the model to two" in result.stderr
    assert "a page of 5 is easier to read" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompt", "a"], "the prompt has 1 token, and the loss needs at least 2"),
        (["--prompt", ""], "give the text to look at: --prompt TEXT"),
        (["--prompt", "xyz"], "character 'x' at position 0 is not in the vocabulary"),
        ([], "give the text to look at: --prompt TEXT"),
        (["--prompt", "ab", "--prompt-file", "x"], "give --prompt or --prompt-file, not both"),
        (["--prompt", "ab", "--layers", "3"], "--layers 3: the model has 2"),
        (["--prompt", "ab", "--layers", "0"], "0 is not in the range"),
        (["--prompt", "ab", "--order", "3"], "3 is not in the range 1<=x<=2"),
        (["--prompt", "ab", "--dtype", "float16"], "'float16' is not one of 'float32', 'float64'"),
        (["--prompt", "ab", "--out", "none/a.html"], "--out none/a.html: the folder none does not exist"),
        (["--prompt", "ab", "--out", "a.png"], "--out a.png: expected a name that ends in .html"),
        (["--prompt", "ab", "--out", "."], "--out .: expected a file, and this is a folder"),
        (["--prompt", "ab", "--open", "--format", "dot"], "--open shows a page, and --format dot writes none"),
        (["a", "--checkpoint", "b", "--prompt", "ab"], "give MODEL (a) or --checkpoint b, not both"),
        (["--promt", "ab"], "Did you mean '--prompt'?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes(arguments, message):
    assert message in fails(*arguments)


def test_a_file_of_something_else_is_not_replaced():
    Path("mine.htm").write_text("my thesis", "utf-8")
    assert "mine.htm" in fails("--prompt", "ab", "--out", "mine.htm")
    assert Path("mine.htm").read_text("utf-8") == "my thesis"


def test_a_quantized_model_has_no_gradients(known):
    shape = ModelConfig(vocab_size=3, block_size=8, n_layer=1, n_head=1, n_embd=32)
    known.model = quantize_model(GPT(shape), "int8")
    assert "explore computes gradients, which needs the weights in float32" in fails("--prompt", "ab")
