"""Test the command line: its options, the functions that it calls, and its error messages."""

import itertools
import logging
import math
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("click")
pytest.importorskip("platformdirs")
from click.testing import CliRunner

import gpt
import tensorlite
from gpt.__main__ import open_closed_streams
from gpt.cli import main
from gpt.cli.app import COMMANDS
from gpt.cli.compiling import MESSAGE, announce_compilation
from gpt.cli.options import HIDDEN, OPTION_NAMES, TRAIN_SECTIONS, chosen_quantize
from gpt.cli.suggestions import COMMAND_ALIASES, OPTION_ALIASES
from gpt.config import Config, SamplingConfig, value_type
from gpt.config.sections import NEEDS
from gpt.errors import UserError
from gpt.tokenizer import CharTokenizer


@pytest.fixture(autouse=True)
def quiet_logger(monkeypatch):
    """Remove the log handler that the command line adds, so that it does not leak into the next test."""
    monkeypatch.setattr(logging.getLogger("gpt"), "handlers", [])
    monkeypatch.setattr(logging.getLogger("gpt"), "level", logging.NOTSET)


def run(*arguments):
    return CliRunner().invoke(main, list(map(str, arguments)))


def succeeds(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result


def fails(*arguments):
    """Run a command that fails, and return its error, which is one message without a traceback."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stderr.count("Error: ") == 1
    return result.stderr.partition("Error: ")[2].rstrip("\n")


class Calls:
    """Fakes for the modules behind the command line: they record their calls, and a model that writes `ab` forever."""

    def __init__(self):
        self.recorded = []
        self.tokenizer = CharTokenizer("\nab")
        self.config = Config.load("gpt-nano", {"train.steps": 7})

    def record(self, name, answer):
        def function(*arguments, **options):
            self.recorded.append((name, arguments, options))
            return answer() if callable(answer) else answer

        return function


@pytest.fixture
def calls(monkeypatch):
    calls = Calls()
    loaded = types.SimpleNamespace(model="the model", tokenizer=calls.tokenizer, config=calls.config, step=7)
    fakes = {
        "train.train": calls.record("train", True),
        "runs.find_checkpoint": calls.record("find", Path("found.safetensors")),
        "runs.describe_choice": lambda folder, path: "the only one",
        "runs.newest_checkpoint": calls.record("newest", Path("newest.safetensors")),
        "checkpoint.load_config": calls.record("load_config", calls.config),
        "checkpoint.load": calls.record("load", loaded),
        "generation.generate": calls.record("generate", lambda: itertools.cycle([1, 2])),
        "evaluate.evaluate": calls.record("evaluate", math.log(2)),
        "evaluate.log_probs": calls.record("log_probs", lambda: np.array([-math.log(2), -math.log(8)])),
    }
    for name, function in fakes.items():
        monkeypatch.setattr(f"gpt.{name}", function)
    return calls


# --- help


def test_help_lists_every_command():
    text = succeeds("--help").output
    for command in ("train", "sample", "score", "eval", "info", "presets"):
        assert command in text
        assert "Usage: " in succeeds(command, "--help").output


def test_a_profile_prints_a_table_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog\n" * 500)
    before = sorted(tmp_path.rglob("*"))
    output = succeeds("train", "gpt-nano", "--data", str(text), "--batch-size", 2, "--profile").output
    for name in ("linear", "attention", "layer_norm_rows", "optimizer_step", "clip_grad_norm", "between ops", "total"):
        assert re.search(rf"^{name} +[\d.]", output, re.MULTILINE), output
    assert re.search(r"^20 steps after 5 to warm up; \d+\.\d\d ms per step$", output, re.MULTILINE)
    assert sorted(tmp_path.rglob("*")) == before
    assert run("train", "--profile", "--resume").exit_code == 2


def test_train_help_has_every_option_with_default_and_unit():
    text = " ".join(succeeds("train", "--help").output.split())
    for section in TRAIN_SECTIONS:
        for key, field, value in getattr(Config.load(), section).options():
            if key == "model.vocab_size":
                continue
            flag = OPTION_NAMES.get(key, field.name).replace("_", "-")
            assert f"--{flag} " in text, key
            meaning = field.metadata["help"]
            assert meaning[1:] in text, key
            if isinstance(value, bool):
                # Lines break after a hyphen.
                assert f"[default: --{'' if value else 'no-'}{flag}]" in text.replace("- ", "-"), key
            elif value not in ("", None):
                unit = f" {field.metadata['unit']}" if field.metadata["unit"] else ""
                shown = f"{value:g}" if isinstance(value, float) else value
                assert f"{meaning[1:]}. [default: {shown}{unit}]" in text, key
    for option in ("--config FILE", "--name", "--resume [PATH]", "--data NAME|FILE", "--out FOLDER"):
        assert option in text
    assert "vocab-size INTEGER Size of the vocabulary" not in text


def test_help_imports_no_expensive_package():
    script = (
        "import sys; from gpt.cli import main; main(['train', '--help'], standalone_mode=False); "
        "print(sorted({'numpy', 'tensorlite', 'tiktoken', 'pooch', 'matplotlib'} & set(sys.modules)))"
    )
    root = Path(gpt.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=root, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


# --- train


def test_train_without_arguments_is_the_cpu_run(calls):
    succeeds("train")
    assert calls.recorded == [("train", (Config.load("shakespeare-char-cpu"),), {})]


def test_train_options(calls, tmp_path):
    succeeds(
        "train", "gpt-nano", "--data", "my.txt", "--out", tmp_path, "--n-layer", 2, "--lr", "2e-3",
        "--no-bias", "--position", "sinusoidal", "--seed", 5, "--device", "cuda:1", "--name", "mine",
    )  # fmt: skip
    ((_, (config,), _),) = calls.recorded
    assert config == Config.load(
        "gpt-nano",
        {
            "data.dataset": "my.txt", "train.out_dir": str(tmp_path), "model.n_layer": 2, "optim.lr": 2e-3,
            "model.bias": False, "model.position": "sinusoidal", "train.seed": 5, "train.device": "cuda:1",
            "name": "mine",
        },
    )  # fmt: skip


def companions(name):
    """Return the options without which an option has no effect."""
    if name == "min_delta":
        return {"train.patience": 2}
    if name not in NEEDS:
        return {}
    other, accepted = NEEDS[name]
    return {f"model.{other}": accepted[0], **companions(other)}


def test_every_option_reaches_its_field(calls):
    """Give each option alone, with a value that is not the default."""
    other = {
        "train.device": "cuda", "optim.min_lr": 1e-5, "model.n_head": 8, "model.n_embd": 64,
        "data.bpe_vocab_size": 300, "optim.muon_lr": 0.03, "model.rope_theta": 500.0, "model.rope_factor": 2.0,
        "model.rope_high_freq_factor": 9.0, "model.init_std": 0.03,
    }  # fmt: skip
    for section in TRAIN_SECTIONS:
        for key, field, value in getattr(Config.load(), section).options():
            if key in HIDDEN or key in ("data.weights", "data.field"):  # These need certain data sets.
                continue
            flag = OPTION_NAMES.get(key, field.name).replace("_", "-")
            arguments = [f"--no-{flag}" if value is True else f"--{flag}"]
            if isinstance(value, bool):
                wanted = not value
            else:
                choice = next((c for c in field.metadata["choices"] if c != value), "text")
                guesses = {str: choice, int: 1 + (value == 1), float: 0.02}
                wanted = other.get(key, guesses[value_type(field)])
                arguments.append(wanted)
            calls.recorded.clear()
            more = companions(field.name)
            for other_key, other_value in more.items():
                arguments += ["--" + other_key.partition(".")[2].replace("_", "-"), other_value]
            succeeds("train", *arguments)
            ((_, (config,), _),) = calls.recorded
            name = {"name": "text"} if key == "data.dataset" else {}  # The run has the name of its text.
            assert config == Config.load(overrides={key: wanted, **name, **more}), key
            assert config != Config.load(), key


def test_several_data_sets_and_a_field(calls):
    arguments = ("--data", "a.txt", "--data", "b.jsonl", "--data-weights", "0.7,3", "--field", "body")
    succeeds("train", *arguments)
    given = {"data.dataset": ("a.txt", "b.jsonl"), "data.weights": (0.7, 3.0), "data.field": "body", "name": "a-b"}
    assert calls.recorded == [("train", (Config.load(overrides=given),), {})]
    assert "expected numbers with commas between them" in fails("train", *arguments[:5], "0.7;3")
    assert "expected one weight for each data set" in fails("train", *arguments[:5], "1,2,3")
    assert "--field 'x' has no effect" in fails("train", "--data", "a.txt", "--field", "x")


def test_train_from_a_file(calls, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(succeeds("presets", "gpt-micro").output, encoding="utf-8")
    succeeds("train", "--config", path, "--steps", 3)
    assert calls.recorded == [("train", (Config.load("gpt-micro", {"train.steps": 3}),), {})]


def test_the_exit_status_after_ctrl_c(calls, monkeypatch):
    monkeypatch.setattr(gpt.train, "train", calls.record("train", False))
    assert run("train").exit_code == 130
    assert run("train", "--resume").exit_code == 130


def test_resume_from_the_runs_own_checkpoint(calls):
    succeeds("train", "shakespeare-bpe", "--steps", 9, "--resume")
    find, load_config, train = calls.recorded
    assert find == ("find", (Path("runs/shakespeare-bpe"),), {})
    assert load_config == ("load_config", (Path("found.safetensors"),), {})
    # The checkpoint's configuration, except for the option that was given.
    resumed = calls.config.replace({"train.steps": 9})
    assert train == ("train", (resumed,), {"resume": Path("found.safetensors")})


@pytest.mark.parametrize("named", [["--name", "mine"], ["--out", "runs/mine"]])
def test_resume_from_a_named_run(calls, named):
    succeeds("train", *named, "--resume")
    assert calls.recorded[0] == ("find", (Path("runs/mine"),), {})


def test_resume_without_a_name_takes_the_run_that_sample_takes(calls):
    assert "checkpoint newest.safetensors (the only one)" in succeeds("train", "--resume", "--steps", 9).stderr
    resumed = calls.recorded[0]
    calls.recorded.clear()
    succeeds("sample")
    assert resumed == calls.recorded[0] == ("newest", (Path("runs"),), {})


def test_resume_from_a_path(calls):
    succeeds("train", "--resume", "some/where", "--out", "here")
    assert calls.recorded[0] == ("find", (Path("some/where"),), {})
    assert calls.recorded[-1][1][0] == calls.config.replace({"train.out_dir": "here"})


def test_resume_from_a_path_refuses_another_configuration(calls, tmp_path):
    (tmp_path / "x.toml").write_text(Config.load().to_toml(), encoding="utf-8")
    for given in (["gpt-nano"], ["--config", tmp_path / "x.toml"]):
        message = fails("train", "--resume", "some/where", *given)
        assert message.startswith("--resume some/where takes the configuration from its checkpoint. Leave")
    assert calls.recorded == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "nope"], "no preset 'nope'; known: gpt-micro, "),
        (["train", "gpt2", "--config", "x.toml"], "give a preset (gpt2) or --config x.toml, not both"),
        (
            ["train", "--config", "x.toml"],
            "cannot read the configuration 'x.toml': No such file or directory",
        ),
        (["train", "--n-head", "5"], "--n-embd 128 is not divisible by --n-head 5: each head"),
        (["train", "--n-layers", "5"], "No such option '--n-layers'. Did you mean '--n-layer'?"),
        (["train", "--steps", "many"], "Invalid value for '--steps': 'many' is not a valid integer."),
        (["train", "--steps", "0"], "--steps 0: must be >= 1"),
        (["train", "--batch-size", 10**20], "--batch-size 100000000000000000000: must be < 2147483648"),
        (["train", "--n-layer", 10**9], "--n-layer 1000000000: must be <= 10000"),
        (["train", "--tokenizer", "word"], "Invalid value for '--tokenizer'"),
        (["train", "--device", "gpu"], "--device 'gpu' is not one of auto, cpu, cuda, cuda:N"),
        (["info", "gpt-2"], "no preset 'gpt-2'; did you mean 'gpt2'?"),
        (["presets", "gpt-2"], "no preset 'gpt-2'; did you mean 'gpt2'?"),
        (["sample", "--chars", "3", "--tokens", "4"], "give --tokens or --chars, not both"),
        (["sample", "--temperature", "-1"], "--temperature -1.0: must be >= 0"),
        (["score"], "give a TEXT or a --file"),
        (["score", "text", "--file", "x"], "give a TEXT or a --file"),
        (["score", "--file", "nowhere.txt"], "cannot read the text 'nowhere.txt': No such file"),
        (["train", "--lr", "-1"], "--lr -1.0: must be > 0"),
        (["train", "--lr", "1e-6"], "--min-lr 0.0001 is larger than --lr 1e-06: set it lower, too"),
        (["train", "--val-fraction", "1"], "--val-fraction 1.0: must be < 1"),
        (["train", "--name", "a b"], "--name 'a b': use letters"),
        (["sample", "--top-k", "0"], "--top-k 0: must be >= 1"),
        (["trian"], "No such command 'trian'. Did you mean 'train'?"),
        (["generate"], "No such command 'generate'. Did you mean 'sample'?"),
        (["xyzzy"], "No such command 'xyzzy'. The commands are train, prepare, finetune, sample, chat, score, eval, "
         "info, presets, models, export, explore, serve, runs, attention, lens, embeddings, gradients."),
    ],
)
def test_mistakes_are_one_message(calls, monkeypatch, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert fails(*arguments).startswith(message)
    assert calls.recorded == []


@pytest.mark.parametrize(
    ("given", "meant"),
    {
        "--lern-rate": "--lr", "--learning-rate": "--lr", "--learning_rate=3": "--lr", "-lr": "--lr", "--LR": "--lr",
        "--min-learning-rate": "--min-lr", "--layers": "--n-layer", "--num_layers": "--n-layer", "--heads": "--n-head",
        "--d-model": "--n-embd", "--context-length": "--block-size", "--epochs": "--steps", "--stpes": "--steps",
        "--batchsize": "--batch-size", "--gradient-accumulation-steps": "--grad-accum", "--wd": "--weight-decay",
        "--max-grad-norm": "--grad-clip", "--warmup": "--warmup-steps", "--dataset": "--data", "--output-dir": "--out",
        "--vocab-size": "--bpe-vocab-size", "--val-split": "--val-fraction", "--sed": "--seed", "--gpu": "--device",
    }.items(),
)  # fmt: skip
def test_a_wrong_option_names_the_one_that_was_meant(calls, given, meant):
    assert fails("train", given, "3").endswith(f"Did you mean '{meant}'?")


def test_a_wrong_option_of_other_commands(calls):
    assert fails("sample", "--temp", "1").endswith("Did you mean '--temperature'?")
    assert fails("sample", "--max-new-tokens", "1").endswith("Did you mean '--tokens'?")
    assert fails("eval", "--ckpt", "x").endswith("Did you mean '--checkpoint'?")
    assert fails("train", "--xyzzy", "1") == "No such option '--xyzzy'."
    assert fails("train", "--" + "x" * 5000) == f"No such option '--{'x' * 78}'."


def test_every_alias_is_of_an_option_or_a_command():
    options = {o for name in COMMANDS for p in main.get_command(None, name).params for o in p.opts} | {"--version"}
    assert OPTION_ALIASES.keys() <= options
    assert set(COMMAND_ALIASES) == set(COMMANDS)


def test_values_of_a_file_keep_their_names(calls, tmp_path):
    """A value that is not on the command line is to be corrected in the file."""
    (tmp_path / "x.toml").write_text("[optim]\nlr = -1.0\n", encoding="utf-8")
    assert fails("train", "--config", tmp_path / "x.toml") == "optim.lr = -1.0: must be > 0"
    assert fails("train", "--config", tmp_path / "x.toml", "--lr", -2) == "--lr -2.0: must be > 0"
    assert fails("train", "--config", tmp_path / "x.toml", "--lr", 1e-6).startswith("optim.min_lr = 0.0001 is larger")


@pytest.mark.parametrize(
    ("text", "name"),
    [("my.txt", "my"), ("a/b/My poems (2).txt", "My-poems-2"), ("x.tar.txt", "x.tar"), ("诗.txt", "text"),
     (".hidden", "hidden"), ("tinyshakespeare", "shakespeare-char-cpu"), ("a" * 200, "a" * 80)],
)  # fmt: skip
def test_a_run_has_the_name_of_its_text(calls, text, name):
    succeeds("train", "--data", text)
    assert calls.recorded[-1][1][0].name == name
    succeeds("train", "--data", text, "--name", "mine")
    assert calls.recorded[-1][1][0].name == "mine"


@pytest.mark.parametrize("value", ["abc", "100000", "0", "-1", "1.5"])
def test_a_wrong_environment_variable_is_one_message(value):
    root = Path(gpt.__file__).parents[1]
    environment = {**os.environ, "TENSORLITE_NUM_THREADS": value}
    command = [sys.executable, "-m", "gpt", "sample" if value == "abc" else "--version"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, env=environment, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"Error: TENSORLITE_NUM_THREADS: expected an integer from 1 to 1024, got '{value}'")
    assert len(done.stderr.splitlines()) == 1


def test_version():
    assert succeeds("--version").output == f"tensorlite {tensorlite.__version__}\n"


@pytest.mark.parametrize("error", [UserError("do this"), OSError(28, "No space left on device", "/full")])
def test_errors_of_other_modules_are_one_message(calls, monkeypatch, error):
    def train(config):
        raise error

    monkeypatch.setattr(gpt.train, "train", train)
    assert fails("train") == str(error)


def test_too_little_memory_is_one_message(calls, monkeypatch):
    def train(config):
        raise MemoryError("Unable to allocate 74.5 GiB")

    monkeypatch.setattr(gpt.train, "train", train)
    assert fails("train").startswith("not enough memory: Unable to allocate 74.5 GiB. Try a smaller --batch-size")


def test_a_missing_package_is_one_message(calls, monkeypatch):
    def train(config):
        raise ModuleNotFoundError("No module named 'tqdm'", name="tqdm")

    monkeypatch.setattr(gpt.train, "train", train)
    assert fails("train") == "this needs the package tqdm: pip install 'tensorlite[gpt,plot]'"

    def wrong(config):
        raise ModuleNotFoundError("No module named 'gpt.nothing'", name="gpt.nothing")

    monkeypatch.setattr(gpt.train, "train", wrong)
    assert isinstance(run("train").exception, ModuleNotFoundError)  # a bug keeps its traceback


def test_a_missing_device_is_one_message(calls, monkeypatch):
    from tensorlite import DeviceError

    def train(config):
        raise DeviceError("no GPU here")

    monkeypatch.setattr(gpt.train, "train", train)
    assert fails("train", "--device", "cuda") == "no GPU here"


@pytest.mark.parametrize("error", [RuntimeError("a bug"), ValueError("a bug"), KeyError("a bug")])
def test_bugs_keep_their_traceback(calls, monkeypatch, error):
    def train(config):
        raise error

    monkeypatch.setattr(gpt.train, "train", train)
    assert run("train").exception is error


def test_help_into_a_full_disk_is_one_message(monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    for module in ("core", "decorators"):  # Versions of click differ in which one prints.
        monkeypatch.setattr(f"click.{module}.echo", full)
    for arguments in (["--help"], ["train", "--help"]):
        assert fails(*arguments) == "cannot write the output: No space left on device"


def test_closed_streams_are_connected_to_nothing(monkeypatch):
    """Without stderr the progress bar failed, and the number of the stream went to the next file."""
    monkeypatch.setattr(sys, "stderr", None)
    open_closed_streams()
    with sys.stderr as stream:
        assert stream.name == os.devnull
        stream.write("nothing")


# --- sample


def test_sample(calls):
    result = succeeds(
        "sample", "--prompt", "ba", "--chars", 5, "--seed", 3, "--temperature", 0.5, "--top-k", 2
    )
    assert result.stdout == "baababa\n"
    newest, load, generate = calls.recorded
    assert newest == ("newest", (Path("runs"),), {})
    assert load == ("load", (Path("newest.safetensors"),), {"device": "auto", "quantize": chosen_quantize(None)})
    assert generate[1][0] == "the model"
    assert generate[1][1].tolist() == [2, 1]
    assert generate[2] == {"sampling": SamplingConfig(temperature=0.5, top_k=2, seed=3), "draft": None}
    # stderr has what is needed to repeat the sample, so that it does not mix with the text.
    assert result.stderr == "checkpoint newest.safetensors (step 7, the only one)\nseed 3\n"


def test_sample_defaults(calls):
    result = succeeds("sample", "--checkpoint", "here", "--device", "cpu")
    assert result.stdout == "ab" * 250 + "\n"
    find, load, generate = calls.recorded
    assert find == ("find", (Path("here"),), {})
    assert load[2] == {"device": "cpu", "quantize": chosen_quantize(None)}
    assert generate[1][1].tolist() == [0]  # a line break
    sampling = generate[2]["sampling"]
    assert (sampling.temperature, sampling.top_k) == (1.0, None)
    seeds = {sampling.seed}
    succeeds("sample")
    seeds.add(calls.recorded[-1][2]["sampling"].seed)
    assert len(seeds) == 2


def test_control_characters_reach_a_file_but_no_terminal(calls, monkeypatch):
    """The vocabulary of a checkpoint from another person moves the cursor and clears the screen."""
    calls.tokenizer.vocab = "\n\x1b\x9b"
    assert succeeds("sample", "--tokens", 2).stdout == "\x1b\x9b\n"
    monkeypatch.setattr(gpt.generation, "on_terminal", lambda: True)
    result = succeeds("sample", "--tokens", 2)
    assert result.stdout == r"\x1b\x9b" + "\n"
    assert "control characters are escaped; ... | cat prints them" in result.stderr
    calls.tokenizer.vocab = "\nab"
    assert "escaped" not in succeeds("sample", "--tokens", 2).stderr


def test_ctrl_c_has_the_exit_status_of_a_shell(calls, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(gpt.generation, "generate", interrupted)
    result = run("sample")
    assert result.exit_code == 130
    assert "Stopped by Ctrl-C." in result.stderr


def test_sample_length_and_stop(calls):
    assert succeeds("sample", "--tokens", 3).stdout == "aba\n"
    assert succeeds("sample", "--stop", "ba").stdout == "a\n"
    assert succeeds("sample", "--stop", "ba", "--prompt", "ba").stdout == "baa\n"


def test_characters_that_the_terminal_cannot_print():
    """A question mark is printed for them, instead of an error."""
    script = (
        "from gpt.cli import main; import click; "
        "main.add_command(click.Command('say', callback=lambda: print('a\N{ROCKET}b'))); main(['say'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
        cwd=Path(gpt.__file__).parents[1],
        capture_output=True,
        check=False,
    )
    assert done.stdout.split() == [b"a?b"], done.stderr


def test_unknown_character_in_the_prompt(calls):
    message = fails("sample", "--prompt", "a?")
    assert message.startswith("character '?' at position 1 is not in the vocabulary of 3 characters. ")
    assert "nab" not in message


# --- score and eval


def test_score(calls, tmp_path):
    result = succeeds("score", "aba")
    assert calls.recorded[-1][1][0] == "the model"
    assert calls.recorded[-1][1][1].tolist() == [1, 2, 1]
    # Two characters with probabilities 1/2 and 1/8: a quarter on average, so two bits each.
    assert result.stdout.split("\n")[:3] == [
        "loss              1.3863 nats per token",
        "perplexity        4.000 per token",
        "                  2.0000 bits per character",
    ]
    assert "log-probability   -2.773 nats, of 2 tokens after the first" in result.stdout
    (tmp_path / "text.txt").write_text("aba", encoding="utf-8")
    assert succeeds("score", "--file", tmp_path / "text.txt").stdout == result.stdout


def test_score_needs_two_tokens(calls):
    assert fails("score", "a") == "the text has 1 tokens, and a score needs at least 2"
    assert fails("score", "abc").startswith("character 'c' at position 2")


def test_a_loss_without_a_perplexity(calls, monkeypatch):
    monkeypatch.setattr(gpt.evaluate, "log_probs", calls.record("log_probs", np.array([-1000.0])))
    assert "perplexity        inf per token" in succeeds("score", "ab").stdout


def test_eval(calls, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("ab" * 1000, encoding="utf-8")
    result = succeeds("eval", "--data", path)
    assert "1.0000 bits per character" in result.stdout
    model, dataset, split = calls.recorded[-1][1]
    assert (model, split) == ("the model", "val")
    assert dataset.tokenizer is calls.tokenizer
    assert len(dataset.val) == 200
    assert "tokens            199, all of the validation set" in result.stdout
    assert "tokens            128 of 199, spread evenly, of" in succeeds("eval", "--data", path, "--tokens", 150).stdout
    assert calls.recorded[-1][2]["max_tokens"] == 150


def test_eval_of_a_model_without_a_validation_set(calls, tmp_path):
    calls.config = calls.config.replace({"data.val_fraction": 0.0})
    gpt.checkpoint.load("x").config = calls.config
    assert fails("eval").startswith("the model was trained without a validation set (--val-fraction 0). Give another")
    (tmp_path / "text.txt").write_text("ab" * 100, encoding="utf-8")
    assert "199, all of the text" in succeeds("eval", "--data", tmp_path / "text.txt").stdout
    assert calls.recorded[-1][1][2] == "train"


def test_a_text_from_windows_has_no_carriage_returns(calls, tmp_path):
    (tmp_path / "text.txt").write_bytes(b"ab\r\nab\rab")
    succeeds("score", "--file", tmp_path / "text.txt")
    succeeds("score", "ab\r\nab\rab")
    scored = [arguments[1].tolist() for name, arguments, _ in calls.recorded if name == "log_probs"]
    assert scored == [[1, 2, 0, 1, 2, 0, 1, 2]] * 2
    assert succeeds("sample", "--prompt", "a\r\nb", "--tokens", 1).stdout == "a\nba\n"


def test_sample_takes_the_best_model_of_a_run(tiny, tmp_path, monkeypatch):
    from gpt import train
    from gpt.train import trainer

    monkeypatch.chdir(tmp_path)
    estimates = iter([3.0, 2.0, 1.0, 9.0])  # train, validation
    monkeypatch.setattr(trainer, "mean_loss", lambda model, batches: next(estimates))
    train.train(tiny(run="runs/mine", train__steps=4, train__eval_interval=2, train__sample_chars=0))
    for where in ([], ["--checkpoint", "runs/mine"]):
        message = succeeds("sample", "--tokens", 1, *where).stderr
        assert message.startswith("checkpoint runs/mine/best.safetensors (step 2")
        assert "lowest validation loss of the run; the last checkpoint is runs/mine/checkpoint.safetensors" in message
    message = succeeds("sample", "--tokens", 1, "--checkpoint", "runs/mine/checkpoint.safetensors").stderr
    assert message.startswith("checkpoint runs/mine/checkpoint.safetensors (step 4)\na checkpoint of this run with a")
    assert "best.safetensors (step 2)" in message
    assert succeeds("sample", "--tokens", 1, "--checkpoint", "runs/mine/best.safetensors").stderr.count("\n") == 2


def test_a_damaged_best_model_does_not_hide_the_last_one(tiny, tmp_path, capsys):
    from gpt import train

    train.train(tiny(train__steps=2, train__sample_chars=0))
    (tmp_path / "run" / "best.safetensors").write_bytes(b"damaged")
    for path in (tmp_path / "run", tmp_path / "run" / "checkpoint.safetensors"):
        result = succeeds("sample", "--tokens", 1, "--checkpoint", path)
        assert "best.safetensors' is not a checkpoint" in result.stderr
        assert "So this is the last checkpoint, and not that of the lowest validation loss" in result.stderr
    (tmp_path / "run" / "checkpoint.safetensors").unlink()
    assert "best.safetensors' is there, from an evaluation" in fails("sample", "--checkpoint", tmp_path / "run")


# --- info and presets


def test_info():
    output = succeeds("info", "gpt2").output
    for part in ("124,439,808", "420 TFLOP"):
        assert part in output
    assert "vocabulary 50,257" in output
    # Options count, and so does the vocabulary that a tokenizer is going to have.
    assert "vocabulary 512" in succeeds("info", "shakespeare-bpe", "--bpe-vocab-size", 512).output
    assert "7 layers" in succeeds("info", "--n-layer", 7).output


def test_info_of_a_run(tiny, tmp_path, monkeypatch):
    from gpt import train

    monkeypatch.chdir(tmp_path)
    train.train(tiny(run="runs/mine", train__steps=2, train__sample_chars=0, name="other"))
    for name in ("mine", "runs/mine", "runs/mine/best.safetensors"):
        output = succeeds("info", name, "--batch-size", 3).output
        assert re.match(r"checkpoint runs/mine/\w+\.safetensors: step 2 of 2, saved \d{4}-\d\d-\d\d ", output), output
        assert "text.txt', char tokenizer" in output
        assert "other: 2 layers, 2 heads, 16 wide, context 8, vocabulary 13" in output
        assert "3 sequences per batch" in output
    (tmp_path / "runs" / "empty").mkdir()
    assert fails("info", "runs/empty").startswith("there is no checkpoint.safetensors in the folder 'runs/empty'")
    assert fails("info", "nothing").startswith("no preset 'nothing'")


def test_a_text_is_found_from_another_folder(tiny, tmp_path, monkeypatch):
    """A run that was given a relative path is evaluated and resumed elsewhere."""
    from gpt import train

    monkeypatch.chdir(tmp_path)
    train.train(tiny(train__steps=2, train__sample_chars=0, data__dataset="text.txt"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert "nats per token" in succeeds("eval", "--checkpoint", tmp_path / "run").stdout
    succeeds("train", "--resume", tmp_path / "run", "--steps", 3, "--sample-chars", 0)
    (tmp_path / "text.txt").rename("moved.txt")
    succeeds("train", "--resume", tmp_path / "run", "--steps", 4, "--data", "moved.txt", "--sample-chars", 0)
    monkeypatch.chdir(tmp_path)
    assert "nats per token" in succeeds("eval", "--checkpoint", tmp_path / "run").stdout


def test_presets():
    lines = succeeds("presets").output.splitlines()
    assert len(lines) == 16
    (gpt2,) = [line for line in lines if line.startswith("gpt2 ")]
    assert gpt2.split() == ["gpt2", "12", "12", "768", "1024", "gpt2", "124", "M", "600000"]


def test_as_a_module():
    root = Path(gpt.__file__).parents[1]
    command = [sys.executable, "-m", "gpt", "train", "nope"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: no preset 'nope'")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("terminal", [True, False])
def test_one_line_says_that_kernels_are_compiled(terminal, monkeypatch, capsys):
    logger = logging.getLogger("tensorlite.compiled")
    for name, value in {"handlers": [], "level": logging.NOTSET, "propagate": False}.items():
        monkeypatch.setattr(logger, name, value)
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    for _ in range(2):  # Two commands in one process.
        announce_compilation()
        logger.info("compiling one")
        logger.info("compiling two")
    logger.setLevel(logging.NOTSET)  # A logger remembers what its level lets through until this call.
    assert capsys.readouterr().err == (f"{MESSAGE}\n" if terminal else "")
