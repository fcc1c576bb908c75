"""Methods side by side, and whether they depend on what was learned (Adebayo et al. 2018)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import keras
import numpy as np
from scipy.stats import spearmanr

from cnnkit._deprecation import renamed_argument
from cnnkit.errors import UsageError, unknown_name
from cnnkit.models.graph import Node
from cnnkit.visualize.attribution.base import AttributionQuery, prepare_query
from cnnkit.visualize.attribution.cam import gradcam, gradcam_plus_plus, scorecam
from cnnkit.visualize.attribution.saliency import saliency, smoothgrad
from cnnkit.visualize.deconvnet.project import deconvnet

RULES = ("deconvnet", "guided", "gradient")
METHODS = {
    "saliency": saliency,
    "smoothgrad": smoothgrad,
    "gradcam": gradcam,
    "gradcam++": gradcam_plus_plus,
    "scorecam": scorecam,
}
DEFAULT = (*RULES, "saliency", "smoothgrad", "gradcam")


@dataclass(frozen=True)
class AttributionComparison:
    """What several methods say of one image and class, with the weights learned and randomized.

    Attributes:
        methods: Their names.
        target: The class.
        score: Its logit, of the network as it is.
        maps: For every method (h, w, 3) signed pixels of a rule, or (h, w), 0 or more.
        stages: Names of layers: down to each, from the top, the weights were randomized.
        randomized_maps: For every stage what `maps` is then.
        correlations: (stages, methods) float64, Spearman's rank correlation of the absolute values
            of `randomized_maps` and of `maps`; NaN where one of them is the same everywhere.
        seed: Of the randomization.
    """

    methods: tuple[str, ...]
    target: int
    score: float
    maps: tuple[np.ndarray, ...] = field(repr=False)
    stages: tuple[str, ...]
    randomized_maps: tuple[tuple[np.ndarray, ...], ...] = field(repr=False)
    correlations: np.ndarray
    seed: int


@renamed_argument("label", "target")
def compare_attributions(
    model: keras.Model,
    image: np.ndarray,
    methods: Sequence[str] = DEFAULT,
    target: int | str | None = None,
    *,
    down_to: Sequence[str] | None = None,
    layer: str | None = None,
    samples: int = 50,
    seed: int = 0,
) -> AttributionComparison:
    """Asks several methods about one class, and again when the upper weights are randomized.

    The sanity check of Adebayo et al. 2018, section 3.1, cascading: a picture that stays what it
    was when the network has forgotten what it learned does not show what it learned. Weights are
    randomized in a copy, by putting those of each variable in a random order: their sizes, and so
    those of the answers, stay what they were. (The paper draws them anew.)

    Args:
        model: A network over classes.
        image: (h, w, 3), as the model takes it; RGB in 0..255 for ours.
        methods: Names: rules of `cnnkit.visualize.deconvnet.project`, all of them from the class's logit,
            and methods of attribution.
        target: The class, its index or name; None is the most probable one, of the network as it is.
        down_to: Layers, each with weights: a stage for each. None is the last layer, the last
            convolution and the first layer.
        layer: Layer of class activation maps; None is the last convolution.
        samples: Noisy copies of `"smoothgrad"`.
        seed: Of the randomization, and of the noise.

    Raises:
        UsageError: If there is no such method, class or layer, a layer has no weights, or the image
            does not fit.
        DataError: If pixels, weights or answers are not finite.

    Example:
        >>> import numpy as np
        >>> from cnnkit import zfnet
        >>> from cnnkit.visualize import compare_attributions
        >>> model = zfnet(input_shape=(64, 64, 3), classes=5, hidden_units=16)
        >>> image = np.random.default_rng(0).uniform(0, 255, (64, 64, 3))
        >>> seen = compare_attributions(model, image, ["guided", "gradcam"], down_to=["fc8", "conv5"])
        >>> seen.correlations.shape
        (2, 2)
    """
    if np.ndim(image) != 3:
        raise UsageError(
            "One image is asked about", expected="(h, w, channels)", received=np.shape(image)
        )
    known = (*RULES, *METHODS)
    for method in methods:
        if method not in known:
            raise unknown_name("method", method, known)
    asked = prepare_query(model, image, target, 1)
    [target] = asked.targets.tolist()
    stages = _stages(asked, down_to)
    look = partial(_look, target=target, layer=layer, samples=samples, seed=seed)
    maps = tuple(look(model, asked.images, method) for method in methods)
    randomized = []
    for stage in stages:
        forgot = with_shuffled_weights(model, asked, stage, seed)
        randomized.append(tuple(look(forgot, asked.images, method) for method in methods))
    return AttributionComparison(
        methods=tuple(methods),
        target=target,
        score=float(asked.scores[0]),
        maps=maps,
        stages=tuple(stage.layer.name for stage in stages),
        randomized_maps=tuple(randomized),
        correlations=np.array(
            [
                [rank_correlation(one, other) for one, other in zip(maps, then, strict=True)]
                for then in randomized
            ]
        ).reshape(len(stages), len(methods)),
        seed=seed,
    )


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Returns Spearman's rank correlation of absolute values, NaN where all are the same.

    Example:
        >>> import numpy as np
        >>> from cnnkit.visualize.attribution.sanity_check import rank_correlation
        >>> rank_correlation(np.array([1, -2, 3]), np.array([-10, 20, 400]))
        1.0
    """
    strengths = [np.abs(values).ravel() for values in (one, other)]
    if any(np.ptp(values) == 0 for values in strengths):
        return float("nan")
    return float(spearmanr(*strengths).statistic)


def with_shuffled_weights(
    model: keras.Model, asked: AttributionQuery, stage: Node, seed: int
) -> keras.Model:
    """Returns a copy of a model, the weights of `stage` and all nodes after it in random order."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    nodes = prepare_query(copy, asked.images, int(asked.targets[0]), 1).network.nodes
    first = asked.network.nodes.index(stage)
    for number, node in enumerate(nodes[first:], start=first):
        # Frozen ones too: what is no weight by nature, such as a mean, stays.
        node.layer.trainable = True
        for which, weight in enumerate(getattr(node.layer, "trainable_weights", ())):
            # What a layer forgets does not depend on which others forget.
            random = np.random.default_rng((seed, number, which))
            values = keras.ops.convert_to_numpy(weight)
            weight.assign(random.permutation(values.ravel()).reshape(values.shape))
    return copy


def _look(model, images, method: str, *, target: int, layer, samples: int, seed: int):
    if method in RULES:
        end = prepare_query(model, images, target, 1).network.nodes[-1].layer.name
        return deconvnet(model, images, end, target, rule=method)[0].projection
    options: dict = {}
    if method == "smoothgrad":
        options = {"samples": samples, "seed": seed}
    elif method != "saliency":
        options = {"layer": layer}
    function: Callable = METHODS[method]
    return function(model, images, target, **options)[0].map


def _stages(asked: AttributionQuery, names: Sequence[str] | None) -> list[Node]:
    nodes = [node for node in asked.network.nodes if _learned(node)]
    if names is not None:
        stages = [asked.network.graph.node(name) for name in names]
        for stage in stages:
            if stage not in nodes:
                raise UsageError(
                    f"Layer {stage.layer.name!r} has no weights on the way to the classes",
                    expected=f"for example {', '.join(node.layer.name for node in nodes[-3:])}",
                )
        return stages
    if not nodes:
        raise UsageError("The network has no weights to randomize", received=asked.model.name)
    convolutions = [node for node in nodes if isinstance(node.layer, keras.layers.Conv2D)]
    # In this order, each once.
    return list(dict.fromkeys([nodes[-1], *convolutions[-1:], nodes[0]]))


def _learned(node: Node) -> bool:
    # Counted by nature, not by what is frozen.
    kinds = keras.layers.Conv2D | keras.layers.Dense | keras.layers.BatchNormalization
    return isinstance(node.layer, kinds) or bool(getattr(node.layer, "trainable_weights", ()))
