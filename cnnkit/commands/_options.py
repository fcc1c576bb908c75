"""Arguments of a builder on the command line."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from cnnkit.errors import UsageError

HELP = "an argument of the builder, for example dropout=0 (repeatable)"


def model_options(texts: Iterable[str]) -> dict[str, Any]:
    """Reads NAME=VALUE; a value is JSON, or else a word.

    Raises:
        UsageError: If there is no `=`.
    """
    options = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(
                "A model option has a value", expected="--model-option NAME=VALUE", received=text
            )
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    return options
