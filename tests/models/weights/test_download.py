"""Download of ImageNet weights, from files on this machine."""

import keras
import pytest

from cnnkit.errors import RunError, UsageError
from cnnkit.models import alexnet, vgg11, vgg16
from cnnkit.models.weights import download
from tests.helpers.weights_files import assert_close


def test_imagenet_is_downloaded_once_and_checked(tmp_path, monkeypatch, images, applications):
    import hashlib

    folder, reference = applications
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    file = folder / "notop.h5"
    checksum = hashlib.md5(file.read_bytes()).hexdigest()
    monkeypatch.setitem(
        download.FILES, ("vgg16", False), download.RemoteFile(file.as_uri(), checksum)
    )
    features = keras.Model(reference.input, reference.get_layer("block5_pool").output)
    expected = features(keras.applications.vgg16.preprocess_input(images.copy()))
    assert_close(vgg16(include_top=False, weights="imagenet")(images), expected, 1e-5)
    [kept] = tmp_path.rglob("notop.h5")
    file = download.RemoteFile(file.as_uri(), "0" * 32)
    monkeypatch.setitem(download.FILES, ("vgg16", False), file)
    kept.unlink()
    with pytest.raises(RunError, match="could not be downloaded"):
        vgg16(include_top=False, weights="imagenet")


def test_a_failed_download_names_the_url_and_the_path(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    address = "http://127.0.0.1:9/vgg16.h5"
    monkeypatch.setitem(download.FILES, ("vgg16", True), download.RemoteFile(address, "0" * 32))
    with pytest.raises(RunError) as error:
        vgg16(weights="imagenet")
    assert address in str(error.value)
    assert str(tmp_path / "models" / "vgg16.h5") in str(error.value)


def test_networks_without_imagenet_weights_are_refused():
    with pytest.raises(UsageError, match="no ImageNet weights to download for this network"):
        vgg11(weights="imagenet")
    with pytest.raises(UsageError, match="Expected: vgg16 or vgg19, or a weights file"):
        alexnet(weights="imagenet")
    with pytest.raises(UsageError, match="with dense layers must have 1,000 classes"):
        vgg16(weights="imagenet", classes=10)


def test_the_urls_are_those_of_keras_applications():
    from keras.src.applications import vgg16 as theirs16
    from keras.src.applications import vgg19 as theirs19

    for network, module in (("vgg16", theirs16), ("vgg19", theirs19)):
        assert download.FILES[network, True].url == module.WEIGHTS_PATH
        assert download.FILES[network, False].url == module.WEIGHTS_PATH_NO_TOP
