"""Test the signals that stop a run: where they come, what is saved, and what a resumed run then writes."""

import signal
import threading

import pytest

pytest.importorskip("platformdirs")
pytest.importorskip("safetensors")
pytest.importorskip("tqdm")
from gpt import checkpoint, train
from gpt.runs import BEST, LATEST, LAYERS, METRICS, read
from gpt.train import Interrupt, Trainer, interrupt, report, run, trainer
from tests.gpt.small_runs import assert_same_checkpoint, at_step, measured

pytestmark = pytest.mark.usefixtures("default_ctrl_c")

SIGNALS = [number for name in ("SIGINT", "SIGTERM", "SIGHUP") if (number := getattr(signal, name, None))]


@pytest.fixture(autouse=True)
def default_signals():
    """Set the handlers that a new process has."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in SIGNALS if number != signal.SIGINT}
    yield
    for number, handler in before.items():
        assert signal.signal(number, handler) is signal.SIG_DFL


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the folder of a run that nothing stops."""
    return tmp_path_factory.mktemp("whole") / "run"


@pytest.fixture
def reference(tiny, whole):
    if not whole.exists():
        train.train(tiny(run=whole, train__sample_chars=0))
    return whole


def resume(folder):
    path = folder / LATEST
    return train.train(checkpoint.load_config(path), resume=path)


def assert_same_run(folder, reference):
    for name in (LATEST, BEST):
        a, b = folder / name, reference / name
        assert_same_checkpoint(a, b, but=("data",))
    assert measured(folder) == measured(reference)


def when(monkeypatch, owner, name, number, *, call=1):
    """Send this process a signal at one call of a function."""
    original, count = getattr(owner, name), [0]

    def patched(*arguments, **options):
        count[0] += 1
        if count[0] == call:
            signal.raise_signal(number)
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, patched)


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(
    ("owner", "name", "call", "step"),
    [
        (Trainer, "train_step", 13, 13),  # in a step: its line of metrics is left to the resumed run
        (Trainer, "train_step", 20, 20),  # in a step with an evaluation
        (trainer, "mean_loss", 2, 10),  # before the second half of an evaluation
        (Trainer, "take_snapshot", 3, 15),  # in a save, after those of 5 and 10
        (Trainer, "train_step", 30, 30),  # in the last step
        (trainer, "mean_loss", 6, 30),
    ],
)
def test_a_signal_saves_and_the_resumed_run_is_the_same(
    tiny, tmp_path, reference, monkeypatch, capfd, number, owner, name, call, step
):
    with monkeypatch.context() as patch:
        when(patch, owner, name, number, call=call)
        with Interrupt() as stop:
            assert train.train(tiny(train__sample_chars=0)) is False
    assert stop.exit_status == 128 + number
    folder = tmp_path / "run"
    assert checkpoint.load(folder / LATEST).step == step
    captured = capfd.readouterr()
    assert f"Stopped after step {step} and saved. To continue: " in captured.out
    assert f"{interrupt.SIGNALS[number]}: finishing the step and saving" in captured.err
    assert all(line["step"] <= step for line in read(folder / METRICS))
    assert resume(folder) is True
    assert_same_run(folder, reference)


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("name", ["evaluate", "print_sample", "draw_curve"])
def test_a_signal_in_the_report_loses_the_report_alone(tiny, tmp_path, reference, monkeypatch, capsys, number, name):
    with monkeypatch.context() as patch:
        when(patch, report, name, number)
        with Interrupt() as stop:
            assert train.train(tiny(train__sample_chars=0)) is False
    assert stop.exit_status == 128 + number
    out = capsys.readouterr().out
    assert "Stopped after the last step, 30, which is saved. The evaluation of the whole validation set" in out
    assert " -m gpt train --resume " in out
    assert resume(tmp_path / "run") is True
    assert_same_run(tmp_path / "run", reference)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_second_signal_stops_at_once(tiny, tmp_path, monkeypatch, capsys, number):
    def twice(run):
        signal.raise_signal(number)
        monkeypatch.setattr(interrupt, "SAME_REQUEST", 0)
        signal.raise_signal(number)

    at_step(monkeypatch, 13, twice)
    with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else SystemExit) as caught:
        train.train(tiny())
    if number != signal.SIGINT:
        assert caught.value.code == 128 + number
    assert checkpoint.load(tmp_path / "run" / LATEST).step == 10
    error = capsys.readouterr().err
    assert f"Stopped at once, in step 13; {tmp_path / 'run' / LATEST} is kept, from its last save." in error
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [BEST, LATEST, LAYERS, METRICS]


def test_a_signal_that_make_passes_on_counts_once(monkeypatch):
    """`make` gets SIGTERM with its group and sends it to its children again."""
    with Interrupt() as stop, stop.deferred():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert stop.number == signal.SIGTERM
        monkeypatch.setattr(interrupt, "SAME_REQUEST", 0)  # A second later, it is another request.
        with pytest.raises(SystemExit):
            signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_before_the_first_step_leaves_nothing(tiny, tmp_path, monkeypatch, number):
    when(monkeypatch, run, "start", number)
    with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else SystemExit):
        train.train(tiny())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_handler_of_the_program_is_kept(number):
    for handler in (signal.SIG_IGN, lambda *arguments: None):
        before = signal.signal(number, handler)
        with Interrupt() as stop, stop.deferred():
            signal.raise_signal(number)
            assert not stop.requested
        assert signal.signal(number, before) is handler


def test_a_closed_terminal_does_not_stop_the_save(tiny, tmp_path, monkeypatch):
    """After a hang-up, neither the handler nor the run can write."""

    def gone(*arguments, **options):
        raise OSError(5, "Input/output error")

    def hang_up(run):
        monkeypatch.setattr(interrupt.os, "write", gone)
        monkeypatch.setattr("builtins.print", gone)
        signal.raise_signal(signal.SIGTERM)

    at_step(monkeypatch, 7, hang_up)
    assert train.train(tiny()) is False
    assert checkpoint.load(tmp_path / "run" / LATEST).step == 7


def test_a_run_in_a_thread_catches_no_signals(tiny, tmp_path):
    results = []
    thread = threading.Thread(target=lambda: results.append(train.train(tiny(train__steps=2, train__sample_chars=0))))
    thread.start()
    thread.join()
    assert results == [True]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
