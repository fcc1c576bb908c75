"""Procedures of the ledger: values by hand, and the inputs that they ask for."""

import pytest

from cnnkit.errors import UsageError
from cnnkit.papers import find_paper_result, paper_results
from cnnkit.reproduction.procedures import PROCEDURES, Inputs, check_reproducible, find_procedure


def value_of(id):
    result = find_paper_result(id)
    [value] = find_procedure(result).measure(result.procedure, Inputs(), [])
    return value


def convolutions(*widths):
    """Return the parameters of 3 x 3 convolutions with biases, by hand."""
    pairs = zip((3, *widths), widths, strict=False)
    return sum(9 * before * after + after for before, after in pairs)


def test_parameters_by_hand():
    # Column A of VGG, with dense layers from 7 x 7 x 512.
    dense = 25088 * 4096 + 4096 + 4096 * 4096 + 4096 + 4096 * 1000 + 1000
    total = convolutions(64, 128, 256, 256, 512, 512, 512, 512) + dense
    assert value_of("vgg.table2.a.parameters") == total / 1e6
    # Two towers of AlexNet: conv2, conv4 and conv5 see half of the maps.
    convs = (121 * 3 * 96 + 96) + (25 * 48 * 256 + 256) + (9 * 256 * 384 + 384)
    convs += (9 * 192 * 384 + 384) + (9 * 192 * 256 + 256)
    dense = 9216 * 4096 + 4096 + 4096 * 4096 + 4096 + 4096 * 1000 + 1000
    assert value_of("alexnet.text.parameters") == (convs + dense) / 1e6


def test_sizes_of_layers_by_hand():
    assert value_of("alexnet.fig2.conv1") == 55 * 55 * 96
    assert value_of("alexnet.fig2.input") == 224 * 224 * 3
    dense = 4096 + 4096 + 1000
    neurons = 55 * 55 * 96 + 27 * 27 * 256 + 13 * 13 * (384 + 384 + 256) + dense
    assert value_of("alexnet.text.neurons") == neurons
    assert value_of("zfnet.fig3.pool1") == 55
    assert value_of("zfnet.fig3.pool5") == 6 * 6 * 256


@pytest.mark.parametrize(
    ("id", "value"),
    [
        ("vgg.text.stack.two.field", 5),
        ("vgg.text.stack.three.field", 7),
        ("vgg.text.stack.three.weights", 3 * 9),
        ("vgg.text.stack.seven.weights", 49),
        ("vgg.text.stack.more-weights", 100 * 22 / 27),
        ("vgg.text.crops.one-scale", 5 * 5 * 2),
        ("vgg.text.crops.three-scales", 5 * 5 * 2 * 3),
        ("alexnet.text.augmentation", 33 * 33 * 2),
    ],
)
def test_counts_by_hand(id, value):
    assert value_of(id) == pytest.approx(value)


def test_every_procedure_of_the_ledger_exists_and_is_used():
    named = {one.procedure["name"] for one in paper_results() if one.procedure}
    assert named == set(PROCEDURES)


def test_every_repeated_result_can_be_run():
    for result in paper_results():
        if result.state == "repeated":
            assert find_procedure(result).needs == ()


def test_inputs_are_checked():
    result = find_paper_result("zfnet.table7.svm5.c101")
    with pytest.raises(UsageError, match="`data` must be given.*at least 31 images"):
        check_reproducible(result, None, "weights.npz")
    with pytest.raises(UsageError, match="`weights` must be given.*weights file of alexnet_caffe"):
        check_reproducible(result, "digits", None)
    check_reproducible(result, "digits", "weights.npz")
