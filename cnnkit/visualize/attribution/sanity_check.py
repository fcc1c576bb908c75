"""Attribution methods side by side, and a test of their dependence on the learned weights.

The test is the cascading parameter randomization of Adebayo et al. 2018, section 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import keras
import numpy as np
import tensorflow as tf
from scipy.stats import spearmanr

from cnnkit._deprecation import renamed_argument
from cnnkit.errors import UsageError, unknown_name
from cnnkit.models.graph import Node
from cnnkit.visualize.argument_checks import check_names
from cnnkit.visualize.attribution.base import AttributionQuery, prepare_query
from cnnkit.visualize.attribution.cam import maps_layer
from cnnkit.visualize.attribution.explain_class import (
    BY_RULE,
    CAMS,
    EXPLANATION_METHODS,
    explain_class,
)
from cnnkit.visualize.classifier import has_kernel

DEFAULT_METHODS = (*BY_RULE, "saliency", "smoothgrad", "gradcam")


@dataclass(frozen=True)
class AttributionComparison:
    """Maps of several methods for one image and class, with learned and with randomized weights.

    Attributes:
        methods: Names of the methods.
        target: Index of the class.
        score: Logit of the class, with the learned weights.
        maps: For every method (h, w, 3) signed pixels of a backward rule, or (h, w), 0 or more.
        stages: Names of layers. In each stage the weights are randomized from the top of the model
            down to this layer.
        randomized_maps: For every stage, `maps` with the randomized weights.
        correlations: (stages, methods) float64, Spearman's rank correlation of the absolute values
            of `randomized_maps` and of `maps`; NaN where one of them is constant.
        seed: Seed of the randomization.
        layer: Name of the layer of class activation maps; None if there is none.
    """

    methods: tuple[str, ...]
    target: int
    score: float
    maps: tuple[np.ndarray, ...] = field(repr=False)
    stages: tuple[str, ...]
    randomized_maps: tuple[tuple[np.ndarray, ...], ...] = field(repr=False)
    correlations: np.ndarray
    seed: int
    layer: str | None = None


@renamed_argument("label", "target")
def compare_attributions(
    model: keras.Model,
    image: np.ndarray,
    methods: Sequence[str] = DEFAULT_METHODS,
    target: int | str | None = None,
    *,
    down_to: Sequence[str] | None = None,
    layer: str | None = None,
    samples: int = 50,
    seed: int = 0,
) -> AttributionComparison:
    """Computes maps of several methods for one class, before and after randomizing upper weights.

    This is the sanity check of Adebayo et al. 2018, section 3.1, with cascading randomization. A
    map that does not change with the weights does not show what the model learned. The weights are
    randomized by shuffling the values of each variable, which keeps their magnitudes and those of
    the outputs. (The paper draws new weights.) The model keeps its weights.

    Args:
        model: A classifier, as `cnnkit.visualize.saliency` takes it.
        image: (h, w, 3), as the model takes it; RGB in 0..255 for cnnkit models.
        methods: Names of methods: backward rules of `cnnkit.visualize.project`, which start from
            the class's logit, and attribution methods.
        target: Index or name of the class; None takes the most probable one, with the learned
            weights.
        down_to: Names of layers with weights: a stage for each. None takes the last layer, the last
            convolution and the first layer.
        layer: Layer of class activation maps; None takes the last maps, as `gradcam` does.
        samples: Noisy copies of the image for `"smoothgrad"`.
        seed: Seed of the randomization and of the noise.

    Raises:
        UsageError: If there is no such method, class or layer, a layer has no weights, or the image
            does not fit.
        DataError: If pixels, weights or outputs are not finite.

    Example:
        >>> import numpy as np
        >>> from cnnkit import zfnet
        >>> from cnnkit.visualize import compare_attributions
        >>> model = zfnet(input_shape=(64, 64, 3), classes=5, hidden_units=16)
        >>> image = np.random.default_rng(0).uniform(0, 255, (64, 64, 3))
        >>> methods = ["guided", "gradcam"]
        >>> compare_attributions(model, image, methods, down_to=["fc8", "conv5"]).correlations.shape
        (2, 2)
    """
    if np.ndim(image) != 3:
        raise UsageError(
            "`image` must be a single image", expected="(h, w, channels)", received=np.shape(image)
        )
    check_names("methods", methods)
    if down_to is not None:
        check_names("down_to", down_to)
    for method in methods:
        if method not in EXPLANATION_METHODS:
            raise unknown_name("method", method, EXPLANATION_METHODS)
    query = prepare_query(model, image, target, 1)
    [index] = query.targets.tolist()
    stages = _stages(query, down_to)
    if any(method in CAMS for method in methods):
        layer = maps_layer(query, layer).layer.name

    def compute(method: str) -> np.ndarray:
        [one] = explain_class(
            model, query.images, index, method, layer=layer, samples=samples, seed=seed
        )
        return one.map if method not in BY_RULE or one.gradient is None else one.gradient

    maps = tuple(map(compute, methods))
    randomized = []
    for stage in stages:
        with shuffled_weights(query, stage, seed):
            randomized.append(tuple(map(compute, methods)))
    correlations = [
        [rank_correlation(one, other) for one, other in zip(maps, row, strict=True)]
        for row in randomized
    ]
    return AttributionComparison(
        methods=tuple(methods),
        target=index,
        score=float(query.scores[0]),
        maps=maps,
        stages=tuple(stage.layer.name for stage in stages),
        randomized_maps=tuple(randomized),
        correlations=np.array(correlations).reshape(len(stages), len(methods)),
        seed=seed,
        layer=layer if any(method in CAMS for method in methods) else None,
    )


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Returns Spearman's rank correlation of absolute values, or NaN if either is constant.

    Example:
        >>> import numpy as np
        >>> from cnnkit.visualize.attribution.sanity_check import rank_correlation
        >>> rank_correlation(np.array([1, -2, 3]), np.array([-10, 20, 400]))
        1.0
    """
    magnitudes = [np.abs(values).ravel() for values in (one, other)]
    if any(np.ptp(values) == 0 for values in magnitudes):
        return float("nan")
    return float(spearmanr(*magnitudes).statistic)


def shuffled_weights(query: AttributionQuery, stage: Node, seed: int) -> keras.StatelessScope:
    """Returns a scope in which the weights from `stage` to the top are read as shuffled.

    The variables keep their values. A copy of the model would need every layer and activation to be
    rebuilt from its configuration.
    """
    nodes = query.classifier.nodes
    first = nodes.index(stage)
    shuffled: dict[int, tuple[keras.Variable, np.ndarray]] = {}
    for number, node in enumerate(nodes[first:], start=first):
        for which, weight in enumerate(_trained_weights(node)):
            # The order of a variable does not depend on how many layers are shuffled. A layer that
            # is called twice is shuffled twice.
            random = np.random.default_rng((seed, number, which))
            _, before = shuffled.get(id(weight), (weight, keras.ops.convert_to_numpy(weight)))
            after = random.permutation(before.ravel()).reshape(before.shape)
            shuffled[id(weight)] = weight, after
    values = [(weight, tf.constant(after, weight.dtype)) for weight, after in shuffled.values()]
    return keras.StatelessScope(state_mapping=values)


def _trained_weights(node: Node) -> list[keras.Variable]:
    """Returns the weights that a training changes unless they are frozen: a mean is not one."""
    if not isinstance(node.layer, keras.layers.Layer):
        return []
    return [
        weight for layer in node.layer._flatten_layers() for weight in layer._trainable_variables
    ]


def _stages(query: AttributionQuery, names: Sequence[str] | None) -> list[Node]:
    """Returns the nodes down to which the weights are randomized."""
    nodes = [node for node in query.classifier.nodes if _trained_weights(node)]
    if names is not None:
        stages = [query.classifier.graph.node(name) for name in names]
        for stage in stages:
            if stage not in nodes:
                raise UsageError(
                    f"Layer {stage.layer.name!r} has no weights on the way to the classes",
                    expected=f"for example {', '.join(node.layer.name for node in nodes[-3:])}",
                )
        return stages
    if not nodes:
        raise UsageError(f"Model {query.model.name!r} has no weights to randomize")
    convolutions = [node for node in nodes if has_kernel(node) and len(node.tensors[0].shape) == 4]
    # In this order, without duplicates.
    return list(dict.fromkeys([nodes[-1], *convolutions[-1:], nodes[0]]))
