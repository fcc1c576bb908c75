# %% [markdown]
# # 1. Convolution, pooling and receptive fields by hand
#
# **Papers:** Simonyan & Zisserman 2014 (VGG), sections 2.1 and 2.3; Krizhevsky et al. 2012
# (AlexNet), sections 3.4 and 3.5. **Reading time:** 10 minutes.
#
# A convolutional network is made of two operations that fit on one line each. In this lecture you
# write both with NumPy, compute how much of an image a unit sees, and check the argument by which
# VGG replaces one large filter by three small ones.

# %%
import matplotlib.pyplot as plt
import numpy as np
from lecture import show_images
from scipy.ndimage import maximum_filter
from scipy.signal import convolve2d, correlate2d
from sklearn.datasets import load_digits

from cnnkit import alexnet_caffe, vgg16
from cnnkit.visualize import pool_with_switches, receptive_field

# %% [markdown]
# ## A weighted sum that slides
#
# Lay a small filter on the image, multiply what lies on top of each other, add, write the sum down,
# and move the filter by one pixel. Note that the filter is *not* flipped. In mathematics this is a
# correlation; networks call it a convolution. As the weights are learned, the name does no harm.


# %%
def convolve(image: np.ndarray, kernel: np.ndarray, stride: int = 1) -> np.ndarray:
    """Slide `kernel` over `image`, without padding."""
    size = kernel.shape[0]
    rows = range(0, image.shape[0] - size + 1, stride)
    columns = range(0, image.shape[1] - size + 1, stride)
    return np.array(
        [[np.sum(image[i : i + size, j : j + size] * kernel) for j in columns] for i in rows]
    )


# %% [markdown]
# Here is a handwritten digit of 8 x 8 pixels, and a filter that subtracts the left neighbor from
# the right one. Its answer is large and positive where the image gets brighter from left to right,
# and negative (dark) where it gets darker. Middle gray is zero.

# %%
digit = load_digits().images[0]
kernel = np.array([[-1, 0, 1], [-1, 0, 1], [-1, 0, 1]], "float64")
answer = convolve(digit, kernel)
show_images([digit / 16, kernel, answer], ["digit", "filter", "answer"], columns=3, size=2.4)

# %% [markdown]
# ## How large is the answer?
#
# A filter of size *k* has `n - k + 1` places on *n* pixels. With padding *p* on both sides and
# steps of *s* pixels there are
#
#     floor((n + 2p - k) / s) + 1
#
# of them. AlexNet's first layer (section 3.5) has 11 x 11 filters and steps of 4. The paper says
# that its input has 224 pixels, and Fig. 2 shows 55 positions. Do these numbers fit?


# %%
def output_size(pixels: int, size: int, stride: int = 1, padding: int = 0) -> int:
    """Count the positions of a filter."""
    return (pixels + 2 * padding - size) // stride + 1


print("224 pixels:", output_size(224, 11, 4), "positions")
print("227 pixels:", output_size(227, 11, 4), "positions")

# %% [markdown]
# They do not. The authors' program rounds *up*: on 224 pixels the last window hangs over the edge
# by three pixels, which read as zero. That is the same as 227 pixels. Caffe's AlexNet crops 227
# pixels instead, and this is why you meet both numbers.
#
# ## Max-pooling
#
# Pooling keeps the largest value of each window. VGG uses windows of 2 pixels that touch. AlexNet
# uses windows of 3 pixels in steps of 2, which *overlap* (section 3.4): the paper reports 0.4 and
# 0.3 points less top-1 and top-5 error.


# %%
def max_pool(image: np.ndarray, size: int, stride: int) -> np.ndarray:
    """Keep the largest value of each window."""
    places = range(0, image.shape[0] - size + 1, stride)
    return np.array([[image[i : i + size, j : j + size].max() for j in places] for i in places])


touching, overlapping = max_pool(digit, 2, 2), max_pool(digit, 3, 2)
show_images(
    [digit / 16, touching / 16, overlapping / 16],
    ["digit, 8 x 8", "2 pixels, step 2", "3 pixels, step 2"],
    columns=3,
    size=2.4,
)

# %% [markdown]
# ## What does a unit see?
#
# The *receptive field* of a unit is the part of the image that can change its value. Go through the
# layers from the image upwards and keep two numbers: the field `r`, and the jump `j`, the distance
# in pixels between two neighbors. A layer with filter size *k* and stride *s* makes
#
#     r = r + (k - 1) * j        j = j * s


# %%
def field(layers: list[tuple[int, int]]) -> int:
    """Compute the receptive field of a stack of (size, stride)."""
    seen, jump = 1, 1
    for size, stride in layers:
        seen, jump = seen + (size - 1) * jump, jump * stride
    return seen


print("one 7x7:", field([(7, 1)]), " three 3x3:", field([(3, 1)] * 3))

# %% [markdown]
# ## Three small filters or one large one?
#
# Three layers of 3 x 3 filters see 7 x 7 pixels. VGG (section 2.3) uses them instead of one 7 x 7
# layer, for two reasons. The first: with *C* channels in and out, they have fewer parameters.

# %%
channels = 256
three = 3 * (3 * 3 * channels * channels)
one = 7 * 7 * channels * channels
print(f"three 3x3: {three:,} weights, one 7x7: {one:,} weights")
print(f"The 7x7 layer has {100 * (one / three - 1):.0f} % more.")

# %% [markdown]
# The second reason: between them are two more ReLUs. Do these matter? Without them, three filters
# in a row are one filter: the convolution of the three. A 7 x 7 filter could do the same.

# %%
random = np.random.default_rng(0)
image = random.normal(size=(20, 20))
first, second, third = random.normal(size=(3, 3, 3))
in_a_row = convolve(convolve(convolve(image, first), second), third)
single = convolve2d(convolve2d(first, second), third)
print("one equivalent filter:", single.shape)
print("largest difference:", np.abs(in_a_row - convolve(image, single)).max())

# %% [markdown]
# With a ReLU after each layer, no single filter gives the same answers. We look for the best one by
# least squares: each row of the matrix holds the 49 pixels of a window. What it cannot explain is
# what the nonlinearities add.

# %%
rectified = convolve(np.maximum(convolve(np.maximum(convolve(image, first), 0), second), 0), third)
windows = np.lib.stride_tricks.sliding_window_view(image, (7, 7)).reshape(-1, 49)
windows = np.column_stack([windows, np.ones(len(windows))])
best, *_ = np.linalg.lstsq(windows, rectified.ravel(), rcond=None)
unexplained = 1 - np.var(windows @ best) / np.var(rectified)
print(f"Variance that no 7x7 filter explains: {100 * unexplained:.0f} %")

# %% [markdown]
# ## A field is not a box with hard edges
#
# All pixels of a field can change the unit, but not equally. The middle lies under many filter
# positions, a corner under one. Count the paths from each pixel of the 7 x 7 field to the unit:

# %%
ones = np.ones((3, 3))
paths = convolve2d(convolve2d(ones, ones), ones)
plt.figure(figsize=(4.2, 3.4), layout="constrained")
plt.imshow(paths, cmap="viridis")
for (row, column), count in np.ndenumerate(paths):
    color = "black" if count > 30 else "white"
    plt.text(column, row, f"{count:.0f}", ha="center", va="center", color=color, fontsize=9)
plt.axis("off")
plt.title("Paths from a pixel through three 3x3 layers")
plt.show()

# %% [markdown]
# ## The fields of AlexNet and VGG
#
# The two lines above, applied to two real networks. cnnkit computes the same numbers from the
# layers of a Keras model, and knows about borders too.

# %%
alexnet = alexnet_caffe(include_top=False, input_shape=(227, 227, 3))
vgg = vgg16(include_top=False, input_shape=(224, 224, 3))
for layer in ("conv1", "pool1", "conv2", "conv3", "conv5", "pool5"):
    print(f"AlexNet {layer}: {receptive_field(alexnet, layer).size[0]} pixels")
for layer in ("block1_conv2", "block3_conv3", "block5_conv3", "block5_pool"):
    print(f"VGG-16 {layer}: {receptive_field(vgg, layer).size[0]} pixels")

# %% [markdown]
# ## Exercises
#
# 1. How many 3 x 3 layers do you need to see as much as one 11 x 11 filter? How many weights do
#    both have, with *C* channels?
# 2. Compute the receptive field of AlexNet's conv5 by hand, with `field`. The layers below it are
#    conv1 (11, step 4), pool1 (3, step 2), conv2 (5), pool2 (3, step 2), conv3 and conv4 (3).
#
# <details><summary>Answers</summary>
#
# 1. Five: 1 + 5 * 2 = 11. They have 5 * 9 = 45 C² weights, the large one 121 C².
# 2. `field([(11, 4), (3, 2), (5, 1), (3, 2), (3, 1), (3, 1), (3, 1)])` is 163. The jump after pool2
#    is 16, so each of the three last layers adds 32 pixels to the 67 of pool2: 67 + 96 = 163.
#
# </details>

# %% [markdown]
# ## Check
#
# SciPy has both operations. Their answers must be those of our loops. The paper's number is in
# VGG, section 2.3: the 7 x 7 layer has 81 % more parameters. And what we computed by hand for conv5
# must be what cnnkit reads from the model.

# %%
below_conv5 = [(11, 4), (3, 2), (5, 1), (3, 2), (3, 1), (3, 1), (3, 1)]
scipy_answer = correlate2d(digit, kernel, mode="valid")
scipy_pooled = maximum_filter(digit, 3)[1:-1:2, 1:-1:2]
cnnkit_pooled = pool_with_switches(digit[None, :, :, None], 3, 2)[0][0, :, :, 0]
assert np.abs(answer - scipy_answer).max() < 1e-9, "The convolution differs from SciPy's."
assert np.abs(overlapping - scipy_pooled).max() < 1e-9, "The pooling differs from SciPy's."
assert np.abs(overlapping - cnnkit_pooled).max() < 1e-6, "The pooling differs from cnnkit's."
assert abs(one / three - 1 - 0.81) < 0.005, "VGG, section 2.3: 81 % more parameters."
assert receptive_field(alexnet, "conv5").size[0] == field(below_conv5) == 163, "Fields differ."
print(f"81 % in the paper, {100 * (one / three - 1):.1f} % here; conv5 sees 163 pixels.")
