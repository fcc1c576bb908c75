"""Pipelines of scikit-learn in `.skops` files, which are checked whole before anything is built.

skops builds objects of all types of scikit-learn. Some of them, such as support vectors and trees,
read memory at the numbers in the file. A file that is read here holds linear types only, whose
content is arrays in that file.
"""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import skops.io
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, RidgeClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import (
    LabelBinarizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import LinearSVC

from cnnkit._untrusted.damage import damage_as_error, shorten
from cnnkit._untrusted.json_documents import JsonFields, parse_json
from cnnkit._untrusted.limits import (
    MAX_ESTIMATOR_VALUE,
    MAX_PIPELINE_BYTES,
    MAX_PIPELINE_SCHEMA_BYTES,
)
from cnnkit._untrusted.npy_arrays import check_array, read_npy_header
from cnnkit._untrusted.regular_files import open_regular_file
from cnnkit._untrusted.zip_archives import open_zip, read_member, stored_start
from cnnkit.errors import DataError

SCHEMA = "schema.json"
ESTIMATORS = (
    Pipeline, Normalizer, StandardScaler, MinMaxScaler, MaxAbsScaler, RobustScaler, PCA, LinearSVC,
    LogisticRegression, LogisticRegressionCV, RidgeClassifier, LinearDiscriminantAnalysis,
    OneVsRestClassifier, LabelBinarizer,
)  # fmt: skip
NUMBER_TYPES = ("ndarray", "float64", "float32", "int64", "int32", "bool", "bool_")
# The types that each kind of node may have, by their full names. A node whose kind is missing here,
# such as a function, a method or a reference to another node, is refused.
TYPES = {
    "ObjectNode": frozenset(f"{cls.__module__}.{cls.__name__}" for cls in ESTIMATORS),
    "DictNode": frozenset({"builtins.dict"}),
    "ListNode": frozenset({"builtins.list"}),
    "TupleNode": frozenset({"builtins.tuple"}),
    "TypeNode": frozenset({"builtins.str"}),
    "JsonNode": frozenset({"builtins.str"}),
    "NdArrayNode": frozenset(f"numpy.{name}" for name in NUMBER_TYPES),
}


def load_pipeline(file: Path) -> Pipeline:
    """Load a pipeline of linear estimators that `skops.io.dump` wrote. No code in it is run.

    Raises:
        DataError: If the file is damaged, larger than `MAX_PIPELINE_BYTES`, or holds other types.
    """
    open_regular_file(file, max_bytes=MAX_PIPELINE_BYTES).close()
    with damage_as_error(file, problem="is not a saved pipeline"), open_zip(file) as archive:
        schema = parse_json(
            read_member(archive, SCHEMA, max_bytes=MAX_PIPELINE_SCHEMA_BYTES),
            f"{SCHEMA} in {file}",
            max_bytes=MAX_PIPELINE_SCHEMA_BYTES,
        )
        _check_members(archive, _check_nodes(schema, file), file)
        pipeline = skops.io.load(cast("BinaryIO", archive.fp))
    if not isinstance(pipeline, Pipeline):
        raise DataError(f"{file} is not a saved pipeline", received=type(pipeline).__name__)
    return pipeline


def _check_nodes(schema: Any, file: Path) -> list[str]:
    """Check the types of all nodes, and return the names of the members that hold their arrays."""
    unknown: set[str] = set()
    members: list[str] = []
    containers: list[int] = []
    values: set[tuple[int, str]] = set()
    for node in _iter_nodes(schema, file):
        kind, name = node.text("__loader__"), f"{node.text('__module__')}.{node.text('__class__')}"
        number = node.integer("__id__", maximum=1 << 64)
        if name not in TYPES.get(kind, ()):
            unknown.add(name)
        elif kind == "NdArrayNode":
            if node.text("type") != "numpy":
                raise node.wrong("type", "numpy")
            members.append(node.text("file"))
            values.add((number, members[-1]))
        elif kind in ("JsonNode", "TypeNode"):
            values.add((number, kind))
            if kind == "JsonNode":
                _check_value(node, file)
        else:
            containers.append(number)
    if unknown:
        raise DataError(
            f"{file} holds types that are not part of a linear scikit-learn classifier",
            received=", ".join(map(shorten, sorted(unknown)[:3])),
            hint="It was not loaded, because such a file may run code; if you wrote it, load it"
            " with skops.io",
        )
    # skops takes a node of a known number for the same object: a loop, or a list that doubles with
    # each level. Only values are stored so.
    numbers = [*containers, *(number for number, _ in values)]
    if len({*numbers}) < len(numbers):
        raise DataError(f"{file} is damaged: it names an object twice")
    return members


def _iter_nodes(schema: Any, file: Path) -> Iterator[JsonFields]:
    """Yield the nodes of a schema: itself, and all that are inside of others."""
    waiting = [JsonFields(schema, file, SCHEMA)]
    while waiting:
        node = waiting.pop()
        yield node
        content = node.document.get("content")
        inner = [node.document.get("key_types")]
        if isinstance(content, list):
            inner += content
        elif isinstance(content, Mapping):
            inner += [content] if "__loader__" in content else content.values()
        waiting += [JsonFields(one, file, SCHEMA) for one in inner if one is not None]


def _check_value(node: JsonFields, file: Path) -> None:
    """Check a number or text of an estimator's settings; a text may be printed by scikit-learn."""
    text = node.text("content", max_length=MAX_ESTIMATOR_VALUE)
    value = parse_json(text, file, nan=True)
    if isinstance(value, (list, dict)) or (isinstance(value, str) and not value.isprintable()):
        raise node.wrong("content", "a number, or a text that can be printed")


def _check_members(archive: zipfile.ZipFile, names: list[str], file: Path) -> None:
    """Check that members are arrays of numbers or texts that lie in the file as they are.

    Args:
        archive: The open file.
        names: Names of members; one that several objects share is named as often.
        file: Its path, for messages.
    """
    total = 0
    for name, uses in Counter(names).items():
        origin = f"{name} in {file}"
        with damage_as_error(origin):
            info = archive.getinfo(name)
            # A compressed array may be larger than the file by any factor.
            stored_start(archive, info)
            with archive.open(info) as member:
                header = read_npy_header(cast("BinaryIO", member), origin)
                available = info.file_size - member.tell()
            check_array(header, origin, available=available, kinds="biufUS")
        # Each use is a product with the features.
        total += uses * info.file_size
    if total > MAX_PIPELINE_BYTES:
        raise DataError(
            f"{file} is too large",
            expected=f"at most {MAX_PIPELINE_BYTES:,} bytes of arrays",
            received=f"{total:,}",
        )
