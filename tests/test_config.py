"""The configuration: JSON both ways, ranges of every field, names of version 0.1.0."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnkit.cli.arguments import add_config_arguments, apply_overrides
from cnnkit.cli.parser import Parser
from cnnkit.config import TrainingConfig
from cnnkit.config_fields import Option, option_of
from cnnkit.config_values import parse_interval
from cnnkit.errors import RunError, UsageError

FIELDS = {item.name: option_of(item) for item in dataclasses.fields(TrainingConfig)}

# A value of each renamed field that differs from the default, by its former name.
FORMER = {
    "square": True,
    "colour_noise": "std",
    "until_train_error": 0.25,
    "accumulate": 4,
    "drop_epochs": (3, 6),
    "drop_factor": 0.5,
    "decay_biases": True,
    "rate_multipliers": {"*/bias": 2},
    "decay_multipliers": {"fc/*": 0},
    "init_rule": "vgg-staged",
}


def test_json_both_ways():
    config = TrainingConfig(
        epochs=3, lr_milestones=(2, 3), scale=(256, 512), lr_multipliers={"*/bias": 2.0}
    )
    assert TrainingConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}}", "config.json is not valid JSON"),
        ("[1]", "config.json must be a JSON object"),
        (b"\xff\xfe{}", "config.json must be text in UTF-8"),
        ('{"epoch": 3}', "Unknown field 'epoch'.*Did you mean epochs"),
        ('{"epochs": "3"}', "`epochs` must be an integer of at least 1"),
    ],
)
def test_wrong_json(text, message):
    with pytest.raises(RunError, match=message):
        TrainingConfig.from_json(text, "config.json")


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"epochs": 0}, "`epochs` must be an integer of at least 1. Received: 0."),
        ({"epochs": 1.5}, "`epochs` must be an integer of at least 1. Received: 1.5."),
        ({"epochs": True}, "`epochs` must be an integer of at least 1. Received: True."),
        ({"learning_rate": -1.0}, "`learning_rate` must be a number of more than 0"),
        ({"learning_rate": math.nan}, "`learning_rate` must be a number of more than 0"),
        ({"learning_rate": math.inf}, "`learning_rate` must be a number of more than 0"),
        ({"momentum": 1.0}, "`momentum` must be a number of at least 0 and less than 1"),
        ({"lr_decay": 1.5}, "`lr_decay` must be a number of more than 0 and at most 1"),
        ({"lr_milestones": (0,)}, "`lr_milestones` must be integers of at least 1"),
        ({"lr_milestones": 3}, "`lr_milestones` must be integers of at least 1. Received: 3."),
        ({"keep_epochs": (0, 5)}, "`keep_epochs` must be integers of at least 1"),
        ({"stop_at_train_error": 5}, "`stop_at_train_error` must be a number of at least 0 and l"),
        ({"lr_multipliers": {"*/bias": -1}}, r"`lr_multipliers\['\*/bias'\]` must be a number of"),
        ({"scale": (512, 256)}, r"`scale` must be \(smallest, largest\)"),
        ({"scale": 256}, "`scale` must be 2 integers of at least 1"),
        ({"flip": 1}, "`flip` must be True or False"),
        ({"seed": -1}, "`seed` must be an integer of at least 0"),
        ({"dataset": ""}, "`dataset` must be a non-empty text"),
        ({"model_options": {1: 2}}, "`model_options` must be a mapping of names"),
        ({"checkpoint_every": "often"}, "`checkpoint_every` must be steps as in 500"),
        ({"checkpoint_every": "infm"}, "`checkpoint_every` must be steps as in 500"),
        ({"strategy": "mirored"}, "Did you mean mirrored"),
        ({"mean": "imagnet"}, "Did you mean imagenet"),
        ({"replicas": 2}, "`strategy=mirrored` for more than one replica"),
        ({"jit_compile": True, "strategy": "mirrored"}, "`jit_compile` works on one device only"),
        ({"crop": 5}, "Unknown crop 5. Expected: one of center, random, ten"),
        ({"mean": (math.nan, 1, 1)}, r"Unknown mean \(nan, 1, 1\)"),
        ({"stop_at_train_error": 5}, "less than 1. Received: 5. .*0.25 is 25 %"),
        ({"checkpoint_every": 500}, "`checkpoint_every` must be a non-empty text.*Steps"),
        (
            {"model_options": {"dropout": math.nan}},
            r"`model_options\['dropout'\]` must be a ",
        ),
        ({"model_options": {"weights": object()}}, r"`model_options\['weights'\]` must be"),
        ({"learning_rate": 10**400}, "`learning_rate` must be a number of more than 0"),
    ],
)
def test_wrong_values(fields, text):
    with pytest.raises(UsageError, match=text):
        TrainingConfig(**fields)


# Values that users pass by mistake or from NumPy, for any field.
NUMBERS = st.one_of(
    st.integers(-3, 2**70), st.floats(), st.builds(np.float32, st.floats(width=32)),
    st.builds(np.int64, st.integers(-3, 2**40)), st.booleans(), st.fractions(),
)  # fmt: skip
SCALARS = st.one_of(NUMBERS, st.none(), st.text(max_size=4), st.builds(Path, st.just("a/b")))
NESTED = st.one_of(
    SCALARS,
    st.lists(NUMBERS, max_size=3),
    st.lists(NUMBERS, max_size=3).map(tuple),
    st.dictionaries(st.text(max_size=4), NUMBERS, max_size=2),
    st.lists(st.floats(), max_size=3).map(np.array),
    st.sampled_from([one for option in FIELDS.values() for one in option.choices or ()]),
)


def refuse_constant(name):
    raise AssertionError(f"{name} is not JSON")


@settings(max_examples=600)
@given(st.dictionaries(st.sampled_from(sorted(FIELDS)), NESTED, min_size=1, max_size=3))
def test_any_values_are_refused_by_name_or_come_back_from_json(fields):
    try:
        config = TrainingConfig(**fields)
    except UsageError as error:
        text = str(error)
        assert "\n" not in text
        assert any(name in text or name.replace("_", " ") in text for name in fields)
        return
    text = config.to_json()
    json.loads(text, parse_constant=refuse_constant)
    assert TrainingConfig.from_json(text) == config
    for name, value in dataclasses.asdict(config).items():
        option = FIELDS[name]
        if isinstance(value, int | float) and not isinstance(value, bool):
            assert math.isfinite(value)
            assert option.minimum is None or value >= option.minimum
            assert option.above is None or value > option.above


def test_numbers_of_numpy_lists_and_paths_become_plain():
    config = TrainingConfig(
        epochs=np.int64(3), learning_rate=1, scale=[256, 512], init_from=Path("run"),
        lr_multipliers={"*": np.float32(2)}, model_options={"filters": (1, 2), "mean": np.ones(3)},
    )  # fmt: skip
    assert (type(config.epochs), type(config.learning_rate)) == (int, float)
    assert (config.scale, config.init_from) == ((256, 512), "run")
    assert (type(config.lr_multipliers["*"]), config.lr_multipliers) == (float, {"*": 2.0})
    assert config.model_options == {"filters": [1, 2], "mean": [1.0, 1.0, 1.0]}


def test_every_numeric_field_has_a_range():
    for item in dataclasses.fields(TrainingConfig):
        if isinstance(item.default, int | float) and not isinstance(item.default, bool):
            assert FIELDS[item.name].range, item.name


def test_limits_of_a_range_belong_to_it_or_not():
    closed, open_ = Option("x", minimum=1, maximum=2.5), Option("x", above=1, below=2.5)
    assert (closed.range, open_.range) == (
        "at least 1 and at most 2.5",
        "more than 1 and less than 2.5",
    )
    assert [closed.accepts(one) for one in (0.9, 1, 2.5, 2.6)] == [False, True, True, False]
    assert [open_.accepts(one) for one in (1, 1.1, 2.4, 2.5)] == [False, True, True, False]
    assert not closed.accepts(math.nan) and Option("x").accepts(-1e9)


@pytest.mark.parametrize("text", ["0", "-1", "0m", "-1m", "nanm", "1e999m", "", "m", "1.5"])
def test_wrong_intervals_are_refused(text):
    with pytest.raises(UsageError, match="`checkpoint_every` must be steps as in 500"):
        parse_interval(text)


def test_intervals():
    assert parse_interval(None) == (None, None)
    assert parse_interval("500") == (500, None)
    assert parse_interval("1.5m") == (None, 90)


def test_the_docstring_describes_every_field():
    for name, option in FIELDS.items():
        assert f"        {name}: {option.help.split()[0]}" in TrainingConfig.__doc__
        words = " ".join(TrainingConfig.__doc__.split())
        assert not option.choices or f"One of {', '.join(option.choices)}." in words
        assert not option.range or f"Values: {option.range}." in words


def test_former_names_in_json_and_in_python():
    assert {option.former_name for option in FIELDS.values()} - {None} == set(FORMER)
    with pytest.warns(FutureWarning, match="old.json uses names of version 0.1.0.*accumulate is"):
        read = TrainingConfig.from_json(json.dumps(FORMER), "old.json")
    with pytest.warns(FutureWarning, match="colour_noise is now pca_color"):
        given = TrainingConfig(**FORMER)
    # What 0.1.0 did, whose documents do not say it.
    assert dataclasses.replace(given, background="none", exif_orientation=False) == read
    for name, option in FIELDS.items():
        if option.former_name:
            assert (
                getattr(read, name) == FORMER[option.former_name] != getattr(TrainingConfig(), name)
            )
    with pytest.raises(UsageError, match="former name of `gradient_accumulation_steps`, and both"):
        TrainingConfig(accumulate=2, gradient_accumulation_steps=4)


def parse(*words):
    parser = Parser()
    add_config_arguments(parser)
    return parser.parse_args(words)


def test_every_field_has_an_option(tmp_path):
    (tmp_path / "weights.npz").write_bytes(b"PK\3\4")
    words = [
        "--model", "zfnet", "--model-option", "dropout=0", "--dataset", "tfds:x",
        "--image-size", "64", "--mean", "pixel", "--scale", "64", "80", "--crop", "random",
        "--background", "black", "--no-exif-orientation",
        "--flip", "--central-square", "--pca-color", "eig01", "--fast-decode", "--epochs", "3",
        "--stop-at-train-error", "0.1", "--batch-size", "8", "--gradient-accumulation-steps", "2",
        "--learning-rate", "0.5", "--schedule", "cosine", "--lr-milestones", "2", "3",
        "--lr-decay", "0.2", "--patience", "2", "--max-drops", "1", "--warmup-epochs", "0.5",
        "--momentum", "0.8", "--weight-decay", "0.1", "--weight-decay-on-biases",
        "--lr-multiplier", "*/bias=2", "--weight-decay-multiplier", "fc/*=0",
        "--max-filter-rms", "0.1", "--precision", "mixed_bfloat16", "--jit-compile",
        "--init-from", str(tmp_path / "weights.npz"), "--init-option", "preprocessing=caffe",
        "--weight-mapping", "vgg-staged", "--seed", "7",
        "--deterministic", "--strategy", "default", "--replicas", "1",
        "--checkpoint-every", "5m", "--keep-checkpoints", "3", "--keep-best", "--keep-epochs", "1",
        "--freeze", "conv1", "--augmentation-draws", "2", "--restore-best",
        "--early-stopping-patience", "3", "--task", "localize", "--box-regression", "single",
    ]  # fmt: skip
    config = apply_overrides(TrainingConfig(), parse(*words))
    same = [name for name in FIELDS if getattr(config, name) == getattr(TrainingConfig(), name)]
    assert same == ["strategy"]
    assert (config.scale, config.lr_milestones, config.keep_epochs) == ((64, 80), (2, 3), (1,))
    assert config.lr_multipliers == {"*/bias": 2}
    assert apply_overrides(config, parse()) == config


def test_options_of_a_network_go_with_it():
    base = TrainingConfig(model_options={"dropout": 0.5}, lr_multipliers={"fc8/*": 10})
    kept = apply_overrides(base, parse("--model-option", "lrn=false"))
    assert kept.model_options == {"dropout": 0.5, "lrn": False}
    assert kept.lr_multipliers == {"fc8/*": 10}
    other = apply_overrides(base, parse("--model", "vgg16", "--lr-multiplier", "a/*=3"))
    assert (other.model_options, other.lr_multipliers) == ({}, {"a/*": 3})


def test_former_options_work_with_a_note(capsys):
    words = [
        "--square", "--colour-noise", "std", "--until-train-error", "0.25", "--accumulate", "4",
        "--drop-epochs", "3", "6", "--drop-factor", "0.5", "--decay-biases",
        "--rate-multiplier", "*/bias=2", "--decay-multiplier", "fc/*=0", "--init-rule",
        "vgg-staged",
    ]  # fmt: skip
    with pytest.warns(FutureWarning):
        expected = TrainingConfig(**FORMER)
    assert apply_overrides(TrainingConfig(), parse(*words)) == expected
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(FORMER)
    assert "cnnkit: note: --accumulate is now --gradient-accumulation-steps" in lines[3]
    assert apply_overrides(expected, parse("--no-square")).central_square is False


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--model-option", "dropout"], "--model-option must be NAME=VALUE. Received: dropout"),
        (["--lr-multiplier", "2"], "--lr-multiplier must be NAME=VALUE"),
        (["--scale", "1", "2", "3"], "--scale must be one side, or the smallest and the largest"),
        (["--epochs", "0"], "--epochs must be a whole number of at least 1"),
    ],
)
def test_wrong_options(words, text):
    with pytest.raises(UsageError, match=text):
        apply_overrides(TrainingConfig(), parse(*words))
