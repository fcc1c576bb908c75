"""Random and hostile requests over REST, the Open Inference Protocol and gRPC."""
