"""Run a command in a process that may use little memory and time, and watch what it does.

The module is also the program of a server: each line of standard input is a JSON object

    {"words": ["weights", "inspect", "/z/a.h5"], "folder": "/z", ...}

and the answer is a line with the fields of `Outcome`. Every command runs in a process that is
forked from the server, which has imported TensorFlow but not used it.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import importlib
import json
import os
import platform
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

MEGABYTE = 1 << 20
JOB = {
    # The function that runs the words of the command, and returns its exit code.
    "entry": "cnnkit.cli.main:main",
    "network": False,  # whether it may connect
    # Memory of a command, above what it has when it starts; its processor time; and how long it
    # may wait for something without using any, as a process that opens a FIFO does.
    "megabytes": 1024,
    "cpu_seconds": 20,
    "idle_seconds": 8.0,
}
# No file that a command writes is larger, so that the disk is safe too.
FILE_BYTES = 1 << 30
POLL_SECONDS = 0.005
TEXT_BYTES = 20_000
# A folder in the watched one, in which everything is allowed.
TEMPORARY = "temporary"
ROOT = Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a command did.

    Attributes:
        code: The exit code, or minus the signal that ended it.
        ended: Why it was killed, or "".
        megabytes: The most memory that it held, above what it held when it started.
        seconds: Processor time.
        out: Standard output, shortened.
        err: Standard error, shortened.
        opened: Files that it opened in the watched folder, and Python's files elsewhere.
        changed: Files that it made, changed or removed in the watched folder.
        acted: Other acts: processes, connections, modules of a pickle.
    """

    code: int
    ended: str
    megabytes: int
    seconds: float
    out: str
    err: str
    opened: list[str]
    changed: list[str]
    acted: list[str]


class Confinement:
    """The server as a context: `run` runs one command."""

    def __enter__(self) -> Confinement:
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
        environment["PYTHONPATH"] = str(ROOT)
        self.server = subprocess.Popen(
            [sys.executable, "-m", "tests.bombs.confined"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
            env=environment,
            text=True,
        )
        return self

    def __exit__(self, *exception: object) -> None:
        self.server.kill()
        self.server.communicate()

    def run(self, words: list[str], folder: Path, **changes: object) -> Outcome:
        """Run a command and return its outcome.

        Args:
            words: The command line behind `cnnkit`.
            folder: The folder that is watched; it becomes the working directory.
            **changes: Of the defaults in `JOB`.
        """
        job = {**JOB, "words": words, "folder": str(folder), **changes}
        print(json.dumps(job), file=self.server.stdin, flush=True)
        answer = self.server.stdout.readline()
        assert answer, "the server of confined commands has ended"
        return Outcome(**json.loads(answer))


# -- In the child ----------------------------------------------------------------------------------

# Files of Python, its packages and the system, which every command opens.
USUAL = ("/proc/", "/sys/", "/dev/null", "/dev/urandom", "/etc/", "/usr/", "/opt/", "/lib")
ACTS = {
    "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.startfile", "os.system",
    "pickle.find_class", "pty.spawn", "socket.connect", "socket.getaddrinfo", "socket.sendto",
    "subprocess.Popen", "urllib.Request", "webbrowser.open",
}  # fmt: skip


def report_acts(stream, network: bool) -> None:
    """Write a line to `stream` for each act of Python code from now on."""
    usual = (*USUAL, sys.prefix, sys.base_prefix, str(ROOT))

    def hook(event: str, args: tuple) -> None:
        if event == "open":
            path = args[0]
            if isinstance(path, int) or os.fsdecode(path).startswith(usual):
                return
            line = ("opened", os.path.normpath(Path(os.fsdecode(path)).absolute()))
        elif event in ACTS and not (network and event.startswith("socket")):
            line = ("acted", f"{event} {args!r:.200}")
        else:
            return
        os.write(stream, (json.dumps(line) + "\n").encode())

    sys.addaudithook(hook)


def refuse_sockets() -> None:
    """Let the kernel end this process when it makes a socket of the Internet, in C too."""
    call, architecture = {"x86_64": (41, 0xC000003E), "aarch64": (198, 0xC00000B7)}[
        platform.machine()
    ]
    load, equal, give = 0x20, 0x15, 0x06  # BPF: load a word, jump if equal, return
    allow, kill = 0x7FFF0000, 0x80000000
    program = [
        (load, 0, 0, 4), (equal, 0, 5, architecture),
        (load, 0, 0, 0), (equal, 0, 3, call),
        (load, 0, 0, 16), (equal, 2, 0, 2), (equal, 1, 0, 10),  # AF_INET, AF_INET6
        (give, 0, 0, allow), (give, 0, 0, kill),
    ]  # fmt: skip
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in program))
    filter_ = struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, set_seccomp, by_filter = 38, 22, 2
    assert libc.prctl(no_new_privileges, 1, 0, 0, 0) == 0
    if libc.prctl(set_seccomp, by_filter, filter_, 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp is not available")


def run_child(job: dict, folder: Path, streams: list[int]) -> None:
    """Run the command; does not return."""
    code = 70
    try:
        for number, stream in enumerate(streams[:2], start=1):
            os.dup2(stream, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(folder)
        # TensorFlow writes the functions that it transforms to temporary files.
        tempfile.tempdir = str(folder / TEMPORARY)
        os.environ.update(HOME=str(folder), TMPDIR=tempfile.tempdir, COLUMNS="100")
        Path("/proc/self/oom_score_adj").write_text("1000")
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
        resource.setrlimit(resource.RLIMIT_CPU, (job["cpu_seconds"], job["cpu_seconds"] + 1))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        module, _, name = job["entry"].partition(":")
        main = getattr(importlib.import_module(module), name)
        report_acts(streams[2], job["network"])
        if not job["network"]:
            refuse_sockets()
        try:
            code = main(job["words"])
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


# -- In the server ---------------------------------------------------------------------------------


class FolderWatch:
    """Linux's inotify on a folder and the folders in it: who is opened, who is changed."""

    OPEN, CHANGE, FOLDER = 0x20, 0x2 | 0x4 | 0x40 | 0x80 | 0x100 | 0x200, 0x40000000
    LOST = 0x4000

    def __init__(self, folder: Path) -> None:
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.file = self.libc.inotify_init1(os.O_NONBLOCK)
        self.folders = {}
        self.opened: set[str] = set()
        self.changed: set[str] = set()
        for path, folders, _ in os.walk(folder):
            if path == str(folder) and TEMPORARY in folders:
                folders.remove(TEMPORARY)
            self._add(path)

    def _add(self, path: str) -> None:
        number = self.libc.inotify_add_watch(self.file, os.fsencode(path), self.OPEN | self.CHANGE)
        self.folders[number] = path

    def read(self) -> None:
        """Take note of what has happened since the last call."""
        while True:
            try:
                data = os.read(self.file, 1 << 16)
            except BlockingIOError:
                return
            at = 0
            while at < len(data):
                number, mask, _, size = struct.unpack_from("iIII", data, at)
                name = data[at + 16 : at + 16 + size].rstrip(b"\0")
                at += 16 + size
                if mask & self.LOST:
                    self.changed.add("(too many events)")
                if not name:
                    continue
                path = f"{self.folders.get(number, '?')}/{os.fsdecode(name)}"
                if mask & self.CHANGE:
                    self.changed.add(path)
                    if mask & self.FOLDER and Path(path).is_dir():
                        self._add(path)
                elif not mask & self.FOLDER:
                    self.opened.add(path)

    def close(self) -> None:
        os.close(self.file)


def memory_of(pid: int) -> tuple[int, int]:
    """Return the bytes of a process: its own, and those of mapped files."""
    fields = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("RssAnon", "RssFile", "RssShmem"):
            fields[name] = int(value.split()[0]) * 1024
    return fields["RssAnon"] + fields["RssShmem"], fields["RssFile"]


def watch_child(pid: int, job: dict, watch: FolderWatch, start: tuple[int, int]) -> dict:
    """Wait for the end of the child, which is killed when it uses too much."""
    largest, ended = 0, ""
    moved, cpu = time.monotonic(), -1.0
    while True:
        found, status, usage = os.wait4(pid, os.WNOHANG)
        watch.read()
        if found:
            break
        # Pages of mapped files count where they are more than those of the server's libraries.
        with contextlib.suppress(OSError, KeyError):
            own, mapped = memory_of(pid)
            largest = max(largest, own - start[0] + max(0, mapped - start[1]))
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            used = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            if used != cpu or fields[0] not in "SD":
                moved, cpu = time.monotonic(), used
        if not ended and largest > job["megabytes"] * MEGABYTE:
            ended = f"more than {job['megabytes']} MB"
        if not ended and time.monotonic() - moved > job["idle_seconds"]:
            ended = f"waited for {job['idle_seconds']:g} s"
        if ended:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(POLL_SECONDS)
    code = os.waitstatus_to_exitcode(status)
    if code in (-signal.SIGXCPU, -signal.SIGKILL) and not ended:
        ended = f"more than {job['cpu_seconds']} s"
    if code == -signal.SIGSYS:
        ended = "made a socket"
    return {
        "code": code,
        "ended": ended,
        "megabytes": largest // MEGABYTE,
        "seconds": round(usage.ru_utime + usage.ru_stime, 2),
    }


def collect(stream: int, kept: list[bytes], limit: int) -> None:
    """Read a pipe to its end and keep its first bytes."""
    room = limit
    while data := os.read(stream, 1 << 16):
        kept.append(data[:room])
        room -= len(data[:room])
    os.close(stream)


def serve_one(job: dict) -> dict:
    """Run one command and return the fields of its outcome."""
    folder = Path(job["folder"])
    (folder / TEMPORARY).mkdir(exist_ok=True)
    watch = FolderWatch(folder)
    pipes = [os.pipe() for _ in range(3)]
    kept: list[list[bytes]] = [[], [], []]
    start = memory_of(os.getpid())
    pid = os.fork()
    if pid == 0:
        run_child(job, folder, [write for _, write in pipes])
    readers = []
    for (read, write), texts, limit in zip(
        pipes, kept, (TEXT_BYTES,) * 2 + (4 << 20,), strict=True
    ):
        os.close(write)
        readers.append(threading.Thread(target=collect, args=(read, texts, limit)))
        readers[-1].start()
    outcome = watch_child(pid, job, watch, start)
    for reader in readers:
        reader.join()
    watch.close()
    opened, acted = set(watch.opened), []
    for line in b"".join(kept[2]).splitlines():
        with contextlib.suppress(ValueError):
            kind, text = json.loads(line)
            if kind == "opened":
                opened.add(text)
            else:
                acted.append(text)
    out, err = (b"".join(texts).decode(errors="backslashreplace") for texts in kept[:2])
    return {
        **outcome, "out": out, "err": err, "opened": sorted(opened),
        "changed": sorted(watch.changed), "acted": sorted(set(acted)),
    }  # fmt: skip


def main() -> None:
    """Import what commands need, then serve."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from cnnkit.cli.quiet_tensorflow import import_tensorflow

    import_tensorflow()
    import cnnkit.data
    import cnnkit.evaluation
    import cnnkit.export
    import cnnkit.features
    import cnnkit.figures
    import cnnkit.models.weights
    import cnnkit.training
    import cnnkit.transfer
    import cnnkit.visualize  # noqa: F401

    for line in sys.stdin:
        print(json.dumps(serve_one(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
