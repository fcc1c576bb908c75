"""The ledger: a record of every result of the papers, read from `results.json` and checked."""

from __future__ import annotations

import functools
import importlib.resources
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cnnkit._untrusted.json_documents import JsonFields, parse_json
from cnnkit.errors import DataError, UsageError, near_names

# The papers, by the name of their network.
PAPERS = {
    "alexnet": "Krizhevsky et al. 2012",
    "vgg": "Simonyan & Zisserman 2014",
    "zfnet": "Zeiler & Fergus 2013",
}
# How far a result was repeated.
STATES = {
    "repeated": "with the same data and protocol",
    "smaller-scale": "with less data or another network; the differences are stated",
    "protocol-only": "the protocol is in the package, and was not run",
    "not-possible": "for the reason that is stated",
}
# Range of the values in each unit.
UNITS = {
    "%": (0.0, 100.0),
    "points": (0.0, 100.0),
    "distance": (0.0, 1.0),
    **dict.fromkeys(
        (
            "days", "epochs", "images", "iterations", "million", "minutes", "neurons", "pixels",
            "times", "weeks", "weights",
        ),
        (0.0, math.inf),
    ),
}  # fmt: skip
# Columns of an evaluation: errors on the validation images, and on the test images.
COLUMNS = ("top1_error", "top5_error", "test_top5_error")
INTERVALS = ("images", "splits", "seeds")
FILE = "results.json"
_ID = re.compile(r"[a-z0-9]+(?:[.-][a-z0-9]+)+")
_FIELDS = frozenset(
    {
        "id", "paper", "place", "what", "value", "unit", "spread", "split", "network", "protocol",
        "note", "state", "why", "command", "test", "procedure", "ours",
    }
)  # fmt: skip
_OWN_FIELDS = frozenset(
    {"value", "command", "seeds", "interval", "interval_over", "differs", "commit", "minutes"}
)


@dataclass(frozen=True)
class OwnResult:
    """What was measured with cnnkit for a result of a paper.

    Attributes:
        value: The value, in the unit of the paper's; a mean if there are several seeds.
        command: The command that gives it.
        seeds: Seeds of the runs or splits; empty where nothing is random.
        interval: Lowest and highest value of a 95 % interval, or None.
        interval_over: What the interval is about: `"images"` (Wilson), `"splits"` or `"seeds"`
            (Student's t).
        differs: What differs from the paper; empty for a repeated result.
        commit: Commit of cnnkit, or None if it is not known.
        minutes: Time of the command, or None if it is not known.
    """

    value: float
    command: str
    seeds: tuple[int, ...] = ()
    interval: tuple[float, float] | None = None
    interval_over: str = ""
    differs: str = ""
    commit: str | None = None
    minutes: float | None = None


@dataclass(frozen=True)
class PaperResult:
    """A result that a paper reports, and how far it was repeated.

    Attributes:
        id: Its name, such as `vgg.table3.d.256.top1`.
        paper: `"alexnet"`, `"vgg"` or `"zfnet"`.
        place: Table, figure or section.
        what: What is measured.
        value: The value in the paper.
        unit: Its unit.
        spread: The deviation that the paper gives behind ±, or None.
        split: Dataset and split; empty where there is none.
        network: Network or method; empty where there is none.
        protocol: Protocol of the test; empty where there is none.
        note: Remark on the value, such as "about".
        state: One of `STATES`.
        why: Reason why it was not run; empty for a result that was.
        command: Commands that run the protocol, or empty. Words in capitals are to be replaced.
        test: Name of the test of `cnnkit evaluate` that it belongs to, and column of its errors; or
            None.
        procedure: `name` and settings of what `cnnkit reproduce` runs; empty if it runs nothing.
        ours: What was measured; None if it was not run.
    """

    id: str
    paper: str
    place: str
    what: str
    value: float
    unit: str
    spread: float | None
    split: str
    network: str
    protocol: str
    note: str
    state: str
    why: str
    command: str
    test: tuple[str, str] | None
    procedure: Mapping[str, Any] = field(hash=False)
    ours: OwnResult | None

    @property
    def source(self) -> str:
        """Paper and place, such as `Zeiler & Fergus 2013, Table 2`."""
        return f"{PAPERS[self.paper]}, {self.place}"


@functools.cache
def paper_results() -> tuple[PaperResult, ...]:
    """Return all results of the papers, in their order.

    Raises:
        DataError: If the file of the package has been damaged.

    Example:
        >>> from cnnkit.papers import paper_results
        >>> sorted({result.paper for result in paper_results()})
        ['alexnet', 'vgg', 'zfnet']
    """
    data = importlib.resources.files("cnnkit.papers").joinpath(FILE).read_bytes()
    return parse_ledger(data, FILE)


def find_paper_result(id: str) -> PaperResult:
    """Return one result of the papers.

    Args:
        id: Its name.

    Raises:
        UsageError: If there is no such result.

    Example:
        >>> from cnnkit.papers import find_paper_result
        >>> found = find_paper_result("vgg.table3.d.256.top1")
        >>> found.value, found.unit, found.source
        (27.0, '%', 'Simonyan & Zisserman 2014, Table 3')
    """
    by_id = {result.id: result for result in paper_results()}
    if id not in by_id:
        near = near_names(id, list(by_id))
        question = f"Did you mean {' or '.join(near)}? " if near else ""
        raise UsageError(
            "`id` must be a result of the papers",
            received=id,
            hint=f"{question}`cnnkit papers` lists them",
        )
    return by_id[id]


def paper_errors(prefix: str) -> tuple[float, float] | None:
    """Return the top-1 and the top-5 error in % of the results whose names begin alike, or None.

    Example:
        >>> paper_errors("vgg.table3.d.256"), paper_errors("vgg.table3.a.384")
        ((27.0, 8.8), None)
    """
    by_id = {result.id: result.value for result in paper_results()}
    top1, top5 = (by_id.get(f"{prefix}.{name}") for name in ("top1", "top5"))
    return None if top1 is None or top5 is None else (top1, top5)


def parse_ledger(data: bytes, origin: str) -> tuple[PaperResult, ...]:
    """Parse a file of results and check it.

    Args:
        data: The file: an object with `reasons` by name, and the list `results`.
        origin: Its name, for messages.

    Raises:
        DataError: If a field is unknown, missing, of another type or out of range, a name occurs
            twice, or the state and the other fields contradict each other.
    """
    document = JsonFields(parse_json(data, origin), origin)
    reasons = document.fields("reasons")
    results = tuple(
        _parse_result(JsonFields(one, origin, f"results[{number}]"), reasons)
        for number, one in enumerate(document.items("results"))
    )
    _check_unique("id", [result.id for result in results], origin)
    _check_unique("test", [result.test for result in results if result.test], origin)
    used = {one.get("why") for one in document.items("results")}
    if unused := sorted(set(reasons) - used):
        raise DataError(f"`reasons` in {origin} must be used", received=unused[0])
    return results


def _check_unique(name: str, values: Sequence[Any], origin: str) -> None:
    for value, count in Counter(values).items():
        if count > 1:
            raise DataError(f"`{name}` in {origin} must be given once", received=value)


def _parse_result(fields: JsonFields, reasons: JsonFields) -> PaperResult:
    _refuse_unknown(fields, _FIELDS)
    paper, state = _choice(fields, "paper", PAPERS), _choice(fields, "state", STATES)
    unit = _choice(fields, "unit", UNITS)
    id = fields.text("id")
    if not _ID.fullmatch(id) or not id.startswith(f"{paper}."):
        raise fields.wrong("id", f"words with dots between them that begin with {paper}")
    ours = _parse_own(fields.fields("ours"), unit) if "ours" in fields else None
    why = fields.text("why", default="")
    is_measured = state in ("repeated", "smaller-scale")
    if is_measured != (ours is not None):
        wanted = "what was measured" if is_measured else f"absent for a result that is {state}"
        raise fields.wrong("ours", wanted)
    if is_measured == bool(why):
        wanted = "absent for a result that was measured" if is_measured else "the name of a reason"
        raise fields.wrong("why", wanted)
    if why and why not in reasons:
        raise fields.wrong("why", f"one of {', '.join(reasons)}")
    if ours is not None and (state == "smaller-scale") != bool(ours.differs):
        raise fields.wrong("ours", "with `differs` at a smaller scale, and without it otherwise")
    return PaperResult(
        id=id,
        paper=paper,
        place=fields.text("place"),
        what=fields.text("what"),
        value=_value(fields, "value", unit),
        unit=unit,
        spread=_value(fields, "spread", unit) if "spread" in fields else None,
        **{
            name: fields.text(name, default="")
            for name in ("split", "network", "protocol", "note", "command")
        },
        state=state,
        why=reasons.text(why) if why else "",
        test=_parse_test(fields.fields("test")) if "test" in fields else None,
        procedure=_parse_procedure(fields),
        ours=ours,
    )


def _parse_test(fields: JsonFields) -> tuple[str, str]:
    _refuse_unknown(fields, {"name", "column"})
    return fields.text("name"), _choice(fields, "column", COLUMNS)


def _parse_procedure(fields: JsonFields) -> Mapping[str, Any]:
    if "procedure" not in fields:
        return {}
    procedure = fields.fields("procedure")
    procedure.text("name")
    return dict(procedure.document)


def _parse_own(fields: JsonFields, unit: str) -> OwnResult:
    _refuse_unknown(fields, _OWN_FIELDS)
    value, interval = _value(fields, "value", unit), None
    if "interval" in fields:
        low, high = fields.numbers(
            "interval", minimum=UNITS[unit][0], maximum=UNITS[unit][1], count=2
        )
        if not low <= value <= high:
            raise fields.wrong("interval", f"around the value {value:g}")
        interval = (low, high)
    seeds = fields.integers("seeds", default=())
    over = _choice(fields, "interval_over", INTERVALS) if "interval_over" in fields else ""
    if bool(over) != (interval is not None):
        raise fields.wrong("interval_over", "given with an interval, and only then")
    return OwnResult(
        value,
        fields.text("command"),
        seeds,
        interval,
        over,
        fields.text("differs", default=""),
        fields.text("commit", default=None),
        fields.number("minutes", minimum=0, default=None),
    )


def _value(fields: JsonFields, name: str, unit: str) -> float:
    low, high = UNITS[unit]
    return fields.number(name, minimum=low, maximum=high)


def _choice(fields: JsonFields, name: str, known: Any) -> str:
    value = fields.text(name)
    if value not in known:
        raise fields.wrong(name, f"one of {', '.join(known)}")
    return value


def _refuse_unknown(fields: JsonFields, known: frozenset[str] | set[str]) -> None:
    if unknown := sorted(set(fields) - known):
        raise DataError(
            f"`{fields.place}` in {fields.origin} must have known fields", received=unknown[0]
        )
