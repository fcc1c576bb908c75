# %% [markdown]
# # 8. Invariance, occlusion, and what pictures do not show
#
# **Papers:** Zeiler & Fergus 2013, sections 4.2 and 4.3, Figures 5, 7 and 8, Table 1; Adebayo et
# al. 2018 (sanity checks). **Reading time:** 15 minutes.
#
# Three experiments on a trained classifier. Move the image: what changes inside? Cover a part: what
# does the network miss? Cover the *same* part in several images: does the network know that it is
# the same? At the end, an experiment on the pictures themselves.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
from lecture import find_data, read_classes, read_digits, show_drawing, show_images, train_on_digits
from sklearn.linear_model import LogisticRegression

from cnnkit import alexnet_caffe
from cnnkit.figures import draw_comparison, draw_occlusion
from cnnkit.visualize import (
    Box,
    compare_attributions,
    correspondence,
    invariance,
    occlusion,
    transform_image,
)

# %% [markdown]
# ## A classifier
#
# AlexNet's convolutions know ImageNet. We need a network that knows 20 classes of Caltech-101. The
# quickest way is a linear classifier on the outputs of pool5, here by scikit-learn. Its weights
# become the last layer of the network.


# %%
def with_classifier(base: keras.Model, images: np.ndarray, labels: np.ndarray) -> keras.Model:
    """Put a logistic regression on the last maps of a network."""
    features = base.predict(images, batch_size=20, verbose=0).reshape(len(images), -1)
    fitted = LogisticRegression(C=1e-4, max_iter=200).fit(features, labels)
    flat = keras.layers.Flatten(name="flatten")(base.output)
    dense = keras.layers.Dense(fitted.coef_.shape[0], activation="softmax", name="classes")
    model = keras.Model(base.input, dense(flat))
    dense.set_weights([fitted.coef_.T, fitted.intercept_])
    return model


# %%
data = find_data("alexnet_bvlc_conv.npz", "caltech20")
if data:
    options = {"weights": data[0], "preprocessing": "caffe", "input_shape": (227, 227, 3)}
    images, labels, names = read_classes(data[1], 227, 14)
    learned = np.arange(len(images)) % 14 < 10
    base = alexnet_caffe(include_top=False, **options)
    model = with_classifier(base, images[learned], labels[learned])
    images, labels = images[~learned], labels[~learned]
else:
    model, (images, labels) = train_on_digits(), read_digits(64, "test", 80)
    names = [str(digit) for digit in range(10)]
probabilities = model.predict(images, batch_size=20, verbose=0)
error = np.mean(probabilities.argmax(1) != labels)
print(f"{len(images)} images that it has not seen: {100 * error:.0f} % error")

# %% [markdown]
# ## Invariance (Fig. 5)
#
# Shift the image up and down, and measure how far its features move, as a share of their length: in
# conv1, and in the last layer before the classes. Gray fills the border.

# %%
right = np.flatnonzero(probabilities.argmax(1) == labels)
place = right[[0, len(right) // 4, len(right) // 2, 3 * len(right) // 4]]
chosen, truth = images[place], labels[place]
side = chosen.shape[1]
moves = np.arange(-4, 5) * (side // 16)
shifted = [transform_image(chosen[0], "translation", move) for move in moves]
show_images(shifted, [f"{move}" for move in moves], columns=9, size=1.2)

# %%
last = "pool5"
kinds = {"translation": moves, "scale": np.linspace(1, 1.8, 9), "rotation": np.arange(0, 360, 30)}
options = {"layers": ["conv1", last], "labels": truth.tolist()}
changes = {
    kind: invariance(model, chosen, kind, amounts=amounts.tolist(), **options)
    for kind, amounts in kinds.items()
}

# %%
figure, axes = plt.subplots(3, 3, figsize=(10, 6.5), layout="constrained", sharex="row")
for row, (kind, result) in zip(axes, changes.items(), strict=True):
    for axis, distances, norms in zip(row, result.distances, result.norms, strict=False):
        axis.plot(result.amounts, (distances / norms[:, None]).T)
        axis.set_ylim(0, 2)
    row[2].plot(result.amounts, result.probabilities.T)
    row[2].set_ylim(0, 1.05)
    row[0].set_ylabel(kind)
for axis, title in zip(axes[0], ["conv1", last, "probability"], strict=True):
    axis.set_title(title if title == "probability" else f"relative change of {title}")
axes[0, 2].legend([names[label] for label in truth], loc="upper left", bbox_to_anchor=(1, 1))
plt.show()

# %% [markdown]
# conv1 changes at once, by a small shift, and then stays far away. The upper layer changes step by
# step: it still knows a part of the image. Rotation is another matter: few photos of the training
# set were turned, and the probability falls, unless the object looks the same when turned.
#
# ## Occlusion (Fig. 7)
#
# Move a gray square over the image. Record (b) the activity of the strongest map of the last layer,
# (d) the probability of the right class, (e) the most probable class. The paper gives neither the
# size of the square nor the step; we take a fifth of the image.

# %%
subject = chosen[-1]
square = side // 5
covered = occlusion(model, subject, square, side // 16, target=int(truth[-1]))
show_drawing(draw_occlusion, subject, covered, names=names)
print(f"{names[truth[-1]]}: {covered.clean_probability:.3f} uncovered, ")
print(f"at least {covered.probability.min():.3f} and at most {covered.probability.max():.3f}")

# %% [markdown]
# If the probability falls only where the object is, the network looks at the object and not at its
# surroundings. That is more than a saliency map can tell: here something was really taken away.
#
# ## Correspondence (Fig. 8 and Table 1)
#
# Take several images of one kind. Cover the left eye in each. The change of the features is a
# vector; if the network knows what an eye is, the changes of all images should be alike. The paper
# compares their signs (+, -, 0), and counts how many differ. Small numbers mean correspondence.

# %%
kind = list(names).index("Faces_easy") if data else 8
same = images[labels == kind][:4]
scale = side / 227
parts = {"left eye": (70, 55), "right eye": (70, 116), "mouth": (145, 90)}
if not data:
    parts = {"upper loop": (50, 90), "lower loop": (130, 90)}
corners = {part: [int(v * scale) for v in corner] for part, corner in parts.items()}
width = int(48 * scale)
boxes = {part: [Box(t, x, t + width, x + width)] * 4 for part, (t, x) in corners.items()}
examples = np.repeat(same[:1], len(parts), axis=0).copy()
for example, [box, *_] in zip(examples, boxes.values(), strict=True):
    example[box.slices] = 128
show_images([*same, *examples], ["", "", "", "", *parts], columns=7, size=1.6)

# %%
matches = correspondence(model, same, boxes, [last])[last]
for part in matches.parts:
    print(f"{part:12} {matches.mean(part):.3f} ± {matches.std(part):.3f}")

# %% [markdown]
# Compare the parts with "random", squares at places that are unrelated. In the paper's Table 1,
# layer 5 has 0.067 to 0.079 for eyes and nose and 0.107 for random places.
#
# ## What pictures do not show
#
# Guided back-propagation draws beautiful pictures. Do they show what the network has *learned*?
# Adebayo et al. shuffle the weights of the upper layers. The network then knows nothing any more. A
# picture that explains its decision must change.

# %%
top = "classes" if data else "fc8"
check = compare_attributions(
    model, subject, ["guided", "deconvnet", "gradient", "gradcam"], down_to=[top, "conv5", "conv3"]
)
show_drawing(draw_comparison, subject, check)

# %% [markdown]
# Read the columns downwards: the first row is the trained network, the others have random weights,
# from the top down to the layer named. A method that still draws the same picture shows edges of
# the image, not reasons of the network. The numbers are rank correlations with the first row.

# %%
print("random weights down to", *(f"{method:>10}" for method in check.methods))
for stage, row in zip(check.stages, check.correlations, strict=True):
    print(f"{stage:22}", *(f"{value:10.2f}" for value in row))

# %% [markdown]
# ## Exercises
#
# 1. A gray square is itself a thing to see. How would you find out whether the network reacts to
#    the square, and not to what is missing?
# 2. The network has a probability of 0.999 wherever the square is. Does it not need the object?
#
# <details><summary>Answers</summary>
#
# 1. Cover with other colors, with blur, or with pixels of other images (`fill` of `occlusion`), and
#    compare. Cover the background: there a square should change nothing.
# 2. Not at the size of this square: there are other parts that suffice. Take a larger square, and
#    look at the score before the softmax (`covered.score`), which does not saturate.
#
# </details>

# %% [markdown]
# ## Check
#
# Cover one place by hand, with NumPy, and ask the network: the map must hold this probability. For
# the features of a shifted image, compute one distance by hand too. And shuffled weights must
# change Grad-CAM more than guided back-propagation, which is the result of Adebayo et al.

# %%
i, j = np.unravel_index(covered.probability.argmin(), covered.probability.shape)
by_hand = subject.copy()
top_left = covered.rows[i], covered.columns[j]
by_hand[top_left[0] : top_left[0] + square, top_left[1] : top_left[1] + square] = covered.fill
probability = model.predict(by_hand[None], verbose=0)[0, truth[-1]]
inner = keras.Model(model.input, model.get_layer(last).output)
pair = inner.predict(np.stack([chosen[0], shifted[0]]), verbose=0)
distance = np.linalg.norm(pair[0] - pair[1])
guided, cam = check.correlations[0, 0], check.correlations[0, -1]
assert abs(probability - covered.probability[i, j]) < 1e-4, "The occlusion map differs."
ratio = distance / changes["translation"].distances[1, 0, 0]
assert abs(ratio - 1) < 1e-3, "The distance of the features differs."
assert cam < guided, "Grad-CAM should change more than guided back-propagation."
print(f"covered by hand {probability:.5f}, in the map {covered.probability[i, j]:.5f}")
