"""The class of recipes, and the deviations from the papers that several recipes share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cnnkit.config import TrainingConfig
from cnnkit.papers import find_paper_result


@dataclass(frozen=True)
class TrainingStage:
    """One training of a recipe that consists of several.

    Attributes:
        name: Name of its run folder.
        config: The configuration.
        follows: Whether it begins with the weights of the previous stage.
    """

    name: str
    config: TrainingConfig
    follows: bool = False


@dataclass(frozen=True)
class Recipe:
    """A published or proven configuration.

    Attributes:
        config: The configuration; that of the last stage if there are several.
        source: Paper or software that it follows.
        command: Command line that runs it.
        cost: Time on named hardware.
        result: Expected result, and its source.
        deviations: Differences from the paper, with reasons.
        needs: Fields or model options that the user has to set, with reasons.
        stages: Trainings that follow each other, if there is more than one.
    """

    config: TrainingConfig
    source: str
    command: str
    cost: str
    result: str
    deviations: tuple[str, ...] = ()
    needs: Mapping[str, str] = field(default_factory=dict)
    stages: tuple[TrainingStage, ...] = ()


IMAGENET = "tfds:imagenet2012"


def validation_errors(prefix: str) -> str:
    """Return the text of a paper's errors on ILSVRC-2012's validation images.

    Args:
        prefix: What the names of the results in the ledger have in common.
    """
    top1, top5 = (find_paper_result(f"{prefix}.{top}").value for top in ("top1", "top5"))
    return f"{top1} % top-1 and {top5} % top-5 error on ILSVRC-2012's validation images"


AUTOMATIC_DROPS = (
    "the learning rate drops after 5 epochs without improvement; the authors did it by hand"
)
CENTER_CROP_ERRORS = (
    "errors while training are of one center crop; the paper averages several crops"
)
BILINEAR_RESIZE = "images are rescaled bilinearly with antialiasing; the paper names no filter"
CENTER_OF_MEAN_IMAGE = (
    "the center of the mean image is subtracted from every crop; the authors subtract the part "
    "that lies under the crop"
)
INVERTED_DROPOUT = "dropout scales up while training instead of scaling down at test time"
