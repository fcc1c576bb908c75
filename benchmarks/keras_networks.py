"""Our networks' steps for networks.py on each backend of Keras.

On TensorFlow they are trained as cnnkit trains them, on the others in the way that is usual there.

Keras and the backends are imported where they are used.
"""

from __future__ import annotations

import contextlib
import functools

from torch_networks import LEARNING_RATE, MOMENTUM, Steps, steps


def tensorflow_steps(model, images, labels) -> Steps:
    """Returns our network's steps on TensorFlow; the training step is that of cnnkit-train."""
    import tensorflow as tf

    from cnnkit import training
    from cnnkit.training.step import StepRunner as TrainingSteps

    count = len(images)
    images = tf.constant(images)
    batch = {
        "images": images,
        "labels": tf.constant(labels, tf.int32),
        "weights": tf.ones(count),
    }
    optimizer = training.SGD(LEARNING_RATE, momentum=MOMENTUM)
    ours = TrainingSteps(model, optimizer, tf.distribute.get_strategy())
    forward = tf.function(lambda: model(images, training=False))
    return Steps(
        forward,
        lambda: ours.train(batch, count, LEARNING_RATE),
        tf.test.experimental.sync_devices,
    )


def jax_steps(model, images, labels) -> Steps:
    """Returns our network's steps on JAX, without state and with donated buffers."""
    import jax
    import jax.numpy as jnp
    import keras

    images, labels = jnp.asarray(images), jnp.asarray(labels)
    optimizer = keras.optimizers.SGD(LEARNING_RATE, momentum=MOMENTUM)
    optimizer.build(model.trainable_variables)
    kept = (model.trainable_variables, model.non_trainable_variables, optimizer.variables)
    # Copies, because a donated buffer is gone and the model keeps its own.
    state = [[jnp.copy(variable.value) for variable in variables] for variables in kept]

    def loss_of(weights, others, images, labels):
        logits, others = model.stateless_call(weights, others, images, training=True)
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
        return -chosen.mean(), others

    def step(weights, others, velocities, images, labels):
        gradient = jax.value_and_grad(loss_of, has_aux=True)
        (loss, others), gradients = gradient(weights, others, images, labels)
        weights, velocities = optimizer.stateless_apply(velocities, gradients, weights)
        return loss, (weights, others, velocities)

    @functools.cache
    def compiled():
        return jax.jit(step, donate_argnums=(0, 1, 2)).lower(*state, images, labels).compile()

    answer = jax.jit(lambda w, o, images: model.stateless_call(w, o, images, training=False)[0])
    last = []

    def train():
        loss, state[:] = compiled()(*state, images, labels)
        last[:] = [loss]
        return loss

    def forward():
        last[:] = [answer(*state[:2], images)]
        return last[0]

    def peak_memory():
        found = compiled().memory_analysis()
        held = found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
        return held + found.temp_size_in_bytes

    def wait():
        return jax.block_until_ready((last, state))

    return Steps(forward, train, wait, peak_memory)


def jax_projections(model, layer: str, images):
    """Returns a call of the forward pass to a layer, and one of the deconvnet's pass.

    The second projects the strongest activation of the layer in each image to its pixels, through
    the backward rules of cnnkit's layers; `cnnkit.visualize.deconvnet` itself needs TensorFlow.

    Returns:
        `forward()`, the maps (n, h, w, c), and `project()`, (n, h, w, 3).
    """
    import jax
    import jax.numpy as jnp
    import keras

    from cnnkit.layers import backward_rule

    images = jnp.asarray(images)
    features = keras.Model(model.inputs, model.get_layer(layer).output)
    kept = (features.trainable_variables, features.non_trainable_variables)
    weights = [[variable.value for variable in variables] for variables in kept]

    def maps_of(weights, images):
        return features.stateless_call(*weights, images, training=False)[0]

    def strongest(images, weights):
        flat = maps_of(weights, images).reshape(len(images), -1)
        return jnp.take_along_axis(flat, flat.argmax(axis=1, keepdims=True), axis=1).sum()

    forward = jax.jit(maps_of)
    pixels = jax.jit(jax.grad(strongest))

    def project():
        # The layers read the rule while they are traced.
        with backward_rule("deconvnet"):
            return jax.block_until_ready(pixels(images, weights))

    return lambda: jax.block_until_ready(forward(weights, images)), project


def torch_steps(model, images, labels) -> Steps:
    """Returns our network's steps on PyTorch."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    images, labels = torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device)
    model.train()
    weights = [variable.value for variable in model.trainable_variables]

    def run(x, training):
        return model(x, training=training)

    return steps(run, weights, images, labels, autocast=False)


def accelerated(backend: str) -> bool:
    """Says whether the backend computes on an accelerator."""
    if backend == "jax":
        import jax

        return jax.default_backend() != "cpu"
    if backend == "tensorflow":
        import tensorflow as tf

        return bool(tf.config.list_logical_devices("GPU"))
    import torch

    return torch.cuda.is_available()


@contextlib.contextmanager
def exact_float32(backend: str):
    """Keeps tensor cores from rounding float32 inside the block."""
    with contextlib.ExitStack() as stack:
        if backend == "jax":
            import jax

            stack.enter_context(jax.default_matmul_precision("float32"))
        if backend == "tensorflow":
            import tensorflow as tf

            tf.config.experimental.enable_tensor_float_32_execution(False)
            stack.callback(tf.config.experimental.enable_tensor_float_32_execution, True)
        yield


STEPS = {"tensorflow": tensorflow_steps, "jax": jax_steps, "torch": torch_steps}
