"""Images of rectangles on noise, with their boxes, in the three formats that are read."""

import json

import numpy as np
from PIL import Image

CLASSES = ("blue", "red")
SIZE = (60, 44)


def write_images(folder, count=12, seed=0):
    """Writes images with one rectangle each; returns (name, class, box) of each."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for i in range(count):
        pixels = rng.integers(0, 60, (SIZE[1], SIZE[0], 3)).astype(np.uint8)
        width, height = rng.integers(16, 30, 2)
        left, top = rng.integers(2, SIZE[0] - width - 2), rng.integers(2, SIZE[1] - height - 2)
        channel = 2 if i % 2 == 0 else 0
        pixels[top : top + height, left : left + width, channel] = 255
        name = f"{i:03}.png"
        Image.fromarray(pixels).save(folder / name)
        box = (int(left), int(top), int(left + width), int(top + height))
        rows.append((name, CLASSES[i % 2], box))
    return rows


def write_table(folder, count=12, seed=0):
    """Writes images and boxes.csv; returns the path of the table."""
    rows = write_images(folder, count, seed)
    lines = ["file,class,left,top,right,bottom"]
    lines += [",".join(map(str, (name, label, *box))) for name, label, box in rows]
    (folder / "boxes.csv").write_text("\n".join(lines) + "\n")
    return folder / "boxes.csv"


def write_document(folder, rows):
    """Writes a document of COCO for images in FOLDER/images; returns its path."""
    images = [{"id": i, "file_name": name} for i, (name, *_) in enumerate(rows)]
    categories = [{"id": 7 + i, "name": name} for i, name in enumerate(CLASSES)]
    annotations = [
        {
            "image_id": i,
            "category_id": 7 + CLASSES.index(label),
            "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
            "iscrowd": 0,
        }
        for i, (_, label, box) in enumerate(rows)
    ]
    file = folder / "boxes.json"
    document = {"images": images, "categories": categories, "annotations": annotations}
    file.write_text(json.dumps(document))
    return file


def write_voc(folder, rows):
    """Writes the XML files of PASCAL VOC, which count pixels from 1; returns the folder."""
    (folder / "Annotations").mkdir()
    for name, label, (left, top, right, bottom) in rows:
        text = (
            f"<annotation><filename>{name}</filename><object><name>{label}</name><bndbox>"
            f"<xmin>{left + 1}</xmin><ymin>{top + 1}</ymin><xmax>{right}</xmax>"
            f"<ymax>{bottom}</ymax></bndbox></object></annotation>"
        )
        (folder / "Annotations" / f"{name[:-4]}.xml").write_text(text)
    return folder


def square_finder(regression="per-class", side=16, cell=4):
    """Returns a network that finds a white square of 4 pixels on black exactly, by its weights.

    It averages cells of 4 x 4 pixels. The square fills one of them, or parts of neighbors: the sum
    of the cells is 1, and their mean place is its center.
    """
    import keras

    from cnnkit.layers import ClassBoxes

    cells = side // cell
    places = (np.arange(cells) + 0.5) / cells
    y, x = (one.ravel() for one in np.meshgrid(places, places, indexing="ij"))
    boxes = 2 if regression == "per-class" else 1
    kernel = np.zeros((cells, cells, 3, 2 + 4 * boxes))
    bias = np.array([20.0, 0.0] + [0, 0, cell / side, cell / side] * boxes)
    for channel in range(3):
        # Class 1, `square`, is where there is one.
        kernel[:, :, channel, 1] = 40 / 3
        for box in range(boxes):
            kernel[:, :, channel, 2 + 4 * box] = x.reshape(cells, cells) / 3
            kernel[:, :, channel, 3 + 4 * box] = y.reshape(cells, cells) / 3
    inputs = keras.Input((side, side, 3))
    maps = keras.layers.AveragePooling2D(cell)(keras.layers.Rescaling(1 / 255)(inputs))
    outputs = keras.layers.Dense(2 + 4 * boxes, name="fc")(keras.layers.Flatten()(maps))
    model = keras.Model(inputs, ClassBoxes(("nothing", "square"), regression)(outputs))
    model.get_layer("fc").set_weights([kernel.reshape(-1, len(bias)), bias])
    return model


def square_image(width, height, left, top, side=4):
    """Returns a black image with a white square."""
    image = np.zeros((height, width, 3), np.uint8)
    image[top : top + side, left : left + side] = 255
    return image
