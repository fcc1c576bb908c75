import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnkit._untrusted import box_files
from cnnkit._untrusted.box_files import parse_xml, read_boxes
from cnnkit._untrusted.limits import MAX_XML_DEPTH
from cnnkit.errors import DataError

ROWS = [("a.jpg", "cat", (1.0, 2.0, 11.0, 22.0)), ("b/c.jpg", "dog", (0.0, 0.5, 3.0, 4.0))]
HEADER = "file,class,left,top,right,bottom\n"


def found(path):
    return [(one.file, one.label, one.box) for one in read_boxes(path)]


def write(folder, name, text):
    (folder / name).write_text(text)
    return folder / name


def voc(folder, xml):
    (folder / "Annotations").mkdir(exist_ok=True)
    write(folder / "Annotations", "a.xml", xml)
    return folder


def document(**changes):
    whole = {
        "images": [{"id": 5, "file_name": "a.jpg"}],
        "categories": [{"id": 3, "name": "cat"}],
        "annotations": [{"image_id": 5, "category_id": 3, "bbox": [1, 2, 10, 20]}],
    }
    return json.dumps({**whole, **changes})


def test_a_table_is_read_by_the_names_of_its_columns(tmp_path):
    text = HEADER + "a.jpg,cat,1,2,11,22\n\nb\\c.jpg,dog,0,0.5,3,4\n"
    assert found(write(tmp_path, "a.csv", text)) == ROWS
    # As the tables of TensorFlow's object detection: other names, another order, more columns.
    other = "filename,width,XMIN,ymin,xmax,ymax,class\r\na.jpg,90,1,2,11,22,cat\r\n"
    assert found(write(tmp_path, "b.csv", other)) == ROWS[:1]


def test_boxes_of_coco_are_a_corner_and_a_size_and_crowds_are_left_out(tmp_path):
    crowd = {"image_id": 5, "category_id": 3, "bbox": [0, 0, 9, 9], "iscrowd": 1}
    box = {"image_id": 5, "category_id": 3, "bbox": [1, 2, 10, 20], "segmentation": []}
    file = write(tmp_path, "a.json", document(annotations=[crowd, box]))
    assert found(file) == ROWS[:1]


def test_boxes_of_voc_count_pixels_from_1_and_include_the_last(tmp_path):
    xml = (
        "<annotation><filename>a.jpg</filename><object><name>cat</name><pose>Left</pose><bndbox>"
        "<xmax>11</xmax><xmin>2</xmin><ymin>3</ymin><ymax>22</ymax></bndbox></object></annotation>"
    )
    assert found(voc(tmp_path, xml)) == ROWS[:1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column file"),
        ("file,class,left,top,right\n", "no column bottom"),
        (HEADER, "holds no boxes"),
        (HEADER + "a.jpg,cat,1,2,3\n", "6 values in every line. Received: 5 in line 2"),
        (HEADER + "a.jpg,cat,1,2,x,4\n", "must be numbers. Received: 'x' in line 2"),
        (HEADER + "a.jpg,cat,1,2,inf,4\n", "must be finite numbers"),
        (HEADER + "a.jpg,cat,1,2,1e9,4\n", "at most 1,000,000"),
        (HEADER + "/etc/a.jpg,cat,1,2,3,4\n", "inside of its folder"),
        (HEADER + "b/../../a.jpg,cat,1,2,3,4\n", "inside of its folder"),
        (HEADER + ",cat,1,2,3,4\n", "inside of its folder"),
        (HEADER + "a.jpg,,1,2,3,4\n", "must be a name"),
        (HEADER + "a.jpg,c\x1b[2Kat,1,2,3,4\n", "must be a name"),
        (HEADER + 'a.jpg,"cat"s,1,2,3,4\n', "not a CSV table"),
    ],
)
def test_wrong_tables_are_refused_by_line(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_boxes(write(tmp_path, "a.csv", text))


def test_sides_and_names_at_their_limits_are_read(tmp_path):
    label = "c" * 4096
    text = HEADER + f"a.jpg,{label},-1e6,2,1e6,22\n"
    assert found(write(tmp_path, "a.csv", text)) == [("a.jpg", label, (-1e6, 2.0, 1e6, 22.0))]
    for wrong in (text.replace("1e6,22", "1000001,22"), text.replace(label, label + "c")):
        with pytest.raises(DataError, match="at most 1,000,000|must be a name"):
            read_boxes(write(tmp_path, "a.csv", wrong))
    box = {"image_id": 5, "category_id": 3, "bbox": [-1, 2, 10, 20], "iscrowd": 0}
    file = write(tmp_path, "a.json", document(annotations=[box]))
    assert found(file) == [("a.jpg", "cat", (-1.0, 2.0, 9.0, 22.0))]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "must be a JSON object"),
        (document(annotations=[{"image_id": 5}]), "has no `annotations"),
        (document(images=[]), "no image 5"),
        (
            document(annotations=[{"image_id": 5, "category_id": 3, "bbox": [1, 2, 3]}]),
            "list of 4 numbers",
        ),
        (document(images=[{"id": 5, "file_name": "../a.jpg"}]), "inside of its folder"),
        (
            document(annotations=[{"image_id": 5, "category_id": 3, "bbox": [1, 2, 3, 4e6]}]),
            "4 numbers from -1e.06 to 1e.06",
        ),
        (
            document(
                annotations=[{"image_id": 5, "category_id": 3, "bbox": [1, 2, 3, 4], "iscrowd": 2}]
            ),
            "`annotations.0..iscrowd` in .* must be an integer from 0 to 1",
        ),
        (document(categories=[]), "no category 3"),
    ],
)
def test_wrong_documents_are_refused(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_boxes(write(tmp_path, "a.json", text))


def test_elements_are_limited_inside_each_other_only(tmp_path):
    """Twenty inside each other, and any number beside each other."""
    inner = "<b></b>" * 50 + "<c>" * 19 + "</c>" * 19
    one = (
        "<object><name>cat</name><bndbox><xmin>2</xmin><ymin>3</ymin><xmax>11</xmax>"
        "<ymax>22</ymax></bndbox></object>"
    )
    xml = f"<annotation><filename>a.jpg</filename>{inner}{one}{one}</annotation>"
    assert found(voc(tmp_path, xml)) == ROWS[:1] * 2
    with pytest.raises(DataError, match=r"'x' in object 2 of a.xml"):
        read_boxes(voc(tmp_path, xml[::-1].replace("11"[::-1], "x", 1)[::-1]))


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        ("<annotation>", "not valid XML"),
        ("<a><object><bndbox/></object></a>", "sides of a box in .* must be numbers"),
        ("<a>" * (MAX_XML_DEPTH + 1), "elements inside each other"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "DOCTYPE"),
        ('<!DOCTYPE a SYSTEM "/etc/passwd"><a/>', "DOCTYPE"),
        ("<a>&b;</a>", "not valid XML"),
    ],
)
def test_wrong_xml_is_refused_and_entities_are_not_expanded(tmp_path, xml, message):
    with pytest.raises(DataError, match=message):
        read_boxes(voc(tmp_path, xml))


def test_other_files_and_too_many_boxes_are_refused(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"a \.csv or \.json file"):
        read_boxes(write(tmp_path, "a.txt", "x"))
    with pytest.raises(DataError, match="no folder Annotations"):
        read_boxes(tmp_path)
    monkeypatch.setattr(box_files, "MAX_BOXES", 1)
    assert len(read_boxes(write(tmp_path, "a.csv", HEADER + "a.jpg,cat,1,2,3,4\n"))) == 1
    with pytest.raises(DataError, match="more than 1 boxes"):
        read_boxes(write(tmp_path, "a.csv", HEADER + "a.jpg,cat,1,2,3,4\n" * 2))


@settings(max_examples=100)
@given(st.binary(max_size=60))
def test_bytes_that_are_no_xml_raise_our_error(data):
    with contextlib.suppress(DataError):
        parse_xml(b"<a>" + data + b"</a>", "file")
