"""The table of `info --processes`: what to expect of training on several processes."""

import click

from gpt.config import Config
from gpt.model.scaling import Expectation, Link, counts, expect
from gpt.model.size import format_si

COLUMNS = {
    "processes": 9, "sequences": 11, "sent": 10, "transfers": 11, "not hidden": 12, "sums": 9, "a step": 10,
    "speedup": 9, "efficiency": 12,
}  # fmt: skip


def scaling_text(config: Config, processes: int, link: Link, step_time: float | None) -> str:
    """Return the table, with a line above that says where its times come from, and warnings below.

    step_time: seconds of a step on one process, None to find it out here. Raises UsageError for processes that cannot
    share a batch equally.
    """
    batch_size = config.train.batch_size
    if batch_size % processes:
        raise click.UsageError(
            f"--processes {processes}: expected a number that divides the batch size, which is {batch_size}. "
            "--batch-size changes it"
        )
    from gpt.train.step_time import copy_rate, find_step_times

    numbers = counts(processes, batch_size)
    times, rate = find_step_times(config, numbers, step_time), copy_rate()
    rows = [expect(config, n, times.passes(batch_size // n), link, rate) for n in numbers]
    first = rows[0].step
    lines = [
        f"training on several processes, {format_si(8 * link.bandwidth, 'bit/s')} each way, latency "
        f"{format_time(link.latency) if link.latency else '0'}; the time of a step: {times.source}",
        "",
        "".join(f"{name:>{width}}" for name, width in COLUMNS.items()),
        *(row_text(row, first) for row in rows),
    ]
    warnings = [text for row in rows[1:] if (text := warning(row, first))]
    return "\n".join([*lines, *([""] if warnings else []), *warnings])


def row_text(row: Expectation, first: float) -> str:
    """Return the row of a number of processes. first: seconds of a step on one."""
    speedup = first / row.step
    cells = [
        f"{row.processes}", f"{row.sequences}", format_si(row.sent, "B") if row.sent else "-",
        *(format_time(seconds) for seconds in (row.transfer, row.exposed, row.sums, row.step)), f"{speedup:.2f}",
        f"{100 * speedup / row.processes:.0f}%",
    ]  # fmt: skip
    return "".join(f"{cell:>{width}}" for cell, width in zip(cells, COLUMNS.values(), strict=True))


def warning(row: Expectation, first: float) -> str:
    """Return a line for a number of processes that does not pay, or whose link is the limit; else an empty string."""
    what = f"the transfers take {format_time(row.transfer)}, the computation {format_time(row.computation)}"
    if row.step >= first:
        return f"warning: {row.processes} processes are slower than one: {what}"
    if row.transfer > row.computation:
        return f"warning: {row.processes} processes wait for the link: {what}"
    return ""


def format_time(seconds: float) -> str:
    """Return a time with three digits, such as 1.23 ms, and a dash for 0."""
    if not seconds:
        return "-"
    for factor, unit in ((1e-6, "us"), (1e-3, "ms")):
        if seconds < 999.5 * factor:
            return f"{seconds / factor:.3g} {unit}"
    return f"{seconds:,.0f} s" if seconds >= 999.5 else f"{seconds:.3g} s"
