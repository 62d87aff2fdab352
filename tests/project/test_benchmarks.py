"""Test that the benchmarks run and print their tables. Speed is not tested."""

import importlib
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEADER = [
    r"^\w+ \S+, .+, \d+ cores, load ",
    r"^instruction sets: \w",
    r"^Python \d.+, tensorlite \d\S+ (at|of) .+",
    r"^numpy \d\S+: .+, kernels \w",
    r"^environment variables: \S",
    r"^product of 256 x 256 float32: NumPy \d+ GFLOP/s with \d+ threads; tensorlite \d+ GFLOP/s with \d+ threads",
    r"^memory: \d+\.\d GB/s, read by \d+ threads$",
    r"^100% is \d+ GFLOP/s in float32, .*the fastest product, or \d+\.\d GB/s$",
    r"^in the whole run, (other processes used \d+\.\d% of the cores, the hypervisor|what other processes used is)",
]


def run(name: str, *args: str, header: list[str] = HEADER) -> str:
    command = [sys.executable, "-W", "error", str(ROOT / "benchmarks" / name), *args]
    # One thread, because the idle threads of PyTorch would spin on the cores of the other test processes.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for line in header:
        assert re.search(line, done.stdout, re.MULTILINE), (line, done.stdout)
    return done.stdout


def assert_compared(output: str, differ: str, unit: str) -> None:
    """Assert that there is a table of both sides, and that their results differ only by rounding."""
    for side in ("tensorlite", "torch", "ratio"):
        assert re.search(rf"^{side} +\d+\.\d+ +\d+\.\d+", output, re.MULTILINE), output
    assert "the ratio of medians in a round was from" in output
    assert re.search(r"^torch 2\.\S+: .+; oneDNN .+; vector code \w+", output, re.MULTILINE), output
    assert float(re.search(rf"{differ} (\S+) {unit}", output, re.MULTILINE)[1]) <= 1e-4


def test_both_libraries_compute_the_same_step():
    pytest.importorskip("torch")
    output = run("bench_step.py", "--quick", "--shape", "S", "--rounds", "1")
    assert "shape S: 3 layers, 3 heads, 48 wide, context 32, batch 16" in output
    assert_compared(output, "losses in float32 differ from tensorlite's by at most", "nats")
    assert re.search(r"^ratio .+ tensorlite is better than torch\)$", output, re.MULTILINE)
    assert "torch-compile is left out: " in output
    if importlib.util.find_spec("ml_dtypes"):
        assert re.search(r"^product of 256 x 256 bfloat16: tensorlite \d+ .+; torch \d+ ", output, re.MULTILINE)
        assert re.search(r"^ratio-bf16 .+ tensorlite-bf16 is better than torch-bf16\)$", output, re.MULTILINE)
        assert re.search(r"^ratio-own .+ tensorlite-bf16 is better than tensorlite\)$", output, re.MULTILINE)
        apart = float(re.search(r"losses in bfloat16 differ from tensorlite's by at most (\S+) nats", output)[1])
        assert 0 < apart <= 0.02


def test_one_library_is_measured_alone():
    pytest.importorskip("torch")
    output = run("bench_step.py", "--quick", "--shape", "S", "--rounds", "1", "--only", "tensorlite")
    assert re.search(r"^tensorlite +\d", output, re.MULTILINE)
    assert not re.search("^ratio", output, re.MULTILINE)


@pytest.fixture
def bench(monkeypatch):
    """Import a module of the benchmarks."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module


def test_the_faster_opponent_counts(bench, capsys):
    """In each measure, a ratio is against the side that is the fastest in it."""
    step = bench("bench_step")

    def side(*times):
        found = step.Measured.__new__(step.Measured)
        found.blocks, found.memory, found.losses = [list(times)], 100.0, [1.0, 2.0]
        return found

    sides = {"tensorlite": side(4.0, 5.0, 6.0), "torch": side(3.0, 9.0, 9.0), "torch-compile": side(5.0, 8.0, 9.0)}
    step.print_ratios(sides)
    output = capsys.readouterr().out
    assert re.search(r"^ratio +1\.333 +0\.625 .+ better than torch-compile \(minima: torch\)\)$", output, re.MULTILINE)
    assert "bf16" not in output
    near = {"tensorlite": [1.0, 2.0], "torch": [1.0, 2.00005], "torch-bf16": [1.015, 2.0]}
    assert step.compare_losses(near)
    assert not step.compare_losses(near | {"torch-compile": [1.0, 2.001]})
    assert not step.compare_losses(near | {"torch-bf16": [1.0, float("nan")]})
    assert "MORE THAN 0.0001, NO RESULT" in capsys.readouterr().out


def test_a_busy_machine_is_noticed(bench, tmp_path):
    """What neither this process nor its descendants used, others used."""
    disturbance = bench("disturbance")

    def ticks(busy, idle, stolen, processes):
        (tmp_path / "stat").write_text(f"cpu  {busy} 0 0 {idle} 0 0 0 {stolen} 0 0\ncpu0 1 1 1 1\n")
        for pid, (parent, used) in processes.items():
            (tmp_path / str(pid)).mkdir(exist_ok=True)
            (tmp_path / str(pid) / "stat").write_text(f"{pid} (a (b) c) S {parent} " + "0 " * 9 + f"{used} 1 2 3 0 0")
        return disturbance.read_ticks(tmp_path, 10)

    first = ticks(1000, 1000, 0, {10: (1, 100), 11: (10, 50), 12: (11, 10), 99: (1, 500)})
    assert first == (2000, 1000, 0, 100 + 50 + 10 + 3 * 6)
    second = ticks(1150, 1040, 10, {10: (1, 150), 11: (10, 80), 12: (11, 30), 99: (1, 550)})
    busy = disturbance.Disturbance()
    busy.before = 0.0, first
    busy.end(1.0, second)  # of 200 ticks, 150 were busy, of which 100 were our own
    assert busy.mean(1) == pytest.approx(0.25)
    assert busy.mean(2) == pytest.approx(0.05)
    assert busy.describe().startswith("other processes used 25.0% of the cores, the hypervisor 5.0%: DISTURBED")
    quiet = disturbance.Disturbance()
    quiet.before = 0.0, first
    quiet.end(1.0, ticks(1100, 1100, 0, {10: (1, 196), 99: (1, 500), 11: (10, 50), 12: (11, 10)}))
    assert quiet.describe() == "other processes used 2.0% of the cores, the hypervisor 0.0%"
    assert disturbance.read_ticks(tmp_path / "none") is None
    assert "unknown" in disturbance.Disturbance().describe()


def test_a_step_is_measured_under_load():
    output = run("bench_load.py", "--quick", "--shape", "S", "--only", "tensorlite", header=[*HEADER[:5], HEADER[-1]])
    rows = re.findall(r"^(\S.+?) {2,}\d+\.\d\d +\d+\.\d\d +\d+\.\d\d +\d+\.\d\d +\d+\.\d\d", output, re.MULTILINE)
    assert rows == ["quiet", "one other busy process", "two Python threads train",
                    "OPENBLAS_NUM_THREADS=1, OMP_NUM_THREADS=1"]  # fmt: skip


def test_both_libraries_compute_the_same_logits():
    pytest.importorskip("torch")
    output = run("bench_generate.py", "--quick", "--shape", "M", "--texts", "1", "--tokens", "3")
    assert "shape M: 4 layers, 4 heads, 128 wide, context 64, vocabulary 65, batch 1; 1 texts each" in output
    assert_compared(output, "logits differ by at most", "of the largest")


def test_the_tables_of_op_times():
    output = run("bench_ops.py", "--quick", "--number", "1", "--rounds", "1")
    small, large = output.split("activations of 12 x 64 tokens")
    rows = re.findall(r"^(add|multiply|sin|tanh|matmul) +(forward|recorded|backward) +(.+)$", small, re.MULTILINE)
    assert len(rows) == 15
    for _, kind, numbers in rows:
        times = re.findall(r"(\d+\.\d+) +\((\d+\.\d+)\)", numbers)
        assert len(times) >= (2 if kind == "forward" else 1)  # NumPy is timed forward only
        for low, median in times:
            assert 0 < float(low) <= float(median)
    rows = re.findall(r"^([a-z_]+) +(forward|both) +(.+) (peak|memory)$", large, re.MULTILINE)
    assert len(rows) == 24
    for op, kind, numbers, limit in rows:
        sides = re.findall(r"(\d+) +\((\d+)\)", numbers)
        assert len(sides) >= (2 if kind == "forward" and op != "gelu" else 1)  # NumPy has no GELU
        for low, median in sides:
            assert 0 < int(low) <= int(median)
        assert (limit == "peak") == (op in ("linear", "attention"))


def test_the_operations_of_a_gpt(monkeypatch):
    """Every token is multiplied by all matrices of the model, except the position embedding."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from gpt_cost import forward_flops, product_weights, prompt_flops, step_flops, token_bytes

    from gpt.config import ModelConfig
    from gpt.model import GPT

    config = ModelConfig(vocab_size=11, block_size=5, n_layer=2, n_head=3, n_embd=12, bias=False)
    parameters = dict(GPT(config).named_parameters())
    matrices = sum(p.numel() for name, p in parameters.items() if p.ndim == 2 and "wpe" not in name)
    assert product_weights(config) == matrices
    assert token_bytes(config) == 4 * (sum(p.numel() for p in parameters.values()) - 4 * 12)
    # Each of two layers computes a score and adds a value, 12 numbers each, for all pairs of positions i >= j.
    assert forward_flops(config, 0, 5) == 2 * 5 * matrices + 2 * 2 * (2 * 12) * 15
    assert forward_flops(config, 0, 3) + forward_flops(config, 3, 5) == forward_flops(config, 0, 5)
    assert step_flops(config, 7) == 3 * 7 * forward_flops(config, 0, 5)
    assert prompt_flops(config, 5) == forward_flops(config, 0, 5) - 4 * 2 * 11 * 12


def test_the_readme_table_is_copied_from_results(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from readme_table import README, make_table, read_table

    table = read_table(README.read_text("utf-8"))
    paths = [ROOT / name for name in re.findall(r"\((benchmarks/results/\S+\.txt)\)", table)]
    assert table == make_table(paths)
    rows = {"step": 10, "speedrun": 1, "generate": 3, "llm": 4}
    assert table.count("\n|") == sum(rows[path.name.partition("-")[0]] for path in paths) + 2 * (1 + (len(paths) == 4))


def test_a_language_model_is_measured(monkeypatch):
    """llama.cpp is measured where it is installed, and has to compute the same."""
    output = run("bench_llm.py", "--quick", header=HEADER[:5])
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from llm_sides import SIDES, installed
    from readme_table import columns, compare, sections

    tables = sections(output)
    assert list(tables) == ["tiny", "tiny-prompt", "tiny-batch"]
    for shape in ("tiny", "tiny-prompt"):
        for name in installed():
            row = columns(tables[shape], name)
            assert 0 < row["minimum"] <= row["median"]
    assert columns(tables["tiny-batch"], "tensorlite")["gain"] > 0
    for name in SIDES.keys() - set(installed()):
        assert f"{name} is left out: pip install" in output
    values = re.search(r"^perplexity .+: tensorlite (\S+),.* tensorlite in float32 (\S+)$", output, re.MULTILINE)
    assert abs(float(values[1]) / float(values[2]) - 1) < 0.01
    if len(installed()) > 1:
        other = re.search(r"faster than ([\w-]+)", output)[1]
        assert compare(tables["tiny"], "a token", "median", other)[0] == "a token"
        assert "NO RESULT" not in output


def test_the_readme_has_the_rows_of_language_models(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from readme_table import llm_rows

    table = (
        "ms a token       minimum    median  tokens a s   MiB a token   % of memory\n"
        "tensorlite         3.000     4.000       250.0          92.1          50.0\n"
        "llama-native       8.000     9.000       111.1          92.1          20.0\n"
        "llama-wheel        6.000     8.000       125.0          92.1          22.0\n"
        "ratio              0.500     0.500   (below 1: tensorlite is faster than llama-wheel: 2.00 times as fast)\n"
    )
    rows = list(llm_rows(f"\nshape smollm2: a model\n{table}\nshape other: a model\n{table}"))
    assert rows == [("a token of SmolLM2-135M in 4 bits (Q4_1), batch 1", "4.0 ms", "8.0 ms", "0.50", "0.50")]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a clone")
def test_two_commits_are_compared():
    args = ["HEAD", "HEAD", "--rounds", "1", "--pairs", "1", "--task", "no_grad op", "--task", "import"]
    output = run("compare_commits.py", *args, header=HEADER[:5])
    for task in ("no_grad op, us", "import, ms"):
        cells = re.search(rf"^{task} +(.+)$", output, re.MULTILINE)[1].split()
        assert all(float(cell) > 0 for cell in cells if cell != "to")
        assert len(cells) == 9  # two times of each commit, two ratios, and a range


def test_clients_of_a_server_are_measured():
    pytest.importorskip("fastapi")
    output = run("bench_serve.py", "--quick", "--shape", "M", header=HEADER[:5])
    assert re.findall(r"^shape M, (\w+), greedy", output, re.MULTILINE) == ["scheduler", "http"]
    assert len(re.findall(r"^8 clients +\d+\.\d+ +\d+\.\d+$", output, re.MULTILINE)) == 2
    assert len(re.findall(r"^ratio +\d+\.\d\d +\d+\.\d\d ", output, re.MULTILINE)) == 2


def test_processes_are_measured():
    pytest.importorskip("mpi4py")
    output = run("bench_distributed.py", "--quick", "--shape", "S", "--rounds", "1", header=[*HEADER[:5], HEADER[-1]])
    rows = re.findall(r"^(\d process.*?) +\d+\.\d\d +\d+\.\d\d", output, re.MULTILINE)
    assert rows == ["1 process", "2 processes", "1 process, compile", "2 processes, compile"]
    assert re.search(r"^ratio .+ 2 processes are faster than one; goal 1", output, re.MULTILINE)
    apart = re.findall(r"^losses of the first \d+ steps differ by at most (\S+) nats", output, re.MULTILINE)
    assert len(apart) == 2
    assert max(map(float, apart)) <= 1e-4


def test_slow_links_are_measured():
    pytest.importorskip("mpi4py")
    output = run("bench_distributed.py", "--link", "--quick", "--shape", "S", "--rounds", "1", header=HEADER[:5])
    rows = re.findall(r"^(\S+ [GM]bit/s) .+ (\d+\.\d\d) +(\d+\.\d\d)$", output, re.MULTILINE)
    assert [row[0] for row in rows] == ["10.0 Gbit/s", "1.00 Gbit/s", "200 Mbit/s"]
    assert re.search(r"^in each step, a process sends 3\d\d,\d\d\d bytes, as expected$", output, re.MULTILINE)
