"""A network small enough to train in a test."""

import json

import keras

from cnnkit.config import TrainingConfig
from cnnkit.layers import Dropout, ReLU

# 15 steps an epoch, the last one of fewer images.
DIGITS_CONFIG = TrainingConfig(
    model="tiny",
    dataset="digits",
    image_size=8,
    epochs=3,
    batch_size=100,
    learning_rate=0.05,
    lr_milestones=(3,),
    seed=5,
)


def tiny(*, classes, input_shape, mean, dropout=0.0, scale=1.0, name="tiny"):
    inputs = keras.Input(input_shape)
    x = keras.layers.Rescaling(1 / 64, offset=-1)(inputs)
    x = keras.layers.Conv2D(6, 3, strides=2, activation=ReLU(), name="conv1")(x)
    x = keras.layers.Flatten()(x)
    x = Dropout(dropout)(x)
    x = keras.layers.Rescaling(scale)(x)
    x = keras.layers.Dense(classes, name="fc8")(x)
    return keras.Model(inputs, keras.layers.Activation("softmax")(x), name=name)


def weights_of(run):
    """The weights of the network of a run."""
    return keras.saving.load_model(run.model_file).get_weights()


def metrics_line(epoch: int, **values: float) -> str:
    """Return a line of metrics.jsonl."""
    line = {
        "epoch": epoch, "step": epoch, "loss": 1.0, "accuracy": 0.5, "val_loss": 1.0,
        "val_accuracy": 0.5, "learning_rate": 0.1, "images_per_second": 10.0,
    }  # fmt: skip
    return json.dumps({**line, **values}) + "\n"
