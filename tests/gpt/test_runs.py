"""Test the metrics and the folder of a run."""

import os
import shutil
from fnmatch import fnmatch
from pathlib import Path

import pytest

pytest.importorskip("platformdirs")
pytest.importorskip("safetensors")
pytest.importorskip("tqdm")
from gpt import checkpoint, train
from gpt.errors import UserError
from gpt.runs import BEST, CURVE, LATEST, METRICS, Metrics, RunFolder, describe_choice, newest_checkpoint, read
from gpt.runs.find import visible
from gpt.train import report, start

pytestmark = pytest.mark.usefixtures("default_ctrl_c")


def test_metrics_are_written_line_by_line(tmp_path):
    metrics = Metrics(tmp_path / "new" / METRICS)
    metrics.write(step=1, loss=2.5)
    assert metrics.path.read_text() == '{"step": 1, "loss": 2.5}\n'
    metrics.write(step=2, loss=2.25)
    assert read(metrics.path) == [{"step": 1, "loss": 2.5}, {"step": 2, "loss": 2.25}]
    assert read(tmp_path / "nowhere") == []


def test_unreadable_metrics_are_skipped(tmp_path):
    path = tmp_path / METRICS
    path.write_bytes(b'{"step": 1, "loss": 2.5}\n{"step": "2"}\n\xff\x00\n{"step": 3, "lo')
    assert read(path) == [{"step": 1, "loss": 2.5}]
    Metrics(path).truncate_after(1)
    assert path.read_text() == '{"step": 1, "loss": 2.5}\n'


@pytest.mark.parametrize("name", [METRICS, f".{METRICS}.*.tmp", ".earlier-1.*.tmp"])
def test_an_unwritable_folder_is_one_error(tiny, tmp_path, monkeypatch, name):
    """The disk is full, or the folder is no longer writable: in training, on resuming, and in a new run."""
    train.train(tiny(train__steps=2, train__sample_chars=0))
    path = tmp_path / "run" / LATEST
    opened, made = Path.open, Path.mkdir

    def full(original):
        def function(self, *arguments, **options):
            if fnmatch(self.name, name) and self.parent.name == "run":
                raise OSError(28, "No space left on device")
            return original(self, *arguments, **options)

        return function

    monkeypatch.setattr(Path, "open", full(opened))
    monkeypatch.setattr(Path, "write_text", full(Path.write_text))
    monkeypatch.setattr(Path, "mkdir", full(made))
    saved = path.read_bytes()
    with pytest.raises(UserError, match=r"^cannot write to the run's folder '.*run': No space left on device\. What"):
        if name.startswith(".earlier"):
            train.train(tiny())
        else:
            more = {"train.steps": 4}
            train.train(checkpoint.load_config(path).replace(more), resume=path)
    assert path.read_bytes() == saved


def test_a_curve_that_cannot_be_written_is_skipped(tiny, tmp_path, monkeypatch, capsys):
    def full(metrics, path, title):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report, "loss_curve", full)
    assert train.train(tiny(train__steps=2)) is True
    out = capsys.readouterr().out
    assert f"no {CURVE}: No space left on device" in out
    assert f"wrote {tmp_path / 'run' / LATEST}" in out
    assert not (tmp_path / "run" / CURVE).exists()


def test_a_folder_that_cannot_be_made_is_one_error(tmp_path):
    (tmp_path / "file").touch()
    for folder in ("file", "file/below"):
        with pytest.raises(UserError, match=rf"^cannot write to the run's folder '.*{folder}': "):
            Metrics(tmp_path / folder / "metrics.jsonl")


def test_a_folder_with_a_long_name_is_one_error(tiny):
    with pytest.raises(UserError, match=r"^cannot write to the run's folder .*: File name too long\. "):
        train.train(tiny(run="x" * 300))


# --- an earlier run in the folder

OLD = {LATEST: "latest", BEST: "best", METRICS: "metrics", CURVE: "curve"}


class Killed(BaseException):
    """The end of the process, so that no handler of errors runs."""


def kill_at(monkeypatch, k, only_links=False):
    """Raise Killed before call k (from 1) of a function that changes the names of files. Return the list of calls."""
    calls = []

    def patched(name, original):
        def function(*arguments, **options):
            calls.append(name)
            if len(calls) == k:
                raise Killed
            return original(*arguments, **options)

        return function

    for owner, name in [(os, "link"), (os, "replace"), (Path, "rename"), (Path, "unlink"), (Path, "mkdir"),
                        (shutil, "copy2")]:  # fmt: skip
        monkeypatch.setattr(owner, name, patched(name, getattr(owner, name)))
    # A killed process does not clean up either.
    monkeypatch.setattr(shutil, "rmtree", lambda *arguments, **options: None)
    return calls


def files_of(folder):
    return {name: (folder / name).read_text() for name in OLD if (folder / name).is_file()}


@pytest.mark.parametrize("links", [True, False])
def test_an_earlier_run_is_never_in_two_parts(tmp_path, monkeypatch, links):
    """Kill a new run at each change of a name while it moves the old run away; then start again."""
    if not links:
        def refuse(*arguments):
            raise OSError(1, "Operation not permitted")

        monkeypatch.setattr(os, "link", refuse)
    for k in range(1, 100):
        folder = tmp_path / str(k)
        folder.mkdir()
        for name, text in OLD.items():
            (folder / name).write_text(text)
        with monkeypatch.context() as patch:
            calls = kill_at(patch, k)
            try:
                RunFolder(folder).archive_previous_run()
            except Killed:
                pass
        assert OLD in (files_of(folder), files_of(folder / "earlier-1")), k
        run = RunFolder(folder)
        with run.lock():
            run.archive_previous_run()
        assert files_of(folder / "earlier-1") == OLD, k
        assert [path.name for path in folder.iterdir()] == ["earlier-1"], k
        if len(calls) < k:
            break
    assert calls.count("rename") == 1
    assert k > 9


def test_later_archives_follow(tmp_path):
    for number in (1, 2, 3):
        (tmp_path / LATEST).write_text(str(number))
        archive = RunFolder(tmp_path).archive_previous_run()
        assert archive == tmp_path / f"earlier-{number}"
        assert (archive / LATEST).read_text() == str(number)
    assert RunFolder(tmp_path).archive_previous_run() is None


def test_a_killed_save_leaves_files_that_the_next_start_removes(tiny, tmp_path, monkeypatch):
    """The kill comes in each place where a save has temporary files."""
    import safetensors.numpy

    def kill(*arguments, **options):
        raise Killed

    folder = tmp_path / "run"
    for owner, name in [(safetensors.numpy, "save_file"), (os, "replace"), (os, "fsync"), (Path, "rename")]:
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, kill)
            patch.setattr(Path, "unlink", lambda *arguments, **options: None)
            patch.setattr(shutil, "rmtree", lambda *arguments, **options: None)
            run = start(tiny(), RunFolder(folder))
            with pytest.raises(Killed):
                run.save(LATEST)
        assert any(path.name.endswith(".tmp") for path in folder.iterdir()), name
    mine = folder / ".notes.tmp"
    mine.write_text("not of a save")
    with RunFolder(folder).lock():
        assert sorted(path.name for path in folder.iterdir()) == [".lock", mine.name, METRICS]


@pytest.mark.parametrize("out", ["run", "a/b/run"])
def test_a_failed_start_leaves_no_folder(tiny, tmp_path, monkeypatch, out):
    config = tiny(run=out, data__dataset=str(tmp_path / "nowhere.txt"))
    with pytest.raises(UserError, match="cannot read the text"):
        train.train(config)
    with pytest.raises(checkpoint.CheckpointError):
        train.train(config, resume=tmp_path / out / LATEST)

    def fail(*arguments):
        raise MemoryError

    monkeypatch.setattr("gpt.train.trainer.Trainer.optimize", fail)
    with pytest.raises(MemoryError):
        train.train(tiny(run=out))
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]


def test_a_folder_that_was_there_stays(tiny, tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(UserError, match="cannot read the text"):
        train.train(tiny(data__dataset=str(tmp_path / "nowhere.txt")))
    assert list((tmp_path / "run").iterdir()) == []


def test_the_choice_of_a_run_is_explained(tmp_path):
    def touch(name, age):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
        os.utime(tmp_path / name, ns=(10**18 - age * 10**9,) * 2)

    touch(f"a/{LATEST}", 9)
    assert describe_choice(tmp_path, newest_checkpoint(tmp_path)).startswith("saved 2001-09-09 ")
    assert "newest" not in describe_choice(tmp_path, newest_checkpoint(tmp_path))
    touch(f"b/earlier-1/{LATEST}", 8)
    touch(f"b/.earlier-2.0123abcd.tmp/{LATEST}", 0)
    found = newest_checkpoint(tmp_path)
    assert found.parent.name == "earlier-1"
    assert f", the newest of 2 below {tmp_path}/" in describe_choice(tmp_path, found)
    touch(f"b/{METRICS}", 7)
    text = describe_choice(tmp_path, found)
    assert f"; {tmp_path / 'b'} is newer, but has no checkpoint yet, so this is the run before it" in text


def test_one_walk_finds_the_files_of_all_runs(tmp_path, monkeypatch):
    """A link to a folder above would have no end, and a hidden folder is still being written."""
    for folder in ("a", "b/c", ".d", "b/.e"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / LATEST).touch()
    (tmp_path / "a" / METRICS).touch()
    (tmp_path / "b" / "up").symlink_to(tmp_path, target_is_directory=True)
    walks, walk = [], os.walk
    monkeypatch.setattr(os, "walk", lambda folder: walks.append(folder) or walk(folder))
    saved, started = visible(tmp_path, LATEST, METRICS)
    assert sorted(saved) == [tmp_path / "a" / LATEST, tmp_path / "b" / "c" / LATEST]
    assert (started, walks) == ([tmp_path / "a" / METRICS], [tmp_path])
