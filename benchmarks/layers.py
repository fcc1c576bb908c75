"""Our normalization and grouped convolution against TensorFlow's and Keras's own."""

from timing import interleaved, report  # isort: skip  (quiets TensorFlow before it is imported)

import keras
import numpy as np
import tensorflow as tf

from cnnkit.layers import GroupedConv2D, LocalResponseNormalization

ROUNDS = 15


def forward(function, x):
    """Returns a compiled call of the function."""
    traced = tf.function(function)
    return lambda: traced(x)


def forward_and_backward(function, x, variables=()):
    """Returns a compiled call of the function and of its gradient for a signal from above."""
    signal = tf.constant(np.random.default_rng(1).normal(size=function(x).shape), tf.float32)

    @tf.function
    def traced(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        return tape.gradient(y, [x, *variables], signal)

    return lambda: traced(x)


def main() -> None:
    """Measures and prints."""
    random = np.random.default_rng(0)
    x = tf.constant(random.normal(0, 30, (16, 55, 55, 96)), tf.float32)
    layer = LocalResponseNormalization()

    def peer(x):
        return tf.nn.local_response_normalization(x, 2, 2.0, 1e-4, 0.75)

    for title, kind in (("forward", forward), ("forward and backward", forward_and_backward)):
        seconds = interleaved(
            {"cnnkit": kind(layer, x), "tf.nn.local_response_normalization": kind(peer, x)}, ROUNDS
        )
        report(f"normalization, {title}, 16 x 55 x 55 x 96", seconds, 16)

    x = tf.constant(random.normal(size=(64, 27, 27, 96)), tf.float32)
    candidates = {}
    for name, kind in (("cnnkit", GroupedConv2D), ("keras.layers.Conv2D", keras.layers.Conv2D)):
        convolution = kind(256, 5, padding="same", groups=2)
        convolution.build(x.shape)
        variables = [v.value for v in convolution.trainable_variables]
        candidates[name] = forward_and_backward(convolution, x, variables)
    title = "AlexNet's conv2, groups=2, forward and backward, 64 x 27 x 27 x 96"
    report(title, interleaved(candidates, 5), 64)


if __name__ == "__main__":
    main()
