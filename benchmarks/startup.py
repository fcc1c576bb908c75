"""Measure the time to import cnnkit and to print its help, compared with the start of Python."""

from timing import interleaved  # isort: skip

import subprocess
import sys

ROUNDS = 15
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import cnnkit": ["-c", "import cnnkit"],
    "import numpy, grpc, protobuf": ["-c", "import numpy, grpc, google.protobuf.message"],
    "import cnnkit.client": ["-c", "import cnnkit.client"],
    "cnnkit --help": ["-m", "cnnkit", "--help"],
}


def main() -> None:
    """Measure and print."""

    def start(arguments):
        return lambda: subprocess.run(
            [sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL
        )

    seconds = interleaved({name: start(words) for name, words in COMMANDS.items()}, ROUNDS)
    for name, value in seconds.items():
        print(f"  {name:<34} {value * 1e3:9.1f} ms")


if __name__ == "__main__":
    main()
