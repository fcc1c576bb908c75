"""Damaged and prepared files, for tests of readers."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from cnnkit.errors import CnnkitError

# What a field of a JSON document may hold instead of what is expected.
ODD_VALUES = (
    None, True, -1, 0, 1, 2.5, 10**18, 10**400, 1e308, float("nan"), "", "x", "\x1b[2J", "\ud800",
    [], {}, [None], [[1]], [10**18], {"a": 1}, ["a", 1], {"__loader__": "ListNode"},
)  # fmt: skip


def damaged(data: bytes) -> st.SearchStrategy[bytes]:
    """Draw bytes with some flipped, cut off, left out or repeated."""

    def change(draws: tuple[str, int, int, int]) -> bytes:
        how, first, second, value = draws
        start, end = sorted((first % (len(data) + 1), second % (len(data) + 1)))
        return {
            "flip": data[:start] + bytes([value]) + data[start + 1 :],
            "cut": data[:start],
            "leave": data[:start] + data[end:],
            "repeat": data[:end] + data[start:],
            "zeros": data[:start] + bytes(end - start) + data[end:],
        }[how]

    ways = st.sampled_from(["flip", "cut", "leave", "repeat", "zeros"])
    place = st.integers(0, 1 << 20)
    return st.tuples(ways, place, place, st.integers(0, 255)).map(change)


def changed_json(document: Any) -> st.SearchStrategy[bytes]:
    """Draw the text of a JSON document with one value replaced, removed or renamed."""
    places = list(_places(document, ()))

    def change(draws: tuple[tuple[Any, ...], str, Any]) -> bytes:
        (*outer, last), how, value = draws
        changed = copy.deepcopy(document)
        inside = changed
        for key in outer:
            inside = inside[key]
        if how == "replace":
            inside[last] = value
        elif how == "remove":
            del inside[last]
        elif isinstance(inside, dict):
            inside["another"] = inside.pop(last)
        return json.dumps(changed).encode()

    ways = st.sampled_from(["replace", "replace", "replace", "remove", "rename"])
    return st.tuples(st.sampled_from(places), ways, st.sampled_from(ODD_VALUES)).map(change)


def reads_or_refuses(read: Callable[[], Any]) -> None:
    """Check that a reader returns, or raises an error of cnnkit in one line."""
    try:
        read()
    except CnnkitError as error:
        assert str(error).isprintable()
        assert len(str(error)) < 2000


def _places(document: Any, path: tuple[Any, ...]) -> Any:
    if path:
        yield path
    inner = document.items() if isinstance(document, dict) else ()
    # The first entries of a list stand for the others.
    inner = enumerate(document[:3]) if isinstance(document, list) else inner
    for key, value in inner:
        yield from _places(value, (*path, key))
