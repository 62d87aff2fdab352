"""Run the experiments in examples/ whole, one after the other, and write their results as tables.

    python benchmarks/run_examples.py              all of them; `make examples`
    python benchmarks/run_examples.py 07 12        these alone
    python benchmarks/run_examples.py --save       write the tables into benchmarks/results instead of build
    python benchmarks/run_examples.py --docs       copy the newest tables of each example into docs/applications.md

Run it on a machine that does nothing else, because the tables name the seconds.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from environment import RESULTS, describe_environment, saved

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENTS = sorted((ROOT / "examples").glob("[0-9][0-9]_*.py"))[6:]  # The first six are lessons.
PAGE = ROOT / "docs" / "applications.md"
SECTION = re.compile(r"^## (\d\d_\w+): .*\n\n(\|(?:.*\n)+?)(?=\n|\Z)", re.MULTILINE)


def number(value: float) -> str:
    """Return a number as text: whole numbers as they are, others with four digits."""
    return f"{value:,.0f}" if value == int(value) else f"{value:.4g}"


def table(results: list[dict[str, str | float]]) -> str:
    """Return the results of an example as a table in Markdown."""
    lines = ["| result | value | baseline |", "| --- | --- | --- |"]
    for row in results:
        value = f"{number(float(row['value']))} {row['unit']}".strip()
        baseline = f"{number(float(row['baseline']))} ({row['baseline_name']})" if "baseline" in row else ""
        lines.append(f"| {row['name']} | {value} | {baseline}{' ' if baseline else ''}|")
    return "\n".join(lines)


def run(path: Path, folder: Path, quick: bool) -> bool:
    """Run an example in a folder, print its table, and return whether it ended well."""
    file = folder / "results.json"
    command = [sys.executable, str(path), "--results", str(file), *(["--quick"] if quick else [])]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        print(f"\n## {path.stem}: failed\n\n{done.stderr}", flush=True)
        return False
    found = json.loads(file.read_text("utf-8"))
    print(f"\n## {path.stem}: {found['seconds']:.0f} s\n\n{table(found['results'])}", flush=True)
    return True


def newest_tables() -> dict[str, str]:
    """Return the newest saved table of each example, by the stem of its file."""
    tables: dict[str, str] = {}
    for path in sorted(RESULTS.glob("examples-*.txt")):  # The date is in the name.
        tables |= dict(SECTION.findall(path.read_text("utf-8")))
    return tables


def with_tables(page: str, tables: dict[str, str]) -> str:
    """Return the page with the table of each example between its two markers."""

    def replace(match: re.Match[str]) -> str:
        return f"{match[1]}{tables.get(match[2], '')}{match[3]}"

    return re.sub(r"(<!-- results of (\w+) -->\n)(?:\|.*\n)*(<!-- end -->)", replace, page)


def main() -> None:
    """Run the examples that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("numbers", nargs="*", metavar="NUMBER", help="07, 08, ...; all if not given")
    parser.add_argument("--quick", action="store_true", help="small experiments, to see that they run")
    parser.add_argument("--save", action="store_true", help="write the tables into benchmarks/results")
    parser.add_argument("--docs", action="store_true", help="copy saved tables into docs/applications.md")
    arguments = parser.parse_args()
    if arguments.docs:
        PAGE.write_text(with_tables(PAGE.read_text("utf-8"), newest_tables()), encoding="utf-8")
        return
    known = {path.name[:2]: path for path in EXPERIMENTS}
    if unknown := [number for number in arguments.numbers if number not in known]:
        parser.error(f"expected numbers of {', '.join(known)}, got {', '.join(unknown)}")
    chosen = [known[number] for number in arguments.numbers or known]
    with saved("examples", True, RESULTS if arguments.save else ROOT / "build"), TemporaryDirectory() as folder:
        print(describe_environment())
        ended = [run(path, Path(folder), arguments.quick) for path in chosen]
    if not all(ended):
        sys.exit(1)


if __name__ == "__main__":
    main()
