"""Test that every example runs from any folder, as its docstring says, and prints correct results."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("[0-9]*.py"))  # common.py is what some of them share


def run(name: str, folder: Path, *args: str, leaves: tuple[str, ...] = ()) -> str:
    """Run an example in `folder`, with warnings as errors, and return what it prints.

    leaves: the names of the files that it writes there; any other file is an error.
    """
    before = set(os.listdir(folder))
    command = [sys.executable, "-W", "error", str(ROOT / "examples" / name), *args]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert set(os.listdir(folder)) - before == set(leaves)
    return done.stdout


def experiment(name: str, folder: Path, leaves: tuple[str, ...] = ()) -> dict[str, dict[str, float]]:
    """Run the small version of an experiment, and return its results by name."""
    pytest.importorskip("platformdirs")  # because the gpt package needs it
    output = run(name, folder, "--quick", "--results", "results.json", leaves=("results.json", *leaves))
    done = json.loads((folder / "results.json").read_text("utf-8"))
    assert done["quick"]
    assert done["results"]
    for row in done["results"]:
        assert row["name"] in output
    return {row["name"]: row for row in done["results"]}


def numbers(line: str) -> list[float]:
    return [float(n) for n in re.findall(r"[-+]?\d+\.?\d*(?:e[-+]?\d+)?", line)]


def lines_with(text: str, output: str) -> list[str]:
    found = [line for line in output.splitlines() if text in line]
    assert found, f"no {text!r} in\n{output}"
    return found


def test_every_example_has_a_test():
    tested = {name[:15] for name in globals() if name.startswith("test_example_")}
    assert tested == {f"test_example_{path.name[:2]}" for path in EXAMPLES}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_docstring_says_how_to_run_the_example(path):
    assert f"    python examples/{path.name}" in path.read_text("utf-8")


def test_example_01(tmp_path):
    output = run("01_scalar_autograd.py", tmp_path)
    assert "loss  is mul   of y and y  saved: x = 1.238, y = 1.238" in output
    for line in lines_with("d loss / dw", output) + lines_with("d loss / dx", output):
        by_hand, backward, quotient = numbers(line)
        assert by_hand == backward
        assert abs(backward - quotient) < 1e-2
    after, before = numbers(lines_with("After a step", output)[0].replace("0.1", "").rstrip("."))
    assert after < before


def test_example_02(tmp_path):
    pytest.importorskip("matplotlib")
    output = run("02_mlp_two_moons.py", tmp_path, leaves=("two_moons.png",))
    assert "1,185 parameters" in output
    (accuracy,) = numbers(lines_with("it has not seen", output)[0].split(":")[1])
    assert accuracy > 97
    picture = tmp_path / "two_moons.png"
    assert f"wrote {picture.resolve()}" in output
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 10_000


def test_example_03(tmp_path):
    output = run("03_custom_op.py", tmp_path)
    for line in lines_with("off by", output):
        assert numbers(line.split("off by")[1])[0] < 1e-8
    assert len(lines_with("off by", output)) == 3
    found, expected = numbers(lines_with("second derivative", output)[0])
    assert found == expected == 0.786448
    assert "its gradient rule names z, but it can only name x, out, in_shape" in output


def test_example_04(tmp_path):
    output = run("04_second_derivatives.py", tmp_path)
    orders = lines_with("off by", output)[:5]
    assert all(numbers(line)[-1] < 1e-14 for line in orders)
    newton = [numbers(line.split("=")[1])[0] for line in lines_with(" f(", output)]
    assert newton[0] == pytest.approx(24.2)
    assert newton[-1] < 1e-15
    assert numbers(lines_with("dimensions", output)[0])[-1] < 1e-8
    forward, backward = numbers(lines_with("<u, J v> =", output)[0])
    assert forward == backward == 0.86


def test_example_05(tmp_path):
    pytest.importorskip("platformdirs")  # because the gpt package needs it
    output = run("05_train_gpt.py", tmp_path)
    losses = [numbers(line.split("loss")[1])[0] for line in lines_with("nats per character   gradient", output)]
    assert losses[0] == pytest.approx(3.7, abs=0.1)
    assert losses[-1] < 0.3
    assert "Thou art more lovely and more temperate:" in output.partition("and wrote:")[2]


def test_example_06(tmp_path):
    output = run("06_explore.py", tmp_path, leaves=("product.html", "network.html"))
    assert "sum dims 0, 1" in output
    assert "pass has 4 steps" in output
    assert lines_with("bytes   06_explore.py:", output)
    for name in ("product.html", "network.html"):
        assert (tmp_path / name).stat().st_size < 1_000_000


def test_example_07(tmp_path):
    results = experiment("07_language_model.py", tmp_path)
    gpt, bits = results["loss of the GPT"], results["bits of the GPT"]
    assert gpt["value"] < results["loss of bigrams"]["baseline"]  # not only frequencies
    assert gpt["baseline"] < results["loss of 5-grams, Witten-Bell"]["value"] < results["loss of bigrams"]["value"]
    assert bits["value"] == pytest.approx(gpt["value"] / math.log(2))
    assert results["perplexity of the GPT"]["value"] == pytest.approx(math.exp(gpt["value"]))
    assert results["error of a sentence's probability"]["value"] < 1e-4  # The model computes in float32.
    assert results["sum of the probabilities of what may follow, less 1"]["value"] < 1e-12


def test_example_08(tmp_path):
    results = experiment("08_encoder_decoder.py", tmp_path)
    loss = results["loss at the end"]
    assert loss["value"] < 1.9  # All digits equally likely would cost 2.3 nats.
    assert loss["value"] < loss["baseline"]
    assert results["characters in their place"]["value"] > 30


def test_example_09(tmp_path):
    results = experiment("09_masked_language_model.py", tmp_path)
    for name in ("loss of the masked language model", "loss of the GPT"):
        assert results[name]["value"] < results[name]["baseline"] - 0.1
    tried = results["missing character, GPT that tries each one"]
    assert tried["value"] > tried["baseline"] + 5


def test_example_10(tmp_path):
    results = experiment("10_question_answering.py", tmp_path)
    value = {name: row["value"] for name, row in results.items()}
    assert value["by heart, step by step: facts"] > 95
    assert value["by heart, step by step: unseen questions"] > 90
    unseen = results["by heart, at once: unseen questions"]
    assert value["by heart, at once: questions of the training"] > unseen["value"] + 20
    assert value["by heart, step by step: unseen questions"] > max(unseen["value"], unseen["baseline"]) + 40
    for step in ("first", "second"):
        assert 0 < results[f"attention to the needed fact, {step} step"]["baseline"] <= 100 / 12  # There are 12 facts.


def test_example_11(tmp_path):
    results = experiment("11_code.py", tmp_path)
    loss = results["loss on held-out files"]
    assert loss["value"] < 3.8  # All tokens equally likely would cost 4.1 nats a character.
    assert loss["baseline"] < 2.8
    assert results["true functions that parse"]["value"] == 100
    parse = results["completions that parse"]
    assert max(parse["value"], parse["baseline"]) < 60
    assert results["right bracket, opened 1 to 4 characters before"]["baseline"] >= 50


def test_example_12(tmp_path):
    results = experiment("12_domain_transfer.py", tmp_path)
    before = results["documentation, before"]
    assert before["value"] < before["baseline"]
    tuned = results["documentation, fine-tuned with 20,000 characters"]
    assert tuned["value"] < min(tuned["baseline"], before["value"])
    for method in ("all weights", "LoRA", "LoRA and embeddings", "a quarter of old text"):
        row = results[f"20,000 characters, {method}: documentation"]
        assert row["value"] < row["baseline"] == before["value"]
    lora, wider = (results[f"parameters that {name}"] for name in ("LoRA trains", "LoRA and embeddings train"))
    assert lora["value"] < wider["value"] < lora["baseline"] == wider["baseline"]
    changed = results["20,000 characters, LoRA: old domain"]
    left_out = results["LoRA's matrices left out: old domain"]
    assert changed["value"] != changed["baseline"]
    assert left_out["value"] == left_out["baseline"] == changed["baseline"]


def test_example_13(tmp_path):
    results = experiment("13_bias.py", tmp_path)
    value = {name: row["value"] for name, row in results.items()}
    assert value["share of Norland, by the probabilities"] > 0.7  # of 0.9 in the text
    assert value["share of Norland, sampled, temperature 0.5"] > value["share of Norland, sampled, temperature 1"] > 0.7
    assert value["share of Norland, sampled, temperature 0"] == value["share of Norland, sampled, top-k 3"] == 1
    assert value["95 % intervals with the predicted share, of 8"] >= 6
    assert value["share of Norland, logit bias"] == pytest.approx(0.5, abs=0.02)
    assert value["share of Ostland, logit bias"] < 0.3  # of 0.5 in the text
    for name in ("loss elsewhere", "share of Ostland"):
        assert value[f"{name}, logit bias"] != results[f"{name}, logit bias"]["baseline"]
    (gap,) = (row for name, row in results.items() if name.startswith("gap, both forms"))
    assert gap["value"] < 0.7 * gap["baseline"]


def test_example_14(tmp_path):
    pytest.importorskip("matplotlib")
    results = experiment("14_induction_heads.py", tmp_path, leaves=("induction-heads.png",))
    loss = results["loss on the second copy, two layers"]["value"]
    assert loss < results["loss on the second copy, one layer"]["baseline"] - 0.03  # a guess among all tokens
    assert results["hook and weights differ by"]["value"] < 1e-5
    for head in ("induction", "previous-token"):
        score = results[f"score of the best {head} head"]
        assert 0 < score["baseline"] <= score["value"] < 1
    for layer in (0, 1):
        assert results[f"loss without the heads of layer {layer}"]["value"] > loss
    probe = results["probe of the embedding"]
    assert probe["value"] > probe["baseline"] + 5  # the most frequent class
    assert 0 < results["weights of that probe that are not zero"]["value"] < 192
    assert (tmp_path / "induction-heads.png").read_bytes().startswith(b"\x89PNG")


def test_example_15(tmp_path):
    pytest.importorskip("matplotlib")
    results = experiment("15_scaling.py", tmp_path, leaves=("scaling.png",))
    for name in ("loss of the largest model", "loss with the most tokens"):
        assert results[name]["value"] < results[name]["baseline"]
    assert results["error of the fit to a known law"]["value"] < 1e-9
    assert results["error of the best size of a known law"]["value"] < 1e-3  # The sizes are compared in a grid.
    assert 0 < results["exponent of the compute, for the best size"]["value"] < 1
    assert results["alpha of the size alone"]["value"] > 0
    assert results["alpha of the tokens alone"]["value"] > 0


def test_example_16(tmp_path):
    results = experiment("16_alignment.py", tmp_path)
    value = {name: row["value"] for name, row in results.items()}
    start = value["reward of the start"]
    best = [value[f"reward, best of {n}"] for n in (4, 16, 64)]
    assert start + 0.5 < best[0] < best[1] < best[2]
    assert value["reward, DPO"] > 1.5 * start
    assert value["reward, REINFORCE, no penalty"] > 3 * start
    dpo = results["reward, DPO"]
    if "baseline" in dpo:  # where n, for the KL of best of n, is at most the number of texts
        assert dpo["value"] < dpo["baseline"] + 0.5  # because best of n is close to the most that a KL allows
    assert 0 < value["KL, DPO"] < value["KL, REINFORCE, no penalty"]
    loss = results["loss on Shakespeare, REINFORCE, no penalty"]
    assert loss["value"] > loss["baseline"]
    assert value["accuracy of the reward model"] > 0.5


def test_example_05_takes_a_file(tmp_path):
    text = tmp_path / "own.txt"
    text.write_text("to be or not to be, that is the question.\n" * 20, "utf-8")
    example = (ROOT / "examples" / "05_train_gpt.py").read_text("utf-8")
    assert example.count("block_size = 450,") == 1
    short = tmp_path / "short.py"
    short.write_text(example.replace("block_size = 450,", "block_size = 150,"))  # enough for one line
    output = run(str(short), tmp_path, str(text))
    assert "840 characters" in output
    assert numbers(lines_with("of the characters", output)[0])[0] == 100
