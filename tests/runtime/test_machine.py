import resource
import subprocess
import sys

import pytest

from edgeprune_runtime.system import machine
from edgeprune_runtime.system.threads import cores


@pytest.fixture
def system(tmp_path, monkeypatch):
    """Return a function that makes files of a system, and take nothing from this one."""
    monkeypatch.setattr(machine, "_CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "_PROC", tmp_path / "proc")

    def make(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    return make


def test_this_system():
    assert 0 < machine.resident_bytes() <= machine.peak_bytes()
    assert machine.available_bytes() > 0
    assert machine.cpu_features()
    assert 1 <= machine.cpu_quota() <= cores()


@pytest.mark.parametrize(
    ("quota", "processors"),
    [("max 100000", 8), ("200000 100000", 2), ("150000 100000", 2), ("10000 100000", 1), ("", 8)],
)
def test_a_quota_of_processors(system, monkeypatch, quota, processors):
    monkeypatch.setattr(machine, "cores", lambda: 8)
    system("cgroup/cpu.max", quota + "\n")
    assert machine.cpu_quota() == processors


@pytest.mark.parametrize(("quota", "processors"), [("-1", 8), ("300000", 3)])
def test_a_quota_of_the_first_version(system, monkeypatch, quota, processors):
    monkeypatch.setattr(machine, "cores", lambda: 8)
    system("proc/self/cgroup", "5:memory:/\n3:cpu,cpuacct:/some/group\n")
    system("cgroup/cpu/some/cpu.cfs_quota_us", quota + "\n")
    system("cgroup/cpu/some/cpu.cfs_period_us", "100000\n")
    assert machine.cpu_quota() == processors


@pytest.mark.parametrize(
    ("groups", "folder"),
    [
        ("0::/user.slice/run-1.scope\n", "cgroup/user.slice"),
        ("0::/user.slice/run-1.scope\n", "cgroup/user.slice/run-1.scope"),
        ("0::/../../docker/1234\n", "cgroup"),
    ],
)
def test_the_limit_of_the_group_or_of_one_that_it_is_in(system, groups, folder):
    system("proc/self/cgroup", groups)
    system(f"{folder}/memory.max", "4000\n")
    system(f"{folder}/memory.current", "3000\n")
    assert machine.available_bytes() == 1000
    # Cached files are given up when memory is short.
    system(f"{folder}/memory.stat", "anon 100\ninactive_file 500\n")
    assert machine.available_bytes() == 1500


def test_the_limit_of_the_first_version(system):
    system("proc/self/cgroup", "4:memory:/a/b\n0::/\n")
    system("cgroup/memory/a/memory.limit_in_bytes", "9000\n")
    system("cgroup/memory/a/memory.usage_in_bytes", "5000\n")
    system("cgroup/memory/a/b/memory.limit_in_bytes", "9223372036854771712\n")
    system("cgroup/memory/a/b/memory.usage_in_bytes", "1\n")
    assert machine.available_bytes() == 4000


def test_free_memory_is_the_least_of_what_bounds_it(system):
    assert machine.available_bytes() is None
    system("proc/meminfo", "MemTotal: 9000 kB\nMemAvailable:    5000 kB\n")
    assert machine.available_bytes() == 5000 * 1024
    system("cgroup/memory.max", "4000000\n")
    system("cgroup/memory.current", "1000000\n")
    assert machine.available_bytes() == 3000000
    system("cgroup/memory.current", "5000000\n")
    assert machine.available_bytes() == 0
    system("cgroup/memory.max", "max\n")
    assert machine.available_bytes() == 5000 * 1024
    # Of the first version, whose number for no limit is near 2^63.
    system("cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    system("cgroup/memory/memory.usage_in_bytes", "1\n")
    assert machine.available_bytes() == 5000 * 1024
    system("cgroup/memory/memory.limit_in_bytes", "1000\n")
    assert machine.available_bytes() == 999


def test_a_bound_on_addresses():
    code = """
import resource
from edgeprune_runtime.system import machine
assert not machine.save_address_space()
size = machine._status("VmSize")
resource.setrlimit(resource.RLIMIT_AS, (size + 10**8, resource.RLIM_INFINITY))
assert 0 < machine.available_bytes() <= 10**8, machine.available_bytes()
print(machine.save_address_space())
"""
    if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
        pytest.skip("addresses are bounded here already")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{sys.platform.startswith('linux')}\n"


@pytest.mark.slow
def test_freed_memory_is_kept_where_the_library_can():
    code = "from edgeprune_runtime.system.machine import keep_freed_memory; print(keep_freed_memory())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{sys.platform.startswith('linux')}\n"


def stat(*busy_and_idle):
    """The text of /proc/stat with so many ticks of each processor."""
    lines = [f"cpu{k} {busy} 0 0 {idle} 0 0 0 0 0 0" for k, (busy, idle) in enumerate(busy_and_idle)]
    return "\n".join(["cpu  9 9 9 9 9 9 9 9 0 0", *lines, "intr 5 6", ""])


@pytest.mark.parametrize(
    ("own", "later", "free"),
    [
        ({0, 1, 2}, [(10, 100), (40, 70), (25, 85)], 1 + 0 + 0.5),
        ({1, 2}, [(10, 100), (40, 70), (25, 85)], 0.5),
        ({0, 1}, [(10, 70), (10, 70), (10, 70)], 2.0),
    ],
)
def test_free_processors(monkeypatch, tmp_path, own, later, free):
    monkeypatch.setattr(machine, "_PROC", tmp_path)
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: own)
    (tmp_path / "stat").write_text(stat((10, 70), (10, 70), (10, 70)))
    monkeypatch.setattr(machine.time, "sleep", lambda _: (tmp_path / "stat").write_text(stat(*later)))
    assert machine.free_processors() == pytest.approx(free)


def test_free_processors_that_are_not_told(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "_PROC", tmp_path)
    assert machine.free_processors(0) is None
