"""What the calls about images do, as plans: which signature, and what its outputs mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cnnkit.client import images as reading
from cnnkit.client.batches import Arrays
from cnnkit.client.images import Images, Prediction
from cnnkit.client.plans import Plans
from cnnkit.client.request import Target
from cnnkit.client.steps import Deadline, Plan
from cnnkit.errors import UsageError


@dataclass(frozen=True, eq=False)
class Explanation:
    """What in an image made a unit fire, as the server's deconvnet saw it.

    Attributes:
        label: The class's name; None where the signature does not explain a class.
        score: Its probability.
        projection: (h, w, 3) float32, the unit's signal in the pixels; 0 where it saw nothing.
        image: (h, w, 3) uint8, the part of the image that the network saw; None where the server
            does not show it.
        outputs: Everything that the server said about the image, by the outputs' names.
    """

    label: str | None
    score: float | None
    projection: npt.NDArray[Any]
    image: npt.NDArray[Any] | None
    outputs: Arrays


def classify(
    plans: Plans,
    images: Images,
    target: Target,
    top: int | None,
    batch_size: int | None,
    deadline: Deadline,
) -> Plan[list[list[Prediction]]]:
    """Asks what images show."""
    batch = reading.read_images(images)
    reading.check_top(top, None, target.model)
    offered = yield from plans.signatures(target, deadline)
    names = ("classify_bytes", "serving_bytes", "serving_default")
    name = reading.choose(offered, names, batch, target.model)
    reading.check_top(top, reading.answered_classes(offered[name]), target.model)
    labelled = "labels" in offered[name].outputs
    wanted = ["labels", "scores"] if labelled else ["probabilities"]
    outputs = yield from plans.predict(batch, target, name, wanted, batch_size, deadline)
    reading.check_top(top, outputs[wanted[0]].shape[-1], target.model)
    read = reading.labelled if labelled else reading.unlabelled
    return read(outputs, top or reading.USUAL_TOP)


def features(
    plans: Plans,
    images: Images,
    target: Target,
    batch_size: int | None,
    deadline: Deadline,
) -> Plan[npt.NDArray[Any]]:
    """Asks for the features of images."""
    batch = reading.read_images(images)
    offered = yield from plans.signatures(target, deadline)
    name = reading.choose(offered, ("features_bytes", "features"), batch, target.model)
    outputs = yield from plans.predict(batch, target, name, ["features"], batch_size, deadline)
    return outputs["features"]


def explain(
    plans: Plans,
    images: Images,
    target: Target,
    layer: str | None,
    batch_size: int | None,
    deadline: Deadline,
) -> Plan[list[Explanation]]:
    """Asks what in images made the winning class, or a layer's strongest unit, fire."""
    batch = reading.read_images(images)
    offered = yield from plans.signatures(target, deadline)
    wanted = "explain_bytes" if layer is None else f"explain_bytes_{layer}"
    name = reading.choose(offered, [wanted], batch, target.model)
    outputs = yield from plans.predict(batch, target, name, (), batch_size, deadline)
    if "projection" not in outputs:
        raise UsageError(
            f"Signature {name} of {target.model!r} answers with no projection",
            expected="an output projection",
            received=", ".join(outputs),
        )
    return [
        _explanation({key: values[row] for key, values in outputs.items()})
        for row in range(len(outputs["projection"]))
    ]


def _explanation(outputs: Arrays) -> Explanation:
    labels, scores = outputs.get("labels"), outputs.get("scores")
    return Explanation(
        None if labels is None else reading.text(np.ravel(labels)[0]),
        None if scores is None else float(np.ravel(scores)[0]),
        outputs["projection"],
        outputs.get("image"),
        outputs,
    )
