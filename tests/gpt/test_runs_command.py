"""Test the comparison of runs, and the command that lists them."""

import csv
import json
import math
import struct

import pytest

pytest.importorskip("click")
pytest.importorskip("platformdirs")
pytest.importorskip("safetensors")
pytest.importorskip("tqdm")
from click.testing import CliRunner

from gpt import checkpoint, train
from gpt.cli import main
from gpt.cli.runs import duration, table_lines
from gpt.inspect import PictureError, plot_runs, save_figure
from gpt.runs import LATEST, METRICS, RunFolder, differing_options, find_runs, summarize
from gpt.runs.export import write_tensorboard
from gpt.train import start

pytestmark = pytest.mark.usefixtures("default_ctrl_c")


def write_lines(folder, *lines):
    """Make a folder of a run with metrics only."""
    folder.mkdir(parents=True)
    (folder / METRICS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


STEP = {"loss": 2.0, "grad_norm": 1.0, "lr": 0.1}
LINES = [
    {"step": 10, **STEP, "ms_per_step": 100.0, "tokens_per_second": 320.0},
    {"step": 10, "train_loss": 2.5, "val_loss": 2.4, "val_bits_per_char": 3.5},
    {"step": 30, **STEP, "ms_per_step": 50.0, "tokens_per_second": 640.0},
    {"step": 30, "train_loss": 2.1, "val_loss": 2.6, "val_bits_per_char": 3.8},
]


@pytest.fixture
def finished(tiny):
    """Return the folder of a finished run."""
    config = tiny("runs/one", name="one", train__steps=4, train__eval_interval=2, train__sample_chars=0)
    train.train(config)
    return config.run_dir


def test_what_a_finished_run_says(finished):
    run = summarize(finished)
    assert (run.name, run.state, run.step, run.steps, run.damage) == ("one", "finished", 4, 4, "")
    assert run.tokens == 4 * 4 * 8
    assert run.parameters == checkpoint.load(finished / LATEST).model.num_params()
    assert run.best_loss <= run.val_loss
    assert run.best_step in (2, 4)
    assert run.final_loss is not None
    assert run.seconds > 0
    assert run.options["optim.lr"] == 1e-2
    json.dumps(run.to_dict())


def test_what_metrics_alone_say(tmp_path):
    run = summarize(write_lines(tmp_path / "alone", *LINES))
    assert (run.name, run.state, run.step, run.steps, run.options) == ("alone", "interrupted", 30, None, {})
    assert (run.train_loss, run.val_loss, run.best_loss, run.best_step) == (2.1, 2.6, 2.4, 10)
    assert run.bits_per_char == 3.8
    assert run.seconds == pytest.approx(10 * 0.1 + 20 * 0.05)


def test_states(tiny, tmp_path):
    config = tiny("run", train__steps=20)
    trainer = start(config)
    for _ in range(3):
        trainer.meter.add(*trainer.train_step())
    trainer.log(0.1)
    assert summarize(config.run_dir).state == "interrupted"
    trainer.save(LATEST)
    assert summarize(config.run_dir).state == "stopped"
    with RunFolder(config.run_dir).lock():
        assert summarize(config.run_dir).state == "running"
    (config.run_dir / ".lock").touch()  # A killed process leaves it.
    assert summarize(config.run_dir).state == "stopped"
    trainer.metrics.write(step=5, loss=math.nan)
    assert summarize(config.run_dir).state == "interrupted"
    assert summarize(config.run_dir).step == 5


def test_archived_runs_and_folders_that_are_none(finished, tmp_path):
    runs = finished.parent
    write_lines(runs / "one" / "earlier-1", *LINES)
    write_lines(runs / "deeper" / "still" / "two", *LINES)
    write_lines(runs / ".hidden", *LINES)
    write_lines(runs / "empty")
    (runs / "nothing").mkdir()
    (runs / "damaged").mkdir()
    (runs / "damaged" / LATEST).write_bytes(b"no checkpoint")
    found, skipped = find_runs(runs)
    assert [run.name for run in found] == ["two", "one"]
    assert len(skipped) == 3
    reasons = (LATEST, f"{METRICS} has no line that can be read", "it is not a run")
    for line, words in zip(skipped, reasons, strict=True):
        assert words in line
    found, _ = find_runs(runs, archived=True)
    assert [run.name for run in found] == ["two", "one", "one/earlier-1"]
    (found,), skipped = find_runs(finished)
    assert (found.name, skipped) == ("one", [])
    assert find_runs(tmp_path / "nowhere")[1] == [f"{tmp_path / 'nowhere'}: No such file or directory"]


def test_a_damaged_checkpoint_leaves_what_the_metrics_say(finished):
    (finished / LATEST).write_bytes(b"no checkpoint")
    run = summarize(finished)
    assert str(finished / LATEST) in run.damage
    assert run.final_loss is not None
    assert run.steps == 4  # from the best checkpoint


def test_damaged_metrics_are_not_silence(finished):
    (finished / METRICS).write_bytes(b"\x00garbage\n[1]\n")
    run = summarize(finished)
    assert run.damage == f"{finished / METRICS}: no line of it can be read"
    assert run.val_loss is None
    assert run.step == 4  # from the checkpoint
    (finished / METRICS).write_bytes(b"")  # A run that has just begun has an empty file.
    assert summarize(finished).damage == ""


@pytest.mark.parametrize("line", [
    f'{{"step": 1{"0" * 400}, "loss": 1}}',
    '{"step": -1, "loss": 1}',
    f'{{"step": 2, "loss": 1{"0" * 400}, "val_loss": -1{"0" * 400}}}',
    '{"step": 2, "loss": NaN, "val_loss": Infinity, "ms_per_step": [1]}',
    '{"step": 2, "ms_per_step": 1e308, "tokens_per_second": 1e308}',
], ids=["step", "negative", "loss", "infinite", "speed"])  # fmt: skip
def test_a_line_with_impossible_numbers_spoils_nothing(tmp_path, line):
    pytest.importorskip("matplotlib")
    pytest.importorskip("tensorboardX")
    folder = write_lines(tmp_path / "odd", {"step": 1, "loss": 2.0, "val_loss": 3.0})
    with (folder / METRICS).open("a") as file:
        file.write(line + "\n")
    run = summarize(folder)
    assert (run.val_loss, run.step) in {(3.0, 1), (3.0, 2)}
    for x in ("steps", "time", "tokens"):
        save_figure(plot_runs(run, x), tmp_path / "odd.svg")
    write_tensorboard([run], tmp_path / "events")


def test_options_that_differ(tiny, tmp_path):
    runs = []
    for name, lr in (("a", 1e-2), ("b", 1e-3)):
        config = tiny(f"runs/{name}", name=name, optim__lr=lr, optim__min_lr=1e-4)
        start(config).save(LATEST)
        runs.append(summarize(config.run_dir))
    runs.append(summarize(write_lines(tmp_path / "runs" / "c", *LINES)))
    assert differing_options(runs) == ["optim.lr"]
    assert differing_options(runs[:1]) == differing_options([]) == []


# --- the command


def run(*arguments):
    return CliRunner().invoke(main, ["runs", *map(str, arguments)])


def succeeds(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture
def three(tmp_path, monkeypatch):
    """Return the folder of three runs without checkpoints, in the folder runs of the current one."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("a", "$b_{1}$", "c")):
        lines = [line | {"val_loss": line["val_loss"] - number} if "val_loss" in line else line for line in LINES]
        write_lines(tmp_path / "runs" / name, *(lines if name != "c" else LINES[::2]))
    (tmp_path / "runs" / "none").mkdir()
    return tmp_path / "runs"


def test_the_table(three):
    result = succeeds("--sort", "loss")
    assert result.stderr == "skipped runs/none: no metrics.jsonl and no checkpoint.safetensors, so it is not a run\n"
    head, *rows = result.stdout.splitlines()
    assert head.split() == ["run", "state", "steps", "val", "loss", "best", "bits/char", "params", "time", "when"]
    assert [row.split()[0] for row in rows] == ["$b_{1}$", "a", "c"]
    assert rows[1].split()[1:8] == ["interrupted", "30", "2.6000", "2.4000", "@", "10", "3.8000"]
    assert succeeds("a").stdout.splitlines()[1:] == succeeds("runs/a", "a").stdout.splitlines()[1:]
    assert [row.split()[0] for row in succeeds("--sort", "name").stdout.splitlines()[1:]] == ["$b_{1}$", "a", "c"]


def test_options_that_differ_are_listed(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, lr, seed in (("x", 1e-2, 1), ("y", 1e-3, 2)):
        start(tiny(f"runs/{name}", name=name, optim__lr=lr, optim__min_lr=1e-4, train__seed=seed)).save(LATEST)
    lines = succeeds("--sort", "name").stdout.splitlines()
    assert lines[-4:] == ["options that differ:", "run     lr  seed", "x     0.01     1", "y    0.001     2"]
    found = json.loads(succeeds("--json").stdout)
    assert {(entry["name"], entry["options"]["optim.lr"], entry["state"]) for entry in found} == {
        ("x", 1e-2, "stopped"), ("y", 1e-3, "stopped"),
    }  # fmt: skip


def test_csv_files(three):
    succeeds("--csv", "table.csv", "--metrics", "metrics.csv")  # The second call replaces its own tables.
    result = succeeds("a", "c", "--csv", "table.csv", "--metrics", "metrics.csv", "--sort", "name")
    assert result.stderr == "wrote table.csv\nwrote metrics.csv\n"
    with open("table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["path"], row["best_loss"]) for row in rows] == [("runs/a", "2.4"), ("runs/c", "")]
    with open("metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert [row["val_loss"] for row in rows] == ["", "2.4", "", "2.6", "", ""]


def events_of(folder):
    """Return (tag, step, value, time) of the scalars in the event files of a folder."""
    from tensorboardX.proto import event_pb2

    found = []
    for path in folder.iterdir():
        data, at = path.read_bytes(), 0
        while at < len(data):  # A record has its length, a checksum of that, the data, and a checksum of these.
            (length,) = struct.unpack_from("<Q", data, at)
            event = event_pb2.Event.FromString(data[at + 12 : at + 12 + length])
            at += 16 + length
            found += [(v.tag, event.step, round(v.simple_value, 4), event.wall_time) for v in event.summary.value]
    return found


def test_event_files_can_be_read_back(three):
    pytest.importorskip("tensorboardX")
    found, _ = find_runs("runs")
    write_tensorboard(found, three.parent / "events")
    written = write_tensorboard(found, three.parent / "events")  # The second call replaces what the first has written.
    assert [path.name for path in written] == ["b_-1", "a", "c"]
    events = events_of(written[1])
    assert [event[:3] for event in events if event[0] == "loss/validation_set"] == [
        ("loss/validation_set", 10, 2.4), ("loss/validation_set", 30, 2.6),
    ]  # fmt: skip
    assert len(events) == 2 * 5 + 2 * 3
    times = [event[3] for event in events]
    assert times == sorted(times)
    assert times[-1] - times[0] == pytest.approx(1.0, abs=0.01)  # The steps from 10 to 30 took one second.


def test_a_picture_of_several_runs(three):
    pytest.importorskip("matplotlib")
    for x, last in (("steps", 30), ("time", 2), ("tokens", 960)):
        figure = plot_runs(["runs/a", "runs/$b_{1}$", "runs/c"], x)
        (axes,) = figure.axes
        assert [text.get_text() for text in figure.legends[0].get_texts()] == [
            "a: 2.4000 lowest", "$b_{1}$: 1.4000 lowest", "c: no evaluation",
        ]  # fmt: skip
        assert [line.get_xdata()[-1] for line in axes.lines] == pytest.approx([last] * 5)
    assert list(axes.lines[1].get_ydata()) == [2.4, 2.6]
    copies = [write_lines(three / folder / name, *LINES) for folder, name in (("d", "same"), ("e", "same"))]
    copies += [write_lines(folder / "earlier-1", *LINES) for folder in copies]
    assert [text.get_text().partition(":")[0] for text in plot_runs(copies).legends[0].get_texts()] == [
        "d/same", "e/same", "d/same/earlier-1", "e/same/earlier-1",
    ]  # fmt: skip
    assert len(plot_runs("runs/a").axes[0].lines) == 2
    for name in ("one.svg", "two.svg", "one.png"):
        save_figure(figure, name)
    assert (three.parent / "one.svg").read_bytes() == (three.parent / "two.svg").read_bytes()
    assert succeeds("--plot", "a", "c", "--x", "tokens", "--out", "one.png").stdout == "wrote one.png\n"
    with pytest.raises(PictureError, match=r"expected a run with a loss .* got none \(none was given\)"):
        plot_runs([])


@pytest.mark.parametrize(("arguments", "message"), [
    (["nowhere"], "there is no folder 'nowhere'. Give a folder"),
    (["bb"], "there is no folder 'bb'."),
    (["runs/none"], "there is no run in runs/none"),
    (["--out", "x.png"], "--out is for a picture. Give --plot as well"),
    (["--x", "time"], "--x is for a picture"),
    (["--plot", "--out", "x.jpg"], "'x.jpg': expected a name that ends in .png or .svg"),
    (["--plot", "--out", "no/x.png"], "'no/x.png': there is no folder 'no'"),
    (["--plot", "--out", "notes.png"], "'notes.png' exists, and is not a PNG picture"),
    (["--plot", "--out", "folder.png"], "'folder.png' is not a file"),
    (["--csv", "runs"], "cannot write 'runs': it is a folder"),
    (["--metrics", "no/x.csv"], "cannot write 'no/x.csv': there is no folder 'no'"),
    (["--csv", "notes.png"], "cannot write 'notes.png': it exists, and is not a table of runs"),
    (["--metrics", "-"], "cannot write '-': it is not a file"),
    (["--csv", "/dev/null"], "cannot write '/dev/null': it is not a file"),
    (["--tensorboard", "notes.png"], "--tensorboard 'notes.png': expected a folder, and this is a file"),
    (["--sort", "size"], "Invalid value for '--sort'"),
])  # fmt: skip
def test_mistakes_are_one_message(three, arguments, message):
    (three.parent / "notes.png").write_text("no picture")
    (three.parent / "folder.png").mkdir()
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr.partition("Error: ")[2]
    assert (three.parent / "notes.png").read_text() == "no picture"


def test_without_any_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "Error: there is no run in runs/. python -m gpt train makes one" in run().stderr


def test_cells():
    assert [duration(s) for s in (0, 119, 120, 7199, 7200)] == ["0 s", "119 s", "2 min", "120 min", "2.0 h"]
    assert table_lines([["a", "n"], ["bb", "1"], ["c", ""]]) == ["a   n", "bb  1", "c"]
    assert table_lines([["a", "n"], ["\u6771\u4eac", "1"], ["e\u0301", "x"]]) == [
        "a     n", "\u6771\u4eac  1", "e\u0301     x",
    ]  # fmt: skip
