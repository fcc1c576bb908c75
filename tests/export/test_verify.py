"""`verify_export`: a sound version passes, and each fault is found."""

import json

import numpy as np
import pytest
import tensorflow as tf

from cnnkit.cli.console import request_bar
from cnnkit.cli.main import main
from cnnkit.data import Decoding
from cnnkit.errors import UsageError
from cnnkit.export import export, isolated_model, verify, verify_export
from cnnkit.export.reference_outputs import ReferenceOutputs
from cnnkit.export.warmup import read_warmup_records
from cnnkit.server.warmup import WARMUP_FILE
from cnnkit.wire.pixels import find_invalid_pixel
from tests.helpers.exported_network import LABELS, skip_output_check, small_alexnet


def failures(found):
    return {check.name: check.detail for check in found.checks if check.passed is False}


def test_a_sound_version(model_folder, capsys):
    assert main(["export", "verify", str(model_folder), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["passed"] is True
    assert document["folder"] == str(model_folder / "1")
    checks = {check["name"]: check for check in document["checks"]}
    assert all(check["passed"] for check in checks.values())
    assert checks["signature serving_bytes"]["detail"] == (
        "image_bytes string (any) -> probabilities float32 (any, 3)"
    )
    assert checks["labels"]["detail"] == "3 classes"
    assert checks["warm-up"]["detail"] == "4 records of batch 1 answered"
    assert checks["guards of serving_default"]["detail"] == "11 wrong inputs refused"
    assert checks["guards of serving_bytes"]["detail"] == "10 wrong inputs refused"
    assert checks["answers of serving_bytes"]["detail"].startswith(
        ("equal", "probabilities differ")
    )


def test_hostile_requests_are_refused_before_they_are_decoded(version, monkeypatch):
    fake_responses(monkeypatch, sound_responses)
    checks = {check.name: check for check in verify_export(version).checks}
    for name in ("serving_default", "serving_bytes"):
        check = checks[f"requests to {name}"]
        assert check.passed
        assert check.detail.startswith("6 hostile requests refused in ")
        assert int(check.detail.split()[5]) < 1000
    monkeypatch.setattr(verify, "read_inputs", lambda *given, **limits: None)
    failed = failures(verify_export(version))
    assert failed["requests to serving_bytes"] == "0 resources: is accepted"


def test_an_export_that_accepts_nan_fails(unguarded, monkeypatch):
    """A network answers NaN with a plausible number."""

    def change(folder, requests, skip_after_crash, progress):
        return [
            isolated_model.Response("OK" if np.isnan(array).any() else "INVALID_ARGUMENT", "", {})
            for request in requests
            for array in request.inputs.values()
        ]

    fake_responses(monkeypatch, change)
    failed = failures(verify_export(unguarded))
    assert failed["guards of serving_default"] == "an image of nan: is accepted"


def test_an_export_without_checks_fails(unguarded):
    """Wrong ranks crash a model without checks, or are accepted; both are reported."""
    found = verify_export(unguarded)
    assert not found.passed
    wrong = failures(found)
    assert set(wrong) <= {"guards of serve", "guards of serving_default", "weights"}
    for name in ("guards of serve", "guards of serving_default"):
        assert "crashes the server" in wrong[name] or "is accepted" in wrong[name]
    unknown = {check.name for check in found.checks if check.passed is None}
    assert unknown == {"labels", "answers", "warm-up"}


def test_pictures_that_are_answered_as_others_fail(version, monkeypatch):
    special = ["a BMP file with a palette", "a transparent WebP file", "a JPEG file on its side"]
    fake_responses(monkeypatch, sound_responses)
    found = {check.name: check for check in verify_export(version).checks}
    assert all(found[name].passed for name in special)

    def change(folder, requests, skip_after_crash, progress):
        files = ReferenceOutputs.read(folder).files
        responses = sound_responses(folder, requests)
        for i, request in enumerate(requests):
            [array] = request.inputs.values()
            if request.keep_outputs and array.dtype == object and array[0] not in files:
                shifted = {name: v + [[0], [0.1]] for name, v in responses[i].outputs.items()}
                responses[i] = isolated_model.Response("OK", "", shifted)
        return responses

    fake_responses(monkeypatch, change)
    assert failures(verify_export(version)) == dict.fromkeys(special, "other pixels: export again")


def test_verification_follows_the_decoding_of_the_export(tmp_path, monkeypatch, unoptimized):
    skip_output_check(monkeypatch)
    folder = export(
        small_alexnet(), LABELS, tmp_path / "net", signatures=["serving_bytes"], warmup=0,
        decoding=Decoding(background=(0, 90, 200), exif_orientation=False),
    )  # fmt: skip
    assert verify_export(folder).passed
    card = (folder / "README.md").read_text()
    assert "left as they are stored; transparency is replaced by RGB 0 90 200" in card
    # The special files are other pictures to it than those of the defaults.
    assets = folder / "assets" / "preprocessing.json"
    facts = json.loads(assets.read_text())
    assets.write_text(
        json.dumps({**facts, "background": [255, 255, 255], "exif_orientation": True})
    )
    assert set(failures(verify_export(folder))) == {
        "a transparent WebP file", "a JPEG file on its side"
    }  # fmt: skip


def fake_responses(monkeypatch, change):
    """Replaces the responses of the version; no process is started."""
    monkeypatch.setattr(verify, "run_isolated", change)


def sound_responses(folder, requests, skip_after_crash=True, progress=None):
    """Returns the responses of a sound version, without a process."""
    references = ReferenceOutputs.read(folder)
    responses = []
    for request in requests:
        if request.keep_outputs:
            outputs = references.outputs[request.signature]
            [array] = request.inputs.values()
            if array.dtype == object and array[0] not in references.files:
                # Two files of one picture.
                outputs = {name: values[[0, 0]] for name, values in outputs.items()}
            responses.append(isolated_model.Response("OK", "", outputs))
        elif any(
            array.shape == (1,) or array.shape == (1, 64, 64, 3)
            for array in request.inputs.values()
        ) and _is_photograph(request, references):
            responses.append(isolated_model.Response("OK", "", {}))
        else:
            responses.append(isolated_model.Response("INVALID_ARGUMENT", "no", {}))
    return responses


def _is_photograph(request, references):
    [array] = request.inputs.values()
    if array.dtype == object:
        return array[0] in references.files
    return find_invalid_pixel(array) is None and bool(np.any(array))


@pytest.mark.parametrize(
    ("wrong", "check", "text"),
    [
        (("OK", {"probabilities": 0.01}), "answers of serving_default", "differ by 0.01"),
        (("OK", {"probabilities": np.nan}), "answers of serving_default", "differ by nan"),
        (("INTERNAL", {}), "answers of serving_default", "INTERNAL, broken"),
        ((None, {}), "answers of serving_default", "crashes the server: broken"),
    ],
)
def test_wrong_outputs_are_reported(version, monkeypatch, wrong, check, text):
    code, changes = wrong

    def change(folder, requests, skip_after_crash, progress):
        responses = sound_responses(folder, requests)
        outputs = {
            name: array + changes.get(name, 0) for name, array in responses[0].outputs.items()
        }
        return [isolated_model.Response(code, "broken", outputs), *responses[1:]]

    fake_responses(monkeypatch, change)
    assert text in failures(verify_export(version))[check]


@pytest.mark.parametrize(
    ("code", "text"),
    [("OK", "is accepted"), (None, "crashes the server"), ("INTERNAL", "INTERNAL")],
)
def test_accepted_invalid_inputs_are_reported(version, monkeypatch, code, text):
    def change(folder, requests, skip_after_crash, progress):
        responses = sound_responses(folder, requests)
        where = next(i for i, reply in enumerate(responses) if reply.code == "INVALID_ARGUMENT")
        responses[where] = isolated_model.Response(code, "SIGABRT", {})
        return responses

    fake_responses(monkeypatch, change)
    wrong = failures(verify_export(version))
    # Signatures are checked in alphabetical order.
    assert list(wrong) == ["guards of serving_bytes"]
    assert wrong["guards of serving_bytes"].startswith("a scalar: " + text)


def test_a_crash_is_reported_before_what_is_accepted(version, monkeypatch):
    def change(folder, requests, skip_after_crash, progress):
        responses = sound_responses(folder, requests)
        first, second, *_ = [i for i, one in enumerate(responses) if one.code != "OK"]
        responses[first] = isolated_model.Response("OK", "", {})
        responses[second] = isolated_model.Response(None, "SIGABRT", {})
        return responses

    fake_responses(monkeypatch, change)
    failed = failures(verify_export(version))
    assert failed == {"guards of serving_bytes": "2 axes: crashes the server: SIGABRT"}


@pytest.mark.parametrize(
    ("details", "text"), [("", "no text"), ("\n  the reason \nmore\n", "the reason")]
)
def test_failing_records_and_pictures_are_reported(version, monkeypatch, details, text):
    def change(folder, requests, skip_after_crash, progress):
        responses = sound_responses(folder, requests)
        references = len(ReferenceOutputs.read(folder).outputs)
        failing = isolated_model.Response("INTERNAL", details, {})
        pictures = [i for i, one in enumerate(requests) if one.keep_outputs and i >= references]
        for i in (*pictures, len(requests) - 1):
            responses[i] = failing
        return responses

    fake_responses(monkeypatch, change)
    failed = failures(verify_export(version))
    assert failed.pop("warm-up") == f"a record for serving_bytes: INTERNAL, {text}"
    assert set(failed.values()) == {f"INTERNAL, {text}"} and len(failed) == 3


def test_labels_and_records_that_a_server_does_not_take(version, monkeypatch):
    fake_responses(monkeypatch, sound_responses)
    (version / "assets" / "labels.txt").write_bytes(b"\xff\xfe\x00")
    monkeypatch.setattr(verify, "MAX_WARMUP_RECORDS", 4)
    assert set(failures(verify_export(version))) == {"labels"}
    monkeypatch.setattr(verify, "MAX_WARMUP_RECORDS", 3)
    assert failures(verify_export(version))["warm-up"] == "4 records, a server takes 3"
    missing = verify._check_default({"serve": {}})
    assert (missing.passed, missing.detail) == (False, "serving_default is missing")


def test_the_progress_is_that_of_the_process(version, monkeypatch):
    seen = []

    def watched(folder, requests, skip_after_crash, progress):
        seen.append((skip_after_crash, progress))
        return sound_responses(folder, requests)

    fake_responses(monkeypatch, watched)
    bar = object()
    verify_export(version, progress=bar)
    # The command has a bar of its own.
    assert main(["export", "verify", str(version)]) == 0
    assert seen == [(True, bar), (True, request_bar)]


def test_weights_may_be_a_little_smaller_than_their_files(version, monkeypatch):
    fake_responses(monkeypatch, sound_responses)
    monkeypatch.setattr(verify, "TABLE_BYTES", 0)
    needed = sum(array.nbytes for array in _weights(version))
    stored = sum(file.stat().st_size for file in (version / "variables").iterdir())
    for ratio, failed in ((stored / needed, set()), ((stored - 1) / needed, {"weights"})):
        monkeypatch.setattr(verify, "MAX_SIZE_RATIO", ratio)
        found = verify_export(version)
        assert set(failures(found)) == failed
        detail = f"{needed:,} bytes of weights in files of {stored:,}"
        assert detail in {check.detail for check in found.checks}


def _weights(version):
    reader = tf.train.load_checkpoint(str(version / "variables" / "variables"))
    values = [np.asarray(reader.get_tensor(one)) for one in reader.get_variable_to_shape_map()]
    return [value for value in values if value.dtype.kind in "fiu"]


def test_broken_records_are_reported(version, monkeypatch):
    fake_responses(monkeypatch, sound_responses)
    assert verify_export(version).passed
    file = version / WARMUP_FILE
    data = file.read_bytes()
    file.write_bytes(data[:-5])
    assert "is truncated or corrupt" in failures(verify_export(version))["warm-up"]
    file.write_bytes(data[:20] + bytes([data[20] ^ 1]) + data[21:])
    assert "is truncated or corrupt" in failures(verify_export(version))["warm-up"]

    def rewritten(change):
        file.write_bytes(data)
        requests = list(read_warmup_records(version))
        with tf.io.TFRecordWriter(str(file)) as writer:
            from cnnkit.wire import cnnkit_serving_pb2 as pb

            for request in requests:
                change(request)
                record = pb.PredictionLog()
                record.predict_log.request.CopyFrom(request)
                writer.write(record.SerializeToString())

    rewritten(lambda request: setattr(request.model_spec, "signature_name", "other"))
    assert "for the signature 'other'" in failures(verify_export(version))["warm-up"]

    def doubled(request):
        for tensor in request.inputs.values():
            tensor.tensor_shape.dim[0].size = 2
            tensor.tensor_content = tensor.tensor_content * 2

    rewritten(doubled)
    assert "is not a batch of one" in failures(verify_export(version))["warm-up"]


def test_broken_versions_are_reported(version, tmp_path, monkeypatch):
    graph = version / "saved_model.pb"
    whole = graph.read_bytes()
    graph.write_bytes(whole[: len(whole) // 2])
    assert "SavedModel" in failures(verify_export(version))
    graph.write_bytes(whole)
    weights = version / "variables" / "variables.index"
    weights.rename(tmp_path / "moved")
    found = failures(verify_export(version))
    assert "cannot be read" in found["weights"]
    assert "loading" in found


def test_larger_files_than_weights_are_reported(version, monkeypatch):
    fake_responses(monkeypatch, sound_responses)
    (version / "variables" / "copy").write_bytes(bytes(4 << 20))
    assert "in files of" in failures(verify_export(version))["weights"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("export verify {tmp}/none", "`DIR` must be an existing folder"),
        ("export verify {tmp}", "must be a folder that `cnnkit export` wrote, received"),
        (
            "export ./verify --output {tmp}/m",
            "an existing run folder, model or weights file, received",
        ),
    ],
)
def test_wrong_folders_are_usage_errors(tmp_path, capsys, words, text):
    assert main([word.format(tmp=tmp_path) for word in words.split()]) == 2
    assert text in capsys.readouterr().err
    (tmp_path / "1").mkdir()
    with pytest.raises(UsageError, match="Version folder '1' is incomplete"):
        verify_export(tmp_path)


def test_help(capsys):
    for words, text in (
        (["export", "--help"], "--explain-layers"),
        (["export", "verify", "--help"], "usage: cnnkit export verify [-h] [--json]"),
    ):
        assert main(words) == 0
        assert text in capsys.readouterr().out
    assert main(["export", "verify"]) == 2
