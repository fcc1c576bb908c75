"""Index of a feature store: which network made its vectors, how, and of which images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from cnnkit._file_tree import FEATURE_INDEX
from cnnkit._files import json_text
from cnnkit._untrusted.json_documents import JsonFields, read_json
from cnnkit._untrusted.limits import MAX_FEATURE_DIMENSION, MAX_FEATURE_PARTS, MAX_FEATURE_ROWS
from cnnkit.data import Decoding
from cnnkit.data.formats import DECODING_OF_0_1_0, DEFAULT_DECODING
from cnnkit.errors import DataError, UsageError
from cnnkit.features.spec import FeatureSpec

FORMAT = 1
# The key of the spec in the file.
SPEC_KEY = "protocol"


@dataclass(frozen=True)
class FeatureIndex:
    """Index of a feature store: how its features were made.

    Attributes:
        network: Name of the network.
        identity: Digest of the network up to the layer, from `model_identity`.
        spec: How an image becomes a vector.
        dataset: Specification of the dataset, for example `folder:images`.
        dataset_fingerprint: Fingerprint of the dataset, from `cnnkit.data.Dataset`.
        split: `"train"`, `"test"` or `"all"`.
        classes: Names of the classes.
        images: Number of images.
        dimension: Length of a vector.
        rows: Number of images in each part but the last.
        decoding: How the files of the images became pixels.
    """

    network: str
    identity: str
    spec: FeatureSpec
    dataset: str
    dataset_fingerprint: str
    split: str
    classes: tuple[str, ...]
    images: int
    dimension: int
    rows: int
    decoding: Decoding = DEFAULT_DECODING

    @property
    def parts(self) -> int:
        """Number of parts, the files of the store."""
        return -(-self.images // self.rows)

    def part_slice(self, part: int) -> slice:
        """Return the slice of the images that are in a part."""
        return slice(part * self.rows, min((part + 1) * self.rows, self.images))

    def key_fields(self) -> dict[str, Any]:
        """Return the fields that are equal in all parts of the same features, by their JSON key."""
        fields = {
            SPEC_KEY: self.spec.to_dict(),
            "network": self.identity,
            "dataset": self.dataset_fingerprint,
            "split": self.split,
            "rows": self.rows,
        }
        if self.decoding == DECODING_OF_0_1_0:
            return fields
        return {**fields, "decoding": self.decoding.to_dict()}

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the key fields, in hexadecimal digits."""
        return hashlib.sha256(json.dumps(self.key_fields(), sort_keys=True).encode()).hexdigest()

    def to_json(self) -> str:
        """Return the content of the index file."""
        fields = {SPEC_KEY if name == "spec" else name: value for name, value in vars(self).items()}
        fields = {"format": FORMAT, "fingerprint": self.fingerprint, **fields}
        fields[SPEC_KEY], fields["decoding"] = self.spec.to_dict(), self.decoding.to_dict()
        return json_text(fields, indent=2) + "\n"

    def check_compatible(self, other: FeatureIndex, folder: Path) -> None:
        """Check that another store holds parts of the same features.

        Args:
            other: Index of the other store.
            folder: Folder of the other store, for the error.

        Raises:
            UsageError: If it does not. The error names the first field that differs.
        """
        mine, theirs = self.key_fields(), other.key_fields()
        for name in {**mine, **theirs}:
            if mine.get(name) != theirs.get(name):
                raise UsageError(
                    f"{folder} holds features of another {'spec' if name == SPEC_KEY else name}",
                    expected=_short(mine[name]) if name in mine else "that of version 0.1.0",
                    received=_short(theirs[name]) if name in theirs else "that of version 0.1.0",
                    hint="Use another folder",
                )


def is_feature_store(folder: str | Path) -> bool:
    """Return True if the folder is a feature store."""
    return (Path(folder) / FEATURE_INDEX).is_file()


def read_index(folder: str | Path) -> FeatureIndex:
    """Read the index of a feature store.

    Raises:
        UsageError: If the folder is not a feature store.
        DataError: If the index is damaged or of another version.
    """
    file = Path(folder) / FEATURE_INDEX
    if not file.is_file():
        raise UsageError(
            f"No features in {folder}",
            expected=f"a folder with {FEATURE_INDEX}, from `cnnkit features`",
        )
    stored = JsonFields(read_json(file), file)
    if stored.integer("format") != FORMAT:
        raise DataError(
            f"{file} was written by another version of cnnkit", expected=f"format {FORMAT}"
        )
    known = {"format", "fingerprint", SPEC_KEY, *(one.name for one in fields(FeatureIndex))}
    if unknown := sorted(set(stored) - known):
        raise DataError(f"{file} is not an index of features", received=f"the field {unknown[0]!r}")
    rows = stored.integer("rows", minimum=1, maximum=MAX_FEATURE_ROWS)
    return FeatureIndex(
        network=stored.text("network"),
        identity=stored.text("identity"),
        spec=FeatureSpec.from_dict(stored.fields(SPEC_KEY).document, f"`{SPEC_KEY}` in {file}"),
        dataset=stored.text("dataset"),
        dataset_fingerprint=stored.text("dataset_fingerprint"),
        split=stored.text("split"),
        classes=stored.texts("classes"),
        images=stored.integer("images", minimum=1, maximum=rows * MAX_FEATURE_PARTS),
        dimension=stored.integer("dimension", minimum=1, maximum=MAX_FEATURE_DIMENSION),
        rows=rows,
        decoding=Decoding.from_dict(stored.document.get("decoding"), f"`decoding` in {file}"),
    )


def _short(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {one}" for key, one in value.items())
    return str(value)[:12] if isinstance(value, str) else str(value)
