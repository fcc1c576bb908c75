"""Results of the papers as text, and the page docs/ledger.md, which must not be stale."""

from pathlib import Path

import pytest

from cnnkit.papers import paper_results
from cnnkit.papers.text import by_place, count_states, ledger_page, paper_value, value_text

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("value", "unit", "spread", "text"),
    [
        (27.0, "%", None, "27.0 %"),
        (81.481481, "%", None, "81.48 %"),
        (86.2, "%", 0.8, "86.2 ± 0.8 %"),
        (81.4, "%", 0.33, "81.4 ± 0.33 %"),
        (3.75, "times", None, "3.75 times"),
        (650_000.0, "neurons", None, "650,000"),
        (0.067, "distance", 0.007, "0.067 ± 0.007"),
    ],
)
def test_values_have_their_units(value, unit, spread, text):
    assert value_text(value, unit, spread) == text


def test_about_stands_before_a_value():
    [parameters] = [one for one in paper_results() if one.id == "alexnet.text.parameters"]
    assert paper_value(parameters) == "about 60 million"


def test_the_page_of_the_documents_is_not_stale():
    page = (ROOT / "docs" / "ledger.md").read_text(encoding="utf-8")
    assert page == ledger_page(paper_results()), (
        "docs/ledger.md is stale: cnnkit papers --markdown > docs/ledger.md"
    )


def test_the_page_counts_the_states():
    results = paper_results()
    page = ledger_page(results)
    for state, count in count_states(results).items():
        [line] = [one for one in page.splitlines() if one.startswith(f"| {state} |")]
        cells = [cell.strip() for cell in line.split("|")]
        assert sum(map(int, cells[2:5])) == int(cells[5]) == count
        assert count == sum(result.state == state for result in results)


def test_every_result_stands_in_its_place_once():
    results = paper_results()
    page = ledger_page(results)
    places = by_place(results)
    assert sum(len(rows) for _, rows in places) == len(results)
    assert len({source for source, _ in places}) == len(places)
    all_results = page.partition("## All results")[2]
    assert all(all_results.count(f"| `{result.id}` |") == 1 for result in results)
