"""The operators of a LiteRT export, as LiteRT lists them."""

import pytest

from cnnkit.export import export_for_runtime
from tests.helpers.exported_network import LABELS

interpreter = pytest.importorskip("ai_edge_litert.interpreter")


def test_operators_are_builtin_and_the_number_of_images_is_free(model, tmp_path):
    found = export_for_runtime(model, LABELS, tmp_path / "animals", "litert")
    network = interpreter.Interpreter(str(found.file))
    names = {one["op_name"] for one in network._get_ops_details()}
    assert not [name for name in names if name.startswith(("Flex", "CUSTOM"))]
    [given] = network.get_input_details()
    assert given["shape_signature"].tolist() == [-1, 64, 64, 3]
    signature = {"inputs": ["images"], "outputs": ["probabilities"]}
    assert network.get_signature_list() == {"serving_default": signature}
