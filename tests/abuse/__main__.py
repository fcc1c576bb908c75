"""Send hostile requests to a `cnnkit serve` of its own, and print what it answered.

    python -m tests.abuse [--requests N] [--seed N] [--threads N]

Half of the requests are HTTP (REST and the Open Inference Protocol), a tenth bytes that are no
proper HTTP, or many requests at once, the others gRPC. Meanwhile other connections send a byte now
and then, and a client asks for a prediction, whose numbers must be right each time. Bad are: a
server that ends, a status code that is not right for the request, no answer, a wrong prediction, a
traceback in the log, and a slow connection that is not ended after its time. Exit code 1 if
something bad happened.
"""

import argparse
import collections
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from tests.abuse.attack import Attack, SlowConnections
from tests.helpers.serving import save

# A server's time for a request to arrive, by default.
RECEIVE_SECONDS = 60
SLOW_CONNECTIONS = 20
# How the slow connections must end, by what they send.
RIGHT_ENDS = {("head", "closed"), ("body", "408")}


class Server:
    """A process of `cnnkit serve` with gRPC and REST."""

    def __init__(self, folder: Path) -> None:
        words = [folder, "--embedded", "--port", "0", "--rest-port", "0", "--no-load-trial"]
        self._log = folder.parent / "log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cnnkit", "serve", *map(str, words)],
                stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        self.address = self.process.stdout.readline().split(" at ")[1].split()[0]
        self.rest = self.log().split("REST API at http://")[1].split("/")[0]

    def log(self) -> str:
        """The lines of its log."""
        return self._log.read_text(errors="replace")

    def memory(self) -> str:
        """Its resident memory, as text."""
        return f"{psutil.Process(self.process.pid).memory_info().rss >> 20} MiB"

    def stop(self) -> int:
        """Ends it as a user does; returns the exit code."""
        self.process.terminate()
        code = self.process.wait(60)
        self.process.stdout.close()
        return code


def print_bad_ends(ends) -> bool:
    """Prints how slow connections ended; returns True if one did not end as it must."""
    seconds = [spent for _, _, spent in ends]
    print(f"slow connections ended after {min(seconds):.0f} to {max(seconds):.0f} s:", end=" ")
    print(dict(collections.Counter(end[:2] for end in ends)))
    # Connections are looked at once a second.
    late = [end for end in ends if end[2] > RECEIVE_SECONDS + 10]
    return bool(late or {end[:2] for end in ends} - RIGHT_ENDS)


def main(words=None) -> int:
    """Run the attack; return 1 if something bad happened."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.abuse",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--requests", type=int, default=10_000, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--threads", type=int, default=4, metavar="N")
    args = parser.parse_args(words)
    with tempfile.TemporaryDirectory(prefix="abuse-") as place:
        folder = Path(place) / "colors"
        save(folder / "2", 64.0, "serving_default", "serving_bytes")
        server = Server(folder)
        attack = Attack(server.address, server.rest, args.requests, args.seed, args.threads)
        begun = time.monotonic()
        try:
            # So that every path is warm when memory is first looked at.
            Attack(server.address, server.rest, 500, args.seed + 1, args.threads).run()
            slow = SlowConnections(server.rest, SLOW_CONNECTIONS)
            attack.run(lambda sent: print(f"{sent} sent, {server.memory()}", flush=True))
            print(f"memory after: {server.memory()}", flush=True)
            bad = print_bad_ends(slow.wait())
        finally:
            ended = server.process.poll()
            code = server.stop()
            log = server.log()
    for (api, answer), count in sorted(attack.answers.items()):
        print(f"{api:5} {answer[:70]:20} {count}")
    for place, example in attack.bad.items():
        print(f"bad: {place} {example!r}"[:2000])
    tracebacks = log.count("Traceback")
    seconds = time.monotonic() - begun
    print(
        f"{attack.answers.total()} requests in {seconds:.0f} s; wrong predictions: {attack.wrong}; "
        f"tracebacks: {tracebacks}; exit code of the server: {code}"
    )
    if tracebacks:
        print(log[-4000:])
    bad = bad or attack.bad or attack.wrong or tracebacks or code or ended is not None
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
