"""Pickles, read by a machine that makes containers, texts and numbers, and calls nothing.

A pickle is a program that names functions of Python and calls them. Here no name is looked up:
what a pickle would have made by a call stays a `Made`, with the name of the function, the
arguments and the state. `cnnkit._untrusted.pickled_arrays` makes NumPy's arrays from these.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from cnnkit._untrusted.damage import damage_as_error
from cnnkit._untrusted.limits import (
    MAX_PICKLE_BYTES,
    MAX_PICKLE_STEPS,
)
from cnnkit._untrusted.regular_files import FileRange
from cnnkit.errors import DataError

ORDERED = "collections.OrderedDict"
DICTIONARIES = (ORDERED, "collections.defaultdict", "builtins.dict")
# What a key of a dictionary may be. The hash of a tuple can take for ever; larger integers, and
# floats, can be chosen so that all have one hash.
KEYS = (str, bytes, bool, type(None))
LARGEST_KEY = 1 << 60


@dataclass(frozen=True)
class Name:
    """A function or class that a pickle names, by its module and name; it is not looked up."""

    path: str


@dataclass(eq=False)
class Made:
    """What a call of the pickle would have made; the call did not happen.

    Attributes:
        path: Module and name of the function or class.
        arguments: Its arguments.
        state: What the object would have taken over, or None.
        entries: Entries that would have been set in it, by their key.
    """

    path: str
    arguments: tuple[Any, ...] = ()
    state: Any = None
    entries: dict[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Persistent:
    """What the pickle refers to outside of itself, such as a storage of PyTorch."""

    content: Any


@dataclass(frozen=True)
class Pickled:
    """What a pickle holds.

    Attributes:
        content: Dictionaries, lists, tuples, sets as lists, texts, bytes and numbers; `Name`,
            `Made` and `Persistent` for the rest. The same object may be in several places, also in
            itself.
        names: Paths of all functions and classes that it names, each once, in their order.
        persistent: All objects that it refers to outside of itself.
    """

    content: Any
    names: tuple[str, ...]
    persistent: tuple[Persistent, ...]


def read_pickle(
    file: BinaryIO, origin: str | Path, *, max_bytes: int = MAX_PICKLE_BYTES
) -> Pickled:
    """Read the next pickle of a file, without calling what it names.

    Args:
        file: The file, at the beginning of the pickle; afterwards it is behind the pickle.
        origin: Its name, for messages.
        max_bytes: Largest number of bytes of the pickle.

    Raises:
        DataError: If it is not a pickle, is damaged or larger than `max_bytes`, has more than
            `MAX_PICKLE_STEPS` steps, or a key of a dictionary that is not a text or number.
    """
    start = file.tell()
    view: Any = FileRange(file, start, origin=origin, max_read=max_bytes)
    machine = _Machine(origin)
    with damage_as_error(origin):
        for count, (opcode, argument, place) in enumerate(pickletools.genops(view)):
            if count > MAX_PICKLE_STEPS or (place or 0) > max_bytes:
                raise DataError(
                    f"{origin} has an absurdly long pickle",
                    expected=f"at most {MAX_PICKLE_STEPS:,} steps in {max_bytes:,} bytes",
                )
            machine.step(opcode.name, argument)
        content = machine.pop()
    file.seek(start + view.tell())
    return Pickled(content, tuple(machine.names), tuple(machine.persistent))


class _Machine:
    """Stack and memo of a pickle."""

    def __init__(self, origin: str | Path) -> None:
        self.origin = origin
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.names: dict[str, Name] = {}
        self.persistent: list[Persistent] = []

    def step(self, opcode: str, argument: Any) -> None:
        """Do one step."""
        if opcode in CONSTANTS:
            self.stack.append(CONSTANTS[opcode])
        elif opcode in LITERALS:
            self.stack.append(argument)
        elif opcode in STEPS:
            STEPS[opcode](self, argument)
        elif opcode not in WITHOUT_EFFECT:
            raise DataError(f"{self.origin} has a pickle of another kind", received=opcode)

    def damaged(self, what: str) -> DataError:
        """Return the error for a pickle that no program writes."""
        return DataError(f"{self.origin} is damaged or incomplete", received=f"a pickle {what}")

    def pop(self) -> Any:
        """Remove the topmost object; it must be above the last mark."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise self.damaged("with an empty stack")
        return self.stack.pop()

    def pop_items(self) -> list[Any]:
        """Remove what is above the last mark."""
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def push_tuple(self, count: int) -> None:
        """Replace the topmost objects by a tuple."""
        items = [self.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(items)))

    def name(self, _: Any = None) -> None:
        """Put a name of two texts, or of one with a space."""
        name, module = self.pop(), self.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise self.damaged("with a name that is not text")
        self.push_name(f"{module}.{name}")

    def push_name(self, path: str) -> None:
        """Put the name of a function or class."""
        self.stack.append(self.names.setdefault(path, Name(path)))

    def refer(self, content: Any) -> None:
        """Put what lies outside of the pickle."""
        self.persistent.append(Persistent(content))
        self.stack.append(self.persistent[-1])

    def call(self, function: Any, arguments: Any) -> None:
        """Put what a call would have made."""
        if not isinstance(arguments, (tuple, list)):
            raise self.damaged("with a call without arguments")
        if isinstance(function, Name) and function.path in DICTIONARIES:
            self.stack.append({})
            # Python 2 gives an ordered dictionary its entries as a list of pairs.
            if arguments and isinstance(arguments[0], list):
                self.set_items([part for pair in arguments[0] for part in self._two(pair)])
            return
        if isinstance(function, Persistent):
            # PyTorch's older format keeps the source of a class beside its name.
            parts = function.content if isinstance(function.content, tuple) else ()
            function = next((part for part in parts if isinstance(part, Name)), function)
        path = function.path if isinstance(function, (Name, Made)) else type(function).__name__
        self.stack.append(Made(path, tuple(arguments)))

    def _two(self, pair: Any) -> Any:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise self.damaged("with a dictionary of no pairs")
        return pair

    def build(self, _: Any) -> None:
        """Give the topmost object a state, which containers ignore."""
        state = self.pop()
        target = self.stack[-1]
        if isinstance(target, Made):
            target.state = state

    def append(self, items: list[Any]) -> None:
        """Append to the topmost list; objects leave items out."""
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Made):
            raise self.damaged("that appends to no list")

    def set_items(self, items: list[Any]) -> None:
        """Set entries of the topmost dictionary or object."""
        target = self.stack[-1]
        entries = target.entries if isinstance(target, Made) else target
        if not isinstance(entries, dict) or len(items) % 2:
            raise self.damaged("that sets entries of no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if isinstance(key, float):
                entries[repr(key)] = value
            elif isinstance(key, KEYS) or (isinstance(key, int) and abs(key) < LARGEST_KEY):
                entries[key] = value
            elif not isinstance(target, Made):
                raise DataError(
                    f"{self.origin} has a dictionary with keys of another kind",
                    expected="texts and small integers",
                    received=type(key).__name__,
                )

    def put(self, argument: Any) -> None:
        """Remember the topmost object."""
        self.memo[int(argument) if argument is not None else len(self.memo)] = self.stack[-1]


CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
INTEGERS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"}
TEXTS = {"STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE",
         "BINUNICODE8"}  # fmt: skip
BYTES = {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
LITERALS = INTEGERS | TEXTS | BYTES | {"FLOAT", "BINFLOAT"}
WITHOUT_EFFECT = frozenset({"PROTO", "FRAME", "STOP"})


def _global(machine: _Machine, argument: str) -> None:
    machine.push_name(argument.replace(" ", ".", 1))


def _reduce(machine: _Machine, _: Any) -> None:
    arguments, function = machine.pop(), machine.pop()
    machine.call(function, arguments)


def _new_object_with_keywords(machine: _Machine, _: Any) -> None:
    _keywords, arguments, function = machine.pop(), machine.pop(), machine.pop()
    machine.call(function, arguments)


def _object(machine: _Machine, _: Any) -> None:
    function, *arguments = machine.pop_items()
    machine.call(function, arguments)


def _instance(machine: _Machine, argument: str) -> None:
    arguments = machine.pop_items()
    machine.call(Name(argument.replace(" ", ".", 1)), arguments)


def _dictionary(machine: _Machine, _: Any) -> None:
    items = machine.pop_items()
    machine.stack.append({})
    machine.set_items(items)


def _pair(machine: _Machine, _: Any) -> None:
    value, key = machine.pop(), machine.pop()
    machine.set_items([key, value])


STEPS: dict[str, Callable[[_Machine, Any], object]] = {
    "MARK": lambda m, _: m.marks.append(len(m.stack)),
    "POP": lambda m, _: m.stack.pop() if len(m.stack) > sum(m.marks[-1:]) else m.marks.pop(),
    "POP_MARK": lambda m, _: m.pop_items(),
    "DUP": lambda m, _: m.stack.append(m.stack[-1]),
    "EMPTY_LIST": lambda m, _: m.stack.append([]),
    "EMPTY_SET": lambda m, _: m.stack.append([]),
    "EMPTY_DICT": lambda m, _: m.stack.append({}),
    "EMPTY_TUPLE": lambda m, _: m.stack.append(()),
    "LIST": lambda m, _: m.stack.append(m.pop_items()),
    "FROZENSET": lambda m, _: m.stack.append(m.pop_items()),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.pop_items())),
    "TUPLE1": lambda m, _: m.push_tuple(1),
    "TUPLE2": lambda m, _: m.push_tuple(2),
    "TUPLE3": lambda m, _: m.push_tuple(3),
    "DICT": _dictionary,
    "APPEND": lambda m, _: m.append([m.pop()]),
    "APPENDS": lambda m, _: m.append(m.pop_items()),
    "ADDITEMS": lambda m, _: m.append(m.pop_items()),
    "SETITEM": _pair,
    "SETITEMS": lambda m, _: m.set_items(m.pop_items()),
    "GET": lambda m, key: m.stack.append(m.memo[int(key)]),
    "BINGET": lambda m, key: m.stack.append(m.memo[int(key)]),
    "LONG_BINGET": lambda m, key: m.stack.append(m.memo[int(key)]),
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.put,
    "GLOBAL": _global,
    "STACK_GLOBAL": _Machine.name,
    "REDUCE": _reduce,
    "NEWOBJ": _reduce,
    "NEWOBJ_EX": _new_object_with_keywords,
    "OBJ": _object,
    "INST": _instance,
    "BUILD": _Machine.build,
    "PERSID": _Machine.refer,
    "BINPERSID": lambda m, _: m.refer(m.pop()),
}
