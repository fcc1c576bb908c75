"""Names of TensorFlow Serving's services, methods and signatures, and of the id of a call."""

from __future__ import annotations

import re

PREDICTION_SERVICE = "tensorflow.serving.PredictionService"
MODEL_SERVICE = "tensorflow.serving.ModelService"

PREDICT = f"/{PREDICTION_SERVICE}/Predict"
GET_MODEL_METADATA = f"/{PREDICTION_SERVICE}/GetModelMetadata"
CLASSIFY = f"/{PREDICTION_SERVICE}/Classify"
REGRESS = f"/{PREDICTION_SERVICE}/Regress"
MULTI_INFERENCE = f"/{PREDICTION_SERVICE}/MultiInference"
GET_MODEL_STATUS = f"/{MODEL_SERVICE}/GetModelStatus"
RELOAD_CONFIG = f"/{MODEL_SERVICE}/HandleReloadConfigRequest"

# The metadata is packed into an Any, whose type URL holds TensorFlow Serving's name of the message.
SIGNATURE_DEF = "signature_def"
SIGNATURE_DEF_TYPE_URL = "type.googleapis.com/tensorflow.serving.SignatureDefMap"

# Signature of a request that names none.
DEFAULT_SIGNATURE = "serving_default"

# gRPC's default limit is 4 MiB a message: six images of 224x224x3 float32.
UNLIMITED_MESSAGES = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
)

# The id of a call: metadata of gRPC, in lower case as gRPC demands, and header of REST.
REQUEST_ID = "x-request-id"
# What a log, a header and a shell take as it is.
WELL_FORMED_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=@-]{0,127}")
