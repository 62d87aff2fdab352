"""Write the README's table of speed from results files, so that every number in it is a measured one.

    python benchmarks/readme_table.py             the newest results of one machine
    python benchmarks/readme_table.py FILE ...    these results files

Run it after `make bench` and commit the README together with the new files in benchmarks/results. A test compares the
table with the files that it links to.
"""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

RESULTS = Path(__file__).with_name("results")
README = Path(__file__).resolve().parents[1] / "README.md"
BEGIN, END = "<!-- written by benchmarks/readme_table.py -->\n", "<!-- end of the table -->"
KINDS = ("step", "speedrun", "generate")  # against PyTorch
LLM = "llm"  # against llama.cpp; this file may be absent

Row = tuple[str, str, str, str, str]
"""What was measured; tensorlite's and PyTorch's time; the ratio of medians and that of minima."""


def sections(text: str) -> dict[str, list[str]]:
    """Return the lines of each shape's table."""
    parts = re.split(r"^shape (\S+): ", text, flags=re.MULTILINE)
    return {shape: part.splitlines()[1:] for shape, part in zip(parts[1::2], parts[2::2], strict=True)}


def columns(lines: list[str], row: str) -> dict[str, float]:
    """Return the numbers of a row by the names of their columns. A name that occurs twice has its first number.

    A column without a number has a dash.
    """
    names = re.split(r" {2,}", lines[0].strip())[1:]
    (line,) = [line for line in lines if re.match(rf"{row} ", line)]
    found: dict[str, float] = {}
    for name, value in zip(names, line.split()[1:], strict=False):
        if value != "-":
            found.setdefault(name, float(value))
    return found


def ratios(lines: list[str], label: str = "ratio") -> tuple[str, str]:
    """Return the ratio of medians and the ratio of minima of a table, as text."""
    (line,) = [line for line in lines if line.startswith(f"{label} ")]
    minimum, median = line.split()[1:3]
    return f"{float(median):.2f}", f"{float(minimum):.2f}"


def opponent(lines: list[str], label: str) -> str:
    """Return the side that a ratio is against. Files before bfloat16 was measured have PyTorch eager alone."""
    found = re.search(rf"^{label} .+ is better than ([\w-]+)", "\n".join(lines), re.MULTILINE)
    return found[1] if found else "torch"


def format_ms(milliseconds: float) -> str:
    """Return a time with three digits."""
    digits = 3 if milliseconds < 1 else 2 if milliseconds < 2 else 1 if milliseconds < 100 else 0
    return f"{milliseconds:.{digits}f} ms"


def compare(lines: list[str], what: str, column: str, other: str = "torch") -> Row:
    """Return the row of a column: its own ratio, or for a median both ratios of the table."""
    ours, theirs = (columns(lines, side)[column] for side in ("tensorlite", other))
    if column == "median":
        return what, format_ms(ours), format_ms(theirs), *ratios(lines)
    return what, format_ms(ours), format_ms(theirs), f"{ours / theirs:.2f}", ""


STEPS = {
    "S": "a training step, 3 layers, 48 wide (S)",
    "M": "a training step, 4 layers, 128 wide (M): `make train`",
    "L": "a training step, 6 layers, 384 wide (L)",
}


def step_rows(text: str) -> Iterator[Row]:
    """Yield the rows of the training steps, each against the faster of PyTorch eager and torch.compile."""
    shapes = sections(text)
    variants = [
        ("ratio", "", ""), ("ratio-compile", "-compile", ", by `tl.compile`"), ("ratio-bf16", "-bf16", ", in bfloat16"),
    ]  # fmt: skip
    for label, suffix, dtype in variants:
        for shape, what in STEPS.items():
            lines = shapes[shape]
            if not any(line.startswith(f"{label} ") for line in lines) or (shape == "L" and suffix == "-compile"):
                continue  # a step of L spends little of its time in Python
            theirs = opponent(lines, label)
            against = "; against `torch.compile`" if "compile" in theirs else ""
            ours = columns(lines, f"tensorlite{suffix}")
            other = columns(lines, theirs)
            times = format_ms(ours["median"]), format_ms(other["median"])
            yield f"{what}{dtype}{against}", *times, *ratios(lines, label)
            if shape == "L":
                name, value = "peak MiB", ours["peak MiB"] / other["peak MiB"]
                yield "its peak memory", f"{ours[name]:.0f} MiB", f"{other[name]:.0f} MiB", f"{value:.2f}", ""


def speedrun_rows(text: str) -> Iterator[Row]:
    """Yield the row of the training runs."""
    seeds = re.search(r"; (\d+) seeds", text)[1]  # type: ignore[index]
    ours, theirs = (re.search(rf"^{side} +(\S+ s),", text, re.MULTILINE)[1] for side in ("tensorlite", "torch"))  # type: ignore[index]
    ratio = float(re.search(r"^ratio +(\S+)", text, re.MULTILINE)[1])  # type: ignore[index]
    what = f"training to nanoGPT's loss on Shakespeare (`shakespeare-speedrun`; its recipe on PyTorch), {seeds} seeds"
    minimum = re.search(r"^ratio .* minimum (\S+),", text, re.MULTILINE)
    yield what, ours, theirs, f"{ratio:.2f}", f"{float(minimum[1]):.2f}" if minimum else ""


def generate_rows(text: str) -> Iterator[Row]:
    """Yield the rows of the tokens and the prompt."""
    shapes = sections(text)
    yield compare(shapes["M"], "a token of the model of `make train`, batch 1, with cached keys and values", "median")
    yield compare(shapes["gpt2"], "a token of a model of GPT-2's shape", "median")
    yield compare(shapes["M"], "a prompt of 16 tokens, of the model of `make train`", "ms a prompt")


def llm_rows(text: str) -> Iterator[Row]:
    """Yield the rows of the language models, against the faster side of llama.cpp, which the ratio's line names."""
    shapes = sections(text)
    for shape, what in (
        ("smollm2", "a token of SmolLM2-135M in 4 bits (Q4_1), batch 1"),
        ("smollm2-prompt", "a prompt of 400 tokens of it"),
        ("gpt2-int8", "a token of a model of GPT-2's shape in 8 bits (Q8_0)"),
        ("gpt2-int8-prompt", "a prompt of 400 tokens of it"),
    ):
        if shape in shapes:
            faster = re.search(r"^ratio .+ faster than ([\w-]+)", "\n".join(shapes[shape]), re.MULTILINE)
            assert faster is not None
            yield compare(shapes[shape], what, "median", faster[1])


ROWS = {"step": step_rows, "speedrun": speedrun_rows, "generate": generate_rows}


def kind(path: Path) -> str:
    """Return which benchmark wrote a results file."""
    return path.name.partition("-")[0]


def describe(text: str) -> list[str]:
    """Return the sentences that say what the results were measured on, from a file's header."""
    processor = re.match(r"\w+ \S+, (.+?), (\d+ cores), ", text)
    assert processor is not None
    lines = [f"Measured on {processor[1]}, {processor[2]}."]
    kernels = re.search(r"^numpy .+ kernels (\w+)$", text, re.MULTILINE)
    if kernels:
        lines.append(f"There, NumPy's OpenBLAS uses its {kernels[1]} kernels.")
    products = re.findall(r"^product of .+ (float32|bfloat16): (.+)$", text, re.MULTILINE)
    for dtype, cells in products:
        rates = dict(re.findall(r"(\w+) (\d+) GFLOP/s", cells))
        ours = rates.get("tensorlite") or rates["NumPy"]
        name = "tensorlite" if "tensorlite" in rates else "NumPy"
        if "torch" in rates:
            what = "A product of large matrices" if dtype == "float32" else "One in bfloat16"
            lines.append(f"{what} runs at {ours} GFLOP/s in {name}, and {rates['torch']} in PyTorch.")
    if "DISTURBED" in text:
        lines.append("**Other processes used the machine during this measurement, so the medians do not hold.**")
    return lines


def make_table(paths: list[Path]) -> str:
    """Return the README's text between the two marks."""
    texts = {kind(path): path.read_text("utf-8") for path in paths}
    links = [f"[`{kind(path)}`](benchmarks/results/{path.name})" for path in paths]
    heading = "| what | tensorlite | {} | ratio of medians | ratio of minima |"
    lines = [
        *describe(texts["step"]),
        "The files with all numbers are",
        *(f"{link}{'.' if link == links[-1] else ','}" for link in links),
        "",
        heading.format("PyTorch"),
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [f"| {' | '.join(row)} |" for name in KINDS for row in ROWS[name](texts[name])]
    if LLM in texts:
        lines += [
            "",
            "The next table compares with the faster of two builds of llama.cpp, on the same file:",
            "",
            heading.format("llama.cpp"),
            "| --- | --- | --- | --- | --- |",
            *(f"| {' | '.join(row)} |" for row in llm_rows(texts[LLM])),
        ]
    return "\n".join(lines) + "\n"


def newest() -> list[Path]:
    """Return the newest results of each kind that there is, of the machine that has the newest step results.

    Results with OPENBLAS_CORETYPE set do not count, because the name of their machine is longer.
    """
    machine = max(RESULTS.glob("step-*.txt"), key=lambda path: (path.name[5:15], -len(path.name))).name[16:]
    found = {name: sorted(RESULTS.glob(f"{name}-????-??-??-{machine}")) for name in (*KINDS, LLM)}
    return [paths[-1] for paths in found.values() if paths]


def read_table(readme: str) -> str:
    """Return the text between the two marks in the README."""
    return readme.partition(BEGIN)[2].partition(END)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", metavar="FILE", nargs="*", type=Path, help="one file of a kind; llm may be absent")
    paths = parser.parse_args().files or newest()
    if sorted(name for name in map(kind, paths) if name != LLM) != sorted(KINDS):
        parser.error(f"expected one file of each of {', '.join(KINDS)}, got {', '.join(map(str, paths))}")
    readme = README.read_text("utf-8")
    before, begin, rest = readme.partition(BEGIN)
    README.write_text(before + begin + make_table(sorted(paths, key=lambda path: (*KINDS, LLM).index(kind(path)))) + END
                      + rest.partition(END)[2], "utf-8")  # fmt: skip
    print(f"written to {README} from {', '.join(path.name for path in paths)}")


if __name__ == "__main__":
    main()
