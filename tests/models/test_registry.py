"""Every network: totals, shapes, presets, ablations, and the whole way from building to export."""

import importlib
import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnkit import load_model
from cnnkit.cli.main import main
from cnnkit.errors import UsageError
from cnnkit.export import export
from cnnkit.export.isolated_model import Response
from cnnkit.layers import CeilMaxPooling2D
from cnnkit.models import BUILDERS, PAPERS, alexnet, build, summarize_network, vgg, zfnet
from cnnkit.models.summary import conv_stack_cost, layer_macs
from cnnkit.training import SGD
from cnnkit.training.step import StepRunner


def outline(builder, **options):
    """The network without its weights."""
    with keras.StatelessScope():
        model = builder(**options)
        keras.utils.clear_session(free_memory=False)
    return model


def shapes_of(model):
    return {layer.name: layer.output.shape[1:] for layer in model.layers}


# By arithmetic from the papers' tables.
@pytest.mark.parametrize(
    ("builder", "options", "count"),
    [
        (alexnet, {"preset": "caffe"}, 60_965_224),
        (alexnet, {"preset": "torchvision"}, 61_100_840),
        (alexnet, {"preset": "one-weird-trick"}, 61_100_840),
        (alexnet, {"omit_layers": ["fc7"]}, 60_965_224 - 16_781_312),
        (alexnet, {"sixth_conv": 256}, 60_965_224 + 9 * 256 * 256 + 256),
        (zfnet, {}, 62_357_608),
        (zfnet, {"filters": (512, 1024, 512)}, 107_627_624),
        (zfnet, {"hidden_units": 2048}, 28_848_232),
        (zfnet, {"hidden_units": 8192}, 154_542_184),
        (zfnet, {"omit_layers": ["fc7"]}, 62_357_608 - 16_781_312),
        # conv5 then sees the 256 maps of conv2.
        (zfnet, {"omit_layers": ["conv3", "conv4"]},
         62_357_608 - 885_120 - 1_327_488 - 884_992 + 9 * 256 * 256 + 256),
        (vgg, {"config": "B-5x5"}, 134_503_528),
    ],
)  # fmt: skip
def test_totals(builder, options, count):
    assert outline(builder, **options).count_params() == count


def test_zfnet_shapes():
    shapes = shapes_of(outline(zfnet))
    expected = {
        "conv1": (110, 110, 96), "pool1": (55, 55, 96), "norm1": (55, 55, 96),
        "conv2": (26, 26, 256), "pool2": (13, 13, 256), "norm2": (13, 13, 256),
        "conv3": (13, 13, 384), "conv4": (13, 13, 384), "conv5": (13, 13, 256),
        "pool5": (6, 6, 256), "fc6": (4096,), "fc7": (4096,), "fc8": (1000,),
    }  # fmt: skip
    assert {name: shapes[name] for name in expected} == expected
    assert list(shapes).index("pool1") < list(shapes).index("norm1")


@pytest.mark.parametrize(
    ("preset", "size", "side"),
    [("paper", 256, 7), ("paper", 288, 8), ("paper", 384, 11),
     ("caffe", 256, 6), ("caffe", 288, 7), ("caffe", 384, 10), ("caffe", 227, 6),
     ("one-weird-trick", 224, 6), ("torchvision", 224, 6)],
)  # fmt: skip
def test_alexnet_presets_map_sides(preset, size, side):
    model = outline(alexnet, preset=preset, include_top=False, input_shape=(size, size, 3))
    assert model.output_shape == (None, side, side, 256)
    if preset == "caffe":
        assert outline(alexnet, preset="caffe").input_shape == (None, 227, 227, 3)


def test_presets_begin_as_their_sources_say():
    options = {"input_shape": (67, 67, 3), "classes": 5}
    caffe = alexnet(preset="caffe", **options)
    assert caffe.get_layer("norm1").get_config()["k"] == 1.0
    assert caffe.get_layer("norm1").alpha_convention == "mean"
    assert (caffe.get_layer("conv2").get_weights()[1] == np.float32(0.1)).all()
    assert np.std(caffe.get_layer("fc6").get_weights()[0]) == pytest.approx(0.005, rel=0.05)

    later = alexnet(preset="one-weird-trick", **options)
    names = [layer.name for layer in later.layers]
    assert names[names.index("conv1") : names.index("conv2")] == [
        "conv1",
        "norm1",
        "pool1",
        "relu1",
    ]
    assert np.std(later.get_layer("conv3").get_weights()[0]) == pytest.approx(0.03, rel=0.05)
    assert (later.get_layer("fc8").get_weights()[1] == -7).all()

    torch = alexnet(preset="torchvision", **options)
    names = [layer.name for layer in torch.layers]
    assert not [name for name in names if name.startswith("norm")]
    assert names.index("fc6_dropout") < names.index("fc6")


def test_ablations_change_what_they_name():
    plain = shapes_of(outline(alexnet, lrn=False, overlapping_pooling=False))
    assert "norm1" not in plain
    assert (plain["pool1"][0], plain["pool2"][0], plain["pool5"][0]) == (27, 13, 6)
    for builder in (alexnet, zfnet):
        dropped = shapes_of(outline(builder, omit_layers=("conv3", "conv4", "fc6", "fc7")))
        assert {"conv3", "conv4", "fc6", "fc7"}.isdisjoint(dropped)
        assert {"conv5", "pool5", "fc8"} <= set(dropped)
    tanh = outline(alexnet, activation="tanh")
    assert tanh.get_layer("conv4").activation is keras.activations.tanh
    assert tanh.get_layer("fc7").activation is keras.activations.tanh
    assert shapes_of(outline(alexnet, sixth_conv=384))["conv6"] == (6, 6, 384)
    sigmoid = outline(vgg, config="A", activation="sigmoid")
    assert sigmoid.get_layer("block5_conv2").activation is keras.activations.sigmoid


@pytest.mark.parametrize("name", ["alexnet", "caffenet", "zfnet"])
def test_the_old_name_of_omit_layers(name):
    """Runs of version 0.1 hold it in their config.json."""
    options = {"include_top": False, "input_shape": (67, 67, 3)}
    with pytest.warns(FutureWarning, match="`drop_layers` of .* is now called `omit_layers`"):
        model = build(name, drop_layers=["conv3"], **options)
    assert shapes_of(model) == shapes_of(build(name, omit_layers=["conv3"], **options))
    with pytest.warns(FutureWarning, match="now called `omit_layers`"):
        BUILDERS[name](drop_layers=["conv3"], **options)
    with pytest.raises(UsageError, match="Unknown option of vgg11 'drop_layers'"):
        build("vgg11", drop_layers=["conv3"])


@pytest.mark.parametrize(
    ("general", "fixed", "builders"),
    [
        (alexnet, "preset",
         ["alexnet_caffe", "caffenet", "alexnet_one_weird_trick", "alexnet_torchvision"]),
        (vgg, "config", ["vgg11", "vgg11_lrn", "vgg13", "vgg16_c", "vgg16", "vgg19"]),
    ],
)  # fmt: skip
def test_builders_of_one_variant_take_all_other_arguments(general, fixed, builders):
    """With the same order, kind, annotation and default, but for the name of the model."""
    expected = dict(inspect.signature(general).parameters)
    del expected[fixed]
    for name in builders:
        signature = inspect.signature(BUILDERS[name])
        assert signature.return_annotation == inspect.signature(general).return_annotation
        found = dict(signature.parameters)
        assert found["name"].default == name
        found["name"] = expected["name"]
        assert list(found.items()) == list(expected.items())
        assert BUILDERS[name](include_top=False, input_shape=(96, 96, 3)).name == name


def test_ceil_pooling_is_pooling_over_a_map_continued_by_minus_infinity(rng):
    for side in (5, 6, 7, 110, 55):
        x = -rng.uniform(1, 2, (1, side, side, 2)).astype("float32")
        outputs = np.asarray(CeilMaxPooling2D(3, 2)(x))
        positions = 1 + -(-(side - 3) // 2)
        assert outputs.shape == CeilMaxPooling2D(3, 2).compute_output_shape(x.shape)
        assert outputs.shape[1] == positions
        for r, c in [(0, 0), (positions - 1, 0), (positions - 1, positions - 1)]:
            window = x[0, 2 * r : 2 * r + 3, 2 * c : 2 * c + 3]
            np.testing.assert_array_equal(outputs[0, r, c], window.max(axis=(0, 1)))


def test_vgg_paper_initialization_has_the_papers_variance():
    model = vgg("A", input_shape=(32, 32, 3), classes=3, initializer="paper")
    assert np.var(model.get_layer("block4_conv1").get_weights()[0]) == pytest.approx(0.01, rel=0.02)


def asked_here(folder, questions):
    """Asks an export in this process."""
    signatures = tf.saved_model.load(str(folder)).signatures
    replies = []
    for question in questions:
        inputs = {name: tf.constant(value) for name, value in question.inputs.items()}
        outputs = signatures[question.signature](**inputs)
        replies.append(Response("OK", "", {name: value.numpy() for name, value in outputs.items()}))
    return replies


OF_CAFFE = ("alexnet_caffe", "caffenet")  # which need three more pixels than the others
EVERY = [(name, {"input_shape": (67, 67, 3)} if name in OF_CAFFE else {}) for name in BUILDERS] + [
    ("alexnet", {"sixth_conv": 32, "activation": "tanh", "lrn": False, "omit_layers": ["fc7"]}),
    ("zfnet", {"filters": (64, 128, 64), "omit_layers": ["conv4"]}),
]


@pytest.mark.parametrize(
    ("name", "options"), EVERY, ids=[f"{name}{len(o) and list(o.values())}" for name, o in EVERY]
)
def test_the_whole_way(name, options, tmp_path, rng, monkeypatch):
    """Build, train one step, save, load, export."""
    # In a process of their own, as in test_export.py, the answers of all networks take minutes.
    export_module = importlib.import_module("cnnkit.export.export")
    monkeypatch.setattr(export_module, "run_isolated", asked_here)
    small = name.startswith(("vgg", "cifar10"))
    side = 32 if small else 64
    options = {"input_shape": (side, side, 3), "classes": 3, **options}
    if not small:
        options = {"hidden_units": 32, "initializer": "glorot", **options}
    model = build(name, **options)
    side = model.input_shape[1]
    images = rng.uniform(0, 255, (4, side, side, 3)).astype("float32")
    first = model.layers[3].get_weights() or model.layers[2].get_weights()
    steps = StepRunner(model, SGD(1e-4, momentum=0.9, decay=5e-4), tf.distribute.get_strategy())
    batch = {"images": images, "labels": np.int32([0, 1, 2, 0]), "weights": np.ones(4, "f4")}
    loss, _ = steps.train(batch, 4, 1e-4).numpy()
    assert np.isfinite(loss)
    after = model.layers[3].get_weights() or model.layers[2].get_weights()
    assert any((a != b).any() for a, b in zip(first, after, strict=True))

    model.save(tmp_path / "model.keras")
    outputs = model(images)
    np.testing.assert_allclose(np.sum(outputs, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(load_model(tmp_path / "model.keras")(images), outputs)
    served = export(model, ["a", "b", "c"], tmp_path / "served", signatures=["serving_bytes"])
    assert served.name == "1"


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: alexnet(preset="cafe"), "Did you mean caffe"),
        (lambda: alexnet(activation="relu6"), "Unknown activation 'relu6'"),
        (lambda: alexnet(omit_layers=["conv2"]), "a list of some of conv3, conv4, fc6, fc7"),
        (lambda: alexnet(omit_layers="conv3"), "Received: conv3"),
        (
            lambda: zfnet(omit_layers=["conv5"]),
            "`omit_layers` of ZFNet must name layers that can be left out",
        ),
        (lambda: zfnet(filters=(384, 384)), "filters of conv3, conv4 and conv5"),
        (lambda: zfnet(hidden_units=0), "hidden_units >= 1"),
        (lambda: zfnet(input_shape=(20, 20, 3)), "too small for ZFNet"),
        (lambda: vgg("A", initializer="he"), "Unknown initializer 'he'"),
    ],
)
def test_wrong_arguments_are_refused(call, text):
    with pytest.raises(UsageError) as error:
        call()
    assert text in str(error.value)


# Receptive field and step of the reference nets, worked out by hand from kernels and strides.
@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("alexnet", {"conv1": 11, "pool1": 19, "conv2": 51, "pool2": 67, "conv3": 99, "conv4": 131,
                     "conv5": 163, "pool5": 195}),
        ("zfnet", {"conv1": 7, "pool1": 11, "conv2": 27, "pool2": 43, "conv3": 75, "conv5": 139,
                   "pool5": 171}),
        ("vgg16", {"block1_conv2": 5, "block1_pool": 6, "block3_conv3": 40, "block4_conv3": 92,
                   "block5_conv3": 196, "block5_pool": 212}),
    ],
)  # fmt: skip
def test_receptive_fields(name, fields):
    rows = {row.name: row for row in summarize_network(outline(BUILDERS[name]))}
    assert {layer: rows[layer].receptive_field for layer in fields} == fields


def test_multiply_adds_by_hand():
    rows = {row.name: row for row in summarize_network(outline(alexnet))}
    # Two towers: each kernel sees half of the 96 maps.
    assert rows["conv2"].multiply_adds == 27 * 27 * 256 * 5 * 5 * 48
    assert rows["fc6"].multiply_adds == 9216 * 4096
    assert rows["conv1"].activation_bytes == 4 * 55 * 55 * 96
    assert layer_macs(list(rows.values())) == sum(row.multiply_adds for row in rows.values())
    # 15.5 billion is the figure that is commonly given for VGG-16.
    assert layer_macs(summarize_network(outline(BUILDERS["vgg16"]))) == pytest.approx(
        15.5e9, rel=0.01
    )


def test_stacks():
    assert (conv_stack_cost((3, 3, 3)).receptive_field, conv_stack_cost((7,)).receptive_field) == (
        7,
        7,
    )
    assert conv_stack_cost((3, 3, 3)).weights_per_channel_squared == 27
    assert conv_stack_cost((7,)).weights_per_channel_squared == 49
    assert (conv_stack_cost((3, 3, 3)).activations, conv_stack_cost((7,)).activations) == (3, 1)


def test_models_command(capsys):
    import json

    assert set(PAPERS) == set(BUILDERS)
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(BUILDERS)
    [zfnet_line] = [line for line in lines if line.startswith("zfnet")]
    assert "62,357,608" in zfnet_line
    assert zfnet_line.split()[-2:] == ["64", "139"]
    assert main(["models", "vgg16", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["fc1"]["parameters"] == 102_764_544
    assert main(["models", "compare-stacks"]) == 0
    assert "27 C^2" in capsys.readouterr().out
    assert main(["models", "vgg17"]) == 2
    assert "Did you mean vgg1" in capsys.readouterr().err
    assert main(["models", "alexnet", "--image-size", "0"]) == 2
