# %% [markdown]
# # 6. The deconvnet, from nothing
#
# **Papers:** Zeiler & Fergus 2013, section 2.1 and Fig. 1; Springenberg et al. 2015 (guided
# back-propagation), Fig. 1. **Reading time:** 15 minutes.
#
# A unit deep in a network answers an image with one number. Which pixels made it? The deconvnet
# takes the network apart and runs every layer backwards. You write one here with NumPy, in four
# functions, without any automatic derivative.

# %%
import keras
import numpy as np
from lecture import read_digits, show_images
from numpy.lib.stride_tricks import sliding_window_view
from scipy.signal import convolve2d

from cnnkit.training import SGD
from cnnkit.visualize import deconvnet

# %% [markdown]
# ## A network to look into
#
# First, something that has learned: two convolutions with a pooling between them, on digits of
# 16 x 16 pixels. Keras trains it in a few seconds. We then keep only its weights.

# %%
keras.utils.set_random_seed(0)
model = keras.Sequential(
    [
        keras.Input((16, 16, 1)),
        keras.layers.Conv2D(8, 5, activation="relu", name="conv1"),
        keras.layers.MaxPooling2D(2, name="pool1"),
        keras.layers.Conv2D(16, 3, activation="relu", name="conv2"),
        keras.layers.Flatten(),
        keras.layers.Dense(10, activation="softmax", name="predictions"),
    ]
)
images, labels = read_digits(16)
images = images[..., :1] / 128 - 1
model.compile(SGD(0.05, decay=0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
history = model.fit(images, labels, batch_size=64, epochs=8, verbose=0)
print(f"training error {100 * (1 - history.history['accuracy'][-1]):.1f} %")

# %% [markdown]
# ## Forward: filter, rectify, pool
#
# The forward pass of the first lecture, now for maps of several channels. The filter has the shape
# (height, width, channels in, channels out).


# %%
def filter_forward(maps: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Convolve maps (h, w, c) with a kernel (k, k, c, n)."""
    windows = sliding_window_view(maps, kernel.shape[:2], axis=(0, 1))
    return np.einsum("ijckl,klcn->ijn", windows, kernel) + bias


# %% [markdown]
# Pooling keeps the largest of four values and forgets three. To go back, one must know *where* the
# largest one was. So pooling writes down its place: Zeiler & Fergus call these places *switches*.


# %%
def pool_forward(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keep the maximum of each 2 x 2 window, and its place in the window, 0 to 3."""
    height, width, channels = maps.shape
    windows = maps.reshape(height // 2, 2, width // 2, 2, channels).transpose(0, 2, 4, 1, 3)
    windows = windows.reshape(height // 2, width // 2, channels, 4)
    return windows.max(-1), windows.argmax(-1)


# %%
kernel1, bias1 = model.get_layer("conv1").get_weights()
kernel2, bias2 = model.get_layer("conv2").get_weights()
digit = images[7]
answer1 = np.maximum(filter_forward(digit, kernel1, bias1), 0)
pooled, switches = pool_forward(answer1)
answer2 = np.maximum(filter_forward(pooled, kernel2, bias2), 0)
row, column, unit = np.unravel_index(answer2.argmax(), answer2.shape)
print(f"The strongest unit of conv2 is {unit}, at ({row}, {column}): {answer2.max():.3f}")

# %% [markdown]
# ## Backward 1: unpool
#
# Put each value at the place of its switch, and zero everywhere else. Below you see a map of conv1,
# the pooled map, and the map after unpooling: the maxima are where they were.


# %%
def unpool(maps: np.ndarray, switches: np.ndarray) -> np.ndarray:
    """Put each value at its switch, and zeros elsewhere."""
    height, width, channels = maps.shape
    windows = maps[..., None] * (switches[..., None] == np.arange(4))
    windows = windows.reshape(height, width, channels, 2, 2).transpose(0, 3, 1, 4, 2)
    return windows.reshape(2 * height, 2 * width, channels)


strongest = answer1.sum((0, 1)).argmax()
three = [answer1[..., strongest], pooled[..., strongest], unpool(pooled, switches)[..., strongest]]
show_images([one / answer1.max() for one in three], ["conv1", "pooled", "unpooled"], columns=3)

# %% [markdown]
# ## Backward 2: the transposed filter
#
# Each value *paints* its filter onto the map below, as strong as the value is. Where filters
# overlap, the paint adds up. The bias plays no part.


# %%
def filter_backward(maps: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Paint a kernel (k, k, c, n) for maps (h, w, n); the result is (h + k - 1, w + k - 1, c)."""
    size, height, width = kernel.shape[0], *maps.shape[:2]
    result = np.zeros((height + size - 1, width + size - 1, kernel.shape[2]))
    for i in range(size):
        for j in range(size):
            result[i : i + height, j : j + width] += maps @ kernel[i, j].T
    return result


# %% [markdown]
# ## Why this, and not an inverse?
#
# A convolution is linear. Write the pixels as a vector *x*; then the answers are *W x*, where each
# row of *W* holds the filter at another place. Here it is for a filter of three weights on six
# pixels, with the transposed matrix. A column of W' is the filter, painted at one place:

# %%
row_filter = np.array([1, 2, 3])
matrix = np.array([np.roll([1, 2, 3, 0, 0, 0], place) for place in range(4)])
print("W =")
print(matrix)
print("W' =")
print(matrix.T)

# %% [markdown]
# Take an image *x* and a pattern of answers *y*. How much of *y* is in the answers to *x*? That is
# the inner product of W x and y. For every *x* it equals the inner product of x and W' y:
#
#     <W x, y> = <x, W' y>
#
# So W' y is the pattern of *pixels* to which *y* responds. No other map has this property. It is
# called the adjoint. Note what it is not: W' W x is not x. The deconvnet does not restore an image.

# %%
random = np.random.default_rng(0)
x, y = random.normal(size=(12, 12, 3)), random.normal(size=(8, 8, 4))
kernel = random.normal(size=(5, 5, 3, 4))
left = np.sum(filter_forward(x, kernel, np.zeros(4)) * y)
right = np.sum(x * filter_backward(y, kernel))
print(f"<Wx, y> = {left:.10f}   <x, W'y> = {right:.10f}")

# %% [markdown]
# ## Backward 3: rectify
#
# Only here the methods differ. Let *f* be the input of the ReLU on the way up, and *R* the signal
# on the way down:
#
# - **gradient**: keep R where f > 0;
# - **deconvnet**: keep R where R > 0, whatever f was;
# - **guided**: keep R where both are positive.


# %%
def rectify(signal: np.ndarray, forward: np.ndarray, rule: str) -> np.ndarray:
    """Pass a signal down through a ReLU."""
    if rule == "gradient":
        return signal * (forward > 0)
    if rule == "guided":
        return np.maximum(signal, 0) * (forward > 0)
    return np.maximum(signal, 0)


# %% [markdown]
# ## All together
#
# Set all units of conv2 to zero but one. Then go down: rectify, filter, unpool, rectify, filter.


# %%
def project(place: tuple[int, int, int], rule: str) -> np.ndarray:
    """Project one unit of conv2 to the pixels."""
    signal = np.zeros_like(answer2)
    signal[place] = 1
    signal = filter_backward(rectify(signal, answer2, rule), kernel2)
    signal = rectify(unpool(signal, switches), answer1, rule)
    return filter_backward(signal, kernel1)


# %%
place = (int(row), int(column), int(unit))
ours = {rule: project(place, rule) for rule in ("gradient", "deconvnet", "guided")}
pictures = [(digit + 1) / 2, *ours.values()]
show_images(pictures, ["image", *ours], columns=4, size=2.2)

# %% [markdown]
# Middle gray is zero: bright means that brighter pixels there would excite the unit, dark that
# darker ones would. Nothing lies outside of the unit's receptive field, 10 x 10 pixels. The three
# rules differ only in details here, because the network has a single pooling and two ReLUs. In
# AlexNet and VGG, with many layers, they differ much more: see lecture 8.
#
# ## What the switches do
#
# Without switches one would have to guess the place. Put every value in the upper left corner of
# its window, and the same unit paints a blurred pattern that does not follow the image.

# %%
correct = switches
switches = np.zeros_like(correct)
guessed = project(place, "deconvnet")
switches = correct
show_images([ours["deconvnet"], guessed], ["with switches", "upper left corner"], columns=2)

# %% [markdown]
# This is also a warning. The picture belongs to the unit *and* to this image, because the switches
# come from the image. Lecture 8 asks how much of it the network has learned at all.
#
# ## Exercises
#
# 1. Two pooling windows overlap and share their maximum. Should unpooling add the two values, or
#    keep one of them? Use the adjoint.
# 2. When do the rules "deconvnet" and "guided" agree?
#
# <details><summary>Answers</summary>
#
# 1. Add. With fixed switches pooling is a matrix that picks one value for each window. In the
#    transposed matrix, two rows that picked the same value both write to it.
# 2. Where the forward mask removes nothing. Below a pooling that is nearly always so: the signal
#    arrives only at maxima, and a maximum of a ReLU is positive unless the whole window is zero.
#
# </details>

# %% [markdown]
# ## Check
#
# cnnkit computes projections by another way: a derivative in which the rule of the ReLU is changed.
# Our functions know nothing of it. Both must agree, for each rule. The single filter must be
# SciPy's full convolution, and the identity of the adjoint must hold.

# %%
differences = {}
for rule, projection in ours.items():
    [result] = deconvnet(model, digit, "conv2", place[2], place[:2], rule=rule)
    differences[rule] = np.abs(result.projection - projection).max()
    print(f"{rule:10} largest difference {differences[rule]:.1e}")
painted = filter_backward(y[..., :1], kernel[:, :, :1, :1])[..., 0]
full = convolve2d(y[..., 0], kernel[:, :, 0, 0], mode="full")
assert max(differences.values()) < 1e-5, "The projections differ from cnnkit's."
assert np.abs(painted - full).max() < 1e-9, "The painted filters differ from SciPy's convolution."
assert abs(left - right) < 1e-9, "The transposed filter is not the adjoint."
