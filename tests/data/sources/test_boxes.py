import numpy as np
import pytest

from cnnkit.data import image_path, load_dataset
from cnnkit.errors import DataError, UsageError
from tests.helpers.boxes import CLASSES, write_document, write_images, write_table, write_voc


def by_name(dataset):
    return {
        name: (dataset.class_names[label], tuple(boxes[0].tolist()))
        for split in dataset.splits.values()
        for name, label, boxes in zip(split.names, split.labels, split.boxes, strict=True)
    }


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("boxes")
    return folder, write_images(folder / "images")


def test_three_formats_of_the_same_boxes_give_the_same_dataset(rows, tmp_path):
    folder, found = rows
    expected = {name: (label, tuple(map(float, box))) for name, label, box in found}
    document = load_dataset(f"boxes:{write_document(folder, found)}")
    assert by_name(document) == expected
    (tmp_path / "JPEGImages").symlink_to(folder / "images")
    voc = load_dataset(f"boxes:{write_voc(tmp_path, found)}")
    assert by_name(voc) == expected
    table = load_dataset(f"boxes:{write_table(tmp_path / 'table')}")
    assert by_name(table) == expected
    assert table.class_names == CLASSES
    assert table.fingerprint == document.fingerprint == voc.fingerprint
    assert [len(split) for split in table.splits.values()] == [10, 2]
    assert image_path(table.spec, "000.png") == str(tmp_path / "table" / "000.png")
    assert image_path(document.spec, "000.png") == str(folder / "images" / "000.png")


def add(table, *lines):
    table.write_text(table.read_text() + "\n".join(lines) + "\n")


def test_an_image_has_the_class_of_its_largest_box_and_the_boxes_of_that_class(tmp_path):
    table = write_table(tmp_path)
    before = load_dataset(f"boxes:{table}")
    add(table, "000.png,red,0,0,59,43", "000.png,red,1,1,2,2", "000.png,red,0,0,30,40")
    dataset = load_dataset(f"boxes:{table}")
    assert dataset.fingerprint != before.fingerprint
    assert by_name(dataset)["000.png"] == ("red", (0, 0, 59, 43))
    split = next(s for s in dataset.splits.values() if "000.png" in s.names)
    boxes = split.boxes[split.names.index("000.png")]
    np.testing.assert_array_equal(boxes, [[0, 0, 59, 43], [0, 0, 30, 40], [1, 1, 2, 2]])
    other = split.boxes[split.names.index("000.png") - 1]
    assert np.isnan(other[1:]).all() and not np.isnan(other[0]).any()


def test_a_box_that_moved_is_another_dataset(tmp_path):
    table = write_table(tmp_path, 2)
    before = load_dataset(f"boxes:{table}").fingerprint
    first, second, last = table.read_text().splitlines()
    left = int(second.split(",")[2])
    moved = second.replace(f",{left},", f",{left + 1},", 1)
    table.write_text("\n".join([first, moved, last]))
    assert load_dataset(f"boxes:{table}").fingerprint != before


def test_boxes_without_area_are_left_out_and_counted(tmp_path):
    table = write_table(tmp_path)
    before = by_name(load_dataset(f"boxes:{table}"))
    (tmp_path / "flat.png").write_bytes((tmp_path / "000.png").read_bytes())
    add(table, "flat.png,red,5,5,9,5", "flat.png,blue,5,5,2,9", "001.png,blue,9,9,9,9")
    dataset = load_dataset(f"boxes:{table}")
    assert by_name(dataset) == before
    assert dataset.describe_left_out() == "1 file left out: 1 with boxes of no area"


def test_missing_images_are_refused_beyond_a_few(tmp_path):
    table = write_table(tmp_path)
    add(table, "none.png,red,1,1,9,9")
    with pytest.raises(DataError, match=r"1 of 13 images .* Received: none.png"):
        load_dataset(f"boxes:{table}")
    dataset = load_dataset(f"boxes:{table}", max_unreadable=0.1)
    assert dataset.describe_left_out() == "1 file left out: 1 unreadable"
    with pytest.raises(UsageError, match=r"No file or folder .*\.csv or \.json"):
        load_dataset(f"boxes:{tmp_path}/none.csv")


def test_a_table_of_flat_boxes_alone_is_refused(tmp_path):
    write_images(tmp_path, 2)
    (tmp_path / "a.csv").write_text("file,class,left,top,right,bottom\n000.png,a,1,1,1,1\n")
    with pytest.raises(DataError, match="a box with an area"):
        load_dataset(f"boxes:{tmp_path}/a.csv")


@pytest.mark.usefixtures("unoptimized")
def test_the_first_of_many_missing_images_are_named(tmp_path):
    table = write_table(tmp_path)
    whole = table.read_text()
    for count, more in ((3, ""), (4, " and 1 more")):
        table.write_text(whole)
        add(table, *(f"none{i}.png,red,1,1,9,9" for i in range(count)))
        names = "none0.png, none1.png, none2.png"
        with pytest.raises(DataError, match=rf"{count} of .* Received: {names}{more}\.$"):
            load_dataset(f"boxes:{table}", max_unreadable=0.1)
    # As many as may be missing: 4 of 16.
    assert len(by_name(load_dataset(f"boxes:{table}", max_unreadable=0.25))) == 12
    only = tmp_path / "only.csv"
    only.write_text("file,class,left,top,right,bottom\nnone.png,a,1,1,9,9\n")
    with pytest.raises(DataError, match="No image of .*only.csv has a box with an area"):
        load_dataset(f"boxes:{only}", max_unreadable=1.0)


@pytest.mark.usefixtures("unoptimized")
def test_images_lie_beside_a_table_or_in_a_folder_of_its_archive(tmp_path):
    """The archives of COCO unpack to annotations/instances_val2017.json and val2017/."""
    for place in ("annotations", "annotations/images", "images", "val2017"):
        root = tmp_path / place.replace("/", "-")
        rows = write_images(root / place)
        (root / "annotations").mkdir(exist_ok=True)
        file = write_document(root / "annotations", rows).rename(
            root / "annotations" / "instances_val2017.json"
        )
        spec = f"boxes:{file}"
        assert len(by_name(load_dataset(spec))) == 12
        assert image_path(spec, "001.png") == str(root / place / "001.png")
    assert image_path(spec, "none.png") is None
