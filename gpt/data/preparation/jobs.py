"""Share a file out among jobs: first the parts of its training split, then those of its validation split."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from gpt.data.dataset import Split
from gpt.data.preparation.cutting import Rule, Source, cut_file
from gpt.data.preparation.units import Job, Survey, survey, unit_documents, unit_text
from gpt.data.text import DataError

LINES = Rule("", False)  # JSON lines are cut after a line, whatever the tokenizer.


def cut_into_jobs(name: str, field: str, val_fraction: float) -> list[Job]:
    """Return the jobs of a file of JSON lines. Raises DataError."""
    source = cut_file(Path(name), name, field, LINES)
    return jobs_of(source, [survey((source, number), False) for number in source.units], val_fraction)


def jobs_of(source: Source, surveys: list[Survey], val_fraction: float) -> list[Job]:
    """Return the parts of a file to encode: its training split, then its validation split."""
    sizes = [found.documents if source.field else found.chars for found in surveys]
    total = sum(sizes)
    if not total:
        raise DataError(f"{source.name!r} is empty. Leave it out")
    border = total - validation_documents(total, val_fraction) if source.field else int(total * (1 - val_fraction))
    jobs: list[Job] = []
    parts: list[tuple[Split, int, int]] = [("train", 0, border), ("val", border, total)]
    for split, first, last in parts:
        start = chars = 0
        for number, (size, found) in enumerate(zip(sizes, surveys)):
            stop = start + size
            a, b = max(first, start), min(last, stop)
            if a < b:
                jobs.append(
                    Job(source, number, split, a - start, b - start, chars, begins=a == 0, ends=b == total,
                        closes=b == last)
                )  # fmt: skip
            start, chars = stop, chars + found.chars
    return jobs


def validation_documents(total: int, val_fraction: float) -> int:
    """Return how many of a file's documents are for validation: one at least, but never all."""
    return min(total - 1, max(1, round(total * val_fraction))) if val_fraction else 0


def texts(jobs: Iterable[Job], after: str = "") -> Iterator[str]:
    """Yield the texts of jobs in pieces. after: what follows each document of JSON lines."""
    for job in jobs:
        if job.source.field:
            documents = enumerate(unit_documents(job.source, job.unit))
            yield from (text + after for place, (_, text) in documents if job.start <= place < job.stop)
        else:
            yield unit_text(job.source, job.unit)[job.start : job.stop]
