"""Prepare a folder of tokens from texts, in several processes. A run that was interrupted continues where it was."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from gpt import tokenizer as tokenizers
from gpt.config import JSON_LINES, DataConfig
from gpt.data.preparation.cutting import UNIT, Rule, Source
from gpt.data.preparation.jobs import jobs_of, texts
from gpt.data.preparation.units import Job, Survey, cut, encode, survey
from gpt.data.preparation.workers import Workers
from gpt.data.preparation.writer import TokenWriter
from gpt.data.text import DATASETS, DataError, fetch_text, is_pipe
from gpt.data.token_folder import INDEX, PROGRESS, SPLITS, Index, ends_file, read_index, read_json, tokens_file, verify
from gpt.data.vocabulary import fingerprint, read_vocabulary, token_dtype, write_vocabulary
from gpt.errors import extra, short
from gpt.tokenizer import Tokenizer
from gpt.tokenizer.kinds import tokenizer_class

LOCK = ".lock"
Done = Callable[[int, int], object]


@dataclass(frozen=True)
class Prepared:
    """The folder that `prepare` has made. new: whether anything was to be done; continued: whether it went on."""

    folder: Path
    index: Index
    new: bool
    continued: bool


def prepare(
    files: Sequence[str | Path],
    folder: str | Path,
    *,
    tokenizer: str | Tokenizer = "char",
    bpe_vocab_size: int = DataConfig.bpe_vocab_size,
    field: str = "text",
    val_fraction: float = DataConfig.val_fraction,
    processes: int = 1,
    done: Done | None = None,
    unit: int = UNIT,
) -> Prepared:
    """Encode texts into a folder of tokens, which `gpt train --data FOLDER` maps into memory; see `token_folder`.

    files: UTF-8 texts, each one document; or JSON lines, whose names end with .jsonl or .ndjson, each line an object
        with a document in its `field`. The last `val_fraction` of the characters of each text, and of the documents of
        each file of JSON lines, is for validation.
    tokenizer: a kind of `gpt.config.TOKENIZERS`, which is made for these texts, or one that exists. A token that ends a
        text comes after each document, if the tokenizer has one.
    processes: how many encode. The folder has the same bytes for any number of them.
    done: a function that is called with the bytes that are encoded and those of all files.
    unit: bytes of a file that a process encodes at once. The folder has the same tokens for any number.

    A run that was interrupted leaves a folder that is not whole; the same call continues it, to the same bytes. A whole
    folder of the same files and options is verified and left as it is.

    Raises DataError for files that cannot be used and for a folder of other files, TokenizerError and DownloadError.
    With several processes, a program calls this under `if __name__ == "__main__"`, because they import it.
    """
    options = DataConfig(
        tokenizer=tokenizer if isinstance(tokenizer, str) else tokenizer.kind, bpe_vocab_size=bpe_vocab_size,
        val_fraction=val_fraction,
    )  # fmt: skip
    if tokenizer == "huggingface":
        raise DataError("prepare: the tokenizer 'huggingface' comes with a model. Give that model as the tokenizer")
    folder = Path(folder)
    given = [checked(name, field) for name in files]
    if not given:
        raise DataError("prepare: expected at least one file, got none. Name UTF-8 texts or files of JSON lines")
    if processes < 1:
        raise DataError(f"prepare: expected 1 process or more, got {processes}")
    with locked(folder), Workers(processes) as workers:
        progress = read_json(folder / PROGRESS) if (folder / PROGRESS).exists() else None
        if progress is not None:
            unit = checked_unit(folder, progress.get("unit"))
        of = tokenizer_class(options.tokenizer) if isinstance(tokenizer, str) else tokenizer
        rule = Rule(of.cuts_before, of.by_character)
        sources = list(workers.in_order(partial(cut, rule=rule, unit=unit), given))
        plan = plan_of(sources, options, None if isinstance(tokenizer, str) else tokenizer)
        if (folder / INDEX).exists():
            return Prepared(folder, unchanged(folder, plan), False, False)
        if progress is None:
            refuse_other_files(folder)
        else:
            compare(folder, progress.get("plan"), plan, "has an unfinished preparation of")
        of_all = workers.in_order(
            partial(survey, with_characters=options.tokenizer == "char" and progress is None),
            [(source, number) for source in sources for number in source.units],
        )
        surveys = [[next(of_all) for _ in source.units] for source in sources]
        jobs = [job for source, found in zip(sources, surveys) for job in jobs_of(source, found, val_fraction)]
        if progress is not None:
            made = read_vocabulary(folder, str(progress.get("vocabulary")))
        else:
            made = build(options, jobs, surveys) if isinstance(tokenizer, str) else tokenizer
            write_vocabulary(folder, made)
        index = write(folder, made, plan, unit, jobs, progress, workers, done, val_fraction)
    return Prepared(folder, index, True, progress is not None)


def checked(name: str | Path, field: str) -> tuple[Path, str, str]:
    """Return the path of a file, its name, and the field of its documents, "" for a text. Raises DataError."""
    if str(name) in DATASETS:
        return fetch_text(str(name)), str(name), ""
    path = Path(name)
    if is_pipe(path):
        raise DataError(f"{str(name)!r} is a pipe, and a text is read several times. Save it in a file first")
    if path.is_dir():
        raise DataError(f"{str(name)!r} is a folder. Name the files in it, such as {str(path / '*.txt')!r}")
    lines = path.suffix.lower() in JSON_LINES
    if lines and not field:
        raise DataError(f"{str(name)!r} has JSON lines. Name the field with the text of a document: --field")
    return path, str(name), field if lines else ""


def checked_unit(folder: Path, unit: object) -> int:
    """Return the size of units in a record of the progress. Raises DataError."""
    if type(unit) is not int or unit < 1:
        raise DataError(f"{str(folder / PROGRESS)!r} is damaged. Write elsewhere with --out, or delete {str(folder)!r}")
    return unit


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Context manager that makes a folder, and keeps other processes from preparing it. Raises DataError."""
    with extra():
        from filelock import FileLock, Timeout

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / LOCK, timeout=0.5):
            try:
                yield
            finally:
                with contextlib.suppress(OSError):  # Windows does not delete an open file.
                    (folder / LOCK).unlink()
    except Timeout:
        raise DataError(f"another process prepares {str(folder)!r}. Wait until it is done") from None
    except OSError as error:
        raise DataError(f"cannot write to {str(folder)!r}: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):  # A folder with files in it stays.
            folder.rmdir()


def plan_of(sources: list[Source], options: DataConfig, tokenizer: Tokenizer | None) -> dict[str, Any]:
    """Return what decides the content of a folder: the content of the files, and the options."""
    learned = options.tokenizer == "bpe" and tokenizer is None
    return {
        "sources": [
            {"name": s.name, "field": s.field, "bytes": s.size, "sha256": s.sha256} for s in sources
        ],
        "tokenizer": options.tokenizer if tokenizer is None else fingerprint(tokenizer),
        "bpe_vocab_size": options.bpe_vocab_size if learned else None,
        "val_fraction": options.val_fraction,
    }  # fmt: skip


def compare(folder: Path, old: Any, new: dict[str, Any], has: str) -> None:
    """Raise DataError, with the first difference, if a folder was made by another plan."""
    then = f"Write elsewhere with --out, or delete {str(folder)!r}"
    sources = old.get("sources") if isinstance(old, dict) else None
    whole = isinstance(sources, list) and all(isinstance(source, dict) for source in sources)
    if not whole or old.keys() != new.keys():
        raise DataError(f"{str(folder / PROGRESS)!r} is damaged. {then}")
    if len(old["sources"]) != len(new["sources"]):
        raise DataError(f"{str(folder)!r} {has} {len(old['sources'])} files, got {len(new['sources'])}. {then}")
    for before, now in zip(old["sources"], new["sources"]):
        changed = [key for key in ("sha256", "field") if before.get(key) != now[key]]
        if changed == ["field"]:
            raise DataError(
                f"{str(folder)!r} {has} the field {before['field']!r} of {now['name']!r}, got {now['field']!r}. {then}"
            )
        if changed:
            same = before.get("name") == now["name"]
            what = f"{now['name']!r} as it was before it changed" if same else f"{before.get('name')!r}"
            raise DataError(f"{str(folder)!r} {has} {what}, got {now['name']!r}. {then}")
    for key in ("tokenizer", "bpe_vocab_size", "val_fraction"):
        if old[key] != new[key]:
            raise DataError(f"{str(folder)!r} {has} {key} = {short(old[key])}, got {short(new[key])}. {then}")


def unchanged(folder: Path, plan: dict[str, Any]) -> Index:
    """Return the index of a folder that is whole, after verifying it. Raises DataError if its plan is another one."""
    index = read_index(folder)
    compare(folder, index.plan, plan, "has")
    verify(folder, index)
    (folder / PROGRESS).unlink(missing_ok=True)  # A process that was killed after its last write leaves it.
    return index


def refuse_other_files(folder: Path) -> None:
    """Raise DataError if a folder has files of the names that would be written, of which nothing is known."""
    names = [tokens_file(s) for s in SPLITS] + [ends_file(s) for s in SPLITS]
    if found := next((name for name in names if (folder / name).exists()), None):
        raise DataError(f"{str(folder)!r} has a file {found!r} already, which is not ours. Write elsewhere with --out")


def build(options: DataConfig, jobs: list[Job], surveys: list[list[Survey]]) -> Tokenizer:
    """Return a new tokenizer for the texts; one that learns from them reads the training split only."""
    found = chain.from_iterable(surveys)
    characters = "".join(sorted(set().union(*(part.characters for part in found))))
    return tokenizers.build(characters, texts((job for job in jobs if job.split == "train"), "\n"), options)


def write(
    folder: Path, tokenizer: Tokenizer, plan: dict[str, Any], unit: int, jobs: list[Job],
    progress: dict[str, Any] | None, workers: Workers, done: Done | None, val_fraction: float,
) -> Index:  # fmt: skip
    """Encode the jobs that are still to be done, write the arrays and the index, and return that."""
    vocabulary = fingerprint(tokenizer)
    try:
        writer = TokenWriter(folder, token_dtype(tokenizer), plan, unit, vocabulary, progress)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{str(folder / PROGRESS)!r} is damaged. Delete the folder, and prepare it again") from None
    with contextlib.closing(writer):
        encoding = partial(encode, folder=folder, sha256=vocabulary)
        total = sum(source_bytes(job) for job in jobs)
        count = sum(source_bytes(job) for job in jobs[: writer.done])
        rest = jobs[writer.done :]
        try:
            for job, encoded in zip(rest, workers.in_order(encoding, rest)):
                writer.append(job.split, encoded)
                count += source_bytes(job)
                if done is not None:
                    done(count, total)
        except BaseException:  # The next call continues here.
            writer.save()
            raise
        return writer.finish(tokenizer, val_fraction)


def source_bytes(job: Job) -> int:
    """Return the bytes of a job's unit."""
    start, stop = job.source.borders[job.unit : job.unit + 2]
    return stop - start
