"""Commands that do what no command may, to test that the confinement notices it."""

import ctypes
import os
import socket
import subprocess
from pathlib import Path


def fill_memory(words):
    return len([bytearray(16 << 20) for _ in range(64)]) * 0


def map_file(words):
    import numpy as np

    return int(np.memmap(words[0], np.uint8, "r").max())


def spin(words):
    while True:
        pass


def wait(words):
    return len(Path(words[0]).read_bytes())


def open_in_c(words):
    return 0 * ctypes.CDLL(None).open(os.fsencode(words[0]), os.O_RDONLY)


def open_in_python(words):
    return 0 * len(Path(words[0]).read_bytes())


def write(words):
    return Path(words[0]).write_bytes(b"a")


def write_in_c(words):
    return ctypes.CDLL(None).creat(os.fsencode(words[0]), 0o600) and 1


def connect(words):
    # As C does: without Python's socket module, whose acts are audited.
    return ctypes.CDLL(None).socket(socket.AF_INET, socket.SOCK_STREAM, 0)


def call_program(words):
    return subprocess.call(["true"])


def unpickle(words):
    import pickle

    return len(pickle.loads(b"cbuiltins\ndict\n)R."))


def fail(words):
    raise KeyError(words[0])
