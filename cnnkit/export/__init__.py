"""Export models as SavedModels for TensorFlow Serving, and verify them."""

from cnnkit.export.classifier import DTYPES as DTYPES
from cnnkit.export.export import export as export
from cnnkit.export.image_header import ImageLimits as ImageLimits
from cnnkit.export.model_card import Origin as Origin
from cnnkit.export.signatures import SIGNATURES as SIGNATURES
from cnnkit.export.verify import Check as Check
from cnnkit.export.verify import Verification as Verification
from cnnkit.export.verify import verify_export as verify_export
