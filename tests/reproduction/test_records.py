"""Records of reproduced results: they survive a crash, and what is no record is refused."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnkit.errors import DataError, RunError
from cnnkit.reproduction.records import SEED, SUMMARY, SeedRecord, append_record, open_records
from tests.helpers.damage import damaged, reads_or_refuses

FIELDS = {"seed": 0, "value": 96.5, "minutes": 1.5, "setting": "abc"}


def test_records_come_back(tmp_path):
    file = tmp_path / "x.jsonl"
    assert open_records(file) == []
    append_record(file, SEED, FIELDS)
    append_record(file, SUMMARY, {"value": 96.5})
    append_record(file, SEED, {**FIELDS, "seed": None})
    assert open_records(file) == [
        SeedRecord(0, 96.5, 1.5, "abc"),
        SeedRecord(None, 96.5, 1.5, "abc"),
    ]


def test_a_line_that_a_crash_truncated_is_cut_off(tmp_path):
    file = tmp_path / "x.jsonl"
    append_record(file, SEED, FIELDS)
    whole = file.read_bytes()
    for length in (1, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole + whole[:length])
        assert len(open_records(file)) == 1
        append_record(file, SEED, {**FIELDS, "seed": 1})
        assert [one.seed for one in open_records(file)] == [0, 1]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("{}", "has no `record`"),
        ('{"record": "note"}', "seed or summary"),
        (json.dumps({"record": "seed", **FIELDS, "value": "high"}), "`value` .* finite number"),
        (json.dumps({"record": "seed", **FIELDS, "seed": -1}), "`seed` .* integer"),
        ("value 3", "line 1 of .* is not valid JSON"),
    ],
)
def test_what_is_no_record_is_refused_and_kept(tmp_path, line, text):
    file = tmp_path / "x.jsonl"
    file.write_text(line + "\n")
    with pytest.raises(DataError, match=text):
        open_records(file)
    assert file.read_text() == line + "\n"


def test_a_folder_in_the_place_of_the_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="regular file"):
        open_records(tmp_path)
    with pytest.raises(RunError):
        append_record(tmp_path, SEED, FIELDS)


@settings(max_examples=100)
@given(data=st.one_of(damaged((json.dumps({"record": "seed", **FIELDS}) + "\n").encode())))
def test_any_records_are_read_or_refused(tmp_path_factory, data):
    file = tmp_path_factory.getbasetemp() / "records.jsonl"
    file.write_bytes(data)
    reads_or_refuses(lambda: open_records(file))
