"""The stored reference images and outputs."""

import io

import numpy as np
import pytest
from PIL import Image

from cnnkit.errors import RunError
from cnnkit.export import signatures as signatures_module
from cnnkit.export.reference_outputs import ReferenceOutputs


def test_references_are_real_photographs(exported):
    kept = ReferenceOutputs.read(exported)
    first, second = (Image.open(io.BytesIO(file)) for file in kept.files)
    assert (first.format, second.format) == ("JPEG", "PNG")
    assert min(first.size) == min(second.size) == 80
    # Sky above roofs, and a flower: not noise.
    assert np.asarray(first.convert("L"), float)[:20].mean() > 150
    assert kept.images.shape == (2, 64, 64, 3)
    # One class more than is answered, to know of ties, where there is one.
    assert kept.outputs["classify_bytes"]["scores"].shape == (2, 6)
    # The network has no boxes.
    assert set(kept.outputs) == {
        *(signatures_module.SIGNATURES.keys() - {"localize_bytes"}),
        "explain_bytes_conv5",
        "explain_bytes_fc6",
    }


def test_torn_references_are_an_error(tmp_path):
    assert ReferenceOutputs.read(tmp_path) is None
    ReferenceOutputs((b"a",), np.zeros((1, 2, 2, 3)), {}).write(tmp_path)
    file = tmp_path / "assets.extra" / "reference.npz"
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(RunError, match=r"reference\.npz"):
        ReferenceOutputs.read(tmp_path)
