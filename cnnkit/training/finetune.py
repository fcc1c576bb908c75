"""Fine-tune a trained network on other images: a new classifier first, then the layers below it.

The stages are a recipe like those of `cnnkit.recipes`. The first one trains a new classifier on the
outputs of the network, all of whose layers are frozen (Zeiler & Fergus 2013, section 5.2). The
second one also trains the layers between the last two poolings, at a lower learning rate; what lies
below stays frozen. With random weights above them, the trained ones would be destroyed in the first
epochs (Kumar et al. 2022, "Fine-tuning can distort pretrained features").
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from cnnkit import models
from cnnkit._network_options import check_imagenet_network
from cnnkit.config import TrainingConfig
from cnnkit.data import Dataset, Decoding, batches, load_dataset, report_undecodable
from cnnkit.data.load import open_datasets_once
from cnnkit.models.graph import build_graph
from cnnkit.models.summary import build_without_weights, layer_macs
from cnnkit.models.weights.compatible import only_compatible
from cnnkit.recipes import TrainingStage
from cnnkit.run_folder import RunFolder, names_imagenet
from cnnkit.stage_folder import train_stages, write_stages
from cnnkit.training.build import HIDDEN_LAYERS, load_initial_model
from cnnkit.training.callbacks import Callback
from cnnkit.training.diagnostics import check_splits_hold_images
from cnnkit.training.frozen import frozen_layers
from cnnkit.training.inputs import held_out_augmentation
from cnnkit.training.train import train

CLASSIFIER_STAGE, LAST_STAGE = "classifier", "finetuned"
# Images that the learning rate of the classifier is computed from.
SAMPLED_IMAGES = 64
# Ratio of the shorter side of a training image to its random crop.
SCALE = 8 / 7
# Learning rate of the layers below the classifier, a tenth of that of AlexNet's training.
LEARNING_RATE = 1e-3
# Multiply-adds of a network above which fewer augmentations are computed.
LARGE_NETWORK = 4e9
CLASSIFIER = TrainingConfig(
    crop="random",
    flip=True,
    epochs=30,
    batch_size=32,
    schedule="cosine",
    augmentation_draws=4,
    restore_best=True,
    early_stopping_patience=10,
    weight_mapping="new-classifier",
)


@dataclass(frozen=True)
class PretrainedNetwork:
    """What fine-tuning has to know of a trained network.

    Attributes:
        name: Name of its builder.
        options: Arguments of the builder.
        image_size: Side of its images in pixels.
        classifier: Name of the layer of the logits.
        freeze: Names or patterns of the layers to freeze.
        multiply_adds: Multiply-adds for one image.
    """

    name: str
    options: Mapping[str, Any]
    image_size: int
    classifier: str
    freeze: tuple[str, ...]
    multiply_adds: int


def describe_pretrained(
    weights: str | Path,
    *,
    model: str | None = None,
    model_options: Mapping[str, Any] | None = None,
    image_size: int | None = None,
    init_options: Mapping[str, Any] | None = None,
    freeze: Sequence[str] | None = None,
) -> PretrainedNetwork:
    """Find the network of weights, its size, its classifier and the layers to freeze.

    Args:
        weights: Run folder, `.keras` file, third-party weights file or `"imagenet"`.
        model: Name of the network; None takes the only one that fits.
        model_options: Further arguments of its builder.
        image_size: Side of the images; None is that of the network.
        init_options: What the file does not say about its pixels, as arguments of `open_weights`.
        freeze: Names or patterns of the layers to freeze; None takes the layers with weights below
            the last but one pooling.

    Raises:
        UsageError: If there are no such weights, several networks fit them, or `freeze` fits no
            layer.
    """
    options, run = dict(model_options or {}), RunFolder(Path(weights))
    if run.exists():
        config = run.config
        name, options = model or config.model, {**config.model_options, **options}
        image_size = image_size or config.image_size
    else:
        if names_imagenet(weights):
            check_imagenet_network(model)
            name, has_dense_layers = str(model), False
        else:
            file = models.open_weights(weights, **(init_options or {}))
            name, has_dense_layers = model or only_compatible(file), file.classes is not None
        if not has_dense_layers:
            # Few images do not teach new hidden layers anything.
            with build_without_weights(name, **options) as network:
                names = [layer.name for layer in network.layers]
            hidden = [one for one in HIDDEN_LAYERS if one in names]
            options = {"omit_layers": hidden, **options} if hidden else options
    sized = {} if image_size is None else {"input_shape": (image_size, image_size, 3)}
    with build_without_weights(name, **{**options, **sized}) as network:
        weighted = [layer.name for layer in network.layers if layer.weights]
        poolings = [
            place for place, layer in enumerate(network.layers) if "Pool" in type(layer).__name__
        ]
        if freeze is None:
            below = network.layers[: poolings[-2]]
            freeze = [layer.name for layer in below if layer.trainable_weights]
        frozen_layers(network, freeze)
        return PretrainedNetwork(
            name,
            options,
            network.input_shape[1],
            weighted[-1],
            tuple(freeze),
            layer_macs(models.summarize_network(network)),
        )


def finetuning_stages(
    weights: str | Path,
    dataset: str,
    *,
    model: str | None = None,
    freeze: Sequence[str] | None = None,
    epochs: int = 10,
    learning_rate: float = LEARNING_RATE,
    download: bool = False,
    **fields: Any,
) -> tuple[TrainingStage, ...]:
    """Return the two stages that fine-tune a network.

    The learning rate of the classifier is the inverse of the mean squared length of its inputs,
    below which gradient descent on the cross-entropy of a linear classifier is stable (Böhning
    1992: its curvature is at most half of that length). It is computed from 64 images.

    Args:
        weights: As for `finetune`, and so the other arguments.
        dataset: Dataset of `cnnkit.data.load_dataset`.
        model: Name of the network of a weights file.
        freeze: Layers that stay frozen in the second stage.
        epochs: Largest number of epochs of the second stage.
        learning_rate: Learning rate of the layers below the classifier.
        download: Whether a TensorFlow dataset may be downloaded.
        **fields: Further fields of `TrainingConfig`, for both stages.

    Raises:
        UsageError: If a value is out of range, or weights and network do not fit.
        DataError: If the dataset cannot be used.
    """
    found = describe_pretrained(
        weights,
        model=model,
        model_options=fields.pop("model_options", None),
        image_size=fields.get("image_size"),
        init_options=fields.get("init_options"),
        freeze=freeze,
    )
    size = found.image_size
    settings: dict[str, Any] = {
        "scale": (size, round(size * SCALE)),
        "augmentation_draws": 2 if found.multiply_adds > LARGE_NETWORK else 4,
        **fields,
        "model": found.name,
        "model_options": found.options,
        "image_size": size,
        "dataset": dataset,
        "init_from": str(weights),
        "freeze": ("*", f"!{found.classifier}"),
    }
    # The classifier alone has no other layers to give a rate.
    first = dataclasses.replace(CLASSIFIER, **{**settings, "lr_multipliers": {}})
    below = dataclasses.replace(
        first,
        epochs=epochs,
        learning_rate=learning_rate,
        freeze=found.freeze,
        weight_mapping="by-name",
        early_stopping_patience=fields.get("early_stopping_patience", 4),
        warmup_epochs=fields.get("warmup_epochs", min(1.0, epochs / 4)),
    )
    opened = load_dataset(
        dataset, seed=first.seed, download=download, decoding=Decoding.from_config(first)
    )
    check_splits_hold_images(opened)
    rate = classifier_learning_rate(load_initial_model(first), first, opened)
    multipliers = {
        f"{found.classifier}/*": rate / learning_rate,
        **fields.get("lr_multipliers", {}),
    }
    return (
        TrainingStage(CLASSIFIER_STAGE, dataclasses.replace(first, learning_rate=rate)),
        TrainingStage(
            LAST_STAGE, dataclasses.replace(below, lr_multipliers=multipliers), follows=True
        ),
    )


def classifier_learning_rate(model: keras.Model, config: TrainingConfig, dataset: Dataset) -> float:
    """Return a learning rate at which a new classifier on a network is sure not to diverge.

    Args:
        model: The trained network, with its own classifier or none.
        config: Configuration of the images.
        dataset: The dataset, of which 64 training images are computed.
    """
    split = dataset.splits["train"]
    count = min(SAMPLED_IMAGES, len(split))
    sample = split.subset(np.random.default_rng(config.seed).permutation(len(split))[:count])
    inputs = _classifier_inputs(model)
    shape = inputs.input_shape[1:3]
    size = config.image_size if None in shape else shape[0]
    sized = dataclasses.replace(config, image_size=size, scale=None)
    total = 0.0
    with report_undecodable(sample):
        for batch in batches(sample, augmentation=held_out_augmentation(sized), batch_size=16):
            rows = np.asarray(inputs(batch["images"], training=False), np.float64)
            squared = np.square(rows.reshape(len(rows), -1)).sum(axis=1)
            total += float((squared * batch["weights"].numpy()).sum())
    # The bias is an input of 1.
    return float(f"{1 / (total / count + 1):.2g}")


def _classifier_inputs(model: keras.Model) -> keras.Model:
    """Return the model up to the inputs of its last layer with weights, if that is dense."""
    nodes = build_graph(model).nodes
    last = next(node for node in reversed(nodes) if getattr(node.layer, "weights", ()))
    if not isinstance(last.layer, keras.layers.Dense):
        return model
    return keras.Model(model.inputs[0], last.record.input_tensors[0])


def finetune(
    weights: str | Path,
    dataset: str,
    output: str | Path,
    *,
    model: str | None = None,
    freeze: Sequence[str] | None = None,
    epochs: int = 10,
    learning_rate: float = LEARNING_RATE,
    overwrite: bool = False,
    download: bool = False,
    callbacks: Sequence[Callback] = (),
    **fields: Any,
) -> RunFolder:
    """Fine-tune a trained network on the images of a dataset.

    Weights without dense layers get a linear classifier on their last feature map. A network with
    dense layers keeps them and gets a new last one, whatever classes it had.

    Training images get random crops and mirrored copies, of which each has four (two for a network
    as large as VGG), so that the frozen layers are computed once for each. The network with the
    lowest error on the held-out images is kept. Training ends when it no longer improves.

    Args:
        weights: Run folder, `.keras` file or third-party weights file of the trained network; or
            `"imagenet"`, which downloads the convolutions of `model`, `"vgg16"` or `"vgg19"`.
        dataset: Dataset of `cnnkit.data.load_dataset`, such as `folder:photos`.
        output: Path of the run folder, which `cnnkit.load_model` takes. It also holds the run
            folders of the two stages, `classifier` and `finetuned`.
        model: Name of the network of a weights file; None takes the only one that fits.
        freeze: Names or patterns of the layers that stay frozen in the second stage, as
            `TrainingConfig.freeze`. The default is the layers below the last but one pooling; an
            empty list trains all.
        epochs: Largest number of epochs of the second stage.
        learning_rate: Learning rate of the layers below the classifier.
        overwrite: Start again if `output` is already such a folder.
        download: Whether a TensorFlow dataset may be downloaded.
        callbacks: Objects that are notified of the progress of each stage.
        **fields: Further fields of `TrainingConfig`, for both stages.

    Returns:
        The run folder of the network.

    Raises:
        UsageError: If a value is out of range, the network is not known, or `output` exists.
        DataError: If the dataset cannot be used.
        RunError: If training fails, as `train` does.

    Example:
        >>> from cnnkit import finetune, load_model
        >>> finetune("vgg16.keras", "folder:photos", "runs/photos")  # doctest: +SKIP
        >>> model = load_model("runs/photos")  # doctest: +SKIP
    """
    with open_datasets_once():
        stages = finetuning_stages(
            weights, dataset, model=model, freeze=freeze, epochs=epochs,
            learning_rate=learning_rate, download=download, **fields,
        )  # fmt: skip
        write_stages(Path(output), stages, overwrite=overwrite)
        train_stages(
            Path(output),
            stages,
            lambda config, folder, resume: train(
                config, folder, resume=resume, download=download, callbacks=callbacks
            ),
            lambda text: None,
        )
    return RunFolder(Path(output))
