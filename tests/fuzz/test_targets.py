"""Mutated files at every reader of foreign bytes: a value, or an error of ours."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnkit.errors import CnnkitError
from tests.fuzz import TARGETS
from tests.fuzz.readers import READERS
from tests.fuzz.target import keep_findings, place_of

# Mutated files of each target.
EXAMPLES = 25
# These build models or decode images, which takes longer.
SLOW = {"keras-model", "image", "image-header", "image-traits", "shard-records", "shard-places"}
# Values that are nobody's size, and bytes that begin or end something.
EXTREMES = (
    b"\0",
    b"\xff",
    b"\x7f\xff\xff\xff",
    b"\xff" * 8,
    b"{",
    b"]",
    b'"',
    b"9" * 20,
    b"-",
    b"\n",
)


@st.composite
def mutations(draw):
    """Draw a function of bytes that changes, cuts and splices them."""
    changes = draw(
        st.lists(
            st.tuples(
                st.sampled_from(("put", "insert", "cut", "end", "double", "flip")),
                st.floats(0, 1, exclude_max=True),
                st.integers(1, 64),
                st.sampled_from(EXTREMES),
            ),
            min_size=1,
            max_size=4,
        )
    )

    def mutate(data):
        for kind, part, count, extreme in changes:
            at = int(part * len(data))
            if kind == "put":
                data = data[:at] + extreme + data[at + len(extreme) :]
            elif kind == "insert":
                data = data[:at] + extreme + data[at:]
            elif kind == "cut":
                data = data[:at] + data[at + count :]
            elif kind == "end":
                data = data[:at]
            elif kind == "double":
                data = data[: at + count] + data[at:]
            elif data:
                data = data[:at] + bytes([data[at] ^ count]) + data[at + 1 :]
        return data

    return mutate


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=[pytest.mark.slow] * (one in SLOW)) for one in TARGETS]
)
def test_readers_take_their_seeds_and_refuse_mutated_ones(name):
    seeds, check = TARGETS[name]()
    taken = []
    for seed in seeds[:8]:
        try:
            check(seed)
            taken.append(seed)
        except CnnkitError:
            continue
    assert taken

    @settings(max_examples=EXAMPLES)
    @given(st.sampled_from(seeds), mutations())
    def attack(seed, mutate):
        try:
            with warnings.catch_warnings(action="ignore"), np.errstate(all="ignore"):
                check(mutate(seed))
        except CnnkitError:
            return

    attack()


def test_findings_are_kept_once_for_a_place(tmp_path):
    def check(data):
        if data.startswith(b"a"):
            raise KeyError(data)
        if data.startswith(b"b"):
            raise CnnkitError("refused")

    checked = keep_findings(check, tmp_path)
    for data in (b"a1", b"a2", b"b", b"c"):
        checked(data)
    [found, text] = sorted(tmp_path.iterdir())
    assert found.read_bytes() == b"a1"
    assert text.read_text().startswith("KeyError at test_targets.py:")


def test_place_is_that_of_the_package():
    from cnnkit.config_values import parse_color

    with pytest.raises(Exception) as raised:
        parse_color(5)
    assert "config_values.py:" in place_of(raised.value)


def test_targets_have_unique_names():
    assert len(READERS) + 3 == len(TARGETS)
