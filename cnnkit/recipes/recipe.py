"""What a recipe is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cnnkit.config import TrainingConfig


@dataclass(frozen=True)
class TrainingStage:
    """One of several trainings that a recipe is made of.

    Attributes:
        name: Name of its run folder.
        config: What is trained.
        follows: Whether it begins with the weights of the part before.
    """

    name: str
    config: TrainingConfig
    follows: bool = False


@dataclass(frozen=True)
class Recipe:
    """A configuration that is known to work, or was published.

    Attributes:
        config: What is trained; of several parts the last.
        source: The paper it follows.
        command: What a user types.
        cost: Time on named hardware.
        result: What to expect at the end, and who says so.
        deviations: Where it differs from the paper, and why.
        needs: Fields or model options that the user has to give, with the reason.
        parts: The trainings that it is made of, where it is more than one.
    """

    config: TrainingConfig
    source: str
    command: str
    cost: str
    result: str
    deviations: tuple[str, ...] = ()
    needs: Mapping[str, str] = field(default_factory=dict)
    parts: tuple[TrainingStage, ...] = ()


IMAGENET = "tfds:imagenet2012"
AUTOMATIC = "the learning rate drops after 5 epochs without improvement; the authors did it by hand"
CENTER = "errors while training are of one center crop; the paper averages several crops"
BILINEAR = "images are rescaled bilinearly with antialiasing; the paper names no filter"
CENTER_MEAN = (
    "the center of the mean image is subtracted from every crop; the authors subtract the part "
    "that lies under the crop"
)
INVERTED = "dropout scales up while training instead of scaling down at test time"
