"""The command `runs`, which compares runs."""

import json
import math
import shutil
import time
import unicodedata
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpt.cli.command import Command
from gpt.cli.options import RUNS

if TYPE_CHECKING:
    from gpt.runs import RunSummary

# The keys of --sort: what a run is sorted by, and whether the largest comes first.
SORTS: dict[str, tuple[Callable[["RunSummary"], Any], bool]] = {
    "when": (lambda run: run.changed, True),
    "name": (lambda run: run.name, False),
    "loss": (lambda run: run.final_loss if run.best_loss is None else run.best_loss, False),
    "steps": (lambda run: run.step, True),
    "params": (lambda run: run.parameters, True),
    "time": (lambda run: run.seconds, True),
}


@click.command(cls=Command)
@click.argument("paths", nargs=-1, metavar="[FOLDER|RUN]...")
@click.option(
    "--sort", type=click.Choice(list(SORTS)), default="when", show_default=True,
    help="Order of the runs: the newest, the lowest loss, or the most steps, parameters or time come first.",
)  # fmt: skip
@click.option("--all", "archived", is_flag=True, help="List earlier runs, too, which a new run has moved to earlier-N.")
@click.option("--json", "as_json", is_flag=True, help="Print the runs with all options as JSON.")
@click.option("--csv", "table", metavar="FILE", help="Write a line for each run, with all options, as CSV.")
@click.option("--metrics", metavar="FILE", help="Write the metrics of all listed runs as CSV.")
@click.option("--tensorboard", metavar="FOLDER", help="Write the metrics as event files, which TensorBoard reads.")
@click.option("--plot", is_flag=True, help="Draw the losses of the listed runs together.")
@click.option("--out", metavar="FILE", help="The picture, a .png or .svg.  [default: runs.png]")
@click.option("--x", type=click.Choice(["steps", "time", "tokens"]), help="Horizontal axis of it.  [default: steps]")
def runs(
    paths: tuple[str, ...],
    sort: str,
    archived: bool,
    as_json: bool,
    table: str | None,
    metrics: str | None,
    tensorboard: str | None,
    plot: bool,
    out: str | None,
    x: str | None,
) -> None:
    """List runs with their losses, times and the options that differ.

    FOLDER holds runs, RUN is one of them or its name below runs/. Without either, all runs below runs/ are listed.
    """
    if not plot and (out is not None or x is not None):
        raise click.UsageError(f"{'--out' if out is not None else '--x'} is for a picture. Give --plot as well")
    from gpt.inspect.figures import check_path

    picture = check_path(out or "runs.png") if plot else None
    for path in (table, metrics):
        check_file(path)
    if tensorboard is not None and Path(tensorboard).exists() and not Path(tensorboard).is_dir():
        raise click.UsageError(f"--tensorboard {tensorboard!r:.80}: expected a folder, and this is a file")
    found, skipped = collect(paths, archived)
    for line in skipped:
        click.echo(f"skipped {line}", err=True)
    if not found:
        where = ", ".join(paths) or f"{RUNS}/"
        raise click.UsageError(f"there is no run in {where}. python -m gpt train makes one")
    for run in found:
        if run.damage:
            click.echo(f"{run.path}: {run.damage}", err=True)
    found = ordered(found, sort)
    if as_json:
        click.echo(json.dumps([run.to_dict() for run in found], indent=1))
    write_files(found, table, metrics, tensorboard)
    if picture is not None:
        from gpt.inspect import plot_runs, save_figure

        click.echo(f"wrote {save_figure(plot_runs(found, x or 'steps'), picture)}", err=as_json)
    elif not as_json:
        for line in report(found, shutil.get_terminal_size((100, 0)).columns):
            click.echo(line)


def check_file(path: str | None) -> None:
    """Raise UsageError for a file that cannot be written, or that holds something other than a table of runs."""
    if path is None:
        return
    from gpt.runs.export import TABLE

    target, what = Path(path), ""
    if target.is_dir():
        what = "it is a folder"
    elif not target.parent.is_dir():
        what = f"there is no folder {str(target.parent)!r}"
    elif path == "-" or (target.exists() and not target.is_file()):
        what = "it is not a file. --json prints to standard output"
    elif target.exists() and target.stat().st_size:
        with target.open("rb") as file:
            what = "" if TABLE.match(file.read(10)) else "it exists, and is not a table of runs. Give another name"
    if what:
        raise click.UsageError(f"cannot write {path!r}: {what}")


def collect(paths: Sequence[str], archived: bool) -> tuple[list["RunSummary"], list[str]]:
    """Return the runs that the arguments mean, each once, and a line about each folder without one."""
    from gpt.runs import find_runs

    found: dict[Path, RunSummary] = {}
    skipped: list[str] = []
    for folder in [named(path) for path in paths] or [RUNS]:
        if not folder.is_dir():  # Nobody has trained here yet.
            continue
        runs, reasons = find_runs(folder, archived=archived)
        found |= {run.path.resolve(): run for run in runs}
        skipped += [reason for reason in reasons if reason not in skipped]
    return list(found.values()), skipped


def named(path: str) -> Path:
    """Return the folder that an argument means: a folder, one below runs/, or that of a file. Raises UsageError."""
    try:
        given = Path(path).expanduser()
        for folder in (given, RUNS / path):
            if folder.is_dir():
                return folder
        if given.is_file():
            return given.parent
    except (OSError, RuntimeError, ValueError) as error:  # A name that is too long, or a user that does not exist.
        raise click.UsageError(f"cannot read {path!r:.80}: {error.args[-1]}") from None
    names = [folder.name for folder in RUNS.iterdir() if folder.is_dir()] if RUNS.is_dir() else []
    near = get_close_matches(path, names, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"Give a folder with runs, a run, or its name below {RUNS}/"
    raise click.UsageError(f"there is no folder {path!r:.80}. {hint}")


def ordered(runs: Sequence["RunSummary"], sort: str) -> list["RunSummary"]:
    """Return the runs in the order of --sort; those without a value come last."""
    key, descending = SORTS[sort]
    known = sorted((run for run in runs if key(run) is not None), key=key, reverse=descending)
    return known + [run for run in runs if key(run) is None]


def write_files(
    runs: Sequence["RunSummary"], table: str | None, metrics: str | None, tensorboard: str | None
) -> None:
    """Write what --csv, --metrics and --tensorboard ask for, and print the paths."""
    from gpt.runs import export

    if table is not None:
        export.write_table(runs, Path(table))
        click.echo(f"wrote {table}", err=True)
    if metrics is not None:
        export.write_metrics(runs, Path(metrics))
        click.echo(f"wrote {metrics}", err=True)
    if tensorboard is not None:
        for folder in export.write_tensorboard(runs, Path(tensorboard)):
            click.echo(f"wrote {folder}", err=True)


def report(runs: Sequence["RunSummary"], width: int) -> list[str]:
    """Return the table of the runs, and one of the options that differ, in lines of `width` columns if possible."""
    from gpt.runs import differing_options

    head = ["run", "state", "steps", "val loss", "best", "bits/char", "params", "time", "when"]
    lines = table_lines([head, *(row(run) for run in runs)])
    if not (names := differing_options(runs)):
        return lines
    short = shortened(names)
    columns = [[short[name], *(shown(run.options, name) for run in runs)] for name in names]
    first = ["run", *(run_name(run) for run in runs)]
    lines += ["", "options that differ:"]
    block: list[list[str]] = [first]
    for column in columns:
        taken = sum(max(map(columns_of, c)) + 2 for c in [*block, column]) - 2
        if taken > width and len(block) > 1:
            lines += [*table_lines(list(zip(*block))), ""]
            block = [first]
        block.append(column)
    return lines + table_lines(list(zip(*block)))


def row(run: "RunSummary") -> list[str]:
    """Return the cells of a run."""
    from gpt.model.size import format_si

    last = run.val_loss if run.final_loss is None else run.final_loss
    return [
        run_name(run),
        run.state,
        f"{run.step:,}" + (f"/{run.steps:,}" if run.steps is not None and run.steps != run.step else ""),
        decimals(last),
        "" if run.best_loss is None else f"{run.best_loss:.4f} @ {run.best_step:,}",
        decimals(run.bits_per_char),
        "" if run.parameters is None else format_si(run.parameters, ""),
        duration(run.seconds),
        time.strftime("%Y-%m-%d %H:%M", time.localtime(run.changed)),
    ]


def run_name(run: "RunSummary") -> str:
    """Return what the table calls a run: its folder below runs/, without control characters."""
    path = run.path.relative_to(RUNS) if run.path.is_relative_to(RUNS) else run.path
    text = str(path) if str(path) != "." else run.name
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def decimals(value: float | None) -> str:
    """Return a loss for the table."""
    return "" if value is None else f"{value:.4f}"


def duration(seconds: float) -> str:
    """Return a time in the largest unit of which there are two, such as 95 s, 12 min or 3.4 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def shown(options: dict[str, Any], name: str) -> str:
    """Return the value of an option for the table, with the end of a long path."""
    if name not in options:
        return ""
    value = options[name]
    text = f"{value:g}" if isinstance(value, float) and math.isfinite(value) else str(value)
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return text if len(text) <= 24 else "…" + text[-23:]


def shortened(names: Sequence[str]) -> dict[str, str]:
    """Return the last parts of dotted names; those that two sections have stay whole."""
    last = [name.rpartition(".")[2] for name in names]
    return {name: part if last.count(part) == 1 else name for name, part in zip(names, last, strict=True)}


def table_lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table. Cells that begin with a digit are aligned to the right."""
    widths = [max(map(columns_of, column)) for column in zip(*rows, strict=True)]
    right = [all(cell[:1].isdigit() or not cell for cell in column[1:]) for column in zip(*rows, strict=True)]
    lines = []
    for cells in rows:
        gaps = [" " * (width - columns_of(cell)) for cell, width in zip(cells, widths, strict=True)]
        parts = [gap + cell if r else cell + gap for cell, gap, r in zip(cells, gaps, right, strict=True)]
        lines.append("  ".join(parts).rstrip())
    return lines


def columns_of(text: str) -> int:
    """Return the number of columns that a terminal takes for a text: two for a wide character, none for an accent."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in ("W", "F") else 1 for c in text
    )
