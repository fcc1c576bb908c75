"""Lines of predictions: the column of the classes."""

import pytest

from cnnkit.cli.image_paths import MAX_COLUMN, print_predictions


@pytest.mark.parametrize(
    ("class_names", "width"),
    [((), 3), (("cat", "dog", "marmoset"), 8), (("cat", "x" * 99), MAX_COLUMN)],
)
def test_the_column_is_as_wide_as_the_names_of_all_classes(class_names, width, capsys):
    print_predictions("a.png", [("cat", 0.75), ("dog", 0.25)], class_names)
    assert capsys.readouterr().out.splitlines() == [
        f"a.png  {'cat':{width}}  0.7500",
        f"       {'dog':{width}}  0.2500",
    ]


def test_a_longer_name_is_not_cut(capsys):
    long = "y" * 30
    print_predictions("a.png", [(long, 0.75), ("cat", 0.25)], (long, "cat"))
    assert capsys.readouterr().out.splitlines() == [
        f"a.png  {long}  0.7500",
        f"       {'cat':30}  0.2500",
    ]
