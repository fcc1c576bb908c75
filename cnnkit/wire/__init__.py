"""The wire format of TensorFlow Serving's gRPC API: messages, method paths, tensors.

The messages are generated from `serving/cnnkit_serving.proto`. TensorFlow is not imported.
"""
