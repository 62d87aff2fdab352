"""Test the metrics and the folder of a run."""

from fnmatch import fnmatch
from pathlib import Path

import pytest

pytest.importorskip("platformdirs")
pytest.importorskip("safetensors")
pytest.importorskip("tqdm")
from gpt import checkpoint, train
from gpt.errors import UserError
from gpt.runs import CURVE, LATEST, METRICS, Metrics, read
from gpt.train import report

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


@pytest.mark.parametrize("name", [METRICS, f".{METRICS}.*.tmp", "earlier-1"])
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
        if name == "earlier-1":
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
