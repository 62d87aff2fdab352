"""Test saves in the background: what they write, what they do when a drive fails, and which checkpoints stay."""

import errno
import os
import signal
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("platformdirs")
pytest.importorskip("safetensors")
pytest.importorskip("tqdm")
from gpt import checkpoint, train
from gpt.checkpoint import CheckpointError, Snapshot
from gpt.errors import UserError
from gpt.runs import BEST, LATEST, LAYERS, METRICS, Metrics, RunFolder, RunFolderError, find_checkpoint, read
from gpt.train import report, saver, start
from tests.gpt.small_runs import assert_same_checkpoint, at_step, content, ctrl_c, measured

pytestmark = pytest.mark.usefixtures("default_ctrl_c")

WRITE = Snapshot.write


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the folder of a run that nothing disturbs."""
    return tmp_path_factory.mktemp("whole") / "run"


@pytest.fixture
def reference(tiny, whole):
    if not whole.exists():
        train.train(tiny(run=whole, train__sample_chars=0, train__keep=9, train__save_in_background=False))
    return whole


@pytest.fixture(autouse=True)
def short_times(monkeypatch):
    monkeypatch.setattr(saver, "RETRY", 0.01)
    monkeypatch.setattr(report, "draw_curve", lambda run: False)


def assert_same_run(folder, reference):
    for name in (LATEST, BEST):
        assert_same_checkpoint(folder / name, reference / name, but=("data", "train"))
    assert measured(folder) == measured(reference)
    assert (folder / LAYERS).read_text() == (reference / LAYERS).read_text()


def break_drive(run, monkeypatch, number, owner, name, until=10**9):
    """Let a function of the system fail until a step, when what is due is written."""
    run.saver.wait()
    original = getattr(owner, name)

    def fails(*arguments, **options):
        if run.step < until:
            raise OSError(number, os.strerror(number))
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, fails)


# --- what is written


@pytest.mark.parametrize("late", [False, True])
def test_training_goes_on_while_a_checkpoint_is_written(tiny, tmp_path, reference, monkeypatch, late):
    """The write of step 5 begins at once, and goes on until step 8 is done. The file has the numbers of step 5.

    late: the copy is made during the next step, which waits for it before it changes the weights.
    """
    if late:
        detach = Snapshot.detach
        monkeypatch.setattr(Snapshot, "detach", lambda content, into: (time.sleep(0.02), detach(content, into)))
        monkeypatch.setattr(saver, "LATE_COPY", 0)
    begun, later = threading.Event(), threading.Event()

    def slow(content, path):
        if content.step == 5:
            begun.set()
            assert later.wait(20)
        WRITE(content, path)

    def after_eight(run):
        assert begun.wait(20)
        assert not (tmp_path / "run" / LATEST).exists()
        later.set()

    monkeypatch.setattr(Snapshot, "write", slow)
    at_step(monkeypatch, 9, after_eight)
    train.train(tiny(train__sample_chars=0, train__keep=9))
    for step in (5, 10, 15, 20, 25, 30):
        name = f"checkpoint-{step}.safetensors"
        assert_same_checkpoint(tmp_path / "run" / name, reference / name, but=("data", "train"))
    assert_same_run(tmp_path / "run", reference)


@pytest.mark.parametrize("keep", [1, 2, 4])
def test_the_last_checkpoints_stay(tiny, tmp_path, keep):
    config = tiny(train__steps=20, train__keep=keep, train__sample_chars=0)
    train.train(config)
    folder = tmp_path / "run"
    steps = [] if keep == 1 else list(range(25 - 5 * keep, 25, 5))
    assert list(RunFolder(folder).numbered()) == steps
    assert sorted(p.name for p in folder.iterdir() if p.suffix == ".safetensors") == sorted(
        [LATEST, BEST, *(f"checkpoint-{step}.safetensors" for step in steps)]
    )
    assert all(checkpoint.load(folder / f"checkpoint-{step}.safetensors").step == step for step in steps)
    assert find_checkpoint(folder) == folder / LATEST
    assert checkpoint.load(folder / LATEST).step == 20
    if steps:
        assert content(folder / LATEST)[0] == content(folder / "checkpoint-20.safetensors")[0]
    train.train(config.replace({"train.steps": 2}))
    archived = {p.name for p in (folder / "earlier-1").iterdir()}
    assert {f"checkpoint-{step}.safetensors" for step in steps} <= archived
    assert not RunFolder(folder).numbered() or keep > 1


def test_a_checkpoint_of_a_later_step_stays(tmp_path):
    """A kill between the file of a step and its second name leaves one, and the run comes there again."""
    folder = RunFolder(tmp_path)
    for step in (5, 10, 15, 20, 100):
        (tmp_path / f"checkpoint-{step}.safetensors").write_text(str(step))
    (tmp_path / "checkpoint-007.safetensors").write_text("not ours")
    folder.keep_numbered(15, 2)
    assert list(folder.numbered()) == [10, 15, 20, 100]
    assert folder.latest.read_text() == "15"
    assert (tmp_path / "checkpoint-007.safetensors").exists()


def test_ctrl_c_waits_for_the_thread(tiny, tmp_path, monkeypatch):
    def slow(content, path):
        time.sleep(0.2)
        WRITE(content, path)

    monkeypatch.setattr(Snapshot, "write", slow)
    at_step(monkeypatch, 7, ctrl_c)
    assert train.train(tiny(train__sample_chars=0)) is False
    assert checkpoint.load(tmp_path / "run" / LATEST).step == 7
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [LATEST, LAYERS, METRICS]


def test_an_exception_loses_no_checkpoint_that_is_being_written(tiny, tmp_path, monkeypatch):
    def slow(content, path):
        time.sleep(0.2)
        WRITE(content, path)

    def crash(run):
        raise MemoryError

    monkeypatch.setattr(Snapshot, "write", slow)
    at_step(monkeypatch, 6, crash)
    with pytest.raises(MemoryError):
        train.train(tiny())
    assert checkpoint.load(tmp_path / "run" / LATEST).step == 5


# --- a drive that fails

# An error of the system, the function that it comes from (before the checkpoint, in it, or in the metrics), and whether
# the run saves in the background.
FAILURES = [
    (errno.ENOSPC, os, "fsync", True),
    (errno.EDQUOT, os, "replace", True),
    (errno.EROFS, Path, "touch", False),
    (errno.EIO, Path, "open", True),
    (errno.ESTALE, os, "open", False),
    (errno.ENOTCONN, Path, "rename", True),
]


@pytest.mark.parametrize(("number", "owner", "name", "background"), FAILURES)
def test_a_failed_save_stops_the_run(tiny, tmp_path, monkeypatch, number, owner, name, background):
    at_step(monkeypatch, 8, lambda run: break_drive(run, monkeypatch, number, owner, name))
    with pytest.raises(UserError) as caught:
        train.train(tiny(train__sample_chars=0, train__save_in_background=background, train__steps=13))
    monkeypatch.undo()
    message = str(caught.value)
    assert os.strerror(number) in message
    assert message.endswith(("There is no previous one", "The previous one is kept", "--out FOLDER"))
    assert "\n" not in message
    assert ".tmp" not in message
    assert checkpoint.load(tmp_path / "run" / LATEST, training=True).step == 5
    resume = tmp_path / "run" / LATEST
    assert train.train(checkpoint.load_config(resume), resume=resume)


@pytest.mark.parametrize(("number", "owner", "name", "background"), FAILURES)
def test_training_goes_on_and_nothing_is_lost(
    tiny, tmp_path, reference, monkeypatch, capsys, number, owner, name, background
):
    """The drive fails from step 8 to step 18, for the best checkpoint and for two of the latest."""
    at_step(monkeypatch, 8, lambda run: break_drive(run, monkeypatch, number, owner, name, until=18))
    train.train(tiny(train__sample_chars=0, train__on_save_error="continue", train__save_in_background=background))
    out = capsys.readouterr().out
    assert out.count("Warning: ") == 1
    assert os.strerror(number) in out
    assert "Training goes on, and tries again after" in out
    assert "The checkpoint is written now." in out
    assert_same_run(tmp_path / "run", reference)


def test_a_best_checkpoint_is_not_forgotten(tiny, tmp_path, monkeypatch):
    """The best checkpoint fails, and the drive works again only when a later one of the latest is due."""
    estimates = iter([3.0, 1.0, 3.0, 2.0])  # train, validation
    monkeypatch.setattr("gpt.train.trainer.mean_loss", lambda model, batches: next(estimates))
    at_step(monkeypatch, 8, lambda run: break_drive(run, monkeypatch, errno.ENOSPC, os, "replace", until=17))
    train.train(tiny(train__steps=20, train__on_save_error="continue", train__sample_chars=0))
    assert checkpoint.load(tmp_path / "run" / BEST).step == 10
    assert checkpoint.load(tmp_path / "run" / LATEST).step == 20


def test_a_second_attempt_works(tiny, tmp_path, reference, monkeypatch, capsys):
    failures = iter([OSError(errno.EIO, os.strerror(errno.EIO))])
    replace = os.replace

    def once(*arguments):
        for error in failures:
            raise error
        replace(*arguments)

    monkeypatch.setattr(os, "replace", once)
    train.train(tiny(train__sample_chars=0))
    assert "Input/output error. There is no previous one. The second attempt has written it." in capsys.readouterr().out
    assert_same_run(tmp_path / "run", reference)


def test_the_end_of_a_run_waits_for_a_drive(tiny, tmp_path, reference, monkeypatch, capsys):
    """The drive fails from the last step on, and works again after some attempts."""
    attempts, replace = [], os.replace

    def later(*arguments):
        attempts.append(arguments)
        if len(attempts) < 4:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        replace(*arguments)

    at_step(monkeypatch, 30, lambda run: monkeypatch.setattr(os, "replace", later))
    train.train(tiny(train__sample_chars=0, train__on_save_error="continue"))
    out = capsys.readouterr().out
    assert out.count("The run is at its end, and tries to save each 0.01 s") == 1
    assert out.count("Warning: ") == 1
    assert_same_run(tmp_path / "run", reference)


def test_ctrl_c_ends_a_run_that_waits_for_a_drive(tiny, tmp_path, monkeypatch):
    attempts = []

    def never(*arguments):
        attempts.append(arguments)
        if len(attempts) == 3:
            signal.raise_signal(signal.SIGTERM)
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    def broken(run):
        run.saver.wait()
        run.saver._start = lambda work: work()  # Signals reach the main thread alone.
        monkeypatch.setattr(os, "replace", never)

    at_step(monkeypatch, 30, broken)
    with pytest.raises(CheckpointError, match=r"Disk quota exceeded. The previous one is kept"):
        train.train(tiny(train__sample_chars=0, train__on_save_error="continue"))
    assert checkpoint.load(tmp_path / "run" / LATEST).step == 25


def test_a_drive_that_does_not_answer(tiny, tmp_path, reference, monkeypatch, capsys):
    """The write of step 5 hangs until step 20 is done. Training goes on, and all that is due is written then."""
    answer, flush = threading.Event(), os.fsync

    def hangs(descriptor):
        if threading.current_thread() is not threading.main_thread():
            assert answer.wait(20)
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", hangs)
    monkeypatch.setattr(saver, "PATIENCE", 0.01)

    def answers(run):
        monkeypatch.setattr(saver, "PATIENCE", 60.0)
        answer.set()

    at_step(monkeypatch, 21, answers)
    train.train(tiny(train__sample_chars=0, train__on_save_error="continue"))
    out = capsys.readouterr().out
    assert out.count("Warning: ") == 1
    assert "has not finished a checkpoint for 0.01 s. Training goes on." in out
    assert_same_run(tmp_path / "run", reference)


def test_another_error_of_the_thread_is_raised(tiny, monkeypatch):
    def broken(content, path):
        raise ZeroDivisionError

    monkeypatch.setattr(Snapshot, "write", broken)
    with pytest.raises(ZeroDivisionError):
        train.train(tiny(train__on_save_error="continue"))


# --- metrics


@pytest.mark.parametrize("written", [0, 1, 9, 20])
def test_a_full_disk_leaves_no_part_of_a_line(tmp_path, monkeypatch, written):
    """A disk takes some bytes of a line and then no more. The next line comes after the whole one."""
    metrics = Metrics(tmp_path / METRICS)
    metrics.write(step=1)
    opened = Path.open

    class Full:
        def __init__(self, file):
            self.file, self.left = file, written

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            self.file.close()

        def write(self, data):
            if not self.left:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            count, self.left = self.file.write(data[: self.left]), 0
            return count

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda path, *mode, **options: Full(opened(path, *mode, **options)))
        with pytest.raises(RunFolderError, match=r"No space left on device. What was saved before is kept"):
            metrics.write(step=2, loss=0.123456789)
        metrics.postpone_errors = True
        metrics.write(step=3)
        with pytest.raises(OSError, match="No space"):
            metrics.sync()
    metrics.sync()
    assert (tmp_path / METRICS).read_text() == '{"step": 1}\n{"step": 2, "loss": 0.123456789}\n{"step": 3}\n'
    assert len(read(tmp_path / METRICS)) == 3


# --- time


def test_a_snapshot_takes_memory_that_is_there(tiny, monkeypatch):
    """The thread makes the memory before the first save, and each save takes that of the one before."""
    run, used, detach = start(tiny(train__steps=20, train__eval_interval=20)), [], Snapshot.detach

    def observed(content, into):
        detach(content, into)
        used.append({name: (array.ctypes.data, name in into) for name, array in content.arrays.items()})

    monkeypatch.setattr(Snapshot, "detach", observed)
    run.optimize()
    assert len(used) == 4
    assert all(there for _, there in used[0].values())
    assert used[0] == used[1] == used[2] == used[3]
