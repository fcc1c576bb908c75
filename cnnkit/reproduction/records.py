"""Records of results that were run again: one JSON object a line, a file for each result."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnkit._files import append_line, json_text
from cnnkit._staging import write_errors
from cnnkit._untrusted.json_documents import JsonFields, parse_json
from cnnkit._untrusted.limits import MAX_JSON_BYTES
from cnnkit._untrusted.regular_files import read_bytes

SEED, SUMMARY = "seed", "summary"


@dataclass(frozen=True)
class SeedRecord:
    """Value of one seed.

    Attributes:
        seed: The seed; None where nothing is random.
        value: The value.
        minutes: Time that it took.
        setting: Digest of everything else that decides about the value.
    """

    seed: int | None
    value: float
    minutes: float
    setting: str


def open_records(file: Path) -> list[SeedRecord]:
    """Return the seeds of a file of records, and cut off a last line that a crash truncated.

    Args:
        file: The file; there are no records if it does not exist.

    Raises:
        DataError: If the file cannot be read, or a line is no record.
        RunError: If it cannot be written.
    """
    if not os.path.lexists(file):
        return []
    data = read_bytes(file, max_bytes=MAX_JSON_BYTES)
    *lines, rest = data.split(b"\n")
    if rest:
        # A line is written together with its end.
        with write_errors(file):
            os.truncate(file, len(data) - len(rest))
    records = (_parse(line, f"line {number} of {file}") for number, line in enumerate(lines, 1))
    return [record for record in records if record is not None]


def _parse(line: bytes, origin: str) -> SeedRecord | None:
    fields = JsonFields(parse_json(line, origin), origin)
    kind = fields.text("record")
    if kind not in (SEED, SUMMARY):
        raise fields.wrong("record", f"{SEED} or {SUMMARY}")
    if kind == SUMMARY:
        return None
    is_random = fields.document.get("seed") is not None
    return SeedRecord(
        fields.integer("seed") if is_random else None,
        fields.number("value"),
        fields.number("minutes", minimum=0),
        fields.text("setting"),
    )


def append_record(file: Path, kind: str, document: dict[str, Any]) -> None:
    """Append a record to a file.

    Args:
        file: The file.
        kind: `"seed"` or `"summary"`.
        document: Its fields.

    Raises:
        RunError: If the file cannot be written.
    """
    append_line(file, json_text({"record": kind, **document}))
