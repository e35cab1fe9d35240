"""How much of the machine is ours: by affinity, and within control groups of both versions."""

from __future__ import annotations

import os

import pytest

from ckptstore import StoreConfig, config
from ckptstore._capacity import usable_cores, usable_memory_bytes

MIB = 1024 * 1024
V2 = "30 20 0:26 {top} {mount} rw,nosuid - cgroup2 cgroup2 rw\n"
V1 = "31 20 0:27 {top} {mount} rw,nosuid shared:9 - cgroup cgroup rw,{controllers}\n"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Make a root directory with these groups, mounts and files; eight processors and 4 GiB stand in."""
    for name in ("process_cpu_count", "sched_getaffinity"):
        monkeypatch.delattr(os, name, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    sizes = {"SC_PHYS_PAGES": 1 << 20, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf", lambda name: sizes[name])

    def make(groups, mounts, files):
        for name, text in {"proc/self/cgroup": groups, "proc/self/mountinfo": mounts, **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return make


def test_a_quota_of_version_2_is_rounded_up(machine):
    root = machine(
        "0::/box/job\n",
        V2.format(top="/", mount="/sys/fs/cgroup"),
        {
            "sys/fs/cgroup/box/job/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/box/cpu.max": "max 100000\n",
            "sys/fs/cgroup/box/job/memory.max": "max\n",
            "sys/fs/cgroup/box/memory.max": f"{512 * MIB}\n",
        },
    )
    assert usable_cores(root) == 2
    assert usable_memory_bytes(root) == 512 * MIB


def test_the_tightest_group_above_counts(machine):
    root = machine(
        "0::/box/job\n",
        V2.format(top="/", mount="/sys/fs/cgroup"),
        {
            "sys/fs/cgroup/box/job/cpu.max": "600000 100000\n",
            "sys/fs/cgroup/box/cpu.max": "300000 100000\n",
        },
    )
    assert usable_cores(root) == 3


def test_version_1_is_read_from_the_mount_of_its_controller(machine):
    root = machine(
        "5:memory:/kube/pod\n4:cpu,cpuacct:/kube/pod\n1:name=systemd:/\n0::/\n",
        V1.format(top="/", mount="/sys/fs/cgroup/cpu,cpuacct", controllers="cpu,cpuacct")
        + V1.format(top="/", mount="/sys/fs/cgroup/memory", controllers="memory"),
        {
            "sys/fs/cgroup/cpu,cpuacct/kube/pod/cpu.cfs_quota_us": "400000\n",
            "sys/fs/cgroup/cpu,cpuacct/kube/pod/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/memory/kube/pod/memory.limit_in_bytes": f"{1024 * MIB}\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        },
    )
    assert usable_cores(root) == 4
    assert usable_memory_bytes(root) == 1024 * MIB


def test_no_quota_of_version_1_is_minus_one(machine):
    root = machine(
        "4:cpu:/\n",
        V1.format(top="/", mount="/sys/fs/cgroup/cpu", controllers="cpu"),
        {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"},
    )
    assert usable_cores(root) == 8


@pytest.mark.parametrize(
    ("group", "top", "where"),
    [
        ("/docker/a1", "/docker/a1", ""),
        ("/docker/a1/inner", "/docker/a1", "inner/"),
        ("/docker/a1", "/docker/a", ""),  # another container's name begins alike
        ("/../other", "/", ""),  # outside of the namespace
    ],
)
def test_inside_a_container_the_mount_shows_its_own_group(machine, group, top, where):
    root = machine(
        f"0::{group}\n",
        V2.format(top=top, mount="/sys/fs/cgroup"),
        {f"sys/fs/cgroup/{where}cpu.max": "200000 100000\n"},
    )
    assert usable_cores(root) == 2


@pytest.mark.parametrize("text", ["", "max", "nonsense", "0 0", "-5 100000", "100000"])
def test_a_quota_that_says_nothing_is_none(machine, text):
    root = machine("0::/\n", V2.format(top="/", mount="/sys/fs/cgroup"), {"sys/fs/cgroup/cpu.max": text})
    assert usable_cores(root) == 8


@pytest.mark.parametrize("text", ["", "\n", "no colons", "0::/\n:", "7 8 - \n - \n1 2 3 / /x -"])
def test_odd_lines_are_passed_over(machine, text):
    root = machine(text, text, {})
    assert usable_cores(root) == 8
    assert usable_memory_bytes(root) == 4096 * MIB


def test_a_system_that_tells_nothing_has_a_core_and_no_limit(tmp_path, machine, monkeypatch):
    def refuse(name):
        raise ValueError(name)

    monkeypatch.setattr(os, "cpu_count", lambda: None)
    monkeypatch.setattr(os, "sysconf", refuse)
    assert usable_cores(tmp_path) == 1
    assert usable_memory_bytes(tmp_path) is None


def test_affinity_counts_where_there_is_one(tmp_path, machine, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 5}, raising=False)
    assert usable_cores(tmp_path) == 3
    monkeypatch.setattr(os, "process_cpu_count", lambda: 2, raising=False)
    assert usable_cores(tmp_path) == 2


@pytest.mark.parametrize(
    ("usable", "chosen"),
    [(None, 256), (64 * MIB, 32), (1024 * MIB, 128), (4096 * MIB, 256), (1 << 45, 256)],
)
def test_memory_in_flight_by_default(monkeypatch, usable, chosen):
    monkeypatch.setattr(config, "usable_memory_bytes", lambda: usable)
    assert StoreConfig().memory_bytes == chosen * MIB


@pytest.mark.parametrize(("usable", "chosen"), [(1, 2), (4, 4), (96, 8)])
def test_workers_by_default(monkeypatch, usable, chosen):
    monkeypatch.setattr(config, "usable_cores", lambda: usable)
    assert StoreConfig().encode_workers == chosen
