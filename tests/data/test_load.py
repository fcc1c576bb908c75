"""Datasets by name."""

import pytest

from cnnkit.data import load_dataset
from cnnkit.errors import UsageError


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("digit", "Unknown dataset 'digit'. Expected: one of digits, folder:PATH, imagenet:PATH, "
         "shards:PATH, tfds:NAME."),
        ("digit", "Did you mean digits?"),
        ("folder:", "lacks its name"),
        ("folder:/no/such", "No folder /no/such"),
        ("tfds:cifar1", "Did you mean tfds:cifar10"),
    ],
)  # fmt: skip
def test_unknown_datasets(spec, text):
    with pytest.raises(UsageError) as error:
        load_dataset(spec)
    assert text in str(error.value)
