"""SavedModels for TensorFlow Serving: one folder a version, whole or absent."""

from cnnkit.export.card import Origin as Origin
from cnnkit.export.endpoints import SIGNATURES as SIGNATURES
from cnnkit.export.limits import Limits as Limits
from cnnkit.export.making import export as export
from cnnkit.export.network import DTYPES as DTYPES
from cnnkit.export.verifying import Check as Check
from cnnkit.export.verifying import Verification as Verification
from cnnkit.export.verifying import verify as verify
