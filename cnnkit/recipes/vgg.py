"""VGG: one recipe for each column and scale, and the stages that the paper trained."""

from __future__ import annotations

from dataclasses import replace

from cnnkit.config import TrainingConfig
from cnnkit.papers.ledger import paper_errors
from cnnkit.recipes.recipe import (
    AUTOMATIC_DROPS,
    BILINEAR_RESIZE,
    CENTER_CROP_ERRORS,
    IMAGENET,
    INVERTED_DROPOUT,
    Recipe,
    TrainingStage,
)

COLUMNS = {
    "a": "vgg11",
    "a-lrn": "vgg11_lrn",
    "b": "vgg13",
    "c": "vgg16_c",
    "d": "vgg16",
    "e": "vgg19",
}
PREVIOUS_SCALE = {"384": "256", "jitter": "384"}
# Section 3.1.
BASE = TrainingConfig(
    model="vgg16",
    dataset=IMAGENET,
    scale=(256, 256),
    crop="random",
    flip=True,
    pca_color="std",
    epochs=74,
    batch_size=256,
    learning_rate=0.01,
    schedule="plateau",
    checkpoint_every="30m",
)
SCALES = {"256": (256, 256), "384": (384, 384), "jitter": (256, 512)}
FINE_TUNING_LEARNING_RATE = 1e-3
SOURCE = "Simonyan & Zisserman 2014, sections 2 and 3"
COST = "the paper: 2 to 3 weeks a network on 4 Titan Black"
DEVIATIONS = (
    AUTOMATIC_DROPS,
    CENTER_CROP_ERRORS,
    BILINEAR_RESIZE,
    INVERTED_DROPOUT,
    "biases do not decay; the paper does not say",
    "color noise is scaled by the standard deviations, as in Krizhevsky's code",
)
GLOROT = "Glorot weights, which the authors found to make the staged start unnecessary"
DURATION = (
    "74 epochs like the first training: the paper does not say how long this one took; for the "
    "jittered scales it does not give the learning rate either"
)


def _config(column: str, scale: str) -> TrainingConfig:
    config = replace(BASE, model=COLUMNS[column], scale=SCALES[scale])
    return config if scale == "256" else replace(config, learning_rate=FINE_TUNING_LEARNING_RATE)


def _expected(errors: tuple[float, float]) -> str:
    return (
        f"the paper: {errors[0]} % top-1 and {errors[1]} % top-5 validation error, dense "
        "evaluation at one scale; not repeated here"
    )


def _recipe(column: str, scale: str) -> Recipe:
    name = f"vgg-{column}-{scale}"
    before = f"vgg-{column}-{PREVIOUS_SCALE[scale]}" if scale in PREVIOUS_SCALE else ""
    begin = f" --init-from runs/{before}" if before else ""
    # The paper did not train every column at every scale.
    errors = paper_errors(f"vgg.table3.{column}.{scale}")
    result = "the paper did not train this column at this scale"
    if errors:
        result = _expected(errors)
    needs = {"init_from": f"it begins with the weights of {before}"} if before else {}
    return Recipe(
        config=_config(column, scale),
        source=SOURCE,
        command=f"cnnkit train --recipe {name}{begin} --output runs/{name}",
        cost=COST,
        result=result,
        deviations=(*DEVIATIONS, DURATION if before else GLOROT),
        needs=needs,
    )


STAGES = (
    TrainingStage("a-256", _config("a", "256")),
    TrainingStage("d-256", replace(_config("d", "256"), weight_mapping="vgg-staged"), follows=True),
    TrainingStage("d-384", _config("d", "384"), follows=True),
    TrainingStage("d-jitter", _config("d", "jitter"), follows=True),
)

RECIPES_BY_SCALE = {
    f"vgg-{column}-{scale}": _recipe(column, scale) for column in COLUMNS for scale in SCALES
}
VGG = {
    **RECIPES_BY_SCALE,
    "vgg-d-staged": Recipe(
        config=STAGES[-1].config,
        source=SOURCE,
        command="cnnkit train --recipe vgg-d-staged --output runs/vgg-d",
        cost="the paper: 2 to 3 weeks on 4 Titan Black for each of the four trainings",
        result=RECIPES_BY_SCALE["vgg-d-jitter"].result,
        deviations=(
            *DEVIATIONS,
            "layers that are not copied begin with Glorot weights: the variance of 0.01 that the "
            "paper gives, taken literally, makes the first dense layer explode",
            DURATION,
        ),
        stages=STAGES,
    ),
}
