# %% [markdown]
# # 7. What the layers of AlexNet see
#
# **Papers:** Zeiler & Fergus 2013, section 4 and Figures 2 and 4; Krizhevsky et al. 2012 (AlexNet),
# Fig. 3. **Reading time:** 12 minutes.
#
# In lecture 6 you built the deconvnet. Here it looks at real weights: BVLC's AlexNet, trained on
# ImageNet. For a unit, find the nine images of a collection that excite it most, and project each
# activation to the pixels. What the nine have in common is what the unit looks for.

# %%
import tempfile
from pathlib import Path

import keras
import numpy as np
from lecture import find_data, read_classes, read_digits, show_drawing, show_images, train_on_digits

from cnnkit import alexnet_caffe, train
from cnnkit.config import TrainingConfig
from cnnkit.data import load_dataset
from cnnkit.figures import draw_feature_evolution, draw_top9
from cnnkit.visualize import feature_evolution, find_top_activations, top9

# %% [markdown]
# ## A network and a collection
#
# The network has learned from ImageNet. The photos are of another collection, Caltech-101: the
# network has never seen them. We take twelve of each of 20 classes.

# %%
data = find_data("alexnet_bvlc_conv.npz", "caltech20")
if data:
    options = {"weights": data[0], "preprocessing": "caffe", "input_shape": (227, 227, 3)}
    model = alexnet_caffe(include_top=False, **options)
    images, labels, classes = read_classes(data[1], 227, 12)
else:
    model, (images, labels) = train_on_digits(), read_digits(64, count=300)
    classes = tuple(str(digit) for digit in range(10))
show_images(images[:: len(images) // 10][:10], columns=10, size=1.1)
print(images.shape, "images of", len(classes), "classes")

# %% [markdown]
# ## One pass finds all
#
# Each image goes through the network once. For every unit of every layer we keep the nine strongest
# activations: the image, and the place in the map.

# %%
layers = ["conv1", "conv2", "conv3", "conv4", "conv5"]
found = find_top_activations(model, images, layers)
for layer, top in found.items():
    print(f"{layer}: {len(top.values)} units, of which {top.dead.sum()} never fire here")

# %% [markdown]
# ## Layer 1: edges and colors
#
# A unit of conv1 sees 11 x 11 pixels. Its nine projections are all the same: they are its filter,
# as there is nothing below it that could change them.

# %%
UNITS = {"conv1": [2, 50], "conv2": [60, 90], "conv3": [10, 200], "conv4": [120, 199]}
UNITS["conv5"] = [40, 120]
if not data:
    # Of a network trained for seconds, take the units that fire most strongly.
    UNITS = {layer: top.values[:, 0].argsort()[-2:].tolist() for layer, top in found.items()}


# %%
def show_units(layer: str) -> list:
    """Draw the nine strongest patches of two units, and their projections."""
    examples = top9(model, images, [layer], units=UNITS[layer], found={layer: found[layer]})[layer]
    show_drawing(draw_top9, examples)
    return examples


first = show_units("conv1")

# %% [markdown]
# ## Layer 2: corners, curves, pairs of edges
#
# A unit of conv2 combines what conv1 found, over 51 pixels.

# %%
second = show_units("conv2")

# %% [markdown]
# ## Layer 3: textures and arrangements
#
# 99 pixels. Look at the patches first: what do they share? Then look at the projections: which part
# of each patch was it? The background is gone from them.

# %%
third = show_units("conv3")

# %% [markdown]
# ## Layers 4 and 5: parts of objects
#
# 131 and 163 pixels. Some units respond to parts that have a name: faces, wheels, flowers. The
# photos of one unit can differ in everything but this part, which is the point of Fig. 2.

# %%
fourth = show_units("conv4")

# %%
fifth = show_units("conv5")

# %% [markdown]
# ## A number for it
#
# A picture persuades easily. Let us count: of the nine images of a unit, how many are of the most
# frequent class? If units knew nothing of classes, the number would be that of nine random images.


# %%
def purity(indices: np.ndarray) -> float:
    """Return the share of the most frequent class among the images of each row, on average."""
    rows = labels[indices]
    return float(np.mean([np.bincount(row).max() / len(row) for row in rows]))


random = np.random.default_rng(0)
chance = purity(np.stack([random.permutation(len(images))[:9] for _ in range(1000)]))
purities = {layer: purity(top.images[~top.dead]) for layer, top in found.items()}
for layer, value in purities.items():
    print(f"{layer}: {100 * value:.0f} %   (nine random images: {100 * chance:.0f} %)")

# %% [markdown]
# All layers are above chance, and conv5 is the highest: its units come closest to classes, though
# nobody told them of *these* classes. That conv1 is above chance too is a warning: classes differ
# in their backgrounds and colors, and an edge detector can tell these.
#
# ## Features emerge in training (Fig. 4)
#
# The paper shows the strongest activation of a unit over all training images, after 1, 2, 5, 10,
# 20, 30, 40 and 64 epochs. We train a small network on digits, Caffe's `cifar10_quick`, and keep it
# after epochs 1, 2, 4 and 8. Its first weights are nearly zero, so all that you see was learned.

# %%
config = TrainingConfig(
    model="cifar10_quick",
    dataset="digits",
    image_size=32,
    epochs=8,
    keep_epochs=(1, 2, 4, 8),
    batch_size=32,
    learning_rate=0.003,
    weight_decay=0.004,
)
run = train(config, Path(tempfile.mkdtemp()) / "run")
for epoch in run.metrics:
    print(f"epoch {epoch['epoch']}: held-out accuracy {100 * epoch['val_accuracy']:.1f} %")

# %%
digits = load_dataset("digits").splits["train"].subset(np.arange(200))
evolution = feature_evolution(run, digits, ["conv1", "conv3"], count=3)
show_drawing(draw_feature_evolution, evolution, width=6)

# %% [markdown]
# The filters of conv1 are there after an epoch or two, and conv3 goes on changing. A projection
# that changes suddenly belongs to another image, which became the strongest at this epoch. The
# paper finds that lower layers settle within a few epochs, and that upper ones need
# many more (40 to 50 of theirs).
#
# ## Exercises
#
# 1. Why does the paper show nine images of a unit, and not one?
# 2. Replace the photos by noise and run `find_top_activations` again. What can you say then about
#    what a unit looks for?
#
# <details><summary>Answers</summary>
#
# 1. One image has many properties. Only what several have in common can be what the unit measures.
#    And the nine projections show which changes of this pattern the unit does not mind.
# 2. Little. A unit can only show what the collection contains. The nine strongest of a poor
#    collection are still nine images. Always look at the activations, not only at the ranks.
#
# </details>

# %% [markdown]
# ## Check
#
# Two results from outside. The projection of a unit of conv1 must be its filter, as the weights
# have it. And the strongest activations must be those that plain NumPy finds in the maps.

# %%
kernels = model.get_layer("conv1").get_weights()[0]
kernel = kernels[..., first[0].unit]
projection = first[0].projections[0]
patch = projection.projection[projection.box.slices]
similarity = np.corrcoef(patch.ravel(), kernel.ravel())[0, 1]
inner = keras.Model(model.input, model.get_layer("conv3").output)
batches = [inner.predict_on_batch(images[i : i + 20]) for i in range(0, len(images), 20)]
strongest = np.concatenate([maps.max(axis=(1, 2)) for maps in batches])
expected = -np.sort(-strongest, axis=0)[:9].T
difference = np.abs(found["conv3"].values - expected).max() / expected.max()
assert abs(similarity - 1) < 1e-5, "The projection of conv1 is not its filter."
assert difference < 1e-5, "NumPy finds other activations."
assert purities["conv5"] > chance, "Units of conv5 should be closer to classes than chance."
print(f"correlation of filter and projection {similarity:.7f}; {expected.size} activations agree")
