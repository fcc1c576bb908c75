"""Export models as SavedModels or for ONNX Runtime, LiteRT and OpenVINO, and verify them."""

from cnnkit.export.classifier import DTYPES as DTYPES
from cnnkit.export.export import export as export
from cnnkit.export.formats import RuntimeExport as RuntimeExport
from cnnkit.export.formats import export_for_runtime as export_for_runtime
from cnnkit.export.image_header import ImageLimits as ImageLimits
from cnnkit.export.model_card import Origin as Origin
from cnnkit.export.signatures import SIGNATURES as SIGNATURES
from cnnkit.export.verify import Check as Check
from cnnkit.export.verify import Verification as Verification
from cnnkit.export.verify import verify_export as verify_export
