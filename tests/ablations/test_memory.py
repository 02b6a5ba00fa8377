"""What is available, by files as Linux has them; and what is said when it is too little."""

import pytest

from ablations import memory

MEMINFO = "MemTotal:  8000000 kB\nMemFree:  100 kB\nMemAvailable:  4000000 kB\n"


@pytest.fixture
def machine(tmp_path):
    """The files of a machine on which this process is in the group ``path`` of version 1 or 2."""

    def make(version: int, path: str, groups: dict[str, tuple[int | str, int, int, int]]):
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/meminfo").write_text(MEMINFO)
        lines = {1: f"5:cpu,cpuacct:/x\n4:memory:{path}\n", 2: f"1:cpu:/x\n0::{path}\n"}
        (tmp_path / "proc/self/cgroup").write_text(lines[version])
        names = {
            1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
            2: ("memory.max", "memory.current", ""),
        }[version]
        for group, (most, now, active, inactive) in groups.items():
            folder = tmp_path / "sys/fs/cgroup" / ("memory" if version == 1 else "") / group
            folder.mkdir(parents=True, exist_ok=True)
            (folder / names[0]).write_text(f"{most}\n")
            (folder / names[1]).write_text(f"{now}\n")
            (folder / "memory.stat").write_text(
                f"anon 7\n{names[2]}inactive_file {inactive}\n{names[2]}active_file {active}\n"
            )
        return tmp_path

    return make


@pytest.mark.parametrize("version", [1, 2])
def test_a_group_has_less_than_the_machine_and_files_can_be_dropped(machine, version):
    found = machine(version, "/a/b", {"a/b": (3_000_000, 1_000_000, 300, 20)})
    assert memory.available(found) == 2_000_320


@pytest.mark.parametrize("version", [1, 2])
def test_a_group_above_may_have_less(machine, version):
    groups = {"a/b": (9_000_000, 0, 0, 0), "a": (3_000_000, 1_000_000, 0, 0)}
    assert memory.available(machine(version, "/a/b", groups)) == 2_000_000


def test_the_machine_where_no_group_has_a_limit(machine, tmp_path):
    assert memory.available(machine(2, "/", {"": ("max", 10, 0, 0)})) == 4_000_000 * 1024
    assert memory.available(tmp_path / "nothing known") is None


def test_this_process_uses_memory_and_there_is_some():
    assert 50 * 2**20 < memory.used() < 2**40
    there = memory.available()
    assert there is None or there > 2**20


def test_too_many_workers_are_refused_with_a_number_that_fits(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 5 * memory.GIB)
    memory.check(2, 2 * memory.GIB)
    with pytest.raises(ValueError) as refused:
        memory.check(3, 2 * memory.GIB)
    assert str(refused.value) == (
        "3 workers need about 2.0 GiB each, 6.0 GiB in all, and 5.0 GiB are available; "
        "allowed here: --workers 2"
    )
    with pytest.raises(ValueError, match="a smaller setting"):
        memory.check(2, 6 * memory.GIB)
    monkeypatch.setattr(memory, "available", lambda: None)
    memory.check(100, 100 * memory.GIB)
