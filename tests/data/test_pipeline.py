import io
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from cnnkit.data import (
    Augmentation,
    batches,
    decode_image,
    load_dataset,
    mean_color,
    resize_shorter_side,
)
from cnnkit.data.dataset import stratified_holdout
from cnnkit.data.pipeline import epoch_order
from cnnkit.errors import DataError, UsageError

EIGHT = Augmentation(8)


def encoded(array, kind, mode=None):
    file = io.BytesIO()
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(
        file, kind, **({"quality": 95} if kind == "JPEG" else {})
    )
    return file.getvalue()


@pytest.mark.parametrize(
    ("kind", "mode"),
    [(kind, mode) for kind in ("PNG", "JPEG", "BMP", "GIF", "WEBP") for mode in ("RGB", "L")]
    + [(kind, "RGBA") for kind in ("PNG", "BMP", "WEBP")],
)
def test_decodes_what_pillow_wrote(kind, mode):
    y, x = np.mgrid[0:40, 0:30]
    rgb = np.stack([x * 4, y * 4, (x + y) * 2], -1).astype(np.uint8)
    data = encoded(rgb, kind, mode)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), float)
    image = decode_image(tf.constant(data)).numpy()
    assert image.dtype == np.uint8
    # Lossless formats are equal; two JPEG or WebP decoders differ by rounding.
    tolerance = 0 if kind in ("PNG", "BMP", "GIF") else 8
    assert np.abs(image - expected).max() <= tolerance


def test_transparent_pixels_keep_their_color():
    rgba = np.full((2, 2, 4), (10, 20, 30, 0), np.uint8)
    np.testing.assert_array_equal(
        decode_image(tf.constant(encoded(rgba, "PNG")))[0, 0], (10, 20, 30)
    )


def test_no_image_is_an_error():
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_image(tf.constant(b"no image"))


def test_fit_rescales_the_shorter_side_and_cuts_the_center():
    image = np.zeros((50, 100, 3), np.uint8)
    image[:, 25:75] = 200
    np.testing.assert_allclose(
        resize_shorter_side(tf.constant(image), 50), np.full((50, 50, 3), 200.0)
    )
    tall = resize_shorter_side(tf.constant(image.transpose(1, 0, 2)), 25).numpy()
    assert tall.shape == (25, 25, 3)
    assert tall[2:-2].min() == pytest.approx(200, abs=0.01)


def test_fit_equals_pillow_when_it_shrinks(rng):
    image = rng.integers(0, 256, (90, 60, 3), np.uint8)
    ours = resize_shorter_side(tf.constant(image), 20).numpy()
    theirs = np.asarray(Image.fromarray(image).resize((20, 30), Image.Resampling.BILINEAR), float)
    assert np.abs(ours - theirs[5:25]).max() < 1.0


def test_digits_are_split_by_class_and_seed():
    one, again, other = (load_dataset("digits", seed=seed) for seed in (0, 0, 1))
    sizes = {name: len(split) for name, split in one.splits.items()}
    assert sum(sizes.values()) == 1797
    assert one.fingerprint == again.fingerprint != other.fingerprint
    assert not set(one.splits["train"].names) & set(one.splits["test"].names)
    counts = np.bincount(one.splits["test"].labels)
    assert counts.min() >= 34
    assert counts.max() <= 37


def test_held_out_leaves_something_to_train_on():
    labels = np.array([0, 0, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2])
    test = stratified_holdout(labels, seed=0)
    assert [int(test[labels == i].sum()) for i in range(3)] == [1, 0, 2]


def test_folder_with_a_seeded_split(image_folder):
    source = load_dataset(f"folder:{image_folder}")
    assert source.class_names == ("above", "below")
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 32, "test": 8}
    split = source.splits["train"]
    for i in (0, 20):
        image = split.load_image(tf.constant(i, tf.int64)).numpy()
        half = image[:30].mean() > image[40:].mean()
        assert half == (source.class_names[split.labels[i]] == "above")


def test_folder_with_its_own_splits(image_folder, tmp_path):
    shutil.copytree(image_folder, tmp_path / "train")
    shutil.copytree(image_folder / "below", tmp_path / "test" / "below")
    (tmp_path / "train" / "above" / ".hidden").write_text("left alone")
    source = load_dataset(f"folder:{tmp_path}")
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 40, "test": 20}
    assert set(source.splits["test"].labels) == {1}
    (tmp_path / "test" / "beside").mkdir()
    with pytest.raises(DataError, match="test has classes that .*train lacks. Received: beside"):
        load_dataset(f"folder:{tmp_path}")


def test_a_few_files_that_are_no_images_are_left_out(tmp_path):
    png = encoded(np.zeros((4, 4, 3), np.uint8), "PNG")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(100):
            (tmp_path / name / f"{i}.png").write_bytes(png)
    (tmp_path / "a" / "notes.txt").write_text("no image")
    truncated = encoded(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8), "PNG")
    (tmp_path / "b" / "torn.png").write_bytes(truncated[: len(truncated) // 2])
    source = load_dataset(f"folder:{tmp_path}")
    assert source.unreadable == (str(tmp_path / "a/notes.txt"), str(tmp_path / "b/torn.png"))
    assert sum(len(split) for split in source.splits.values()) == 200

    (tmp_path / "b" / "more.txt").write_text("one too many")
    with pytest.raises(DataError, match="3 of 203 files .* are not images.* at most 1%.*notes.txt"):
        load_dataset(f"folder:{tmp_path}")


def test_tfds_that_is_prepared(tmp_path, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")

    class CnnkitTinyShapes(tfds.core.GeneratorBasedBuilder):
        """Eight squares."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = tfds.features.FeaturesDict(
                {"image": tfds.features.Image(shape=(None, None, 3)),
                 "label": tfds.features.ClassLabel(names=["dark", "light"])}
            )  # fmt: skip
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, _):
            return {"train": self._generate_examples(8)}

        def _generate_examples(self, count):
            for i in range(count):
                image = np.full((6 + i, 5, 3), 20 + 200 * (i % 2), np.uint8)
                yield i, {"image": image, "label": i % 2}

    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    builder = tfds.builder
    monkeypatch.setattr(tfds, "builder", lambda name: builder(name, data_dir=tmp_path))
    with pytest.raises(UsageError, match="not prepared on this machine.*Pass --download"):
        load_dataset("tfds:cnnkit_tiny_shapes")
    source = load_dataset("tfds:cnnkit_tiny_shapes", download=True)
    assert source.class_names == ("dark", "light")
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 6, "test": 2}
    for split in source.splits.values():
        for i, label in enumerate(split.labels):
            assert split.load_image(tf.constant(i, tf.int64)).numpy().mean() == 20 + 200 * label
    assert load_dataset("tfds:cnnkit_tiny_shapes").fingerprint == source.fingerprint


def test_batches_show_every_image_once():
    split = load_dataset("digits").splits["test"]
    order = epoch_order(len(split), seed=4, epoch=2)
    assert sorted(order) == list(range(len(split)))
    read = tf.function(lambda i: resize_shorter_side(split.load_image(i), 8))
    images = [read(tf.constant(i)).numpy().tobytes() for i in order]
    for batch_size, replicas in ((64, 1), (50, 3), (len(split), 2), (1000, 1)):
        seen = []
        for batch in batches(
            split,
            augmentation=EIGHT,
            batch_size=batch_size,
            order=order,
            replicas=replicas,
        ):
            assert batch["images"].shape[0] % replicas == 0
            real = batch["weights"].numpy() == 1
            assert real.sum() <= batch_size
            seen += [image.tobytes() for image in batch["images"].numpy()[real]]
        assert seen == images


def test_a_resumed_epoch_begins_at_its_step():
    split = load_dataset("digits").splits["test"]
    options = {"augmentation": EIGHT, "batch_size": 32, "order": epoch_order(len(split), 0, 1)}
    whole = list(batches(split, **options).as_numpy_iterator())
    rest = list(batches(split, first_step=5, **options).as_numpy_iterator())
    assert len(rest) == len(whole) - 5
    for one, other in zip(whole[5:], rest, strict=True):
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])


def test_epochs_have_orders_of_their_own():
    orders = [tuple(epoch_order(50, seed, epoch)) for seed in (0, 1) for epoch in (1, 2)]
    assert len(set(orders)) == 4
    assert tuple(epoch_order(50, 0, 1)) == orders[0]


def test_mean_color(image_folder):
    split = load_dataset(f"folder:{image_folder}").splits["train"]
    images = [
        resize_shorter_side(split.load_image(tf.constant(i, tf.int64)), 16).numpy()
        for i in range(len(split))
    ]
    expected = np.mean(images, axis=(0, 1, 2))
    np.testing.assert_allclose(mean_color(split, image_size=16), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("digit", "Unknown dataset 'digit'. Expected: one of digits, folder:PATH, imagenet:PATH, "
         "shards:PATH, tfds:NAME."),
        ("digit", "Did you mean digits?"),
        ("folder:", "lacks its name"),
        ("folder:/no/such", "No folder /no/such"),
        ("tfds:cifar1", "Did you mean tfds:cifar10"),
    ],
)  # fmt: skip
def test_unknown_datasets(spec, text):
    with pytest.raises(UsageError) as error:
        load_dataset(spec)
    assert text in str(error.value)


def test_folders_without_images(tmp_path):
    with pytest.raises(DataError, match="is not a dataset. Expected: a subfolder for each class"):
        load_dataset(f"folder:{tmp_path}")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match="No images in"):
        load_dataset(f"folder:{tmp_path}")
