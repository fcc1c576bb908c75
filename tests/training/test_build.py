"""Networks that begin with other weights, their preprocessing, and their precision on disk."""

import dataclasses
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

from cnnkit import load_model
from cnnkit.config import TrainingConfig
from cnnkit.errors import UsageError
from cnnkit.models import alexnet, class_names, set_class_names
from cnnkit.run_folder import RunFolder
from cnnkit.training import Callback, build, get_strategy, train
from cnnkit.training.build import build_components, initial_preprocessing, initialize_from
from tests.helpers.tiny_network import DIGITS_CONFIG, tiny

pytestmark = pytest.mark.usefixtures("unoptimized")

CONVOLUTIONS = ("conv1", "conv2", "conv3", "conv4", "conv5")


@pytest.fixture(scope="module")
def config(image_folder):
    # A step too small to move a weight, so that what a run begins with is what it ends with.
    return TrainingConfig(
        model="alexnet",
        model_options={"hidden_units": 8, "preset": "torchvision"},
        dataset=f"folder:{image_folder}",
        image_size=64,
        epochs=1,
        batch_size=16,
        learning_rate=1e-12,
        momentum=0.0,
        weight_decay=0.0,
    )


@pytest.fixture(scope="module")
def torch_file(tmp_path_factory):
    """The convolutions of torchvision's AlexNet as a .safetensors file."""
    network = alexnet(preset="torchvision", include_top=False)
    state = {}
    for place, name in zip((0, 3, 6, 8, 10), CONVOLUTIONS, strict=True):
        kernel, bias = network.get_layer(name).get_weights()
        state[f"features.{place}.weight"] = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
        state[f"features.{place}.bias"] = bias + 0.25
    path = tmp_path_factory.mktemp("torch") / "alexnet.safetensors"
    save_file(state, path)
    return path, network


def test_weights_of_others_bring_their_preprocessing(tmp_path, config, torch_file):
    path, network = torch_file
    begun = dataclasses.replace(config, init_from=str(path))
    run = train(begun, tmp_path / "run")
    model = load_model(run.path)
    for name in CONVOLUTIONS:
        np.testing.assert_allclose(
            model.get_layer(name).kernel, network.get_layer(name).kernel, atol=1e-6
        )
        np.testing.assert_allclose(model.get_layer(name).bias, 0.25, atol=1e-6)
    preprocessing = model.get_layer("preprocessing")
    np.testing.assert_allclose(preprocessing.mean, [123.675, 116.28, 103.53])
    np.testing.assert_allclose(preprocessing.std, [58.395, 57.12, 57.375])
    assert class_names(model) == ("above", "below")

    # Again from that run, in another precision, and with a mean that is asked for.
    again = dataclasses.replace(
        config, init_from=str(run.path), precision="mixed_bfloat16", mean="imagenet"
    )
    model = load_model(train(again, tmp_path / "again").path)
    preprocessing = model.get_layer("preprocessing")
    np.testing.assert_allclose(preprocessing.mean, [123.68, 116.779, 103.939])
    np.testing.assert_allclose(preprocessing.std, [58.395, 57.12, 57.375])
    assert model.get_layer("conv3").compute_dtype == "float32"


def test_a_resumed_run_keeps_the_preprocessing_it_began_with(tmp_path, config, torch_file):
    path = Path(shutil.copy(torch_file[0], tmp_path))
    begun = dataclasses.replace(config, init_from=str(path))
    train(begun, tmp_path / "run")
    # What the run began with is in its checkpoints.
    path.unlink()
    longer = dataclasses.replace(begun, epochs=2)
    model = load_model(train(longer, tmp_path / "run", resume=True).path)
    np.testing.assert_allclose(model.get_layer("preprocessing").std, [58.395, 57.12, 57.375])


def test_a_file_of_another_network_is_refused(tmp_path, config, torch_file):
    path, _ = torch_file
    options = {"hidden_units": 8, "preset": "one-weird-trick"}
    with pytest.raises(UsageError, match="without normalization, which alexnet has"):
        train(
            dataclasses.replace(config, init_from=str(path), model_options=options),
            tmp_path / "run",
        )
    assert not (tmp_path / "run").exists()


def test_a_run_in_half_precision_saves_float32(tmp_path):
    config = dataclasses.replace(
        DIGITS_CONFIG,
        learning_rate=0.1,
        lr_milestones=(),
        precision="mixed_bfloat16",
        epochs=1,
        keep_best=True,
    )
    run = train(config, tmp_path / "run")
    for file in (run.model_file, run.best_file):
        model = keras.saving.load_model(file)
        assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    [line] = RunFolder(tmp_path / "run").metrics
    assert line["val_accuracy"] > 0.3


def test_init_from_begins_with_another_runs_weights(tmp_path):
    config = dataclasses.replace(DIGITS_CONFIG, learning_rate=0.1, lr_milestones=(), epochs=1)
    first = train(config, tmp_path / "first")
    second = dataclasses.replace(
        config, init_from=str(first.path), seed=8, learning_rate=1e-9, momentum=0.0
    )
    run = train(second, tmp_path / "second")
    for a, b in zip(*(keras.saving.load_model(r.model_file).get_weights() for r in (first, run)),
                    strict=True):  # fmt: skip
        np.testing.assert_allclose(a, b, atol=1e-6)
    with pytest.raises(UsageError, match="No model at"):
        train(dataclasses.replace(second, init_from="/no/where"), tmp_path / "third")
    assert not (tmp_path / "third").exists()


class Messages(Callback):
    def __init__(self):
        self.texts = []

    def on_message(self, message):
        self.texts.append(message)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"classes": 7}, "`model_options` must not hold classes in training: the dataset has its"),
        ({"input_shape": [96, 96, 3]}, "must not hold input_shape.*`image_size`"),
        ({"mean": [1, 2, 3]}, "must not hold mean.*`mean`"),
        ({"preprocessing": "caffe"}, "must not hold preprocessing.*`mean`"),
        ({"weights": "file.h5"}, "must not hold weights.*`init_from`"),
        ({"include_top": False}, "`include_top` must be True in training"),
        ({"classifier_activation": "sigmoid"}, "`classifier_activation` must be softmax or None"),
        ({"dropout": 1.5}, "`dropout` must be a fraction of 0 to 1. Received: 1.5"),
        ({"lrn": "False"}, "`lrn` must be True or False"),
        ({"dropuot": 0.5}, "Unknown option of alexnet 'dropuot'.*Did you mean dropout"),
        ({"include_preprocessing": False}, "`include_preprocessing` must be True with `init_from`"),
    ],
)
def test_options_that_training_decides_are_refused_before_the_images(tmp_path, options, text):
    config = TrainingConfig(
        model="alexnet", model_options=options, dataset="folder:/no/where", init_from="/no/where"
    )
    with pytest.raises(UsageError, match=text):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_crops_larger_than_the_images_are_refused_before_the_images(tmp_path):
    config = TrainingConfig(
        model="vgg11", image_size=64, scale=(63, 70), dataset="folder:/no/where"
    )
    with pytest.raises(
        UsageError, match="`scale` is too small for the crop. Expected: at least 64"
    ):
        train(config, tmp_path / "run")


@pytest.mark.parametrize(
    ("names", "mapping", "said"),
    [
        (("above", "below"), "by-name", None),
        (("below", "above"), "by-name", "whose classes are in another order: below, above there"),
        (("cat", "dog"), "by-name", "whose classes are others: cat, dog there, above, below here"),
        (("cat", "dog"), "features", None),
        (None, "by-name", "whose classes have no names: make sure that they are above, below"),
    ],
)
def test_an_output_layer_of_other_classes_is_told(tmp_path, config, names, mapping, said):
    initial = alexnet(
        classes=2, input_shape=(64, 64, 3), hidden_units=8, preset="torchvision", name="initial"
    )
    if names is not None:
        set_class_names(initial, names)
    initial.save(tmp_path / "initial.keras")
    messages = Messages()
    begun = dataclasses.replace(
        config, init_from=str(tmp_path / "initial.keras"), weight_mapping=mapping
    )
    model = load_model(train(begun, tmp_path / "run", callbacks=[messages]).path)
    about = [text for text in messages.texts if "whose classes" in text]
    assert len(about) == (said is not None)
    assert said is None or said in about[0]
    same = np.allclose(model.get_layer("fc8").kernel, initial.get_layer("fc8").kernel, atol=1e-6)
    assert same == (mapping == "by-name")
    np.testing.assert_allclose(
        model.get_layer("fc7").kernel, initial.get_layer("fc7").kernel, atol=1e-6
    )
    assert ("new weights in fc8" in messages.texts) == (mapping == "features")


def test_a_mean_image_of_another_size_is_a_color():
    mean = np.arange(8 * 8 * 3, dtype=np.float32).reshape(8, 8, 3)
    model = alexnet(input_shape=(None, None, 3), include_top=False)
    layer = model.get_layer("preprocessing")
    layer.set_statistics(mean)
    np.testing.assert_array_equal(initial_preprocessing(model, 8).mean, mean)
    color = [94.5, 95.5, 96.5]
    np.testing.assert_allclose(initial_preprocessing(model, 9).mean, color)
    layer.set_statistics(np.float32(color), np.float32([1, 2, 3]))
    found = initial_preprocessing(model, 8)
    np.testing.assert_array_equal(found.mean, color)
    np.testing.assert_array_equal(found.std, [1, 2, 3])


@pytest.mark.parametrize(
    ("mean", "std", "fits"),
    [
        (64.0, 64.0, True),
        (64.005, 64.005, True),
        (64.1, 64.0, False),
        (64.0, 64.1, False),
        (0.0, 1.0, False),
    ],
)
def test_a_network_that_normalizes_by_itself_must_do_it_as_the_weights_need(mean, std, fits):
    """`tiny` divides by 64 and subtracts 1, without a layer `preprocessing`."""
    statistics = {"mean": np.full(3, mean), "std": np.full(3, std)}
    if fits:
        build_components(DIGITS_CONFIG, "ab", statistics, get_strategy("default"))
        return
    with pytest.raises(
        UsageError, match="tiny must normalize images as `init_from` does.*mean .64"
    ):
        build_components(DIGITS_CONFIG, "ab", statistics, get_strategy("default"))


def test_outputs_of_frozen_layers_are_kept_up_to_a_limit(monkeypatch):
    config = dataclasses.replace(DIGITS_CONFIG, freeze=("conv1",), augmentation_draws=1)
    given = (config, "ab", {"mean": np.zeros(3)}, get_strategy("default"))
    part = build_components(*given, images=1).frozen_part
    # 3 x 3 places, 6 filters, 4 bytes.
    assert part.bytes_per_image == 216
    monkeypatch.setattr(build, "MAX_OUTPUT_BYTES", 2160)
    assert build_components(*given, images=10).frozen_part is not None
    assert build_components(*given, images=11).frozen_part is None


def test_weights_that_fit_no_layer_are_refused():
    config = dataclasses.replace(DIGITS_CONFIG, init_from="other.keras")
    inputs = keras.Input((8, 8, 3))
    other = keras.Model(inputs, keras.layers.Conv2D(2, 3, name="else")(inputs))
    target = tiny(classes=2, input_shape=(8, 8, 3), mean=None)
    with pytest.raises(UsageError, match="No weights of other.keras fit tiny"):
        initialize_from(other, config, target)


def test_only_some_of_many_classes_are_named(tmp_path):
    """The names are those of the run, where its network holds none."""
    run = RunFolder(tmp_path / "run")
    run.create(DIGITS_CONFIG, "abcd", {})
    given = dataclasses.replace(DIGITS_CONFIG, init_from=str(run.path))
    options = {"classes": 4, "input_shape": (8, 8, 3), "mean": None}
    initial = tiny(**options)
    copied = initialize_from(initial, given, tiny(**options))
    for names, here in (("efgh", "e, f, g ..."), ("dcba", "d, c, b ...")):
        [_, message] = build.initialization_messages(initial, given, copied, names)
        assert f": a, b, c ... there, {here} here; " in message
    [_] = build.initialization_messages(initial, given, copied, "abcd")
