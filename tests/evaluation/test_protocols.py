"""The protocols against loops in NumPy that cut, mirror and average by hand."""

import dataclasses
import importlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import cnnkit
from cnnkit import alexnet, vgg11
from cnnkit.data import Split
from cnnkit.errors import DataError, RunError, UsageError
from cnnkit.evaluation import EvaluatedModel, evaluate
from cnnkit.evaluation.ensemble import dense_network, evaluated_model, score_function
from cnnkit.evaluation.predictions import log_softmax
from tests.helpers.evaluation_networks import (
    CLASSES,
    LABELS,
    SIZE,
    images,
    logits,
    network,
    softmax,
    split_of,
)

evaluate_module = importlib.import_module("cnnkit.evaluation.evaluate")

TEN, GRID = (
    [(0, 0), (0, 1), (1, 0), (1, 1), (0.5, 0.5)],
    [(i / 4, j / 4) for i in range(5) for j in range(5)],
)


def probabilities_of(result):
    """Returns (n, classes): the eight examples are all of the images, in their order."""
    assert [answer.index for answer in result.examples] == list(range(result.images))
    table = np.full((result.images, CLASSES), np.nan)
    for row, answer in zip(table, result.examples, strict=True):
        for label, probability in answer.top:
            row[LABELS.index(label)] = probability
        row[LABELS.index(answer.label)] = answer.probability
    return table


def rescaled(picture, scale):
    height, width = picture.shape[:2]
    sides = [round(side * scale / min(height, width)) for side in (height, width)]
    resized = tf.image.resize(picture, sides, method="bilinear", antialias=True)
    return resized.numpy()


def windows(picture, parts, square):
    height, width = picture.shape[:2]
    if square:
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        picture = picture[top : top + side, left : left + side]
    height, width = picture.shape[:2]
    for down, right in parts:
        top, left = int(down * (height - SIZE)), int(right * (width - SIZE))
        yield picture[top : top + SIZE, left : left + SIZE]


def by_crops(model, picture, scales, parts, *, square, flip=True, average="probabilities"):
    means = []
    for scale in scales:
        crops = np.stack(list(windows(rescaled(picture, scale), parts, square)))
        flips = [crops, crops[:, :, ::-1]] if flip else [crops]
        scores = np.stack([logits(model, one) for one in flips])
        if average == "scores":
            means.append(softmax(scores.mean(axis=1)).mean(axis=0))
        else:
            means.append(softmax(scores).mean(axis=(0, 1)))
    return np.mean(means, axis=0)


def by_windows(model, picture, scales, average="scores"):
    """Dense testing as the average over all windows, two pixels apart: nothing is padded."""
    means = []
    for scale in scales:
        whole = rescaled(picture, scale)
        for one in (whole, whole[:, ::-1]):
            height, width = one.shape[:2]
            cut = [
                one[top : top + SIZE, left : left + SIZE]
                for top in range(0, height - SIZE + 1, 2)
                for left in range(0, width - SIZE + 1, 2)
            ]
            scores = logits(model, np.stack(cut))
            means.append(
                softmax(scores.mean(axis=0))
                if average == "scores"
                else softmax(scores).mean(axis=0)
            )
    return np.mean(means, axis=0)


@pytest.fixture(scope="module")
def model():
    return network(3)


@pytest.fixture(scope="module")
def pictures():
    return images()


@pytest.fixture(scope="module")
def split(pictures):
    return split_of(pictures, [0, 1, 2, 3, 4, 5, 6, 0])


@pytest.mark.parametrize(
    ("protocol", "average", "scales"),
    [
        ("center", None, (13, 16, 22)),
        ("ten-crop", None, (16,)),
        ("ten-crop", "scores", (13, 22)),
        ("dense", None, (13, 16, 22)),
        ("dense", "probabilities", (16,)),
        ("multi-crop", None, (13, 22)),
        ("dense+multi-crop", None, (13, 16)),
        ("dense+multi-crop", "scores", (16,)),
        ("dense+multi-crop", "probabilities", (16,)),
    ],
)
def test_protocols_against_a_loop(model, pictures, split, protocol, average, scales):
    result = evaluate(
        model, split, LABELS, protocol=protocol, average=average, scales=scales, batch_size=64
    )
    crops, rest = average or "probabilities", average or "scores"
    expected = {
        "center": lambda p: by_crops(model, p, scales, [(0.5, 0.5)], square=False, flip=False),
        "ten-crop": lambda p: by_crops(model, p, scales, TEN, square=True, average=crops),
        "multi-crop": lambda p: by_crops(model, p, scales, GRID, square=False, average=crops),
        "dense": lambda p: by_windows(model, p, scales, rest),
        "dense+multi-crop": lambda p: np.mean(
            [
                by_crops(model, p, scales, GRID, square=False, average=crops),
                by_windows(model, p, scales, rest),
            ],
            axis=0,
        ),
    }[protocol]
    table = np.stack([expected(picture) for picture in pictures])
    found = probabilities_of(result)
    known = ~np.isnan(found)
    assert known.sum() >= 5 * len(pictures)
    np.testing.assert_allclose(found[known], table[known], atol=1e-4)
    order = np.argsort(-table, axis=1)
    wrong = order[:, 0] != split.labels
    assert result.top1_error == wrong.mean()
    missed = [label not in row[:5] for row, label in zip(order, split.labels, strict=True)]
    assert result.top5_error == np.mean(missed)


def test_the_rules_differ(model, pictures):
    """The network is sharp enough for the tests above to tell the rules apart."""
    by_score = by_windows(model, pictures[1], (16,), "scores")
    by_probability = by_windows(model, pictures[1], (16,), "probabilities")
    assert np.abs(by_score - by_probability).max() > 0.02


def test_ten_crops_may_leave_the_central_square(model, pictures, split):
    result = evaluate(model, split, LABELS, protocol="ten-crop", scales=(16,), square=False)
    expected = np.stack([by_crops(model, p, (16,), TEN, square=False) for p in pictures])
    found = probabilities_of(result)
    known = ~np.isnan(found)
    np.testing.assert_allclose(found[known], expected[known], atol=1e-4)


@pytest.mark.parametrize("build", [alexnet, vgg11])
def test_dense_is_the_classifier_at_the_training_size(build, rng):
    model = build(classes=4, input_shape=(64, 64, 3), initializer="glorot")
    batch = rng.uniform(0, 255, (2, 64, 64, 3)).astype(np.float32)
    member = evaluated_model(model, None)
    looks = score_function(dense_network(member), flip=True, average="scores")(batch).numpy()
    expected = np.log(model(batch).numpy())
    mirrored = np.log(model(batch[:, :, ::-1]).numpy())
    np.testing.assert_allclose(log_softmax(looks[:, 0]), expected, atol=1e-4)
    np.testing.assert_allclose(log_softmax(looks[:, 1]), mirrored, atol=1e-4)


def test_padding_makes_dense_differ_from_cut_windows(pictures):
    """A window that is cut out is surrounded by zeros, inside the image by its neighbors."""
    padded = network(3, padding="same")
    member = evaluated_model(padded, None)
    looks = score_function(dense_network(member), flip=False, average="scores")
    whole = pictures[6].astype(np.float32)
    height, width = whole.shape[:2]
    cut = [
        whole[top : top + SIZE, left : left + SIZE]
        for top in range(0, height - SIZE + 1, 2)
        for left in range(0, width - SIZE + 1, 2)
    ]
    inner = keras.Model(padded.input, padded.get_layer("fc8").output)
    expected = inner(np.stack(cut)).numpy().mean(axis=0)
    difference = looks(whole[None]).numpy()[0, 0] - expected
    assert np.abs(difference).max() > 0.01


@pytest.mark.parametrize("protocol", ["ten-crop", "dense+multi-crop"])
def test_counts_do_not_depend_on_the_batch(model, protocol, mirrored):
    many = split_of(images(29, seed=5), np.arange(29) % CLASSES)
    options = {"protocol": protocol, "scales": (16, 18)}
    results = [evaluate(model, many, LABELS, batch_size=size, **options) for size in (1, 7, 64)]
    with mirrored.scope():
        twice = keras.models.clone_model(model)
    twice.set_weights(model.get_weights())
    results.append(evaluate(twice, many, LABELS, batch_size=7, strategy=mirrored, **options))
    first = results[0]
    assert 0 < first.top5_error < first.top1_error < 1
    for other in results[1:]:
        assert other.confusion == first.confusion
        assert (other.top1_error, other.top5_error) == (first.top1_error, first.top5_error)
        assert other.classes == first.classes
        assert [one.index for one in other.mistakes] == [one.index for one in first.mistakes]
        for mine, theirs in zip(other.examples, first.examples, strict=True):
            assert mine.probability == pytest.approx(theirs.probability, rel=1e-4)


def test_an_ensemble_averages_probabilities(pictures, split):
    first, second = network(3), network(4)
    # The second network knows the classes in another order, and is tested at another scale.
    order = np.random.default_rng(0).permutation(CLASSES)
    members = [
        EvaluatedModel("first", first, (16,), SIZE),
        EvaluatedModel("second", second, (22, 16), SIZE, columns=tuple(int(i) for i in order)),
    ]
    result = evaluate(members, split, LABELS, protocol="dense")
    each = [
        np.stack([by_windows(first, picture, (16,)) for picture in pictures]),
        np.stack([by_windows(second, picture, (22, 16)) for picture in pictures])[:, order],
    ]
    together = np.mean(each, axis=0)
    found = probabilities_of(result)
    known = ~np.isnan(found)
    np.testing.assert_allclose(found[known], together[known], atol=1e-4)
    assert result.top1_error == (together.argmax(axis=1) != split.labels).mean()
    assert [one.name for one in result.members] == ["first", "second"]
    for one, table in zip(result.members, each, strict=True):
        assert one.top1_error == (table.argmax(axis=1) != split.labels).mean()
    assert evaluate(members[:1], split, LABELS).members == ()


@pytest.mark.parametrize("end", ["logits", "fused"])
@pytest.mark.parametrize("protocol", ["ten-crop", "dense"])
def test_every_kind_of_last_layer(model, split, end, protocol):
    other = network(3, end=end)
    other.set_weights(model.get_weights())
    options = {"protocol": protocol, "scales": (16,)}
    expected = evaluate(model, split, LABELS, **options)
    found = evaluate(other, split, LABELS, **options)
    np.testing.assert_allclose(
        probabilities_of(found), probabilities_of(expected), atol=1e-4, equal_nan=True
    )


def test_a_state_goes_on_with_the_same_numbers(model, tmp_path, monkeypatch):

    monkeypatch.setattr(evaluate_module, "SECONDS_BETWEEN_SAVES", 0.0)
    monkeypatch.setattr(evaluate_module, "MAX_WINDOW_IMAGES", 6)
    many = split_of(images(40, seed=5), np.arange(40) % CLASSES)
    read = []

    def watched(index):
        tf.py_function(lambda i: read.append(int(i)), [index], [])
        return many.load_bytes(index)

    watching = Split.from_files(many.labels, many.names, watched)
    options = {"protocol": "dense+multi-crop", "scales": (16, 18), "batch_size": 32}
    whole = evaluate(model, many, LABELS, **options)
    state = tmp_path / "state.npz"
    reported = []

    def stop_at(limit):
        def progress(count):
            reported.append(count)
            if sum(reported) >= limit:
                raise KeyboardInterrupt

        return progress

    for limit in (7, 20):
        reported.clear()
        with pytest.raises(KeyboardInterrupt):
            evaluate(model, many, LABELS, **options, state=state, progress=stop_at(limit))
    reported.clear()
    read.clear()
    result = evaluate(model, watching, LABELS, **options, state=state, progress=reported.append)
    assert result == whole
    assert reported[0] >= 20
    assert sum(reported) == 40
    assert sorted(read) == list(range(reported[0], 40))
    # A state of something else, or a torn one, is no state.
    state.write_bytes(state.read_bytes()[:100])
    assert evaluate(model, many, LABELS, **options, state=state) == whole


def test_each_image_is_decoded_once(model, split):
    read = []

    def watched(index):
        tf.py_function(lambda i: read.append(int(i)), [index], [])
        return split.load_bytes(index)

    watching = Split.from_files(split.labels, split.names, watched)
    evaluate(model, watching, LABELS, protocol="dense+multi-crop", scales=(16, 18, 22))
    assert sorted(read) == list(range(8))


def test_what_cannot_be_applied_is_one_line(model, split):
    with pytest.raises(UsageError, match="Unknown protocol 'tencrop'.*Did you mean ten-crop"):
        evaluate(model, split, LABELS, protocol="tencrop")
    with pytest.raises(UsageError, match="Unknown average 'score'"):
        evaluate(model, split, LABELS, average="score")
    with pytest.raises(UsageError, match="`scale` is smaller than the crop.*at least 12"):
        evaluate(model, split, LABELS, protocol="ten-crop", scales=(16, 11))
    with pytest.raises(UsageError, match=r"too small for 'net3'.*at least 12. Received: 8 x 8"):
        evaluate(model, split, LABELS, protocol="dense", scales=(8,))
    with pytest.raises(UsageError, match="Expected: 7 classes. Received: 2: a, b"):
        evaluate(model, split, "ab")
    with pytest.raises(UsageError, match="A batch holds images"):
        evaluate(model, split, LABELS, batch_size=0)
    with pytest.raises(DataError, match="no images to evaluate"):
        evaluate(model, dataclasses.replace(split, labels=split.labels[:0]), LABELS)
    pooled = keras.Sequential(
        [keras.Input((12, 12, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Softmax()]
    )
    with pytest.raises(UsageError, match="has no dense head"):
        evaluate(pooled, split, "abc", protocol="dense")
    sizes = keras.Sequential([keras.Input((None, None, 3)), keras.layers.GlobalAveragePooling2D()])
    with pytest.raises(UsageError, match="which size of square"):
        evaluate(sizes, split, "abc")
    mean = np.full((64, 64, 3), 100.0)
    imaged = alexnet(classes=2, input_shape=(64, 64, 3), mean=mean)
    with pytest.raises(UsageError, match="subtracts a mean image of 64 x 64"):
        evaluate(imaged, split, "ab", protocol="dense", scales=(70,))


def test_scores_that_are_no_numbers_are_refused(split):
    broken = network(0)
    broken.get_layer("fc8").set_weights([np.full((8, CLASSES), np.nan), np.zeros(CLASSES)])
    with pytest.raises(RunError, match="no finite scores"):
        evaluate(broken, split, LABELS)


def test_a_network_of_any_size_is_tested_densely(split):
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(CLASSES, 3)(keras.layers.Rescaling(1 / 64)(inputs))
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
    result = evaluate(EvaluatedModel("any", model, (16,), SIZE), split, LABELS, protocol="dense")
    assert result.images == 8


def test_evaluate_is_a_public_name():
    assert cnnkit.evaluate is evaluate
