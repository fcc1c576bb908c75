"""List the results of the three papers, or show one in full.

`cnnkit papers` lists every result in their tables, figures and text, with what was measured here;
`cnnkit papers ID` shows one: its protocol, its commands, and what differs or why it was not run.
`cnnkit reproduce ID` runs it.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence

from cnnkit.cli.console import add_json_argument, print_json, print_line, print_table, print_text
from cnnkit.errors import UsageError
from cnnkit.papers import PAPERS, STATES, PaperResult, find_paper_result, paper_results
from cnnkit.papers.text import (
    by_place,
    circumstances,
    count_states,
    ledger_page,
    own_value,
    paper_value,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("id", nargs="?", metavar="ID", help="a result, as the list names it")
    parser.add_argument("--paper", choices=tuple(PAPERS), help="results of one paper")
    parser.add_argument("--state", choices=tuple(STATES), help="results in one state")
    parser.add_argument(
        "--markdown", action="store_true", help="print all as a page in Markdown: docs/ledger.md"
    )
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Print the list, or one result."""
    _check(args)
    if args.id is not None:
        result = find_paper_result(args.id)
        if args.json:
            print_json(dataclasses.asdict(result), indent=2)
        else:
            for line in _describe(result):
                print_line(line)
        return 0
    results = [
        result
        for result in paper_results()
        if args.paper in (None, result.paper) and args.state in (None, result.state)
    ]
    if args.markdown:
        print_text(ledger_page(results).rstrip("\n"), sys.stdout)
    elif args.json:
        print_json([dataclasses.asdict(result) for result in results], indent=2)
    else:
        _print_list(results)
    return 0


def _check(args: argparse.Namespace) -> None:
    chosen = [f"--{name}" for name in ("paper", "state") if getattr(args, name) is not None]
    if args.markdown and (args.json or args.id is not None or chosen):
        raise UsageError(
            "--markdown prints the whole page", expected="no ID, --paper, --state or --json with it"
        )
    if args.id is not None and chosen:
        raise UsageError(f"{chosen[0]} must not be given with `id`", received=args.id)


def _print_list(results: Sequence[PaperResult]) -> None:
    for source, rows in by_place(results):
        print_line(source)
        print_table(
            [
                {
                    "result": row.id,
                    "what": row.what,
                    "network; protocol; images": circumstances(row),
                    "paper": paper_value(row),
                    "here": own_value(row.ours, row.unit) if row.ours else "-",
                    "state": row.state,
                }
                for row in rows
            ]
        )
        print_line("")
    counts = ", ".join(f"{count} {state}" for state, count in count_states(results).items())
    print_line(f"{len(results)} results: {counts}")


def _describe(result: PaperResult) -> list[str]:
    facts = {
        "source": result.source,
        "what": result.what,
        "network": result.network,
        "protocol": result.protocol,
        "images": result.split,
        "paper": paper_value(result),
        "note": result.note,
        "state": f"{result.state}: {STATES[result.state]}",
        "why": result.why,
        "command": result.command,
    }
    ours = result.ours
    if ours is not None:
        facts |= {
            "here": own_value(ours, result.unit),
            "interval": f"95 %, over {ours.interval_over}" if ours.interval_over else "",
            "seeds": " ".join(map(str, ours.seeds)),
            "differs": ours.differs,
            "run by": ours.command,
            "minutes": "" if ours.minutes is None else f"{ours.minutes:g}",
            "commit": ours.commit or "",
        }
    if result.procedure:
        facts["again by"] = f"cnnkit reproduce {result.id} --output DIR"
    return [result.id, *(f"{name:<9} {text}" for name, text in facts.items() if text)]
