"""Test that a model is found by what a user calls it, and the commands and functions that work on such models."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("click")
from click.testing import CliRunner

import gpt
import tensorlite as tl
from gpt import checkpoint, known_models, sources
from gpt.checkpoint import CheckpointError
from gpt.checkpoint.export import export_gguf, export_huggingface
from gpt.cli import main
from gpt.config import Config, ModelConfig
from gpt.download import DownloadError, RemoteFile
from gpt.model import GPT, size
from gpt.tokenizer import BPETokenizer, CharTokenizer, TokenizerError, from_dict, to_gguf
from gpt.train import train

LLAMA = {"position": "rope", "norm": "rms", "mlp": "swiglu", "n_kv_head": 1}
TEXT = "The cat sat on the mat.\nThe dog sat on the cat.\n" * 30


@pytest.fixture(scope="module")
def tokenizer():
    return BPETokenizer.train(TEXT, 300)


def make(tokenizer, **options):
    tl.manual_seed(0)
    sizes = {"block_size": 32, "n_layer": 2, "n_head": 2, "n_embd": 32, "vocab_size": tokenizer.vocab_size}
    model = GPT(ModelConfig(**{**sizes, **LLAMA, **options})).eval()
    for parameter in model.parameters():
        parameter.array[...] *= 5
    return model


def as_checkpoint(model, tokenizer):
    config = Config.load("gpt-nano").replace({f"model.{k}": v for k, v in vars(model.config).items()})
    return checkpoint.Checkpoint(config, tokenizer, 0, model, None, {})


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "my llama"
    export_huggingface(as_checkpoint(make(tokenizer), tokenizer), path)
    return path


@pytest.fixture(scope="module")
def file(tokenizer, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "small.gguf"
    export_gguf(as_checkpoint(make(tokenizer), tokenizer), path)
    return path


def test_odd_arguments_of_load_and_generate(folder, monkeypatch):
    for odd in (None, 3, b"x", []):
        with pytest.raises(TypeError, match="load: expected a name or a path, got"):
            gpt.load(odd)
    for dtype in ("float16", "int8", None, 3):
        with pytest.raises(CheckpointError, match="load: expected a dtype of float32 or float64, got"):
            gpt.load(folder, dtype=dtype)
    with pytest.raises(CheckpointError, match="cannot read 'x"):
        gpt.load("x" * 5000)
    monkeypatch.setenv("HOME", str(folder.parent))
    assert sources.find("~/my llama") == folder == sources.find(folder / "config.json")
    model, tokenizer = gpt.load(folder, dtype=np.dtype("float64"))
    assert model.wte.weight.dtype == np.float64
    with pytest.raises(TypeError, match="generate: expected a tokenizer, got GPT"):
        gpt.generate(tokenizer, model, "The cat")
    for stop in (3, b"a", ["a", 3]):
        with pytest.raises(TypeError, match="stop: expected a text or a list of texts, got"):
            gpt.generate(model, tokenizer, "The cat", 3, stop=stop)


def test_an_export_that_fails_leaves_nothing(tokenizer, tmp_path, monkeypatch):
    written = []

    def full(path):
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        written.append(path)
        return write(path)

    write = tl.serialization.atomic_write
    monkeypatch.setattr(tl.serialization, "atomic_write", full)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "notes.txt").write_text("mine")
    for name in ("new", "kept"):
        written.clear()
        with pytest.raises(CheckpointError, match=r"cannot write .*: No space left"):
            export_huggingface(as_checkpoint(make(tokenizer), tokenizer), tmp_path / name)
        assert len(written) == 2
    assert [path.name for path in tmp_path.rglob("*")] == ["kept", "notes.txt"]


def test_a_folder_without_its_config_says_so(folder, tmp_path):
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match=r"there is no file '.*config.json'"):
        sources.load(tmp_path)



def run(*arguments, **options):
    return CliRunner().invoke(main, [str(a) for a in arguments], **options)


def succeeds(*arguments, **options):
    result = run(*arguments, **options)
    assert result.exit_code == 0, result.output
    return result


# ---- finding ------------------------------------------------------------------------------------


def test_paths(folder, file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert sources.find(folder) == folder
    assert sources.find(str(file)) == file
    with pytest.raises(CheckpointError, match="there is no checkpoint 'runs/nothing'"):
        sources.find("runs/nothing")
    with pytest.raises(CheckpointError, match="or did you mean the model 'gpt2'"):
        sources.find("gtp2")


def test_a_known_model_is_fetched_once(monkeypatch, tmp_path, file):
    monkeypatch.setenv("TENSORLITE_CACHE", str(tmp_path))
    fetched = []

    def fetch(remote, target):
        fetched.append((remote.name, target))
        return file

    monkeypatch.setattr(sources, "fetch", fetch)
    assert sources.find("SmolLM2-135M-Instruct") == file
    assert fetched == [("SmolLM2-135M-Instruct.Q4_1.gguf", tmp_path / "models")]


def test_repositories_of_the_hub(monkeypatch, folder, tmp_path):
    monkeypatch.chdir(tmp_path)
    asked = []

    def snapshot(name, allow_patterns):
        asked.append(name)
        assert not any(pattern.endswith((".bin", ".pt", ".py")) for pattern in allow_patterns)
        if "missing" in name:
            raise OSError("404\nmore lines")
        return str(folder)

    monkeypatch.setattr(sources, "hub", lambda: (snapshot, ValueError))
    assert sources.find("someone/model-1.5") == folder
    assert sources.find("gpt2") == folder
    assert asked == ["someone/model-1.5", "openai-community/gpt2"]
    with pytest.raises(DownloadError, match=r"could not fetch 'someone/missing' from the .* hub: 404\. Check"):
        sources.find("someone/missing")
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DownloadError, match="need the package huggingface_hub"):
        sources.find("someone/model")


SHAPES = {
    "smollm2-135m": (49152, 30, 9, 3, 576, 1536, 0), "smollm2-360m-instruct": (49152, 32, 15, 5, 960, 2560, 0),
    "qwen2.5-0.5b-instruct": (151936, 24, 14, 2, 896, 4864, 0), "qwen3-0.6b": (151936, 28, 16, 8, 1024, 3072, 128),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_the_sizes_of_known_models(name):
    vocab, layers, heads, keys, width, inner, head = SHAPES[name]
    config = ModelConfig(
        vocab_size=vocab, n_layer=layers, n_head=heads, n_kv_head=keys, n_embd=width, n_inner=inner, head_dim=head,
        position="rope", norm="rms", mlp="swiglu", qkv_bias="qwen2.5" in name, qk_norm="qwen3" in name,
    )  # fmt: skip
    assert size.parameter_count(config) == known_models.MODELS[name].parameters


def test_every_known_model_has_a_source():
    for name, model in known_models.MODELS.items():
        assert name == name.lower()
        if isinstance(model.source, RemoteFile):
            assert len(model.source.sha256) == 64
            assert model.source.size > 2**20
        else:
            assert sources.REPOSITORY.fullmatch(model.source)
    assert known_models.DEFAULT_CHAT_MODEL in known_models.MODELS


# ---- three lines of Python ----------------------------------------------------------------------


def test_three_lines(folder, file, tokenizer):
    model, tokens = gpt.load(folder)
    text = gpt.generate(model, tokens, "The cat", 8, temperature=0)
    assert text == gpt.generate(*gpt.load(file), "The cat", 8, temperature=0)
    expected = list(gpt.generation.generate(make(tokenizer), tokenizer.encode("The cat"), 8, temperature=0))
    assert text == tokenizer.decode(expected)
    assert gpt.generate(model, tokens, "The cat", 8, temperature=0, stop=text[2:]) == text[:2]
    double = gpt.load(folder, dtype="float64").model
    assert double.wte.weight.dtype == tl.float64
    assert not double.training


def test_importing_gpt_imports_nothing_else():
    script = "import sys, gpt; print(sorted({'numpy', 'tensorlite', 'click'} & set(sys.modules))); gpt.lod"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
    assert "module 'gpt' has no attribute 'lod'" in done.stderr


# ---- export -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bpe", "char"])
@pytest.mark.parametrize("target", ["huggingface", "gguf"])
def test_exported_models_come_back(kind, target, tokenizer, tmp_path):
    chosen = tokenizer if kind == "bpe" else CharTokenizer.train(TEXT)
    loaded = as_checkpoint(make(chosen), chosen)
    path = tmp_path / ("model" if target == "huggingface" else "model.gguf")
    (export_huggingface if target == "huggingface" else export_gguf)(loaded, path)
    back = checkpoint.load(path)
    assert back.tokenizer.encode(TEXT).tolist() == chosen.encode(TEXT).tolist()
    assert back.tokenizer.decode(chosen.encode(TEXT)) == TEXT
    ids = tl.tensor(chosen.encode(TEXT)[None, :20])
    with tl.no_grad():
        np.testing.assert_allclose(back.model(ids)[0].numpy(), loaded.model(ids)[0].numpy(), atol=1e-5)
    info = checkpoint.load_info(path)
    assert (info.config.model, info.step) == (back.config.model, 0)
    again = from_dict(json.loads(json.dumps(back.tokenizer.to_dict())))
    assert again.encode(TEXT).tolist() == chosen.encode(TEXT).tolist()


def test_transformers_reads_an_exported_tokenizer(folder, tokenizer):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    assert theirs.encode(TEXT) == tokenizer.encode(TEXT).tolist()


def test_tokenizers_that_llama_cpp_has_not():
    with pytest.raises(TokenizerError, match="only byte-level BPE and characters"):
        to_gguf(CharTokenizer("ab\N{LOWER ONE EIGHTH BLOCK}"))


def test_the_command_export(folder, tmp_path):
    succeeds("export", folder, tmp_path / "a.gguf", "--to", "gguf", "--weights", "Q8_0")
    succeeds("export", tmp_path / "a.gguf", tmp_path / "b", "--to", "huggingface")
    assert sources.load(tmp_path / "b").config.model.n_kv_head == 1
    succeeds("export", folder, tmp_path / "d", "--to", "gguf")
    assert sources.find(tmp_path / "d") == tmp_path / "d" / "model.gguf"
    assert "exists already" in run("export", folder, tmp_path / "b", "--to", "huggingface").output
    assert "exists already" in run("export", folder, tmp_path / "a.gguf", "--to", "gguf").output
    assert "--weights is for" in run("export", folder, tmp_path / "c", "--to", "huggingface", "--weights", "F16").output
    assert run("export", tmp_path / "nothing", tmp_path / "c", "--to", "gguf").exit_code == 2


# ---- other commands -----------------------------------------------------------------------------


def test_models_are_listed():
    text = succeeds("models").output
    for name in known_models.MODELS:
        assert name in text
    text = succeeds("models", "smollm2-135m-instruct").output
    assert "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53" in text
    assert "Did you mean 'gpt2'?" in run("models", "gpt-2").output


def test_sample_score_and_info(folder, file, tmp_path):
    options = ["--prompt", "The cat", "--tokens", 5, "--temperature", 0]
    sample = succeeds("sample", "--model", folder, *options).stdout
    assert sample == succeeds("sample", "--model", file, *options).stdout
    assert sample.startswith("The cat")
    whole = succeeds("score", "--model", file, TEXT).output
    assert "bits per byte" in whole
    assert whole != succeeds("score", "--model", file, TEXT, "--stride", 1).output
    wrong = run("score", "--model", file, TEXT, "--stride", 33)
    assert "--stride 33 is larger than the context of the model, 32" in wrong.output
    long = succeeds("sample", "--model", file, "--prompt", TEXT, "--tokens", 1)
    assert "of which the model sees the last 32" in long.stderr
    assert "2 layers, 2 heads" in succeeds("info", folder).output
    assert "no state of training" in run("train", "--resume", file).output


def test_training_starts_from_a_model(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(TEXT)
    options = ["--data", "text.txt", "--steps", 2, "--batch-size", 2, "--block-size", 16, "--lr", 1e-3]
    options += ["--min-lr", 1e-4, "--eval-batches", 1, "--sample-chars", 5]
    succeeds("train", "--init-from", folder, *options)
    done = checkpoint.load("runs/text/checkpoint.safetensors")
    start = checkpoint.load(folder)
    assert (done.config.model.block_size, done.config.model.n_kv_head, done.step) == (16, 1, 2)
    assert done.tokenizer.encode(TEXT).tolist() == start.tokenizer.encode(TEXT).tolist()
    difference = abs(done.model.wte.weight.numpy(force=True) - start.model.wte.weight.numpy(force=True)).max()
    assert 0 < difference < 0.01
    # A run is a source, too, and a resumed run keeps the tokenizer.
    longer = succeeds("train", "--init-from", "runs/text", *options, "--name", "second", "--block-size", 64).output
    assert "The context is 16 tokens long, because the model 'runs/text' sees no more" in longer
    succeeds("train", "--resume", "runs/second", "--steps", 3)
    assert checkpoint.load_info("runs/second/checkpoint.safetensors").step == 3


def test_learned_positions_are_cut(tokenizer, tmp_path):
    loaded = as_checkpoint(make(tokenizer, position="learned", norm="layer", mlp="gelu", n_kv_head=0), tokenizer)
    export_huggingface(loaded, tmp_path / "model")
    (tmp_path / "text.txt").write_text(TEXT)
    config = Config.load("gpt-nano", {
        "data.dataset": str(tmp_path / "text.txt"), "train.out_dir": str(tmp_path / "run"), "model.block_size": 8,
        "train.steps": 1, "train.batch_size": 2, "train.sample_chars": 0, "train.eval_batches": 1, "optim.lr": 1e-9,
        "optim.min_lr": 0.0,
    })  # fmt: skip
    assert train(config, init_from=tmp_path / "model")
    wpe = checkpoint.load(tmp_path / "run" / "checkpoint.safetensors").model.wpe.weight.numpy(force=True)
    np.testing.assert_allclose(wpe, loaded.model.wpe.weight.numpy(force=True)[:8], atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--n-layer", "3"], "--n-layer is that of the model"),
        (["--tokenizer", "char"], "--tokenizer is that of the model"),
        (["--resume"], "give --init-from or --resume, not both"),
        (["--profile"], "give --init-from or --profile, not both"),
    ],
)
def test_options_that_the_model_decides(arguments, message, folder):
    assert message in run("train", "--init-from", folder, *arguments).output


CHATML = (
    "{% for m in messages %}{{ '[' + m['role'] + ']' + m['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}"
)


@pytest.fixture(scope="module")
def chat_folder(folder, tmp_path_factory):
    import shutil

    path = tmp_path_factory.mktemp("chat") / "chat"
    shutil.copytree(folder, path)
    (path / "chat_template.jinja").write_text(CHATML)
    return path


def test_a_conversation_at_the_terminal(chat_folder):
    options = ["--model", chat_folder, "--temperature", 0, "--tokens", 6]
    one = succeeds("chat", *options, "--once", "a").stdout
    lines = ["a", "/help", "b", "/new", "a", "", "/undo", "a\\", "b", "/exit"]
    result = succeeds("chat", *options, input="\n".join(lines))
    assert result.stdout.count(one.strip()) >= 2
    assert "/undo takes the last answer back" in result.stderr
    assert succeeds("chat", *options, input="a\n").stdout == "> " + one + "> "


def test_chat_needs_a_template(folder):
    result = run("chat", "--model", folder, "--once", "a")
    assert result.exit_code == 2
    assert "the model has no chat template" in result.output


def test_a_stream_of_messages_is_read_from_a_pipe(chat_folder):
    result = CliRunner().invoke(
        main, ["chat", "--model", str(chat_folder), "--tokens", "3", "--seed", "1"], input=io.BytesIO(b"a\nb\n")
    )
    assert result.exit_code == 0
