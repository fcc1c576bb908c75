"""`cnnkit data sample`. Checks and shards are in tests/data."""

from PIL import Image

from cnnkit.cli.main import main


def test_data_sample_writes_files(tmp_path, capsys):
    arguments = ["data", "sample", "digits", "--count", "3", "--output", str(tmp_path / "s")]
    assert main(arguments) == 0
    paths = capsys.readouterr().out.split()
    assert len(paths) == 3
    for path in paths:
        with Image.open(path) as image:
            assert image.size == (8, 8)
        assert path.rpartition("-label-")[2].removesuffix(".png") in "0123456789"
    assert main(arguments) == 2
    assert "exists. Remove it or use another --output" in capsys.readouterr().err
