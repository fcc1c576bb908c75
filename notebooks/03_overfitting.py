# %% [markdown]
# # 3. Overfitting: augmentation, dropout and weight decay
#
# **Papers:** Krizhevsky et al. 2012 (AlexNet), sections 4.1, 4.2 and 5; Simonyan & Zisserman 2014
# (VGG), section 3.1. **Reading time:** 10 minutes.
#
# AlexNet has 60 million parameters and 1.2 million images. Without help it learns the images by
# heart. The paper names two helpers in section 4, and a third in section 5. Here you switch each of
# them off, on a problem that is small enough for a lecture: 100 handwritten digits.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
from lecture import find_data, read_digits, read_photo, show_images
from scipy.ndimage import shift
from sklearn.linear_model import LogisticRegression

from cnnkit.data import ColorComponents, PCAColorNoise
from cnnkit.layers import Dropout
from cnnkit.training import SGD

# %% [markdown]
# ## One hundred images
#
# Ten training images of each digit, and 359 test images that the network never learns from. With so
# few, any network of some size can learn all of them by heart. The question is what it does with
# the others.

# %%
all_images, all_labels = read_digits(8)
chosen = np.concatenate([np.flatnonzero(all_labels == digit)[:10] for digit in range(10)])
train_images, train_labels = all_images[chosen], all_labels[chosen]
test_images, test_labels = read_digits(8, "test")
show_images(train_images[::10], train_labels[::10], columns=10, size=0.9)

# %% [markdown]
# ## Augmentation (section 4.1)
#
# Change the image and keep the label. AlexNet takes random crops of 224 from images of 256 pixels,
# and mirrors them: the paper counts 32 * 32 * 2 = 2,048 variants of each image. Digits must not be
# mirrored. We only shift them, by up to one pixel in each direction: 9 variants.


# %%
def augment(images: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Shift each image by -1 to 1 pixels in both directions."""
    padded = np.pad(images, [(0, 0), (1, 1), (1, 1), (0, 0)])
    places = random.integers(0, 3, (len(images), 2))
    return np.stack(
        [image[i : i + 8, j : j + 8] for image, (i, j) in zip(padded, places, strict=True)]
    )


variants = np.concatenate([augment(train_images[:1], np.random.default_rng(i)) for i in range(10)])
show_images(variants, columns=10, size=0.9)

# %% [markdown]
# The second augmentation of the paper changes the colors: a random amount of each principal
# component of all pixels' colors is added to the whole image. The first component of photographs is
# brightness. Here with ten times the paper's strength, so that one can see it.

# %%
data = find_data("photos/chelsea.png")
photo = read_photo(data[0], 160) if data else np.repeat(train_images[:1], 8, 1).repeat(8, 2)[0]
values, vectors = np.linalg.eigh(np.cov(photo.reshape(-1, 3).T))
components = ColorComponents.from_arrays(values[::-1].clip(0), vectors[:, ::-1])
noise = PCAColorNoise(components, deviation=1.0)
random = np.random.default_rng(0)
amounts = random.normal(size=(6, 3)) * noise.deviations
colored = [photo + vectors[:, ::-1] @ amount for amount in amounts]
show_images([np.clip(image, 0, 255) for image in colored], columns=6, size=1.5)

# %% [markdown]
# ## Dropout (section 4.2)
#
# Set each hidden unit to zero with probability one half, anew for each image. No unit can rely on
# another one. At test time all units are on; the paper halves their outputs then. Keras doubles the
# outputs during training instead, which has the same expectation.

# %%
dropout = Dropout(0.5, seed=1)
units = np.ones((1000, 100), "float32")
dropped = np.asarray(dropout(units, training=True))
print("values in training:", np.unique(dropped), " mean", dropped.mean())
print("values in testing: ", np.unique(np.asarray(dropout(units, training=False))))

# %% [markdown]
# ## Weight decay (section 5)
#
# In each step, every weight moves a little towards zero. Weights that the data do not need
# disappear. The paper uses 0.0005 and adds that it also made the *training* error lower. The next
# lecture is about the exact formula. In our short training, we use 0.005.
#
# ## The experiment
#
# One network, one function. Each helper can be switched off.


# %%
def build(dropout_rate: float, decay: float, seed: int) -> keras.Model:
    """Build a network of two convolutions and two dense layers, compiled."""
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Rescaling(1 / 128, -1)])
    for width in (32, 64):
        model.add(keras.layers.Conv2D(width, 3, padding="same", activation="relu"))
        model.add(keras.layers.MaxPooling2D())
    model.add(keras.layers.Flatten())
    model.add(keras.layers.Dense(256, activation="relu"))
    model.add(Dropout(dropout_rate))
    model.add(keras.layers.Dense(10, activation="softmax"))
    optimizer = SGD(0.05, momentum=0.9, decay=decay)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


# %%
def experiment(shifts: bool = True, rate: float = 0.5, decay: float = 0.005) -> np.ndarray:
    """Train for 200 steps and return [step, training error, test error] every 20 steps."""
    model, random, curve = build(rate, decay, seed=0), np.random.default_rng(0), []
    for step in range(200):
        images = augment(train_images, random) if shifts else train_images
        model.train_on_batch(images, train_labels)
        if step % 20 == 19:
            seen = model.predict_on_batch(train_images).argmax(1) != train_labels
            unseen = model.predict_on_batch(test_images).argmax(1) != test_labels
            curve.append([step + 1, seen.mean(), unseen.mean()])
    return np.array(curve)


# %%
curves = {
    "all three": experiment(),
    "no augmentation": experiment(shifts=False),
    "no dropout": experiment(rate=0.0),
    "no weight decay": experiment(decay=0.0),
    "none": experiment(shifts=False, rate=0.0, decay=0.0),
}
for name, curve in curves.items():
    print(f"{name:16} training {100 * curve[-1, 1]:5.1f} %   test {100 * curve[-1, 2]:5.1f} %")

# %%
figure, axes = plt.subplots(1, 5, figsize=(12, 2.8), layout="constrained", sharey=True)
for axis, (name, curve) in zip(axes, curves.items(), strict=True):
    axis.plot(curve[:, 0], 100 * curve[:, 1], label="training")
    axis.plot(curve[:, 0], 100 * curve[:, 2], label="test")
    axis.set_title(name, fontsize=11)
    axis.set_ylim(0, 40)
    axis.set_xlabel("step")
axes[0].set_ylabel("error (%)")
axes[0].legend()
plt.show()

# %% [markdown]
# Read the gap between the curves, not their height. In every panel the training error falls to
# almost nothing: the network knows its hundred images by heart. On the test images, augmentation
# makes the largest difference here: it is the only helper that brings something new. This is one
# problem and one seed. Do not take the order of the helpers from it.
#
# ## What a test error of 359 images can tell
#
# The standard error of a proportion *p* is √(p (1 - p) / n). Two errors whose difference is smaller
# than about two of these may be equal.

# %%
error = curves["all three"][-1, 2]
deviation = np.sqrt(error * (1 - error) / len(test_labels))
print(f"all three: {100 * error:.1f} % ± {100 * deviation:.1f} points")

# %% [markdown]
# ## Exercises
#
# 1. Why does the paper mirror photographs, but never turn them upside down?
# 2. In a layer of 4,096 units with dropout of one half, how many different networks are trained?
# 3. VGG draws the size of each training image between 256 and 512 pixels (section 3.1). How is this
#    like a shift, and what does it teach?
#
# <details><summary>Answers</summary>
#
# 1. Mirrored photographs occur in the world, and in the test images. Upside-down ones do not.
# 2. 2 to the power 4,096. They share their weights, and each is used about once.
# 3. It is another change that keeps the label. It teaches that objects have many sizes: VGG's
#    Table 3 has 25.6 % for network D with it, and 26.8 or 27.0 % with one size.
#
# </details>

# %% [markdown]
# ## Check
#
# Dropout multiplies by 0 or 2 with equal chance: mean 1, variance 1. A shift must be SciPy's shift.
# And a network with all helpers must beat what needs no network: scikit-learn's logistic regression
# on the same hundred images.

# %%
linear = LogisticRegression(max_iter=2000).fit(train_images.reshape(100, -1) / 255, train_labels)
linear_error = 1 - linear.score(test_images.reshape(len(test_images), -1) / 255, test_labels)
places = np.random.default_rng(3).integers(0, 3, (1, 2))[0]
moved = augment(train_images[:1], np.random.default_rng(3))[0]
expected = shift(train_images[0], [*(1 - places), 0], order=0)
assert np.array_equal(moved, expected), "The augmentation is not a shift."
assert abs(dropped.mean() - 1) < 0.02, "Dropout changes the mean."
assert abs(dropped.var() - 1) < 0.02, "The variance of dropout should be p / (1 - p) = 1."
assert error < linear_error, "The network should beat a linear classifier."
assert error < curves["none"][-1, 2], "The helpers should help."
print(f"test error {100 * error:.1f} %, linear classifier {100 * linear_error:.1f} %")
