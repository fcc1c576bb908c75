"""Arguments by their old names."""

import inspect

import pytest

from cnnkit._deprecation import renamed_argument


@renamed_argument("label", "target")
def named(image, target=None, *, scale=1):
    """Return the arguments."""
    return image, target, scale


def test_the_old_name_warns_and_is_passed_on():
    with pytest.warns(FutureWarning, match="`label` of named.. is now called `target`") as caught:
        assert named(1, label=2, scale=3) == (1, 2, 3)
    assert caught[0].filename == __file__


def test_the_new_name_and_positions_do_not_warn():
    assert named(1, 2) == named(1, target=2) == (1, 2, 1)


@pytest.mark.parametrize("arguments", [((1,), {"target": 2}), ((1, 2), {})])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_both_names_are_an_error(arguments):
    args, options = arguments
    with pytest.raises(TypeError, match="target"):
        named(*args, **options, label=3)


def test_the_signature_and_the_docstring_stay():
    assert list(inspect.signature(named).parameters) == ["image", "target", "scale"]
    assert (named.__name__, named.__doc__) == ("named", "Return the arguments.")
