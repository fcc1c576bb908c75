"""The Open Inference Protocol, version 2 (KServe), on gRPC and REST.

A request becomes a Predict request and passes the same checks, limits and batches. The model name
`NAME:SIGNATURE` selects a signature.
"""
