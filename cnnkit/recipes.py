"""Named training recipes: each with its source, command, cost and the result to expect."""

from __future__ import annotations

from dataclasses import dataclass

from cnnkit.config import TrainingConfig
from cnnkit.errors import unknown_name


@dataclass(frozen=True)
class Recipe:
    """A configuration that is known to work.

    Attributes:
        config: What is trained.
        source: The paper it follows.
        command: What a user types.
        cost: Time on named hardware.
        result: What to expect at the end.
        deviations: Where it differs from the paper, and why.
    """

    config: TrainingConfig
    source: str
    command: str
    cost: str
    result: str
    deviations: tuple[str, ...] = ()


RECIPES = {
    "demo": Recipe(
        config=TrainingConfig(
            model="alexnet",
            model_options={"initializer": "glorot"},
            dataset="digits",
            image_size=64,
            epochs=8,
            batch_size=64,
            learning_rate=0.01,
            drop_epochs=(6,),
            strategy="mirrored",
        ),
        source="Krizhevsky et al. 2012, section 5",
        command="cnnkit-train --recipe demo",
        cost="about a minute on 2 CPU cores",
        result="1 to 4 % error on the 359 held-out digits (seeds 0 to 3: 3.6, 1.1, 0.8, 1.1 %)",
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
DEFAULT = "demo"


def find_recipe(name: str) -> Recipe:
    """Returns the recipe called `name`.

    Raises:
        UsageError: If there is none.

    Example:
        >>> from cnnkit.recipes import find_recipe
        >>> find_recipe("demo").config.epochs
        8
    """
    if name not in RECIPES:
        raise unknown_name("recipe", name, RECIPES)
    return RECIPES[name]
