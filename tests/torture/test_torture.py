"""Test the harness in short: some kills of small runs, and that it finds a flush that is missing."""

import os
import random
import signal
from pathlib import Path

import pytest

pytest.importorskip("platformdirs")
pytest.importorskip("safetensors")
pytest.importorskip("tqdm")
if not hasattr(os, "fork"):
    pytest.skip("the runs are forks of this process", allow_module_level=True)
from gpt.runs import BEST, LATEST, LAYERS, METRICS, Metrics, RunFolder
from gpt.train.ranks import Ranks
from tests.gpt.small_runs import content
from tests.torture.__main__ import make_reference, warm_up, write_text
from tests.torture.launch import ForkedRanks
from tests.torture.power_cut import Disk, cut_power
from tests.torture.recorder import Recorder
from tests.torture.trial import run_trial
from tests.torture.worker import RUN, Order

# Other tests may leave threads behind, which a fork does not have. Python 3.12 warns of that.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

VARIANTS = ["plain", "often", "muon"]
OF_RANKS = ["plain", "watched"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return the text, and the undisturbed runs by variant."""
    place = tmp_path_factory.mktemp("torture")
    text = write_text(place)
    warm_up(place, text, VARIANTS)
    return text, {variant: make_reference(place, text, variant, "forked") for variant in VARIANTS}


@pytest.fixture(scope="module")
def ranks(runs, tmp_path_factory):
    """Return the undisturbed runs of two ranks, by variant."""
    place = tmp_path_factory.mktemp("ranks")
    return {variant: make_reference(place, runs[0], variant, "ranks") for variant in OF_RANKS}


@pytest.mark.parametrize("seed", range(3))
def test_a_killed_run_ends_as_an_undisturbed_one(runs, tmp_path, seed):
    text, references = runs
    variant = VARIANTS[seed % len(VARIANTS)]
    result = run_trial(tmp_path / "trial", text, variant, references[variant], seed, by_time=False)
    assert not result.failures, result
    assert result.kills
    assert not (tmp_path / "trial").exists()


@pytest.mark.parametrize("seed", range(2))
def test_a_killed_run_of_two_ranks_ends_as_an_undisturbed_one(runs, ranks, tmp_path, seed):
    reference = ranks[OF_RANKS[seed]]
    states = content(reference.folder / LATEST)[0]["state"]["dropout_of_ranks"]
    assert len(states) == 2
    assert states[0] != states[1]
    result = run_trial(tmp_path / "trial", runs[0], OF_RANKS[seed], reference, seed, "ranks", by_time=False)
    assert not result.failures, result
    assert result.kills


def test_dropout_of_a_rank_that_does_not_go_on_is_found(runs, ranks, tmp_path, monkeypatch):
    restore = Ranks.restore_dropout
    monkeypatch.setattr(Ranks, "restore_dropout", lambda own, *arguments: own.is_first and restore(own, *arguments))
    found = (run_trial(tmp_path / f"{seed}", runs[0], "plain", ranks["plain"], seed, "ranks", by_time=False)
             for seed in range(20))  # fmt: skip
    assert any(any("state" in failure for failure in result.failures) for result in found)


def test_a_signal_to_one_rank_stops_both(runs, tmp_path):
    order = Order(str(tmp_path / "root"), str(runs[0]), "often", str(tmp_path / "journal"))
    (tmp_path / "root").mkdir()
    attempt = ForkedRanks(order, tmp_path / "output.txt")
    while not (tmp_path / "root" / RUN / LATEST).exists():
        assert attempt.wait(0.001) is None
    os.kill(attempt.ranks[1], signal.SIGTERM)
    assert attempt.wait(60) in (0, 3)  # 0 if it came too late
    assert attempt.end(0) == []


@pytest.mark.parametrize("ignored", ["files", "folders"])
def test_a_missing_flush_is_found(runs, tmp_path, ignored):
    text, references = runs
    found = (run_trial(tmp_path / f"{seed}", text, "often", references["often"], seed, ignored=ignored, by_time=False)
             for seed in range(20))  # fmt: skip
    assert any(result.failures for result in found)


def test_metrics_that_are_not_flushed_are_found(runs, tmp_path, monkeypatch):
    text, references = runs
    monkeypatch.setattr(Metrics, "sync", lambda metrics: None)
    found = (run_trial(tmp_path / f"{seed}", text, "often", references["often"], seed, by_time=False)
             for seed in range(20))  # fmt: skip
    assert any(any("metrics.jsonl" in failure for failure in result.failures) for result in found)


# --- the imitation of a power cut


def folders_after_cuts(tmp_path, change, count=60):
    """Return the content of a folder after power cuts that follow `change(folder)`: a set of dicts."""
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "old").write_text("old content")
    recorder = Recorder(root, tmp_path / "journal")
    recorder.install()
    try:
        change(root)
        recorder.scan()
    finally:
        recorder.uninstall()
    disk, rng, found = Disk(tmp_path / "journal"), random.Random(0), []
    for _ in range(count):
        cut_power(disk, root, rng)
        files = [path for path in root.rglob("*") if path.is_file()]
        found.append({path.relative_to(root).as_posix(): path.read_bytes() for path in files})
    return found


def flush(path):
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def test_what_is_flushed_survives(tmp_path):
    def change(root):
        (root / "new").write_text("new")
        flush(root / "new")
        os.replace(root / "new", root / "old")
        (root / "sub" / "file").write_text("file")
        flush(root / "sub" / "file")
        flush(root / "sub")
        flush(root)

    expected = {"old": b"new", "sub/file": b"file"}
    assert all(files == expected for files in folders_after_cuts(tmp_path, change))


def test_a_name_without_its_content(tmp_path):
    """A rename of a file that is not flushed may leave the new name with any part of its content, or the old file."""

    def change(root):
        (root / "new").write_text("new content")
        os.replace(root / "new", root / "old")
        flush(root)

    contents = {files["old"] for files in folders_after_cuts(tmp_path, change)}
    assert {b"", b"new content", bytes(11)} < contents
    assert b"old content" not in contents


def test_content_without_its_name(tmp_path):
    def change(root):
        (root / "new").write_text("new")
        flush(root / "new")
        os.replace(root / "new", root / "old")

    found = folders_after_cuts(tmp_path, change)
    assert {files.get("old") for files in found} == {b"old content", b"new"}
    assert {files.get("new") for files in found} == {None, b"new"}


def test_an_append_keeps_what_was_flushed(tmp_path):
    def change(root):
        with (root / "old").open("a") as file:
            file.write(" and more")
            file.flush()
            os.fsync(file.fileno())
            file.write(" and the rest")

    contents = {files["old"] for files in folders_after_cuts(tmp_path, change)}
    assert all(content.startswith(b"old content and more") for content in contents)
    assert len(contents) > 4


# --- an earlier run

OLD = {LATEST: "latest", BEST: "best", METRICS: "metrics", LAYERS: "layers", "checkpoint-5.safetensors": "five"}


def test_a_power_cut_never_leaves_an_earlier_run_in_two_parts(tmp_path):
    """The run is whole where it was or in its new folder, after a power cut at any event of the move."""
    for number in range(1, 100):
        root = tmp_path / str(number) / "root"
        root.mkdir(parents=True)
        for name, text in OLD.items():
            (root / name).write_text(text)
        recorder = Recorder(root, tmp_path / str(number) / "journal")
        recorder.install()
        reached = move_until(recorder, root, number)
        disk, rng = Disk(tmp_path / str(number) / "journal"), random.Random(number)
        for _ in range(4):
            cut_power(disk, root, rng)
            assert OLD in (files_of(root), files_of(root / "earlier-1")), number
            with RunFolder(root).lock():
                RunFolder(root).archive_previous_run()
            assert files_of(root / "earlier-1") == OLD, number
        if not reached:
            break
    assert number > 20


class Stopped(BaseException):
    """The end of the process."""


def move_until(recorder, root, number):
    """Move the files of a run away, up to an event of the recorder. Return whether it came that far."""

    def count():
        recorder.events += 1
        if recorder.events >= number:
            raise Stopped

    recorder.count = count
    try:
        RunFolder(root).archive_previous_run()
    except Stopped:
        return True
    finally:
        recorder.uninstall()
    return False


def files_of(folder: Path):
    return {name: (folder / name).read_text() for name in OLD if (folder / name).is_file()}
