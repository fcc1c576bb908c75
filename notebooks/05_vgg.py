# %% [markdown]
# # 5. VGG: a table as code
#
# **Paper:** Simonyan & Zisserman 2014 (VGG), sections 2.1, 2.3, 3.2, 4.1 and Tables 1 to 3.
# **Reading time:** 12 minutes.
#
# VGG is one idea, tried six times: only 3 x 3 filters, and more and more of them. The paper prints
# all six networks as one table. In this lecture the table becomes a program of a few lines, and you
# ask it the questions of the paper.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
from lecture import find_data, read_digits, read_photo, show_images

from cnnkit import vgg
from cnnkit.models import to_fully_convolutional
from cnnkit.visualize import receptive_field

# %% [markdown]
# ## Table 1
#
# Five blocks, each followed by a pooling that halves the sides. A number is the side of a filter.
# All filters of a block have the same width. Then three dense layers: 4096, 4096, 1000.

# %%
WIDTHS = (64, 128, 256, 512, 512)
TABLE = {
    "A": ("3", "3", "33", "33", "33"),
    "A-LRN": ("3", "3", "33", "33", "33"),  # and one normalization, which has no weights
    "B": ("33", "33", "33", "33", "33"),
    "C": ("33", "33", "331", "331", "331"),
    "D": ("33", "33", "333", "333", "333"),
    "E": ("33", "33", "3333", "3333", "3333"),
}
for name, blocks in TABLE.items():
    depth = sum(map(len, blocks)) + 3
    print(f"{name:6} {depth} layers with weights: {'  '.join(blocks)}")

# %% [markdown]
# ## Table 2
#
# A filter of side *k* on *c* channels has k² c weights and one bias. Count all of them.


# %%
def convolution_parameters(name: str) -> int:
    """Count the parameters of the convolutions of a configuration."""
    total, channels = 0, 3
    for width, block in zip(WIDTHS, TABLE[name], strict=True):
        for side in map(int, block):
            total += (side * side * channels + 1) * width
            channels = width
    return total


DENSE = (7 * 7 * 512 + 1) * 4096 + (4096 + 1) * 4096 + (4096 + 1) * 1000
totals = {name: convolution_parameters(name) + DENSE for name in TABLE}
for name, total in totals.items():
    print(f"{name:6} {total:>11,}, of them {100 * DENSE / total:.0f} % in the dense layers")

# %% [markdown]
# The deepest network has only 8 % more parameters than the shallowest one: most parameters are in
# the first dense layer. Depth is cheap in memory. It is not cheap in time:

# %%
names, works = list(TABLE), []
for name in names:
    work, channels, side = 0, 3, 224
    for width, block in zip(WIDTHS, TABLE[name], strict=True):
        for kernel in map(int, block):
            work += side * side * kernel * kernel * channels * width
            channels = width
        side //= 2
    works.append(work / 1e9)
plt.figure(figsize=(6, 2.6), layout="constrained")
plt.bar(names, works)
plt.ylabel("10⁹ multiply-adds")
plt.title("Convolutions of one image of 224 pixels")
plt.show()

# %% [markdown]
# ## A against A-LRN (section 4.1)
#
# AlexNet's normalization has no weights, and costs time. Does it help here? Table 3 says no: its
# top-1 errors on ImageNet, with images of 256 pixels, are below. Nobody used it in deeper networks.

# %%
TABLE_3 = {"A": 29.6, "A-LRN": 29.7, "B": 28.7, "C": 28.1, "D": 27.0, "E": 27.3}
plt.figure(figsize=(6, 2.6), layout="constrained")
plt.plot(TABLE_3.keys(), TABLE_3.values(), "o", markersize=9)
for place, error in enumerate(TABLE_3.values()):
    plt.text(place, error + 0.35, error, ha="center")
plt.ylim(26, 31)
plt.grid(axis="y", alpha=0.4)
plt.ylabel("top-1 error (%)")
plt.title("Table 3: trained and tested at 256 pixels")
plt.show()

# %% [markdown]
# ## C against D: nonlinearity or context?
#
# C and D have the same depth. Where D has its third 3 x 3 filter, C has a 1 x 1 filter: a nonlinear
# mixture of the channels at one place, which sees no neighbors. C is better than B, so one more
# nonlinearity helps. D is better than C, so it also matters to *see* more. How much more?

# %%
fields = {}
for name in ("B", "C", "D", "E"):
    model = vgg(name, include_top=False, input_shape=(224, 224, 3))
    fields[name] = receptive_field(model, "block5_pool").size[0]
    weights = convolution_parameters(name)
    print(f"{name}: the last unit sees {fields[name]} pixels, convolutions {weights:>10,}")

# %% [markdown]
# The last unit of C sees exactly as much as that of B: a 1 x 1 filter adds a nonlinearity, and no
# context. That of D sees 56 pixels more. So the step from B to C (28.7 to 28.1 %) is what three
# nonlinearities bring, and the step from C to D (28.1 to 27.0 %) is mostly context.
#
# ## Weights at another image size
#
# A convolution does not know the size of its image: the same weights run on any size. Here is a
# photo at two sizes through the same weights. The maps grow with the image.

# %%
data = find_data("vgg16_imagenet_conv.npz", "photos/chelsea.png")
options = {"weights": data[0], "preprocessing": "caffe"} if data else {}
network = vgg("D", include_top=False, input_shape=(None, None, 3), **options)
sizes = (96, 192)
photos = [read_photo(data[1], s) if data else read_digits(s, count=1)[0][0] for s in sizes]
inner = keras.Model(network.input, network.get_layer("block3_conv3").output)
maps = [np.asarray(inner(photo[None]))[0] for photo in photos]
unit = maps[1].max((0, 1)).argmax()
for photo, result in zip(photos, maps, strict=True):
    print(photo.shape, "->", result.shape, f" unit {unit}: {result[..., unit].max():.0f} at most")
shown = [*photos, *(result[..., unit] / maps[1][..., unit].max() for result in maps)]
titles = ["96 pixels", "192 pixels", f"unit {unit} at 96", f"unit {unit} at 192"]
show_images(shown, titles, columns=4, size=2.2)

# %% [markdown]
# The map has twice the size, and the activations of the unit have changed too. Weights fit images
# of every size, but what they look for has one size: an eye of 20 pixels is no eye of 40 pixels.
# This is why VGG trains at several sizes (section 3.1).
#
# ## Dense evaluation (section 3.2)
#
# Only the dense layers know the size. But a dense layer on 7 x 7 x 512 values *is* a convolution
# with a filter of 7 x 7, at its only place. So turn the three layers into convolutions (7 x 7,
# 1 x 1, 1 x 1), and the whole network slides over any image: a map of class scores, one for each
# place, which the paper averages. Here with a small network for 64 pixels, whose map is 2 x 2.

# %%
keras.utils.set_random_seed(0)
small = vgg("A", input_shape=(64, 64, 3), classes=10)
dense = to_fully_convolutional(small)
image = photos[1][:64, :64]
large = photos[1]
one = np.asarray(small(image[None]))[0]
same = np.asarray(dense(image[None])).reshape(-1, 10)
many = np.asarray(dense(large[None]))
print("on 64 pixels:", same.shape, " largest difference", np.abs(same[0] - one).max())
print("on 192 pixels:", many.shape)

# %% [markdown]
# How large is the map for the paper's sizes? Five poolings divide the side by 32; the 7 x 7 filter
# takes away 6. So Q pixels give Q/32 - 6 places, in each direction:

# %%
for side in (224, 256, 288, 352, 384, 416, 512):
    print(f"Q = {side}: {side // 32 - 6} x {side // 32 - 6} places")

# %% [markdown]
# ## Exercises
#
# 1. Which share of VGG-16's parameters would remain if one replaced the first dense layer by a
#    global average over the 7 x 7 places?
# 2. Why is the dense score at one place not exactly the score of the crop at this place?
#
# <details><summary>Answers</summary>
#
# 1. The layer would have 512 * 4096 + 4096 in place of 25088 * 4096 + 4096 parameters: 37.7 of
#    138.4 million remain, 27 %.
# 2. A crop is padded with zeros at its border, in every layer. In the whole image there are real
#    pixels instead. The paper says so in section 3.2, and averages both kinds in Table 5.
#
# </details>

# %% [markdown]
# ## Check
#
# Table 2 of the paper, in millions: 133, 133, 133, 134, 138, 144. Our totals must round to them,
# within half a million, and the builders of cnnkit must have the same convolutions.

# %%
published = {"A": 133, "A-LRN": 133, "B": 133, "C": 134, "D": 138, "E": 144}
worst = max(abs(totals[name] / 1e6 - published[name]) for name in TABLE)
built = vgg("E", include_top=False, input_shape=(64, 64, 3)).count_params()
assert worst < 0.5, "Table 2: the totals should round to the paper's millions."
assert network.count_params() == convolution_parameters("D"), "cnnkit's D differs from the table."
assert built == convolution_parameters("E"), "cnnkit's E differs from the table."
assert fields == {"B": 156, "C": 156, "D": 212, "E": 268}, "The fields differ."
assert np.abs(same[0] - one).max() < 1e-5, "The dense network differs from the original."
print(f"largest distance from Table 2: {worst:.2f} million")
