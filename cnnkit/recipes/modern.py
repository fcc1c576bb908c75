"""A network of 2012 with the training methods of today."""

from __future__ import annotations

from cnnkit.config import TrainingConfig
from cnnkit.recipes.recipe import IMAGENET, Recipe

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
