"""Free memory, as the machine, the container and the limits of a process say."""

import resource

import pytest

from cnnkit.server.free_memory import find_free_memory, read_status

MIB = 2**20


@pytest.fixture
def system(tmp_path):
    """Writes the files of a system of 8 GiB, 4 GiB of them free, and returns their folders."""

    def write(files):
        files = {"proc/meminfo": "MemTotal: 8388608 kB\nMemAvailable:    4194304 kB\n", **files}
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path / "proc", tmp_path / "cgroup"

    return write


def group(folder, limit, usage, cache, names=("memory.max", "memory.current", "inactive_file")):
    return {
        f"{folder}/{names[0]}": f"{limit}\n",
        f"{folder}/{names[1]}": f"{usage}\n",
        f"{folder}/memory.stat": f"anon 5\n{names[2]} {cache}\nactive_file 7\n",
    }


VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, 4096),
        ({"proc/self/cgroup": "0::/\n", **group("cgroup", "max", 5, 0)}, 4096),
        (
            {"proc/self/cgroup": "0::/\n", **group("cgroup", 900 * MIB, 700 * MIB, 50 * MIB)},
            250,
        ),
        # The limit of a group above.
        (
            {
                "proc/self/cgroup": "0::/pod/server\n",
                **group("cgroup/pod", 900 * MIB, 600 * MIB, 0),
                **group("cgroup/pod/server", "max", 500 * MIB, 0),
            },
            300,
        ),
        # A container that does not see the path of its group.
        (
            {
                "proc/self/cgroup": "3:cpu,cpuacct:/a\n2:memory:/docker/1a\n",
                **group("cgroup/memory", 100 * MIB, 30 * MIB, 0, VERSION_1),
            },
            70,
        ),
        ({"proc/self/cgroup": "0::/\n", **group("cgroup", MIB, 2 * MIB, 0)}, 0),
        # A system that does not say how much of it is cached; what lies above is no group.
        (
            {
                "proc/self/cgroup": "0::/pod\n",
                "cgroup/pod/memory.max": f"{90 * MIB}\n",
                "cgroup/pod/memory.current": f"{30 * MIB}\n",
                "cgroup/memory.max": f"{80 * MIB}\n",
                "memory.max": f"{MIB}\n",
                "memory.current": "0\n",
            },
            60,
        ),
    ],
)
def test_the_least_is_free(system, files, free):
    assert find_free_memory(*system(files)) == free * MIB


def test_limits_of_the_process(system, monkeypatch):
    limits = {resource.RLIMIT_AS: 3000 * MIB, resource.RLIMIT_DATA: 800 * MIB}
    monkeypatch.setattr(resource, "getrlimit", lambda name: (limits[name], limits[name]))
    folders = system({"proc/self/status": "VmSize:\t 2048000 kB\nVmData:\t 102400 kB\n"})
    assert find_free_memory(*folders) == 700 * MIB
    limits[resource.RLIMIT_AS] = 2050 * MIB
    assert find_free_memory(*folders) == 50 * MIB


def test_this_process():
    assert find_free_memory() > 0
    assert read_status("VmRSS") <= read_status("VmHWM")
