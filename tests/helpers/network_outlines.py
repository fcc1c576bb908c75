"""Networks without weights, and the shapes of their layers."""

import keras


def outline(builder, **options):
    """Build a network without allocating its weights."""
    with keras.StatelessScope():
        model = builder(**options)
        keras.utils.clear_session(free_memory=False)
    return model


def shapes_of(model):
    return {layer.name: layer.output.shape[1:] for layer in model.layers}
