"""AlexNet: as its paper, Caffe and the methods of today train it, and a demonstration."""

from __future__ import annotations

from dataclasses import replace

from cnnkit.config import TrainingConfig
from cnnkit.recipes.recipe import (
    AUTOMATIC_DROPS,
    BILINEAR_RESIZE,
    CENTER_CROP_ERRORS,
    CENTER_OF_MEAN_IMAGE,
    IMAGENET,
    INVERTED_DROPOUT,
    Recipe,
    validation_errors,
)

# Krizhevsky et al. 2012, sections 2, 4.1 and 5.
PAPER = TrainingConfig(
    model="alexnet",
    dataset=IMAGENET,
    mean="pixel",
    scale=(256, 256),
    crop="random",
    flip=True,
    central_square=True,
    pca_color="std",
    epochs=90,
    batch_size=128,
    learning_rate=0.01,
    schedule="plateau",
    checkpoint_every="30m",
)
SOURCE = "Krizhevsky et al. 2012, sections 2 to 5"
DEVIATIONS = (
    AUTOMATIC_DROPS,
    CENTER_CROP_ERRORS,
    BILINEAR_RESIZE,
    CENTER_OF_MEAN_IMAGE,
    INVERTED_DROPOUT,
    "biases do not decay, as in the authors' later code; the paper speaks of weights",
    "color noise is scaled by the standard deviations, as in the authors' code; the paper says "
    "eigenvalues",
)

# BVLC's solver: the learning rate drops every 100,000 of 450,000 steps of 256 images; 20 epochs are
# 100,100 steps.
CAFFE = replace(
    PAPER,
    model="alexnet_caffe",
    image_size=227,
    pca_color="none",
    central_square=False,
    batch_size=256,
    schedule="step",
    lr_milestones=(21, 41, 61, 81),
    lr_multipliers={"*/bias": 2},
)

ALEXNET = {
    "alexnet-paper": Recipe(
        config=PAPER,
        source=SOURCE,
        command="cnnkit train --recipe alexnet-paper --output runs/alexnet",
        cost="the paper: 5 to 6 days on two GTX 580; tensorpack: 21 hours for 100 epochs on 2 V100",
        result=f"the paper: {validation_errors('alexnet.table2.1cnn')} with 10 crops; "
        "not repeated here",
        deviations=DEVIATIONS,
    ),
    "alexnet-caffe": Recipe(
        config=CAFFE,
        source="BVLC Caffe, models/bvlc_alexnet",
        command="cnnkit train --recipe alexnet-caffe --output runs/alexnet-caffe",
        cost="as alexnet-paper",
        result="BVLC: 57.1 % top-1 and 80.2 % top-5 accuracy with the center crop; "
        "not repeated here",
        deviations=(
            "the shorter side is rescaled to 256; Caffe squeezes the whole image into 256 x 256",
            CENTER_OF_MEAN_IMAGE,
            "drops at whole epochs of 5,005 steps; Caffe's every 100,000 steps are 19.98 epochs",
        ),
    ),
    "alexnet-22k": Recipe(
        config=replace(PAPER, dataset="folder:imagenet-fall11", mean="dataset"),
        source="Krizhevsky et al. 2012, section 6",
        command="cnnkit train --recipe alexnet-22k --dataset folder:PATH "
        "--model-option sixth_conv=FILTERS --output runs/22k, then cnnkit train --recipe "
        "alexnet-paper --model-option sixth_conv=FILTERS --init-from runs/22k",
        cost="not stated; 12 times the images of alexnet-paper an epoch",
        result=f"the paper, after fine-tuning: {validation_errors('alexnet.table2.1cnn-22k')}; "
        "not repeated here",
        deviations=(
            *DEVIATIONS[:3],
            *DEVIATIONS[4:],
            "epochs and schedule are not stated and are those of alexnet-paper",
            "the mean color is subtracted instead of the mean image, which would be the one of "
            "15 million images",
        ),
        needs={"sixth_conv": "the paper does not give the filters of the sixth convolution"},
    ),
}

# A minute on a laptop, on real handwritten digits.
DEMO = {
    "demo": Recipe(
        config=TrainingConfig(
            model="alexnet",
            model_options={"initializer": "glorot"},
            dataset="digits",
            image_size=64,
            epochs=8,
            batch_size=64,
            learning_rate=0.01,
            lr_milestones=(6,),
            strategy="mirrored",
        ),
        source="Krizhevsky et al. 2012, section 5",
        command="cnnkit-train --recipe demo",
        cost="about a minute on 2 CPU cores",
        result="1 to 4 % error on the 359 held-out digits (seed 0: 2.2 or 3.6 %, by CPU)",
        deviations=(
            "1,438 handwritten digits at 64 x 64 instead of 1.2 million photographs at 224 x 224",
            "Glorot weights and biases 0: the paper's initialization stays at a loss of ln(10) on "
            "so few images",
            "batch 64 instead of 128; 8 epochs with one drop of the learning rate instead of 90 "
            "with three",
            "no augmentation: a mirrored digit is another sign",
        ),
    ),
}

# A network of 2012 with the training methods of today.
MODERN = {
    "modern": Recipe(
        config=TrainingConfig(
            model="alexnet_torchvision",
            dataset=IMAGENET,
            scale=(256, 320),
            crop="random",
            flip=True,
            epochs=90,
            batch_size=256,
            learning_rate=0.02,
            schedule="cosine",
            warmup_epochs=5,
            precision="mixed_bfloat16",
            fast_decode=True,
            checkpoint_every="10m",
            keep_best=True,
        ),
        source="no paper: one tower without normalization (Krizhevsky 2014), Glorot weights, "
        "warm-up, cosine, bfloat16",
        command="cnnkit train --recipe modern --strategy mirrored --output runs/modern",
        cost="not measured; limited by the decoding of images on most machines",
        result="torchvision's network of these widths: 56.5 % top-1 and 79.1 % top-5 accuracy; "
        "not repeated here",
    ),
}
