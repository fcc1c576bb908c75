"""Results of the papers as text: values with their units, and the whole ledger as a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from cnnkit.papers.ledger import PAPERS, STATES, OwnResult, PaperResult

# Units that stand behind a number; others are what is counted.
_SYMBOLS = {"%", "points", "million", "times", "days", "weeks", "minutes", "pixels"}


def value_text(value: float, unit: str, spread: float | None = None) -> str:
    """Return a value with its unit.

    Example:
        >>> value_text(27, "%"), value_text(86.2, "%", 0.8), value_text(2178, "images")
        ('27.0 %', '86.2 ± 0.8 %', '2,178')
    """
    text = _number(value, unit)
    text += "" if spread is None else f" ± {_number(spread, unit)}"
    return f"{text} {unit}" if unit in _SYMBOLS else text


def _number(value: float, unit: str) -> str:
    if unit == "%":
        return f"{value:.1f}" if round(value, 1) == value else f"{value:.2f}"
    return f"{value:,.10g}"


def paper_value(result: PaperResult) -> str:
    """Return the value in the paper, as `value_text`, with "about" and the like."""
    qualifier = f"{result.note} " if result.note in ("about", "more than") else ""
    return qualifier + value_text(result.value, result.unit, result.spread)


def own_value(ours: OwnResult, unit: str) -> str:
    """Return a value that was measured, with its interval.

    Example:
        >>> own_value(OwnResult(1.7, "", interval=(0.5, 5.9), interval_over="images"), "%")
        '1.7 % (95 %: 0.5 to 5.9)'
    """
    text = value_text(ours.value, unit)
    if ours.interval is None:
        return text
    low, high = (_number(end, unit) for end in ours.interval)
    return f"{text} (95 %: {low} to {high})"


def circumstances(result: PaperResult) -> str:
    """Return network, protocol and split of a result, as far as it has them."""
    return "; ".join(one for one in (result.network, result.protocol, result.split) if one)


def by_place(results: Iterable[PaperResult]) -> list[tuple[str, list[PaperResult]]]:
    """Return the results of each table, figure or section of a paper together, in order."""
    places: dict[str, list[PaperResult]] = {}
    for result in results:
        places.setdefault(result.source, []).append(result)
    return list(places.items())


def count_states(results: Sequence[PaperResult]) -> dict[str, int]:
    """Return the number of results in each state."""
    counts = Counter(result.state for result in results)
    return {state: counts[state] for state in STATES}


def ledger_page(results: Sequence[PaperResult]) -> str:
    """Return the ledger as a page in Markdown.

    Args:
        results: All results.
    """
    reasons = list(dict.fromkeys(result.why for result in results if result.why))
    counts = {paper: count_states([r for r in results if r.paper == paper]) for paper in PAPERS}
    lines = [
        "# Ledger: the results of the papers",
        "",
        "Every result in the tables, figures and text of the three papers, and how far it was",
        "repeated. `cnnkit papers` lists the same, `cnnkit papers ID` shows one result with its",
        "commands, and `cnnkit reproduce ID --output DIR` runs it where that is possible. This",
        "page is written by `cnnkit papers --markdown > docs/ledger.md`.",
        "",
        *_table(
            ["state", *PAPERS.values(), "all", "meaning"],
            [
                [
                    state,
                    *(str(counts[paper][state]) for paper in PAPERS),
                    str(sum(counts[paper][state] for paper in PAPERS)),
                    meaning,
                ]
                for state, meaning in STATES.items()
            ],
        ),
        "",
        "## Measured here",
        "",
        "Intervals are 95 % intervals: over test images Wilson's, over splits or seeds Student's.",
        "",
        *_table(
            ["result", "paper", "here", "seeds or splits", "what differs", "command"],
            [_measured_row(result, result.ours) for result in results if result.ours],
        ),
        "",
        "## All results",
        "",
        "A number behind a state is that of the reason, at the end of the page.",
    ]
    for source, rows in by_place(results):
        cells = [
            [
                f"`{row.id}`", row.what, circumstances(row), paper_value(row),
                f"{row.state} ({reasons.index(row.why) + 1})" if row.why else row.state,
            ]
            for row in rows
        ]  # fmt: skip
        heads = ["result", "what", "network; protocol; images", "paper", "state"]
        lines += ["", f"### {source}", "", *_table(heads, cells)]
    lines += ["", "## Reasons", ""]
    lines += [
        f"{number}. {reason[0].upper()}{reason[1:]}." for number, reason in enumerate(reasons, 1)
    ]
    return "\n".join(lines) + "\n"


def _measured_row(result: PaperResult, ours: OwnResult) -> list[str]:
    seeds = f"{len(ours.seeds)} ({', '.join(map(str, ours.seeds))})" if ours.seeds else "no chance"
    notes = [result.note] if result.note not in ("", "about", "more than") else []
    return [
        f"`{result.id}`", paper_value(result), own_value(ours, result.unit), seeds,
        "; ".join([*([ours.differs] if ours.differs else []), *(f"the paper: {n}" for n in notes)]),
        f"`{ours.command}`",
    ]  # fmt: skip


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [heads, ["---"] * len(heads), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]
