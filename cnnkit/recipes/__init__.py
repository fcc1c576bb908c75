"""Named training recipes, each with its source, command, cost and expected result."""

from __future__ import annotations

from cnnkit.errors import unknown_name
from cnnkit.recipes.alexnet import ALEXNET, DEMO, MODERN
from cnnkit.recipes.cifar10 import CIFAR
from cnnkit.recipes.recipe import Recipe as Recipe
from cnnkit.recipes.recipe import TrainingStage as TrainingStage
from cnnkit.recipes.vgg import VGG
from cnnkit.recipes.zfnet import ZFNET

# Training recipes by name.
RECIPES: dict[str, Recipe] = {**DEMO, **ALEXNET, **VGG, **ZFNET, **CIFAR, **MODERN}
# Name of the recipe that `cnnkit train` uses by default.
DEFAULT = "demo"


def find_recipe(name: str) -> Recipe:
    """Return the recipe called `name`.

    Raises:
        UsageError: If `name` is unknown.

    Example:
        >>> from cnnkit.recipes import find_recipe
        >>> find_recipe("demo").config.epochs
        8
    """
    if name not in RECIPES:
        raise unknown_name("recipe", name, RECIPES)
    return RECIPES[name]
