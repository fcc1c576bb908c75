"""ZFNet, as trained by its paper."""

from __future__ import annotations

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

ZFNET = {
    # Zeiler & Fergus 2013, section 3.
    "zfnet-paper": Recipe(
        config=TrainingConfig(
            model="zfnet",
            dataset=IMAGENET,
            mean="pixel",
            scale=(256, 256),
            crop="ten",
            central_square=True,
            epochs=70,
            batch_size=128,
            learning_rate=0.01,
            schedule="plateau",
            weight_decay=0.0,
            max_filter_rms=0.1,
            checkpoint_every="30m",
            # Fig. 4: `cnnkit visualize evolution`.
            keep_epochs=(1, 2, 5, 10, 20, 30, 40, 64),
        ),
        source="Zeiler & Fergus 2013, section 3",
        command="cnnkit train --recipe zfnet-paper --output runs/zfnet",
        cost="the paper: about 12 days on one GTX 580",
        result=f"the paper: {validation_errors('zfnet.table2.fig3')}; not repeated here",
        deviations=(
            AUTOMATIC_DROPS,
            CENTER_CROP_ERRORS,
            BILINEAR_RESIZE,
            CENTER_OF_MEAN_IMAGE,
            INVERTED_DROPOUT,
            "no weight decay and no color noise: the paper mentions neither",
            "each epoch shows one of the ten crops of an image, chosen by chance; whether the "
            "authors showed all ten is not said",
        ),
    ),
}
