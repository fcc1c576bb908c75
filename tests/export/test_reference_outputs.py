"""The stored reference images and outputs."""

import io

import numpy as np
from PIL import Image

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
    # The network has no boxes.
    assert set(kept.outputs) == {
        *(signatures_module.SIGNATURES.keys() - {"localize_bytes"}),
        "explain_bytes_conv5",
        "explain_bytes_fc6",
    }
