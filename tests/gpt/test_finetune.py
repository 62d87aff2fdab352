"""Test fine-tuning: runs from the weights of a model, with low-rank matrices or all weights, and conversations."""

import json
import shutil

import numpy as np
import pytest

pytest.importorskip("click")
pytest.importorskip("platformdirs")
pytest.importorskip("safetensors")
pytest.importorskip("tqdm")
from click.testing import CliRunner

import gpt
import tensorlite as tl
from gpt import checkpoint, sources, train
from gpt.checkpoint import CheckpointError, adapter
from gpt.cli import main
from gpt.cli.finetune import chosen_config
from gpt.config import Config, ConfigError, DataConfig
from gpt.data import Conversations, DataError, load_dataset
from gpt.evaluate import evaluate
from gpt.generation.chat import encode_chat
from gpt.runs import BEST, LATEST, MERGED, METRICS, read
from gpt.tokenizer import CharTokenizer
from gpt.train.adapted import INITIAL
from tests.gpt.conftest import TINY
from tests.gpt.small_models import small_model
from tests.gpt.small_runs import assert_same_checkpoint, at_step, content, ctrl_c, measured
from tests.gpt.test_chat import Words

pytestmark = pytest.mark.usefixtures("default_ctrl_c")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Return the folder of a run to start from, and a text that differs from its text."""
    folder = tmp_path_factory.mktemp("finetune")
    text, other = folder / "text.txt", folder / "other.txt"
    rng = np.random.default_rng(0)
    text.write_text("".join(rng.choice(["the ", "cat ", "sat\n", "on ", "a ", "mat, ", "then "], 600)))
    other.write_text("".join(rng.choice(["mat, ", "sat\n", "then ", "the cat "], 400)))
    own = {"data.dataset": str(text), "train.out_dir": str(folder / "base"), "train.sample_chars": 0, "train.steps": 10}
    train.train(Config.load("shakespeare-char-cpu", {**TINY, **own}))
    return folder / "base", other


LORA = {"lora__rank": 3, "lora__dropout": 0.1, "train__steps": 20}


def logits(model):
    with tl.no_grad():
        return model.eval()(tl.tensor(np.arange(8)[None]))[0].numpy()


def test_a_run_of_low_rank_matrices(base, tiny, tmp_path, capsys):
    source, text = base
    before = (source / LATEST).read_bytes()
    assert train.train(tiny(data__dataset=str(text), **LORA), init_from=source, finetune=True, merge=True)
    out, folder = capsys.readouterr().out, tmp_path / "run"
    model = sources.load(folder).model
    trained = 2 * 3 * sum(map(sum, ((16, 48), (16, 16), (16, 64), (64, 16))))
    assert f"parameters, {trained:,} of them trained, " in out
    losses = [line for line in read(folder / METRICS) if INITIAL in line]
    (first,), final = losses, read(folder / METRICS)[-1]["final_val_loss"]
    assert first["step"] == 0
    assert final < first[INITIAL]
    assert f"validation loss {first[INITIAL]:.4f} nats per token before the first step" in out
    assert f"before the first step it was {first[INITIAL]:.4f}" in out
    assert f"validation loss {final:.4f} nats per token" in out
    assert (source / LATEST).read_bytes() == before

    _, tensors = content(folder / LATEST)
    assert all(name.endswith((".lora_A", ".lora_B")) for name in tensors if name.startswith("model."))
    expected = logits(sources.load(folder / BEST).model)
    adapters = (folder, folder / "adapter")
    for loaded in (gpt.load(folder / MERGED), *(gpt.load(source, adapter=path) for path in adapters)):
        assert np.array_equal(logits(loaded.model), expected)
    assert not np.array_equal(expected, logits(sources.load(source).model))
    assert [name for name, _ in model.named_parameters()] == list(gpt.load(source).model.state_dict())
    assert checkpoint.load_config(folder / MERGED).lora.rank is None
    with pytest.raises(CheckpointError, match="no state of training"):
        checkpoint.load(folder / MERGED, training=True)


def test_a_run_of_low_rank_matrices_resumes(base, tiny, tmp_path, monkeypatch, capsys):
    source, text = base
    options = {"data__dataset": str(text), **LORA}
    assert train.train(tiny(run="whole", **options), init_from=source, finetune=True)
    with monkeypatch.context() as patch:
        at_step(patch, 13, ctrl_c)
        assert not train.train(tiny(run="broken", **options), init_from=source, finetune=True)
    assert "-m gpt finetune --resume" in capsys.readouterr().out
    folder, whole = tmp_path / "broken", tmp_path / "whole"
    assert adapter.read_adapter(folder).rank == 3  # It was written when the run stopped.
    assert train.train(checkpoint.load_config(folder / LATEST), resume=folder / LATEST, finetune=True)
    assert_same_checkpoint(whole / LATEST, folder / LATEST)
    assert_same_checkpoint(whole / BEST, folder / BEST)
    assert measured(folder) == measured(whole)
    name = f"adapter/{adapter.WEIGHTS}"
    assert (whole / name).read_bytes() == (folder / name).read_bytes()
    # A new run moves the adapter away with the rest.
    train.train(tiny(run="broken", **{**options, "train__steps": 1}), init_from=source)
    assert (folder / "earlier-1" / name).read_bytes() == (whole / name).read_bytes()


def test_full_fine_tuning_changes_all_weights_and_writes_no_adapter(base, tiny, tmp_path):
    source, text = base
    assert train.train(tiny(data__dataset=str(text), train__steps=3), init_from=source, finetune=True)
    old, new = sources.load(source).model.state_dict(), sources.load(tmp_path / "run").model.state_dict()
    assert all(not np.array_equal(old[name].numpy(), value.numpy()) for name, value in new.items())
    assert not (tmp_path / "run/adapter").exists()


def test_muon_trains_low_rank_matrices(base, tiny, tmp_path):
    source, text = base
    config = tiny(data__dataset=str(text), optim__optimizer="muon", lora__rank=2, train__steps=3, train__sample_chars=0)
    assert train.train(config, init_from=source)
    assert adapter.read_adapter(tmp_path / "run").rank == 2


def test_a_run_in_another_dtype_than_its_base(base, tiny, tmp_path):
    source, text = base
    own = {"data__dataset": str(text), "train__steps": 1, "train__sample_chars": 0}
    for rank, name in ((None, "all"), (2, "low-rank")):
        assert train.train(tiny(run=name, train__dtype="float64", lora__rank=rank, **own), init_from=source)
        config = checkpoint.load_config(tmp_path / name / LATEST).replace({"train.steps": 2})
        assert train.train(config, resume=tmp_path / name / LATEST)
        assert sources.load(tmp_path / name).model.dtype == tl.float64
        # float32 from a base in float64
        assert train.train(tiny(run="narrow", lora__rank=rank, **own), init_from=tmp_path / name)
        assert sources.load(tmp_path / "narrow").model.dtype == tl.float32


def test_a_base_that_is_gone_or_has_changed(base, tiny, tmp_path, monkeypatch):
    source, text = shutil.copytree(base[0], tmp_path / "base"), base[1]
    config = tiny(data__dataset=str(text), train__sample_chars=0, **{**LORA, "train__steps": 2})
    with pytest.raises(ConfigError, match="the place of its own base"):
        train.train(config.replace({"train.out_dir": str(source)}), init_from=source)
    assert train.train(config, init_from=source)
    folder, kept = tmp_path / "run", source / LATEST
    shutil.copy(kept, tmp_path / "copy.safetensors")
    train.train(tiny(run="base", train__steps=4, train__sample_chars=0))  # takes the place of the base
    with pytest.raises(CheckpointError, match=r"has other weights now\. Or give the model .*--adapter"):
        sources.load(folder)
    kept.unlink()
    with pytest.raises(CheckpointError, match="which is not there"):
        sources.load(folder)
    assert gpt.load(tmp_path / "copy.safetensors", adapter=folder).model  # The same weights, elsewhere.
    with pytest.raises(ConfigError, match="needs the weights of a model"):
        train.train(tiny(lora__rank=2))


# ---- the command line ---------------------------------------------------------------------------


def run(*arguments):
    return CliRunner().invoke(main, list(map(str, arguments)))


def test_the_command(base, tmp_path, monkeypatch):
    source, text = base
    monkeypatch.chdir(tmp_path)
    short = ["--block-size", 8, "--steps", 2, "--eval-batches", 1, "--batch-size", 2, "--sample-chars", 0]
    result = run("finetune", "--model", source, "--data", text, "--lora-rank", 2, "--merge", *short)
    assert result.exit_code == 0, result.output
    config = checkpoint.load_config(tmp_path / "runs/finetune-other" / LATEST)
    assert (config.optim.lr, config.optim.min_lr, config.optim.weight_decay) == (3e-4, 3e-5, 0.0)
    for line in ("adapter", MERGED, LATEST, "metrics.jsonl"):
        assert f"wrote runs/finetune-other/{line}\n" in result.output
    result = run("finetune", "--resume", "--steps", 3)
    assert result.exit_code == 0, result.output
    assert "steps 2 to 3" in result.output
    result = run("finetune", "--model", source, "--data", text, "--name", "all", *short)
    assert result.exit_code == 0, result.output
    assert checkpoint.load_config(tmp_path / "runs/all" / LATEST).optim.lr == 3e-5
    result = run("finetune", "--resume", "runs/all", "--merge")
    assert result.exit_code == 2
    assert "nothing to merge: 'runs/all/" in result.stderr
    run_folder = "runs/finetune-other"
    sampled = [
        run("sample", "--tokens", 8, "--seed", 1, *arguments).stdout
        for arguments in (["--model", run_folder], ["--model", source, "--adapter", run_folder])
    ]
    assert sampled[0] == sampled[1] != ""
    result = run("sample", "--model", "runs/finetune-other/adapter")
    assert "is an adapter, which has no weights of a model" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lora-rank", "0"], "--lora-rank 0: must be >= 1"),
        (["--lora-rank", "-4"], "--lora-rank -4: must be >= 1"),
        (["--lora-rank", "17"], "--lora-rank 17: larger than the smaller side of transformer.h.0.attn.c_attn, 48 x 16"),
        (["--lora-rank", "2", "--lora-alpha", "0"], "--lora-alpha 0.0: must be > 0"),
        (["--lora-rank", "2", "--lora-dropout", "1"], "--lora-dropout 1.0: must be < 1"),
        (["--lora-rank", "2", "--lora-targets", "c_atn"], "--lora-targets 'c_atn': 'c_atn': no linear layer has such a "
         "name. Did you mean 'c_attn'? The names are c_attn, c_fc, c_proj"),
        (["--lora-alpha", "16"], "--lora-alpha 16.0 has no effect without --lora-rank"),
        (["--lora-rank", "2", "--lora-targets", "a{99999999999999999999}"], "--lora-targets 'a{99999999999999999999}': "
         "not a regular expression (the repetition number is too large)"),
        (["--merge"], "--merge has nothing to merge without --lora-rank"),
        (["--rank", "4"], "No such option '--rank'. Did you mean '--lora-rank'?"),
        (["--n-layer", "4"], "No such option '--n-layer'."),
        (["--data", "nowhere.txt", "--lora-rank", "2"], "cannot read the text 'nowhere.txt'"),
        (["--resume"], "give --resume alone"),
    ],
)  # fmt: skip
def test_mistakes_are_found_before_any_weight_is_read(base, monkeypatch, tmp_path, arguments, message):
    source, text = base
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checkpoint, "load", None)  # Nothing calls it.
    result = run("finetune", "--model", source, "--data", text, *arguments)
    assert result.exit_code == 2, result.output
    assert result.stderr.partition("Error: ")[2].startswith(message)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("name", "form"), [("a.jsonl", "chat"), ("A.JSONL", "chat"), ("a.txt", "text")])
def test_the_name_of_a_file_tells_its_form(name, form):
    assert chosen_config("x", None, {"data.dataset": name}).data.format == form


def test_a_model_and_data_are_needed():
    assert "No such option '--lora-rank'. It is an option of finetune." in run("train", "--lora-rank", "8").stderr
    assert "give the model to start from: --model" in run("finetune", "--data", "x").stderr
    assert "give what to train on: --data" in run("finetune", "--model", "x").stderr


# ---- conversations ------------------------------------------------------------------------------


def write(path, *lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return DataConfig(dataset=str(path), format="chat", val_fraction=0.3)


def messages(*texts):
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]}


def test_answers_alone_are_targets(tmp_path):
    tokenizer = Words()
    config = write(tmp_path / "x.jsonl", messages("hi", "yes", "and?", "no"), {"prompt": "q", "completion": "abc"})
    data = load_dataset(config, 200, tokenizer)
    assert isinstance(data, Conversations)
    first, second = data.examples["train"][0], data.examples["val"][0]

    def decode(ids):
        return "".join(chr(i) if i < 256 else f"<{i}>" for i in ids)

    assert decode(first.ids[first.answer]) == "yes<257>no<257>"
    assert decode(second.ids[second.answer]) == "abc<257>"
    assert decode(second.ids) == "<256>user\nq<257>\n<256>assistant\nabc<257>\n"
    ((x, y),) = data.windows("val", 4, 200)
    assert np.array_equal(y[0], np.where(second.answer[1:], second.ids[1:], -1))
    assert np.array_equal(x[0], second.ids[:-1])
    assert data.predicted("val", 200) == 4
    assert data.chars == {"train": 5, "val": 3}
    assert data.bits_per_char(1.0) == pytest.approx(4 / 3 / np.log(2))


class Joined(Words):
    """A tokenizer that joins two characters of white space to one token."""

    vocab_size = 260

    def encode(self, text, allow_special=False):
        joined = text.replace("\n\n", "\x01").replace("\n ", "\x02")
        return np.array([{1: 258, 2: 259}.get(byte, byte) for byte in joined.encode()], np.int64)

    def decode_bytes(self, ids):
        return b"".join({258: b"\n\n", 259: b"\n "}.get(i, bytes([i % 256]) if i < 256 else b"") for i in ids)


@pytest.mark.parametrize("answer", ["\nyes", "  yes", "\n\n  yes\n", " ", "", "yes\n\n", "\N{EURO SIGN} "])
def test_an_answer_begins_with_a_token_of_its_own(tmp_path, answer):
    tokenizer = Joined()
    lines = messages("hi\n", answer, "and?", answer), {"prompt": "q", "completion": answer}
    config = write(tmp_path / "x.jsonl", *lines)
    data = load_dataset(config, 200, tokenizer)
    for example, asked in ((data.examples["train"][0], "hi\n"), (data.examples["val"][0], "q")):
        start = int(example.answer.argmax())
        # The tokens before the answer are those that `chat` gives the model.
        expected = encode_chat(tokenizer, [{"role": "user", "content": asked}])
        assert np.array_equal(example.ids[:start], expected)
        ids = example.ids[example.answer].tolist()
        assert tokenizer.decode_bytes(ids).decode() == answer * ids.count(257)


class Prefixed(Words):
    """A tokenizer that begins each text with a space, as those of SentencePiece do."""

    chat_template = ""

    def encode(self, text, allow_special=False):
        return super().encode(" " + text if text else "")


def test_a_completion_has_no_space_that_the_tokenizer_adds(tmp_path):
    config = write(tmp_path / "x.jsonl", *[{"prompt": "a b", "completion": "c"}] * 2)
    example = load_dataset(config, 9, Prefixed()).examples["train"][0]
    assert bytes(example.ids[:-1].tolist()) == b" a bc"
    assert example.answer.tolist() == [False] * 4 + [True] * 2


def test_padding_counts_nowhere(tmp_path):
    tokenizer = CharTokenizer("abcdefghijk")
    lines = [{"prompt": "a" * n, "completion": "bcd"[: n % 3 + 1]} for n in range(1, 8)]
    data = load_dataset(write(tmp_path / "x.jsonl", *lines), 12, tokenizer)
    model, total, count = small_model(), 0.0, 0
    for x, y in data.windows("train", 1, 12):
        n = int((y >= 0).sum())
        total += n * float(model(tl.tensor(x), tl.tensor(y))[1].item())
        count += n
    assert evaluate(model, data, "train") == pytest.approx(total / count, rel=1e-12)
    assert count == data.predicted("train", 12)
    assert data.predicted("train", 12, 3) <= 3
    x, y = data.batch(np.random.default_rng(0), "train", 5, 12)
    assert x.shape == y.shape
    assert all((row >= 0).sum() in (1, 2, 3) for row in y)


def test_a_run_on_conversations(base, tiny, tmp_path, capsys):
    source, _ = base
    lines = [{"prompt": "the cat ", "completion": "sat\n"}, {"prompt": "on a ", "completion": "mat, "}] * 5
    write(tmp_path / "x.jsonl", *lines)
    config = tiny(
        data__dataset=str(tmp_path / "x.jsonl"), data__format="chat", model__block_size=16, train__steps=6, lora__rank=4
    )
    tokens = sources.load(source).tokenizer
    with pytest.raises(DataError, match=r"10 conversations|0 conversations that fit"):
        load_dataset(config.data, 4, tokens)
    assert train.train(config, init_from=source, finetune=True)
    out = capsys.readouterr().out
    assert "conversations of up to 8 tokens" in out
    result = run("eval", "--checkpoint", tmp_path / "run")
    assert result.exit_code == 0, result.output
    line = read(tmp_path / "run" / METRICS)[-1]
    assert f"{line['final_val_loss']:.4f} nats per token" in result.output


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"line 2 of '.*x.jsonl': not JSON"),
        ("[1]", r"expected an object with messages, or with prompt and completion as texts, got \[1\]"),
        ('{"text": "a"}', "got an object with 'text'"),
        ('{"prompt": 1, "completion": "a"}', "got an object with 'prompt', 'completion'"),
        ('{"messages": ["hi"]}', "expected messages with a role, system, user, assistant, and a content"),
        ('{"messages": [{"role": "bot", "content": "a"}]}', "expected messages with a role"),
        ('{"messages": [{"role": "user", "content": "a"}]}', "no message is an answer"),
        ('{"messages": []}', "no message is an answer"),
        ("[" * 100000, "nested too deeply"),
    ],
)
def test_lines_that_are_no_conversation(tmp_path, line, message):
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(messages("a", "b")) + "\n" + line + "\n")
    with pytest.raises(DataError, match=message):
        load_dataset(DataConfig(dataset=str(path), format="chat"), 200, Words())


def test_models_without_a_template_take_prompts(tmp_path):
    config = write(tmp_path / "x.jsonl", messages("a", "b"))
    with pytest.raises(DataError, match=r"line 1 of .*: the model has no chat template\. Write prompt and completion"):
        load_dataset(config, 100, CharTokenizer("ab"))
    with pytest.raises(DataError, match=r"line 1 of .*'z'"):
        load_dataset(write(tmp_path / "x.jsonl", {"prompt": "z", "completion": "a"}), 100, CharTokenizer("ab"))
    with pytest.raises(DataError, match="needs a model"):
        load_dataset(config, 100)
