"""The number of cores that a control group leaves to a process."""

import os

import pytest

from tensorlite.backends.cpu import blas, cores, thread_pool

V1 = "36 31 0:29 {root} {folder} rw,relatime shared:9 - cgroup cgroup rw,{options}\n"
V2 = "41 31 0:38 {root} {folder} rw,relatime - cgroup2 cgroup2 rw\n"


@pytest.fixture
def many_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)


@pytest.fixture
def make_proc(tmp_path):
    """Return a function that writes the files of a process and its groups, and returns the process's folder."""

    def make(groups, mounts, files):
        proc = tmp_path / "proc"
        proc.mkdir()
        (proc / "cgroup").write_text(groups)
        (proc / "mountinfo").write_text("22 1 0:5 / /proc rw - proc proc rw\n" + mounts)
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return proc

    return make


VERSION_2 = [
    ("max 100000\n", None, 64),
    ("200000 100000\n", 2.0, 2),
    ("150000 100000\n", 1.5, 2),
    ("110000 100000\n", 1.1, 1),
    ("30000 100000\n", 0.3, 1),
    ("375000 50000\n", 7.5, 8),
    ("9000000 100000\n", 90.0, 64),
    ("", None, 64),
    ("rubbish", None, 64),
    ("100000 0\n", None, 64),
]


@pytest.mark.usefixtures("many_cores")
@pytest.mark.parametrize(("text", "quota", "expected"), VERSION_2)
def test_a_quota_of_version_2(make_proc, tmp_path, text, quota, expected):
    proc = make_proc("0::/\n", V2.format(root="/", folder=tmp_path / "g"), {"g/cpu.max": text})
    assert (cores.cpu_quota(proc), cores.available_cores(proc)) == (quota, expected)


# The lines of the process, the mount, the files with quotas, and the quota that holds.
GROUPS = {
    "a group above has the smaller quota": (
        "0::/a/b\n", V2, "/", {"g/a/cpu.max": "200000 100000", "g/a/b/cpu.max": "400000 100000"}, 2.0),
    "the group itself has it": (
        "0::/a/b\n", V2, "/", {"g/a/cpu.max": "500000 100000", "g/a/b/cpu.max": "300000 100000"}, 3.0),
    "a mount that begins at the group": ("0::/x/c\n", V2, "/x/c", {"g/cpu.max": "200000 100000"}, 2.0),
    "a mount that begins above the group": ("0::/x/c/d\n", V2, "/x", {"g/c/cpu.max": "200000 100000"}, 2.0),
    "the path of another namespace": ("0::/../other\n", V2, "/", {"g/cpu.max": "200000 100000"}, 2.0),
    "a name that only begins alike": ("0::/xy\n", V2, "/x", {"g/cpu.max": "200000 100000"}, 2.0),
    "version 1": (
        "5:cpu,cpuacct:/d\n0::/\n", V1, "/",
        {"g/d/cpu.cfs_quota_us": "150000\n", "g/d/cpu.cfs_period_us": "50000\n"}, 3.0),
    "version 1 without a quota": (
        "1:cpu:/\n", V1, "/", {"g/cpu.cfs_quota_us": "-1\n", "g/cpu.cfs_period_us": "100000\n"}, None),
    "version 1 in a container": (
        "1:cpu:/docker/12\n", V1, "/docker/12", {"g/cpu.cfs_quota_us": "50000", "g/cpu.cfs_period_us": "100000"}, 0.5),
    "another controller": (
        "3:cpuset:/\n", V1, "/", {"g/cpu.cfs_quota_us": "50000", "g/cpu.cfs_period_us": "100000"}, None),
}  # fmt: skip


@pytest.mark.parametrize("name", GROUPS)
def test_the_group_of_a_process(make_proc, tmp_path, name):
    lines, mount, root, files, expected = GROUPS[name]
    proc = make_proc(lines, mount.format(root=root, folder=tmp_path / "g", options="cpu,cpuacct"), files)
    assert cores.cpu_quota(proc) == expected


def test_a_folder_with_a_space(make_proc, tmp_path):
    mount = V2.format(root="/", folder=str(tmp_path / "g é").replace(" ", "\\040"))
    proc = make_proc("0::/\n", mount, {"g é/cpu.max": "200000 100000"})
    assert cores.cpu_quota(proc) == 2.0


def test_a_system_without_control_groups(tmp_path):
    assert cores.cpu_quota(tmp_path) is None
    assert cores.available_cores(tmp_path) >= 1


@pytest.mark.usefixtures("many_cores")
def test_a_container_of_two_cores_on_a_machine_of_64(monkeypatch):
    """Neither library starts 64 threads, unless the user asks for them."""

    class Many:
        initial_num_threads = 64
        set_num_threads = staticmethod(lambda n: calls.append(n))

    calls: list[int] = []
    monkeypatch.setattr(cores, "cpu_quota", lambda proc: 2.0)
    for name in blas._THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    library = blas._keep_quota(Many())
    assert (library.initial_num_threads, calls) == (2, [2])
    monkeypatch.setattr(thread_pool, "find_openblas", lambda: library)
    assert thread_pool._available_threads() == 2
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "64")
    assert blas._keep_quota(Many()).initial_num_threads == 64
    assert calls == [2]
