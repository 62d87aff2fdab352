"""Test folders of tokens: `gpt prepare`, its interruptions and its errors, and training on them."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("hypothesis")
pytest.importorskip("filelock")
pytest.importorskip("click")
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt import train
from gpt.cli import main
from gpt.config import Config, DataConfig
from gpt.data import DataError, load_dataset, prepare
from gpt.data import mapped as mapped_module
from gpt.data.preparation.cutting import Rule, cut_file
from gpt.data.preparation.writer import TokenWriter
from gpt.data.token_dataset import load_tokens
from gpt.runs import read
from gpt.tokenizer import BPETokenizer, CharTokenizer

WORDS = [
    "She ", "sells  ", "sea-shells,\r\n", "\n", "naïve ", "🙂\xa0", "\t;", "it's ", "12 ", "\r", "\u3000 ", "海 ", "x",
]  # fmt: skip


@pytest.fixture
def files(tmp_path):
    """Return a text, and JSON lines with the same words."""
    rng = np.random.default_rng(0)

    def words(n):
        return "".join(rng.choice(WORDS, n))

    text, lines = tmp_path / "a.txt", tmp_path / "b.jsonl"
    text.write_bytes(("\ufeff" + words(900)).encode())
    documents = [{"id": i, "text": words(int(rng.integers(1, 30)))} for i in range(60)] + [{"text": ""}]
    lines.write_text("\n\n".join(json.dumps(document) for document in documents) + "\n")
    return text, lines


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


# --- the tokens


@pytest.mark.parametrize("tokenizer", ["char", "bpe"])
def test_a_folder_has_the_tokens_of_the_text_in_memory(files, tmp_path, tokenizer):
    config = DataConfig(dataset=str(files[0]), tokenizer=tokenizer, bpe_vocab_size=330, val_fraction=0.3)
    expected = load_dataset(config, 8)
    made = prepare(files[:1], tmp_path / "out", tokenizer=tokenizer, bpe_vocab_size=330, val_fraction=0.3, unit=500)
    found = load_tokens(tmp_path / "out")
    assert np.array_equal(found.train, expected.train)
    assert np.array_equal(found.val, expected.val)
    assert (found.train.dtype, found.chars, found.digest) == (expected.train.dtype, expected.chars, expected.digest)
    assert found.bits_per_char(1.0) == expected.bits_per_char(1.0)
    assert made.index.documents == {"train": 1, "val": 1}
    assert np.array_equal(np.load(tmp_path / "out" / "train.npy", mmap_mode="r"), expected.train)
    one, other = (d.batch(np.random.default_rng(3), "train", 5, 8) for d in (found, expected))
    assert all(map(np.array_equal, one, other))


def test_json_lines_are_documents_in_memory_and_in_a_folder(files, tmp_path):
    config = DataConfig(dataset=str(files[1]), field="text", val_fraction=0.2)
    expected = load_dataset(config, 8)
    prepare(files[1:], tmp_path / "out", val_fraction=0.2, unit=700)
    found = load_tokens(tmp_path / "out")
    texts = [json.loads(line)["text"] for line in files[1].read_text().split("\n") if line]
    texts = [text.replace("\r\n", "\n").replace("\r", "\n") for text in texts if text]
    for data in (expected, found):
        pieces = [np.split(data.tokens(split), data.borders(split)[:-1]) for split in ("train", "val")]
        assert [data.tokenizer.decode(ids) for part in pieces for ids in part] == texts
        assert len(pieces[1]) == 12
    assert expected.digest == found.digest


def test_documents_have_the_tokens_that_begin_and_end_a_text(tmp_path, monkeypatch):
    for name, value in {"bos_id": 0, "eos_id": 1, "add_bos": True}.items():
        monkeypatch.setattr(CharTokenizer, name, value)
    text, lines = tmp_path / "a.txt", tmp_path / "b.jsonl"
    text.write_text("cdcdcdcdcd")
    lines.write_text('{"text": "cd"}\n{"text": "dd"}\n{"text": "c"}')
    prepare([text, lines], tmp_path / "out", tokenizer=CharTokenizer("abcd"), val_fraction=0.4, unit=3)
    found = load_tokens(tmp_path / "out")
    assert found.train.tolist() == [0, 2, 3, 2, 3, 2, 3, 0, 2, 3, 1, 0, 3, 3, 1]
    assert found.val.tolist() == [2, 3, 2, 3, 1, 0, 2, 1]
    assert (found.borders("train").tolist(), found.borders("val").tolist()) == ([7, 11, 15], [5, 8])


def test_the_bytes_do_not_depend_on_processes_or_units(files, tmp_path):
    made = []
    for name, processes, unit in (("one", 1, 2**23), ("some", 1, 97), ("two", 2, 400)):
        prepare(files, tmp_path / name, tokenizer="bpe", bpe_vocab_size=300, processes=processes, unit=unit)
        made.append(content(tmp_path / name))
    assert made[0] == made[1] == made[2]
    arrays = ["train-ends.npy", "train.npy", "val-ends.npy", "val.npy"]
    assert sorted(made[0]) == ["index.json", *arrays, "vocabulary.json"]


BPE = None


@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=60).map("".join), st.integers(1, 60), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_text_may_be_cut_anywhere_that_the_rule_finds(tmp_path_factory, text, unit, characters):
    """The units of a text, encoded alone, have the tokens of the whole text."""
    global BPE
    BPE = BPE or BPETokenizer.train("".join(WORDS) * 20, 300)
    tokenizer = CharTokenizer.train(text.replace("\r\n", "\n").replace("\r", "\n")) if characters else BPE
    path = tmp_path_factory.mktemp("cut") / "text"
    path.write_bytes(text.encode())
    source = cut_file(path, "text", "", Rule(tokenizer.cuts_before, tokenizer.by_character), unit)
    units = [path.read_bytes()[a:b].decode() for a, b in zip(source.borders, source.borders[1:])]
    parts = [part.replace("\r\n", "\n").replace("\r", "\n") for part in units]
    whole = text.replace("\r\n", "\n").replace("\r", "\n")
    assert "".join(parts) == whole
    assert [i for part in parts for i in tokenizer.encode(part)] == tokenizer.encode(whole).tolist()


# --- interruptions


class Killed(BaseException):
    pass


def test_a_preparation_that_dies_at_any_moment_continues_to_the_same_bytes(files, tmp_path, monkeypatch):
    """From some flush to the disk on, all of them fail, as if the process had died there."""
    whole = tmp_path / "whole"
    prepare(files, whole, unit=900)
    expected = content(whole)
    monkeypatch.setattr("gpt.data.preparation.writer.SECONDS", 0.0)
    left = 0

    def failing(descriptor):
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed

    died = 0
    for moment in range(0, 200, 4):
        folder, left = tmp_path / f"at{moment}", moment
        monkeypatch.setattr(os, "fsync", failing)
        try:
            prepare(files, folder, unit=900)
            break
        except Killed:
            died += 1
        monkeypatch.setattr(os, "fsync", lambda descriptor: None)
        if folder.exists() and not (folder / "index.json").exists():
            with pytest.raises(DataError, match=r"is not whole|cannot read"):
                load_tokens(folder)
        prepare(files, folder, unit=900)
        assert content(folder) == expected
    assert died > 10
    assert content(folder) == expected


def test_ctrl_c_keeps_what_is_done(files, tmp_path):
    calls = []

    def stop(encoded, total):
        calls.append(encoded)
        if len(calls) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(files, tmp_path / "out", unit=900, done=stop)
    assert json.loads((tmp_path / "out" / "progress.json").read_text())["done"] == 3
    first = []
    assert prepare(files, tmp_path / "out", done=lambda n, total: first.append(n)).continued
    assert first[0] > calls[-1]
    prepare(files, tmp_path / "other")
    assert content(tmp_path / "out") == content(tmp_path / "other")


def test_a_record_never_has_a_part_of_a_job(files, tmp_path, monkeypatch):
    """Ctrl-C may come between the two arrays of a job."""
    original = TokenWriter.append

    def interrupted(self, split, encoded):
        if self.done == 2:
            self.tokens[split].append(encoded.tokens)
            raise KeyboardInterrupt
        original(self, split, encoded)

    monkeypatch.setattr(TokenWriter, "append", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(files, tmp_path / "out", unit=900)
    monkeypatch.setattr(TokenWriter, "append", original)
    prepare(files, tmp_path / "out")
    prepare(files, tmp_path / "other")
    assert content(tmp_path / "out") == content(tmp_path / "other")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_killed_command_leaves_no_process_and_continues(tmp_path):
    text = tmp_path / "a.txt"
    text.write_text("the cat sat on the mat\n" * 400_000)
    program = (
        "import sys; from gpt.data import prepare\n"
        "if __name__ == '__main__':\n"
        "    prepare([sys.argv[1]], sys.argv[2], processes=2, unit=10_000, done=lambda *a: print(a[0], flush=True))\n"
    )
    (tmp_path / "p.py").write_text(program)
    root = str(Path(__file__).parents[2])
    command = [sys.executable, str(tmp_path / "p.py"), str(text), str(tmp_path / "out")]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": root}, start_new_session=True
    )
    for _ in range(5):
        assert process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.read()  # The processes that encode have this pipe, too: it ends when all have ended.
    process.stdout.close()
    with pytest.raises(DataError, match="is not whole: its preparation was interrupted"):
        load_tokens(tmp_path / "out")
    assert prepare([text], tmp_path / "out").continued
    prepare([text], tmp_path / "other")
    assert content(tmp_path / "out") == content(tmp_path / "other")


# --- errors


@pytest.mark.parametrize(
    ("name", "bytes_", "message"),
    [
        ("x.jsonl", b'{"text": "a"}\n\n{"body": "b"}\n', "line 3 of .*: expected the field 'text', got 'body'"),
        ("x.jsonl", b'{"text": "a"}\n{"text": "b"\n', r"line 2 of .*: expected JSON, one object on each line, got '\{"),
        ("x.jsonl", b'["a"]\n', r"line 1 of .*: expected an object with the field 'text', got \['a'\]"),
        ("x.jsonl", b'{"text": null}\n', "line 1 of .*: expected a text in the field 'text', got None"),
        ("x.jsonl", b'{"text": 3}\n', "expected a text in the field 'text', got 3"),
        ("x.NDJSON", b'{"text": "a\\ud800"}\n', r"line 1 of .*: '\\ud800' at position 1 of the field 'text'"),
        ("x.jsonl", b'{"text": "a"}\n' + b"[" * 100_000, "line 2 of .*nested too deeply"),
        ("x.jsonl", b"\n\n", "'.*x.jsonl' is empty"),
        ("x.jsonl", b'{"text": ""}\n', "'.*x.jsonl' is empty"),
        ("x.jsonl", b'{"text": "caf\xe9"}\n', "byte 0xe9 at position 13"),
        ("x.txt", b"", "'.*x.txt' is empty"),
        ("x.txt", b"\xef\xbb\xbf", "'.*x.txt' is empty"),
        ("x.txt", b"abc def\xff", r"is not UTF-8 text: byte 0xff at position 7"),
        ("x.txt", "text".encode("utf-16"), "byte 0xff at position 0"),
    ],
)
def test_files_that_cannot_be_used_are_errors_with_their_place(tmp_path, name, bytes_, message):
    (tmp_path / name).write_bytes(bytes_)
    for unit in (5, 2**23):
        with pytest.raises(DataError, match=message):
            prepare([tmp_path / name], tmp_path / "out", unit=unit)
    assert not (tmp_path / "out").exists()


def test_other_arguments_that_cannot_be_used_are_errors(tmp_path, files):
    with pytest.raises(DataError, match=r"cannot read the text '.*none.txt': No such file"):
        prepare([tmp_path / "none.txt"], tmp_path / "out")
    with pytest.raises(DataError, match=r"is a folder. Name the files in it, such as '.*\*.txt'"):
        prepare([tmp_path], tmp_path / "out")
    with pytest.raises(DataError, match="expected at least one file"):
        prepare([], tmp_path / "out")
    with pytest.raises(DataError, match="Name the field with the text of a document"):
        prepare(files, tmp_path / "out", field="")
    with pytest.raises(DataError, match="'huggingface' comes with a model"):
        prepare(files, tmp_path / "out", tokenizer="huggingface")
    with pytest.raises(DataError, match="expected 1 process or more, got 0"):
        prepare(files, tmp_path / "out", processes=0)
    with pytest.raises(DataError, match=r"cannot write to '.*a.txt': File exists"):
        prepare(files, files[0])
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "train.npy").touch()
    with pytest.raises(DataError, match=r"has a file 'train.npy' already, which is not ours"):
        prepare(files, tmp_path / "own")


def test_a_character_that_a_model_does_not_have_is_named_by_its_place(tmp_path):
    text, lines = tmp_path / "a.txt", tmp_path / "b.jsonl"
    text.write_text("abab\nab?ab\n" * 3)
    lines.write_text('{"text": "ab"}\n\n{"text": "a?"}')
    for unit in (4, 2**23):
        with pytest.raises(ValueError, match=r"'\?' at position 7 \(line 2, column 3 of '.*a.txt'\) is not in"):
            prepare([text], tmp_path / f"t{unit}", tokenizer=CharTokenizer("ab\n"), unit=unit)
        with pytest.raises(ValueError, match=r"line 3 of '.*b.jsonl': character '\?' at position 1"):
            prepare([lines], tmp_path / f"l{unit}", tokenizer=CharTokenizer("ab\n"), unit=unit, val_fraction=0)


def test_a_folder_of_other_files_or_options_is_refused(files, tmp_path):
    out = tmp_path / "out"
    prepare(files, out)
    assert not prepare(files, out).new
    for change, message in [
        ({"val_fraction": 0.2}, "has val_fraction = 0.1, got 0.2"),
        ({"tokenizer": "bpe"}, "has tokenizer = 'char', got 'bpe'"),
        ({"field": "id"}, "has the field 'text' of .*, got 'id'|expected a text in the field 'id', got 0"),
    ]:
        with pytest.raises(DataError, match=message):
            prepare(files, out, **change)
    with pytest.raises(DataError, match="has 2 files, got 1"):
        prepare(files[:1], out)
    before = files[0].read_bytes()
    files[0].write_bytes(before[:-1] + b"y")
    with pytest.raises(DataError, match=r"has '.*a.txt' as it was before it changed"):
        prepare(files, out)
    (out / "index.json").unlink()
    (out / "progress.json").write_text("{")
    with pytest.raises(DataError, match=r"cannot read '.*progress.json'"):
        prepare(files, out)
    for damage in ('{"unit": "x"}', '{"unit": true}', '{"unit": 5, "plan": {"sources": [1]}}', '{"unit": 5}'):
        (out / "progress.json").write_text(damage)
        with pytest.raises(DataError, match=r"progress.json' is damaged"):
            prepare(files, out)


def test_a_text_that_changes_meanwhile_is_an_error(files, tmp_path):
    def change(encoded, total):
        files[0].write_bytes(files[0].read_bytes()[:-3] + b"zzz")

    with pytest.raises(DataError, match="has changed while it was read"):
        prepare(files[:1], tmp_path / "out", unit=500, done=change)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("train.npy", lambda b: b[:-1], r"train.npy': expected 5,\d+ bytes, got 5,\d+: it was cut short"),
        ("train.npy", lambda b: b + b"x", "it was cut short or written to"),
        ("train.npy", lambda b: b[:40], "is not an array in NumPy's format"),
        ("train.npy", lambda b: b.replace(b"|u1", b"|i1"), "of type uint8, as the index says, got int8"),
        ("val-ends.npy", lambda b: b[:-8] + (7).to_bytes(8, "little"), "the last document ends at 7 of"),
        ("vocabulary.json", lambda b: b.replace(b"x", b"y"), "is not the tokenizer of its folder"),
        ("index.json", lambda b: b.replace(b'"version": 1', b'"version": 9'), "of version 1, got .* of version 9"),
        ("index.json", lambda b: b.replace(b"uint8", b"int77"), "is damaged: dtype: expected one of uint8"),
        ("index.json", lambda b: b.replace(b'"digest"', b'"digits"'), "is damaged: .*digits"),
        ("index.json", lambda b: b[:50], "cannot read '.*index.json'"),
        ("index.json", lambda b: b"[1]", "expected an object"),
    ],
)
def test_damage_of_a_folder_is_an_error(files, tmp_path, name, change, message):
    out = tmp_path / "out"
    prepare(files, out)
    (out / name).write_bytes(change((out / name).read_bytes()))
    with pytest.raises(DataError, match=message):
        load_tokens(out)


def test_verification_reads_every_byte(files, tmp_path):
    out = tmp_path / "out"
    prepare(files, out)
    path = out / "train.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(DataError, match=r"train.npy' is damaged: it does not have the SHA-256 of the index"):
        prepare(files, out)


def test_pages_that_were_read_are_dropped_from_time_to_time(files, tmp_path, monkeypatch):
    monkeypatch.setattr(mapped_module, "KEPT", 1)
    prepare(files, tmp_path / "out")
    data, expected = load_tokens(tmp_path / "out"), load_tokens(tmp_path / "out")
    for seed in range(3):
        one = data.batch(np.random.default_rng(seed), "train", 4, 8)
        assert np.array_equal(one[0], expected.batch(np.random.default_rng(seed), "train", 4, 8)[0])
    assert data.mapped["train"]._touched == 0
    with pytest.raises(ValueError, match="read-only"):
        data.train[0] = 1


# --- training


def test_a_run_on_a_folder_has_the_bits_of_one_on_the_text(tiny, text, tmp_path):
    out = tmp_path / "tokens"
    prepare([text], out)
    train.train(tiny("one"))
    train.train(tiny("two", data__dataset=str(out), data__tokenizer="bpe", data__val_fraction=0.5))
    one, two = (read(tmp_path / run / "metrics.jsonl") for run in ("one", "two"))
    times = ("ms_per_step", "tokens_per_second")
    assert [{k: v for k, v in line.items() if k not in times} for line in one] == [
        {k: v for k, v in line.items() if k not in times} for line in two
    ]
    # The text and its folder are the same data, so that a run may continue with either.
    path = tmp_path / "one" / "checkpoint.safetensors"
    config = tiny("one", data__dataset=str(out), train__steps=33)
    assert train.train(config.with_vocab_size(13), resume=path)


def test_commands(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*args, code=0):
        result = CliRunner().invoke(main, [str(arg) for arg in args])
        assert result.exit_code == code, result.output
        return result.output

    output = run("prepare", *files, "--out", "tokens", "--processes", 1)
    assert "in 55 documents" in output
    assert "char tokenizer with" in output
    assert "train --data tokens" in output
    assert "is whole already" in run("prepare", *files, "--out", "tokens", "--processes", 1)
    size = ("--steps", 2, "--block-size", 8, "--n-layer", 1, "--n-embd", 16, "--eval-batches", 1, "--sample-chars", 0)
    output = run("train", "--data", "tokens", "--sampling", "epochs", "--documents", "packed", *size)
    assert "an epoch has" in output
    assert "validation loss" in output
    assert Config.load().data.val_fraction == 0.1
    assert (tmp_path / "runs" / "tokens" / "metrics.jsonl").exists()
    assert "of the validation set" in run("eval", "--checkpoint", "runs/tokens")
    assert "does not fit: tokens was prepared with char" in run(
        "train", "--data", "tokens", "--tokenizer", "bpe", *size, code=2
    )
    size = (*size[:4], *size[8:])  # without those of the model
    assert "has tokens of another tokenizer" in run(
        "train", "--init-from", "runs/tokens", "--data", other_tokens(tmp_path), *size, code=2
    )
    run("prepare", files[0], "--out", "more", "--tokenizer", "runs/tokens", "--processes", 1)
    run("train", "--init-from", "runs/tokens", "--data", "more", "--data", "tokens", *size)
    assert "expected one of char" in run("prepare", files[0], "--out", "x", "--tokenizer", "gtp2", code=2)


def other_tokens(folder):
    (folder / "o.txt").write_text("zq" * 100)
    prepare([folder / "o.txt"], folder / "others")
    return folder / "others"
