"""The tests mirror the package: a module has a test file, or is listed with the one it shares."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Modules whose tests are in the file of another module, by the folder of tests.
SHARED: dict[str, str] = {}


def modules():
    for path in sorted((ROOT / "cnnkit").rglob("*.py")):
        if not path.stem.endswith("_pb2") and path.stem not in ("__init__", "__main__"):
            yield path.relative_to(ROOT / "cnnkit").with_suffix("").as_posix()


def own_test(module: str) -> str:
    folder, _, name = module.rpartition("/")
    return f"{folder}/test_{name.strip('_')}.py".strip("/")


def test_every_module_has_tests():
    missing = [
        module
        for module in modules()
        if module not in SHARED and not (ROOT / "tests" / own_test(module)).is_file()
    ]
    assert missing == []


@pytest.mark.parametrize(("module", "file"), SHARED.items())
def test_shared_test_files_exist_and_are_needed(module, file):
    assert module in set(modules())
    assert not (ROOT / "tests" / own_test(module)).is_file()
    assert (ROOT / "tests" / file).is_file()
