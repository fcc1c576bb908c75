"""Old names of command-line options, which keep working for a while."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from cnnkit.cli.console import print_note

REMOVED_IN = "0.3.0"


def deprecated_option(
    parser: argparse._ActionsContainer, old: str, new: str, **options: Any
) -> argparse.Action:
    """Declare a hidden option that stores to the destination of the option that replaced it.

    A note on standard error names the new option the first time that the old one is used.

    Args:
        parser: A parser, an argument group or a mutually exclusive group.
        old: The option's former name, such as `--label`.
        new: The option's name now, such as `--version-label`.
        **options: Further arguments of `add_argument`: those of the new option that decide how a
            value is read, `type`, `nargs`, `choices`, `dest`, `const`. `action` may be one of
            "store", "store_const", "store_true", "append" and `argparse.BooleanOptionalAction`.
            The new option sets the default.

    Returns:
        The action of the old option.

    Example:
        >>> parser = argparse.ArgumentParser()
        >>> _ = parser.add_argument("--version-label")
        >>> _ = deprecated_option(parser, "--label", "--version-label")
        >>> parser.parse_args(["--label", "stable"]).version_label
        'stable'
    """
    options.setdefault("dest", new.removeprefix("--").replace("-", "_"))
    # A default of its own would replace that of the new option.
    options.update(help=argparse.SUPPRESS, default=argparse.SUPPRESS)
    # The class of the action that argparse makes of these arguments.
    base = type(argparse.ArgumentParser(add_help=False).add_argument(old, **options))

    class Deprecated(base):  # type: ignore[misc, valid-type]
        """The action of the new option, with a note."""

        noted = False

        def __call__(
            self,
            parser: argparse.ArgumentParser,
            namespace: argparse.Namespace,
            values: str | Sequence[Any] | None,
            option_string: str | None = None,
        ) -> None:
            """Print the note once, then store the value."""
            if not self.noted:
                given, replacement = option_string or old, new
                if given.startswith("--no-") and not old.startswith("--no-"):
                    replacement = f"--no-{new.removeprefix('--')}"
                print_note(f"{given} is now {replacement}; {given} works until {REMOVED_IN}")
                self.noted = True
            super().__call__(parser, namespace, values, option_string)

    return parser.add_argument(old, **{**options, "action": Deprecated})
