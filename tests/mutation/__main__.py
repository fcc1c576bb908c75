"""Break the package in many small places and count the breaks that its tests notice.

    python -m tests.mutation --count 200 --seed 1 --output build/mutants

Each break is a random one of a random line, in a copy of the project. The tests that reach the line
run, the quickest first, until one fails; one that fails without the break does not count. The
results are lines of JSON in OUTPUT/SEED.jsonl, and a second call goes on where the first one was
stopped. Which tests reach a line, and how long they take, is measured once, in a run of the
whole suite: OUTPUT/coverage and OUTPUT/times.xml.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import itertools
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Queue
from xml.etree import ElementTree

import coverage

from tests.mutation.forks import PytestForks
from tests.mutation.mutants import Mutant, changes_the_program, find_mutants
from tests.test_layout import SHARED, own_test

ROOT = Path(__file__).resolve().parents[2]
# Seconds of tests for one break, by their times without it; with it they may take longer.
BUDGET = 240.0
PATIENCE = 4
START_SECONDS = 60.0
# Arguments of one call of pytest.
MOST_TESTS = 400
OPTIONS = ["-q", "-x", "-p", "no:cacheprovider", "-m", "not slow", "--no-header"]
# They see every module, and are asked of every break: the records of Python's API and of options.
RECORDS = (
    "tests/test_public_api.py::test_the_public_api_is_the_recorded_one",
    "tests/test_command_line.py::test_the_command_line_is_the_recorded_one",
)
CAUGHT, SURVIVED, TIMEOUT, UNREACHED = "caught", "survived", "timeout", "not reached"


@dataclass(frozen=True)
class Result:
    """What the tests said of a break.

    Attributes:
        number: Place of the break in the sample.
        file: The module.
        line: Line number.
        kind: What was done.
        before: The line without the break.
        after: The line with the break.
        result: `"caught"`, `"survived"`, `"timeout"` (a test did not end: noticed too), or
            `"not reached"` (no test runs the line).
        test: The test that failed.
        tests: Number of tests that were chosen.
        seconds: Time of the tests.
    """

    number: int
    file: str
    line: int
    kind: str
    before: str
    after: str
    result: str
    test: str
    tests: int
    seconds: float


def sources() -> dict[str, str]:
    """Returns the text of every module, by its path."""
    files = (path for path in sorted((ROOT / "cnnkit").rglob("*.py")) if "_pb2" not in path.stem)
    return {path.relative_to(ROOT).as_posix(): path.read_text() for path in files}


def sample(texts: dict[str, str], count: int, seed: int, below: str) -> list[Mutant]:
    """Returns random breaks of different lines.

    Args:
        texts: The modules.
        count: Number of breaks.
        seed: Seed of the choice.
        below: Beginning of the paths of the modules.
    """
    by_line: dict[tuple[str, int], list[Mutant]] = collections.defaultdict(list)
    for file, text in texts.items():
        if file.startswith(below):
            for mutant in find_mutants(file, text):
                by_line[mutant.file, mutant.line].append(mutant)
    generator = random.Random(seed)
    lines = sorted(by_line)
    generator.shuffle(lines)
    chosen = (generator.choice(by_line[line]) for line in lines)
    real = (mutant for mutant in chosen if changes_the_program(mutant, texts[mutant.file]))
    return list(itertools.islice(real, count))


class Reach:
    """Which tests reach a line, and how long each takes."""

    def __init__(self, output: Path):
        if not (output / "coverage").is_file() or not (output / "times.xml").is_file():
            _measure(output)
        self._coverage = coverage.CoverageData(str(output / "coverage"))
        self._coverage.read()
        self._names = {Path(name).relative_to(ROOT).as_posix(): name
                       for name in self._coverage.measured_files()}  # fmt: skip
        self._seconds: dict[str, float] = {}
        self._by_file: dict[str, list[str]] = collections.defaultdict(list)
        contexts = {context.partition("|")[0] for context in self._coverage.measured_contexts()}
        times = _times(output / "times.xml")
        for test in contexts - {""}:
            file, _, name = test.partition("::")
            parts = file.removesuffix(".py").replace("/", ".")
            self._seconds[test] = times.get((parts, name.rpartition("::")[2]), 1.0)
            self._by_file[file].append(test)

    def tests(self, mutant: Mutant) -> list[str]:
        """Returns the tests to run for a break: those that reach its line, quickest first."""
        file = self._names.get(mutant.file)
        contexts = self._coverage.contexts_by_lineno(file).get(mutant.line, []) if file else []
        reaching = {context.partition("|")[0] for context in contexts} - {""}
        # A line at the top of a module is reached by whatever imports it first, and one of another
        # process by no test: the tests of the module are asked as well.
        own = self._by_file[self._own_file(mutant.file)] + self._by_file[mutant.file]
        chosen, seconds = [], 0.0
        for test in [
            *sorted(reaching & set(own), key=self._seconds.__getitem__),
            *sorted(reaching - set(own), key=self._seconds.__getitem__),
            *sorted(set(own) - reaching, key=self._seconds.__getitem__),
        ]:
            seconds += self._seconds[test]
            if chosen and (seconds > BUDGET or len(chosen) == MOST_TESTS):
                break
            chosen.append(test)
        return list(dict.fromkeys([*chosen, *RECORDS]))

    def seconds(self, tests: Sequence[str]) -> float:
        """Returns how long some tests take without a break."""
        return sum(self._seconds.get(test, 0) for test in tests)

    def _own_file(self, file: str) -> str:
        module = file.removeprefix("cnnkit/").removesuffix(".py")
        return f"tests/{SHARED.get(module, own_test(module))}"


def _measure(output: Path) -> None:
    print("Which tests reach which line: the whole suite runs once", file=sys.stderr)
    options = ["-n", "2", "--dist", "loadfile", "--cov", "--cov-context=test", "--cov-report="]
    command = [
        sys.executable,
        "-m",
        "pytest",
        *OPTIONS,
        *options,
        f"--junitxml={output / 'times.xml'}",
    ]
    command.remove("-x")
    settings = {**os.environ, "COVERAGE_FILE": str(output / "coverage")}
    done = subprocess.run(command, cwd=ROOT, env=settings, check=False)
    if done.returncode:
        (output / "times.xml").unlink(missing_ok=True)
        raise SystemExit("The tests must pass before the package is broken")


def _times(report: Path) -> dict[tuple[str, str], float]:
    return {
        (case.get("classname", ""), case.get("name", "")): float(case.get("time", 0))
        for case in ElementTree.parse(report).iter("testcase")
    }


def copy_project(folder: Path) -> Path:
    """Returns a copy of the project's files, beside a link to the data of its tests."""
    copy = folder / "project"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    data = ROOT.parent / "shared"
    if data.exists():
        (folder / "shared").symlink_to(data.resolve())
    return copy


def run_tests(forks: PytestForks, tests: Sequence[str], seconds: float) -> tuple[str, str]:
    """Runs tests in a copy; returns the result and the name of the test that failed."""
    code, printed = forks.run(
        [*OPTIONS, "-rfE", "-o", "timeout=120", *tests], START_SECONDS + PATIENCE * seconds
    )
    if code is None:
        return TIMEOUT, ""
    if name := failed_test(printed):
        return CAUGHT, name
    return (SURVIVED if code == 0 else CAUGHT), ""


def failed_test(printed: str) -> str:
    """Returns the name of the first test that failed, or nothing."""
    for line in printed.splitlines():
        if line.startswith(("FAILED ", "ERROR ")):
            name = line.partition(" - ")[0].partition(" ")[2]
            # The lines of tests/conftest.py come first, and have the part of the test.
            return re.sub(r" \((setup|call|teardown)\)$", "", name)
    return ""


def examine(copy: Path, forks: PytestForks, number: int, mutant: Mutant, reach: Reach) -> Result:
    """Runs the tests of one break in a copy of the project, and mends the copy."""
    tests = reach.tests(mutant)
    path = copy / mutant.file
    source = path.read_text()
    broken = mutant.apply(source)
    start = time.monotonic()
    result, failed = UNREACHED, ""
    if tests:
        path.write_text(broken)
        try:
            result, failed = run_tests(forks, tests, reach.seconds(tests))
        finally:
            path.write_text(source)
        # A test that fails anyway has noticed nothing.
        if result == CAUGHT and failed and run_tests(forks, [failed], 60)[0] != SURVIVED:
            result = "unsound test"
    return Result(
        number,
        mutant.file,
        mutant.line,
        mutant.kind,
        mutant.before,
        broken.splitlines()[mutant.line - 1].strip(),
        result,
        failed,
        len(tests),
        round(time.monotonic() - start, 1),
    )


def examine_all(mutants: Sequence[Mutant], file: Path, reach: Reach, jobs: int) -> Iterator[Result]:
    """Yields the result of every break: those in a file, and new ones, which it adds there."""
    known = [Result(**json.loads(line)) for line in file.read_text().splitlines()]
    yield from known
    waiting = set(range(len(mutants))) - {result.number for result in known}
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.ExitStack() as opened,
        file.open("a") as stream,
    ):
        copies: Queue[tuple[Path, PytestForks]] = Queue()
        for job in range(jobs):
            copy = copy_project(Path(folder) / str(job))
            copies.put((copy, opened.enter_context(contextlib.closing(PytestForks(copy)))))

        def work(number: int) -> Result:
            copy, forks = copies.get()
            try:
                return examine(copy, forks, number, mutants[number], reach)
            finally:
                copies.put((copy, forks))

        with ThreadPoolExecutor(jobs) as pool:
            for result in pool.map(work, sorted(waiting)):
                stream.write(json.dumps(asdict(result)) + "\n")
                stream.flush()
                yield result


def main() -> None:
    """Prints each break that no test notices, and how many were noticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="breaks (default: 200)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the choice (default: 1)")
    parser.add_argument("--below", default="cnnkit/", help="beginning of the modules' paths")
    parser.add_argument("--jobs", type=int, default=1, help="processes at once (default: 1)")
    parser.add_argument("--output", type=Path, default=Path("build/mutants"))
    options = parser.parse_args()
    output = options.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    texts = sources()
    mutants = sample(texts, options.count, options.seed, options.below)
    name = f"{options.seed}-{options.count}-{options.below.strip('/').replace('/', '-')}.jsonl"
    (output / name).touch()
    counts: collections.Counter[str] = collections.Counter()
    for result in examine_all(mutants, output / name, Reach(output), options.jobs):
        counts[result.result] += 1
        if result.result not in (CAUGHT, TIMEOUT):
            print(f"{result.result}: {result.file}:{result.line} ({result.kind})\n"
                  f"    - {result.before}\n    + {result.after}", flush=True)  # fmt: skip
    noticed = counts[CAUGHT] + counts[TIMEOUT]
    total = sum(counts.values())
    print(f"{noticed} of {total} noticed ({noticed / total:.1%}): {dict(counts)}")


if __name__ == "__main__":
    main()
