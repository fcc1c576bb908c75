"""Evaluation by every protocol against loops in NumPy that crop, mirror and average by hand."""

import dataclasses
import importlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import cnnkit
from cnnkit import alexnet
from cnnkit.data import Split
from cnnkit.errors import DataError, RunError, UsageError
from cnnkit.evaluation import EvaluatedModel, evaluate
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
    result = evaluate(model, split, LABELS, protocol="ten-crop", scales=(16,), central_square=False)
    expected = np.stack([by_crops(model, p, (16,), TEN, square=False) for p in pictures])
    found = probabilities_of(result)
    known = ~np.isnan(found)
    np.testing.assert_allclose(found[known], expected[known], atol=1e-4)
    with pytest.warns(FutureWarning, match="`square` of evaluate.. is now called `central_square`"):
        assert result == evaluate(
            model, split, LABELS, protocol="ten-crop", scales=(16,), square=False
        )


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
    with pytest.raises(UsageError, match="`batch_size` must be at least 1. Received: 0"):
        evaluate(model, split, LABELS, batch_size=0)
    with pytest.raises(DataError, match="`split` must contain at least one image"):
        evaluate(model, dataclasses.replace(split, labels=split.labels[:0]), LABELS)
    pooled = keras.Sequential(
        [keras.Input((12, 12, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Softmax()]
    )
    with pytest.raises(UsageError, match="has no dense head"):
        evaluate(pooled, split, "abc", protocol="dense")
    sizes = keras.Sequential([keras.Input((None, None, 3)), keras.layers.GlobalAveragePooling2D()])
    with pytest.raises(UsageError, match="has no fixed input, so the size of its crops is unknown"):
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


def test_evaluate_is_a_public_name():
    assert cnnkit.evaluate is evaluate


def order_network(classes=7):
    """A network that reads the order of its classes from the first row of the image."""
    inputs = keras.Input((8, 8, 3))
    first = keras.layers.Cropping2D(((0, 7), (0, 8 - classes)))(inputs)
    outputs = keras.layers.Lambda(lambda x: x[:, 0, :, 0])(first)
    return keras.Model(inputs, outputs)


def split_of_scores(scores, labels):
    images = np.zeros((len(scores), 8, 8, 3), np.uint8)
    images[:, 0, : scores.shape[1], 0] = scores
    table = tf.constant(images)
    names = tuple(str(i) for i in range(len(labels)))
    return Split(np.asarray(labels, np.int32), names, lambda index: tf.gather(table, index))


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_errors_are_counted_as_by_hand(rng, batch_size):
    scores = rng.permuted(np.tile(np.arange(7) * 30, (23, 1)), axis=1)
    labels = rng.integers(0, 6, 23)
    result = evaluate(
        order_network(), split_of_scores(scores, labels), list("abcdefg"), batch_size=batch_size
    )
    best = [sorted(range(7), key=lambda c: -row[c]) for row in scores]
    top1 = np.array([label != order[0] for label, order in zip(labels, best, strict=True)])
    top5 = np.array([label not in order[:5] for label, order in zip(labels, best, strict=True)])
    assert result.images == 23
    assert result.top1_error == pytest.approx(top1.mean())
    assert result.top5_error == pytest.approx(top5.mean())
    assert 0 < result.top5_error < result.top1_error < 1
    for i, row in enumerate(result.classes):
        chosen = labels == i
        assert (row.label, row.images) == ("abcdefg"[i], chosen.sum())
        if chosen.any():
            assert row.top1_error == pytest.approx(top1[chosen].mean())
            assert row.top5_error == pytest.approx(top5[chosen].mean())
    assert result.classes[6].images == 0
    assert result.classes[6].top1_error is None


def test_other_classes_are_refused():
    with pytest.raises(UsageError, match="Expected: 7 classes. Received: 2: a, b"):
        evaluate(order_network(), split_of_scores(np.zeros((1, 7)), [0]), ["a", "b"])


def test_whole_images_wait_for_others_of_their_shape():
    """At most two batches of pixels wait; beyond them the shape with the most pixels runs."""
    seen = []

    def score(pixels):
        tf.py_function(lambda x: seen.append(tuple(x.shape[:3])), [pixels], [])
        return tf.reduce_mean(pixels, axis=(1, 2))

    strategy = tf.distribute.get_strategy()
    scorer = evaluate_module.BatchScorer(score, strategy, 200, any_shape=True)
    scores = np.zeros((10, 3), np.float32)
    # 48 + 81 + 128 + 98 + 36 pixels.
    for side, start, end in ((4, 0, 3), (9, 3, 4), (8, 4, 6), (7, 6, 8), (6, 8, 9)):
        scorer.add(tf.fill((end - start, side, side, 3), float(side)), scores[start:end])
    assert seen == []
    scorer.add(tf.fill((1, 5, 5, 3), 5.0), scores[9:])
    assert seen == [(2, 8, 8)]
    scorer.finish()
    assert sorted(seen[1:]) == [(1, 5, 5), (1, 6, 6), (1, 9, 9), (2, 7, 7), (3, 4, 4)]
    assert scores.mean(axis=1).tolist() == [4, 4, 4, 9, 8, 8, 7, 7, 6, 5]
