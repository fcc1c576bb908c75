# %% [markdown]
# # 4. Learning: momentum, weight decay, and a loss that does not move
#
# **Papers:** Krizhevsky et al. 2012 (AlexNet), section 5; Simonyan & Zisserman 2014 (VGG),
# section 3.1; Zeiler & Fergus 2013, section 3.1. **Reading time:** 12 minutes.
#
# All three papers learn with the same three lines: gradient, momentum, weight decay. Two details
# decide whether they work: where the decay stands, and how the weights begin.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
from lecture import read_digits

from cnnkit import alexnet
from cnnkit.training import SGD

# %% [markdown]
# ## A narrow valley
#
# Let the loss be a valley: 20 times steeper across than along. A step that is small enough not to
# jump out across the valley is very small along it.


# %%
def descend(rate: float, momentum: float, steps: int = 40) -> np.ndarray:
    """Descend from (-4, 1) in the valley (x² + 20 y²) / 2 and return all positions."""
    place, velocity = np.array([-4.0, 1.0]), np.zeros(2)
    path = [place]
    for _ in range(steps):
        gradient = place * [1, 20]
        velocity = momentum * velocity - rate * gradient
        place = place + velocity
        path.append(place)
    return np.array(path)


# %%
x, y = np.meshgrid(np.linspace(-4.5, 2, 200), np.linspace(-1.5, 1.5, 200))
figure, axes = plt.subplots(1, 2, figsize=(9, 2.6), layout="constrained", sharey=True)
for axis, momentum in zip(axes, (0.0, 0.7), strict=True):
    axis.contour(x, y, x**2 + 20 * y**2, levels=12, colors="lightgray")
    path = descend(0.04, momentum)
    axis.plot(*path.T, ".-")
    axis.plot(0, 0, "k*")
    distance = np.linalg.norm(path[-1])
    axis.set_title(f"momentum {momentum}: {distance:.4f} away after 40 steps")
plt.show()

# %% [markdown]
# ## The update of the paper
#
# Momentum keeps a part of the last step. AlexNet, section 5, writes it with 0.9 and a weight decay
# of 0.0005, for each weight *w* with the learning rate *e*:
#
#     v = 0.9 v - 0.0005 e w - e gradient
#     w = w + v
#
# Look where the decay is: *inside* of *v*. It is collected over steps, like the gradient. Nine
# tenths of each decay come again in the next step, so that one decay of 0.0005 e acts like
# 0.0005 e / (1 - 0.9): ten times as much. Many libraries decay the weight outside of *v*.


# %%
def decay_only(steps: int, inside: bool, rate: float = 0.01) -> np.ndarray:
    """Follow a weight of 1 whose gradient is 0."""
    weight, velocity, history = 1.0, 0.0, [1.0]
    for _ in range(steps):
        if inside:
            velocity = 0.9 * velocity - 0.0005 * rate * weight
            weight += velocity
        else:
            weight -= 0.0005 * rate * weight
        history.append(weight)
    return np.array(history)


# %%
inside, outside = decay_only(2000, inside=True), decay_only(2000, inside=False)
plt.figure(figsize=(6, 2.8), layout="constrained")
plt.plot(outside, label=f"outside of the momentum: {outside[-1]:.4f}")
plt.plot(inside, label=f"inside, as in the paper: {inside[-1]:.4f}")
plt.xlabel("steps with gradient 0")
plt.ylabel("weight")
plt.legend()
plt.show()

# %% [markdown]
# `cnnkit.training.SGD` has the paper's rule, and `weight_decay` of `keras.optimizers.SGD` the other
# one. Here are both on a real Keras variable:


# %%
def decay_in_keras(optimizer: keras.optimizers.Optimizer) -> float:
    """Apply 2,000 steps with a gradient of 0 to a weight of 1."""
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
    layer.build((None, 1))
    zero = [keras.ops.zeros((1, 1))]
    for _ in range(2000):
        optimizer.apply(zero, layer.trainable_variables)
    return float(layer.kernel.numpy()[0, 0])


cnnkit_weight = decay_in_keras(SGD(0.01, momentum=0.9, decay=5e-4))
keras_weight = decay_in_keras(keras.optimizers.SGD(0.01, momentum=0.9, weight_decay=5e-4))
print(f"cnnkit {cnnkit_weight:.6f}, Keras {keras_weight:.6f}")

# %% [markdown]
# ## A loss that stays at ln(classes)
#
# AlexNet begins with weights of a normal distribution with standard deviation 0.01. Whoever builds
# it again often sees a loss that does not move: 6.9 for 1,000 classes. Why this number? If the
# network says nothing, each class gets the probability 1/1000, and the loss is -ln(1/1000).

# %%
for classes in (10, 102, 1000):
    print(f"{classes:5} classes: {np.log(classes):.4f}")

# %% [markdown]
# Why does it say nothing? Send noise through ten layers and look at the size of the signal. With a
# standard deviation of 0.01, each layer of 1,000 inputs makes it more than 4 times smaller. What
# does not come up cannot come down either: the gradients shrink in the same way.


# %%
def signal_sizes(deviation: float, layers: int = 10, width: int = 1000) -> list[float]:
    """Return the root mean square after each ReLU layer with weights of a deviation."""
    random = np.random.default_rng(0)
    signal, sizes = random.normal(size=(64, width)), []
    for _ in range(layers):
        signal = np.maximum(signal @ random.normal(0, deviation, (width, width)), 0)
        sizes.append(float(np.sqrt(np.mean(signal**2))))
    return sizes


# %%
deviations = {"0.01": 0.01, "Glorot: √(1/n)": 1000**-0.5, "He: √(2/n)": (2 / 1000) ** 0.5}
plt.figure(figsize=(6, 3), layout="constrained")
sizes = {name: signal_sizes(deviation) for name, deviation in deviations.items()}
for name, curve in sizes.items():
    plt.semilogy(range(1, 11), curve, "o-", label=name)
plt.xlabel("layer")
plt.ylabel("size of the signal")
plt.legend(title="standard deviation")
plt.show()

# %% [markdown]
# A ReLU removes half of the squares. So a layer of *n* inputs multiplies the mean square by
# n d² / 2 for a deviation *d*. It stays the same for d = √(2/n): the rule of He et al. (2015).
#
# ## The same in AlexNet
#
# We train AlexNet on small images of digits, for a few steps, once with the paper's weights and
# once with those of Glorot & Bengio, which VGG recommends too (section 3.1).


# %%
def first_losses(initializer: str, steps: int = 44) -> np.ndarray:
    """Train AlexNet for some steps and return the loss of each."""
    keras.utils.set_random_seed(0)
    shape = {"input_shape": (64, 64, 3), "classes": 10, "hidden_units": 256}
    model = alexnet(initializer=initializer, bias_value=0.1, dropout=0.0, **shape)
    model.compile(SGD(0.004, momentum=0.9, decay=5e-4), "sparse_categorical_crossentropy")
    images, labels = read_digits(64, count=32 * steps)
    losses = []
    for batch in np.split(np.arange(32 * steps), steps):
        losses.append(model.train_on_batch(images[batch], labels[batch]))
        model.reset_metrics()  # or the next step returns the average of both
    return np.array(losses)


# %%
losses = {initializer: first_losses(initializer) for initializer in ("paper", "glorot")}
plt.figure(figsize=(6, 3), layout="constrained")
for initializer, curve in losses.items():
    plt.plot(range(1, len(curve) + 1), curve, label=initializer)
plt.axhline(np.log(10), color="gray", linestyle=":", label="ln(10)")
plt.ylim(0, 4)
plt.xlabel("step")
plt.ylabel("loss")
plt.legend()
plt.show()

# %% [markdown]
# The paper's network does start in the end: its authors waited, and the biases of 1 in some layers
# keep the ReLUs on. The cures that later authors found:
#
# - weights by the size of the layer (Glorot, He), as here;
# - a shallow network first, whose layers begin the deep one (VGG, section 3.1);
# - filters scaled down when their root mean square is above 0.1 (Zeiler & Fergus, section 3.1),
#   against the opposite problem: a few filters of the first layer that dominate.
#
# `cnnkit train` says so when the loss stays at ln(classes).

# %% [markdown]
# ## Exercises
#
# 1. The momentum is 0.99 in place of 0.9. How much does the decay inside of it act?
# 2. VGG's paper says a *variance* of 0.01. What does this do to the signal in a layer of 25,088
#    inputs, such as VGG's first dense layer?
#
# <details><summary>Answers</summary>
#
# 1. 1 / (1 - 0.99) = 100 times as much as one decay of 0.0005 e.
# 2. The deviation is 0.1. The mean square is multiplied by 25088 * 0.01 / 2 = 125, before the next
#    layer. Many programs use a deviation of 0.01 instead, which is another number.
#
# </details>

# %% [markdown]
# ## Check
#
# For a constant decay, *v* and *w* follow a linear recurrence, so the weight after 2,000 steps is a
# power of a 2 x 2 matrix. And the loss that does not move is ln(10) = 2.3026.

# %%
e = 0.01 * 0.0005
matrix = np.array([[0.9, -e], [0.9, 1 - e]])
exact = (np.linalg.matrix_power(matrix, 2000) @ [0, 1])[1]
per_layer = sizes["0.01"][-1] / sizes["0.01"][-2]
assert abs(cnnkit_weight - exact) < 1e-4, "The optimizer is not the paper's rule."
assert abs(exact - 0.905202) < 1e-6, "The recurrence differs."
assert abs(keras_weight - (1 - e) ** 2000) < 1e-4, "Keras's decay is another one."
assert abs(per_layer - 0.01 * np.sqrt(1000 / 2)) < 0.02, "The signal should shrink by √(n/2) d."
assert abs(losses["paper"][-1] - np.log(10)) < 0.05, "The loss should stay at ln(10)."
assert losses["glorot"][-10:].mean() < 0.85 * np.log(10), "With Glorot's weights it should fall."
print(f"weight {cnnkit_weight:.6f} (exact {exact:.6f}); loss {losses['paper'][-1]:.4f} = ln(10)")
