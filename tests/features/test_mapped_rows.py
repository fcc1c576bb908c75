"""Rows of memory-mapped arrays: the values, and the memory that they leave."""

from pathlib import Path

import numpy as np
import pytest

from cnnkit.features import mapped_rows
from cnnkit.features.mapped_rows import iter_rows, release_pages, take_rows

STATUS = Path("/proc/self/status")


def resident_files():
    """Return the KiB of mapped files and shared memory in the process's memory."""
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return sum(int(lines[name].split()[0]) for name in ("RssFile", "RssShmem"))


@pytest.fixture
def mapped(tmp_path):
    array = np.memmap(tmp_path / "rows", np.float32, "w+", shape=(1000, 8192))
    array[:] = np.arange(1000, dtype=np.float32)[:, None]
    return array


def test_written_values_survive_the_release(mapped):
    release_pages(mapped)
    np.testing.assert_array_equal(mapped[:, 5], np.arange(1000))


def test_changes_that_are_in_memory_alone_survive(mapped):
    mapped.flush()
    changed = np.memmap(mapped.filename, np.float32, "c", shape=mapped.shape)
    changed[:, 5] = 7
    np.testing.assert_array_equal(take_rows(changed, np.arange(1000))[:, 5], 7)
    np.testing.assert_array_equal(changed[:, 5], 7)


def test_rows_come_in_their_order(mapped, monkeypatch):
    monkeypatch.setattr(mapped_rows, "ROWS", 7)
    order = np.random.default_rng(0).permutation(1000)[:100]
    taken = take_rows(mapped, order)
    np.testing.assert_array_equal(taken[:, 0], order)
    assert taken.dtype == np.float32
    assert not isinstance(taken, np.memmap)
    places = [place.start for place, _ in iter_rows(mapped, order)]
    assert places == list(range(0, 100, 7))


def test_plain_arrays_have_no_pages_to_release():
    values = np.arange(6.0).reshape(3, 2)
    release_pages(values)
    np.testing.assert_array_equal(take_rows(values, np.array([2, 0])), values[[2, 0]])


@pytest.mark.skipif(not STATUS.exists(), reason="the memory of a process is read from /proc")
def test_memory_of_the_file_is_given_back(mapped):
    release_pages(mapped)
    before = resident_files()
    for _ in iter_rows(mapped, np.arange(1000)):
        pass
    after_rows = resident_files()
    mapped.sum()
    with_all = resident_files()
    # The file has 32,000 KiB.
    assert after_rows - before < 8000
    assert with_all - before > 24000
