# %% [markdown]
# # 2. AlexNet, piece by piece
#
# **Paper:** Krizhevsky, Sutskever & Hinton 2012 (AlexNet), sections 3.1 to 3.5. The last part is
# about Zeiler & Fergus 2013, section 4.1. **Reading time:** 15 minutes.
#
# AlexNet is five convolutions and three dense layers. What was new is in the pieces between them:
# a nonlinearity, a normalization, a pooling, and a split over two GPUs. We take each one out of the
# network, look at it, and rebuild it from its formula.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
from lecture import find_data, read_digits, show_drawing

from cnnkit import alexnet
from cnnkit.figures import draw_filters
from cnnkit.layers import GroupedConv2D, LocalResponseNormalization
from cnnkit.models import summarize_network
from cnnkit.training import SGD
from cnnkit.visualize import filters

# %% [markdown]
# ## ReLU and tanh (section 3.1)
#
# A unit learns through the slope of its nonlinearity. The slope of tanh is 1 at zero, and almost
# nothing a few units away from it: the unit is *saturated*. The slope of a ReLU is 1 for every
# positive input, however large.

# %%
inputs = np.linspace(-6, 6, 241)
figure, axes = plt.subplots(1, 2, figsize=(8, 2.8), layout="constrained", sharex=True)
axes[0].plot(inputs, np.tanh(inputs), label="tanh")
axes[0].plot(inputs, np.maximum(inputs, 0), label="ReLU")
axes[1].plot(inputs, 1 - np.tanh(inputs) ** 2, label="tanh")
axes[1].plot(inputs, inputs > 0, label="ReLU")
axes[0].set(title="output", xlabel="input", ylim=(-1.5, 6))
axes[1].set(title="slope", xlabel="input")
axes[0].legend()
plt.show()

# %% [markdown]
# The paper's Fig. 1 counts epochs until a four-layer network on CIFAR-10 has 25 % training error:
# with ReLUs it needs six times fewer. We repeat the race with five small convolutions on digits,
# with one rate for both networks, and then with a rate ten times as large. As in the paper, the
# pixels are not scaled: only the mean is subtracted.


# %%
def race(activation: str, rate: float, steps: int = 50) -> list[float]:
    """Train a network for some steps and return the training error before each."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Rescaling(1, -80)])
    for width, stride in ((16, 2), (32, 2), (32, 1), (32, 1), (32, 1)):
        layer = keras.layers.Conv2D(width, 3, stride, padding="same", activation=activation)
        model.add(layer)
    model.add(keras.layers.Flatten())
    model.add(keras.layers.Dense(10, activation="softmax"))
    model.compile(SGD(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    images, labels = read_digits(16, count=512)
    errors = []
    for _ in range(steps):
        errors.append(1 - model.train_on_batch(images, labels)[1])
        model.reset_metrics()  # or the next step returns the average of both
    return errors


# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained", sharey=True)
for axis, rate in zip(axes, (0.001, 0.01), strict=True):
    for activation in ("relu", "tanh"):
        curve = np.array(race(activation, rate))
        first = np.flatnonzero(curve <= 0.25)[:1]
        reached = f"25 % after {first[0]} steps" if first.size else "25 % not reached"
        axis.plot(100 * curve, label=f"{activation}: {reached}")
    axis.axhline(25, color="gray", linestyle=":")
    axis.set(title=f"learning rate {rate}", xlabel="step")
    axis.legend()
axes[0].set_ylabel("training error (%)")
plt.show()

# %% [markdown]
# At the small rate, the ReLUs need four times fewer steps: tanh is saturated, and its slopes are
# small. With ten times the rate, tanh needs about as few as the ReLUs at theirs. The paper gave
# each network its own best rate and still found a factor of six, with a larger network and
# photographs. So a factor belongs to an experiment, not to a nonlinearity.
# [The results of cnnkit](../docs/results.md) have the paper's own race on CIFAR-10.
#
# ## Normalization of inputs
#
# The paper says that ReLUs do not *need* normalized inputs to avoid saturation. Feed a layer with
# pixels of 0..255, once as they are and once normalized, and count the units that hardly learn:
# a slope below 0.01.

# %%
pixels, _ = read_digits(16, count=256)
random = np.random.default_rng(0)
weights = random.normal(0, 1 / np.sqrt(768), (768, 1000))
for name, values in (("raw", pixels), ("normalized", (pixels - pixels.mean()) / pixels.std())):
    answers = values.reshape(256, -1) @ weights
    tanh, relu = np.mean(1 - np.tanh(answers) ** 2 < 0.01), np.mean(answers <= 0)
    print(f"{name:10} tanh saturated: {100 * tanh:5.1f} %   ReLU off: {100 * relu:5.1f} %")

# %% [markdown]
# Raw pixels saturate nearly all tanh units, and leave half of the ReLUs on.
#
# ## Local response normalization (section 3.3)
#
# Still, a kind of normalization helped. The activity *a* of map *i* is divided by a sum over its
# neighbors among the maps, at the same position:
#
#     b_i = a_i / (k + alpha * sum over j of a_j²) ^ beta,    j = i - n/2 ... i + n/2
#
# with k = 2, n = 5, alpha = 0.0001, beta = 0.75. The paper reports 1.4 and 1.2 points less top-1
# and top-5 error.


# %%
def normalize(activities: np.ndarray) -> np.ndarray:
    """Apply the formula of section 3.3 along the last axis."""
    padded = np.pad(activities**2, [(0, 0)] * (activities.ndim - 1) + [(2, 2)])
    sums = sum(padded[..., i : i + activities.shape[-1]] for i in range(5))
    return activities / (2 + 1e-4 * sums) ** 0.75


print("five ones: ", normalize(np.ones(5))[2])
print("a hundred: ", normalize(np.full(5, 100.0))[2])

# %% [markdown]
# Small activities are only scaled, by 2 to the power -0.75. Large ones are held back, and a strong
# map holds back its neighbors too: map 10 below has the activity 300, and all others 50.

# %%
activities = np.full(21, 50.0)
activities[10] = 300
plt.figure(figsize=(6, 2.8), layout="constrained")
plt.bar(range(21), activities / 2**0.75, color="lightgray", label="scaled only")
plt.bar(range(21), normalize(activities), width=0.5, label="normalized")
plt.xlabel("map")
plt.ylabel("activity")
plt.legend()
plt.show()

# %% [markdown]
# ## Two towers (sections 3.2 and 3.5)
#
# One GPU of 2012 had too little memory. The authors put half of the maps on each of two. conv2,
# conv4 and conv5 see only the maps of their own GPU: two convolutions side by side, today called a
# *grouped convolution*. Split the input and the filters in halves, and you get the same:

# %%
layer = GroupedConv2D(8, 3, groups=2, use_bias=False)
maps = random.normal(size=(1, 10, 10, 6)).astype("float32")
grouped = np.asarray(layer(maps))
kernel = np.asarray(layer.kernel)
halves = [
    np.asarray(keras.ops.conv(maps[..., 3 * i : 3 * i + 3], kernel[..., 4 * i : 4 * i + 4]))
    for i in (0, 1)
]
towers = np.concatenate(halves, axis=-1)
print("kernel:", kernel.shape, " largest difference:", np.abs(grouped - towers).max())

# %% [markdown]
# The two towers learn different things, in every run: one has filters of color, the other one has
# edges with hardly any color (Fig. 3). Which tower gets which is left to chance. With BVLC's
# weights you can see it: in this run, the first 48 filters got the color.

# %%
data = find_data("alexnet_bvlc_conv.npz")
if data:
    trained = alexnet(preset="caffe", include_top=False, weights=data[0], preprocessing="caffe")
    show_drawing(draw_filters, filters(trained), width=8)
    kernels = filters(trained).kernels
    color = np.abs(kernels - kernels.mean(axis=-1, keepdims=True)).mean(axis=(1, 2, 3))
    print(f"color in the first tower {color[:48].mean():.4f}, second {color[48:].mean():.4f}")

# %% [markdown]
# ## Where the work is
#
# Count the weights of each layer, and the multiplications for one image. The convolutions do nearly
# all the work with few weights. The dense layers are the opposite.

# %%
network = alexnet()
work = [row for row in summarize_network(network) if row.parameters]
for row in work:
    print(f"{row.name:6} {row.parameters:>11,} parameters {row.multiply_adds:>12,} multiply-adds")
print(f"total  {network.count_params():>11,} parameters")

# %% [markdown]
# ## Why 11 x 11 in steps of 4 looks wasteful
#
# Zeiler & Fergus (2013, section 4.1) looked at conv1 and conv2 of this network, and found patterns
# that are not in the images: *aliasing*. Look at stripes of 5 pixels, once at every pixel and once
# at every fourth. From the samples you would say that the stripes are 20 pixels wide.

# %%
places, samples = np.linspace(0, 80, 801), np.arange(0, 81, 4)
plt.figure(figsize=(8, 2.6), layout="constrained")
plt.plot(places, np.sin(2 * np.pi * places / 5), color="lightgray", label="stripes of 5 pixels")
plt.plot(samples, np.sin(2 * np.pi * samples / 5), "o-", label="every fourth pixel")
plt.xlabel("pixel")
plt.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False)
plt.show()

# %% [markdown]
# They changed conv1 to 7 x 7 filters in steps of 2. Their network, ZFNet, has 38.4 % top-1 error
# where their copy of AlexNet has 40.5 % (their Table 2). Not all of this is due to conv1: it also
# has no towers, and four times as many positions in conv1.
#
# ## Exercises
#
# 1. Fig. 2 of the paper prints 253,440 neurons for conv1, that is 55 * 48 * 96. What should it be?
# 2. How many parameters would conv2 have without the two towers?
#
# <details><summary>Answers</summary>
#
# 1. 55 * 55 * 96 = 290,400. With this number the sum is near the paper's 650,000 neurons.
# 2. 5 * 5 * 96 * 256 + 256 = 614,656 in place of 307,456: each filter sees 96 maps in place of 48.
#
# </details>

# %% [markdown]
# ## Check
#
# The abstract says 60 million parameters and 650,000 neurons. We count both from the sizes that the
# paper prints: filters, and positions. The LRN layer of cnnkit must follow the formula.

# %%
convolutions = [(11, 3, 96), (5, 48, 256), (3, 256, 384), (3, 192, 384), (3, 192, 256)]
dense = [(6 * 6 * 256, 4096), (4096, 4096), (4096, 1000)]
parameters = sum(k * k * c * n + n for k, c, n in convolutions) + sum(a * b + b for a, b in dense)
positions = [55, 27, 13, 13, 13]
neurons = sum(p * p * n for p, (_, _, n) in zip(positions, convolutions, strict=True))
neurons += 4096 + 4096 + 1000
assert parameters == network.count_params(), "The builder has other parameters."
assert abs(parameters / 60e6 - 1) < 0.02, "The paper says 60 million parameters."
assert abs(neurons / 650e3 - 1) < 0.02, "The paper says 650,000 neurons."
signal = random.uniform(0, 200, (1, 2, 2, 16)).astype("float32")
layer_answer = np.asarray(LocalResponseNormalization()(signal))
assert np.abs(layer_answer - normalize(signal)).max() < 1e-3, "The LRN layer differs."
assert np.abs(grouped - towers).max() < 1e-5, "Grouped convolution is not two convolutions."
print(f"{parameters:,} parameters (60 million) and {neurons:,} neurons (650,000).")
