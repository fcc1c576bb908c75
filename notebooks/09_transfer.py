# %% [markdown]
# # 9. Transfer: the features of one task for another
#
# **Papers:** Zeiler & Fergus 2013, sections 5.2 and 5.3, Tables 4 and 7;
# Simonyan & Zisserman 2014 (VGG), appendix B; Krizhevsky et al. 2012 (AlexNet), section 6.1 and
# Fig. 4. **Reading time:** 12 minutes.
#
# Caltech-101 has 30 photos of each class to learn from. That is not enough for a network: trained
# from nothing, it has 46.5 % accuracy (Zeiler & Fergus, Table 4). With the layers of a network that
# has learned ImageNet, and a new classifier on top of them, it has 86.5 %.

# %%
import matplotlib.pyplot as plt
import numpy as np
from lecture import center_square, find_data, show_drawing, show_images, train_on_digits
from sklearn.neighbors import NearestNeighbors
from sklearn.svm import LinearSVC

from cnnkit import alexnet_caffe
from cnnkit.data import load_dataset
from cnnkit.features import FeatureBatch, FeatureSpec, extract_layers, l2_normalize
from cnnkit.features import nearest_neighbors as find_nearest
from cnnkit.figures import draw_predictions
from cnnkit.transfer import fit_linear_classifier, random_split, score_features

# %% [markdown]
# ## Features
#
# The protocol of the papers needs 102 classes, up to 80 photos each, and an hour. We take a tenth:
# ten photos of each class, of which five are to learn from. A feature is the output of a layer for
# an image, as one long vector.

# %%
PER_CLASS = 10
data = find_data("alexnet_bvlc_conv.npz", "caltech101")
if data:
    options = {"weights": data[0], "preprocessing": "caffe", "input_shape": (227, 227, 3)}
    model, dataset = alexnet_caffe(include_top=False, **options), load_dataset(f"folder:{data[1]}")
else:
    model, dataset = train_on_digits(), load_dataset("digits")
split = dataset.splits["train"]
order = np.random.default_rng(0).permutation(len(split.labels))
firsts = [order[split.labels[order] == label][:PER_CLASS] for label in np.unique(split.labels)]
images = split.subset(np.concatenate(firsts))
print(len(images.labels), "images of", len(dataset.class_names), "classes")

# %%
layers = ["pool1", "pool2", "conv3", "conv4", "pool5"]
side = model.input_shape[1]
spec = FeatureSpec("pool5", image_size=side)
features = extract_layers(model, images, layers, spec=spec)
vectors = dict(zip(features.layers, features.values, strict=True))
for layer, values in vectors.items():
    print(f"{layer}: {values.shape[1]:,} numbers for each image")

# %% [markdown]
# ## Layer by layer (Table 7)
#
# On each layer, a linear support vector machine. Its parameter C is chosen on a fifth of the
# training images, as VGG's appendix B says. The number is the mean over classes of the share of
# test images that are right. So that it takes seconds, maps are first averaged to 6 x 6 places.


# %%
def smaller(values: np.ndarray, layer: str) -> np.ndarray:
    """Average the places of a layer's maps to 6 x 6 or fewer."""
    shape = model.get_layer(layer).output.shape[1:]
    step = max(1, shape[0] // 6)
    count = shape[0] // step
    maps = values.reshape(-1, *shape)[:, : count * step, : count * step]
    maps = maps.reshape(len(values), count, step, count, step, shape[2]).mean((2, 4))
    return maps.reshape(len(values), -1)


# %%
scores = {}
for layer, values in vectors.items():
    batch = FeatureBatch(
        l2_normalize(smaller(values, layer)), images.names, images.labels, dataset.class_names
    )
    scores[layer] = score_features(batch, layer, per_class=5, test_per_class=5, splits=1)
    print(f"{layer}: {100 * scores[layer].mean:.1f} %")

# %%
TABLE_7 = {"pool1": 44.8, "pool2": 66.2, "conv3": 72.3, "conv4": 76.6, "pool5": 86.2}
plt.figure(figsize=(6, 3), layout="constrained")
plt.plot(layers, [100 * scores[layer].mean for layer in layers], "o-", label="here, 5 a class")
plt.plot(layers, list(TABLE_7.values()), "s--", label="Table 7: ZFNet, Caltech-101, 30 a class")
plt.ylabel("mean class recall (%)")
plt.ylim(0, 100)
plt.legend()
plt.show()

# %% [markdown]
# Both curves rise with the layer. What the upper layers have learned for ImageNet serves another
# task better than edges and textures do. (With digits, all layers do well: the classes are simple.)
#
# ## Nearest images (AlexNet, Fig. 4)
#
# The paper compares images by the Euclidean distance of their features, and finds images that are
# alike for us, though their pixels differ. In each row the first image is the query.

# %%
pool5 = l2_normalize(vectors["pool5"])
queries = np.arange(0, len(pool5), len(pool5) // 4)[:4] + 1
near = find_nearest(pool5[queries], pool5, k=6).indices
shown = [center_square(images.load_image(int(i)), 96) for row in near for i in row]
titles = [dataset.class_names[images.labels[i]][:14] for row in near for i in row]
show_images(shown, titles, columns=6, size=1.6)

# %% [markdown]
# ## What it gets wrong (AlexNet, Fig. 4 left)
#
# Train a classifier with probabilities on half of the images, and look at the test images where it
# is surest and wrong. The panel shows the most probable classes; often the mistake is one that you
# could make too.

# %%
learned, tested = random_split(images.labels, dataset.class_names, 5, 5, seed=0)
softmax, c = fit_linear_classifier(pool5[learned], images.labels[learned], "softmax")
probabilities = softmax.predict_proba(pool5[tested])
wrong = np.flatnonzero(probabilities.argmax(1) != images.labels[tested])
surest = wrong[np.argsort(-probabilities[wrong].max(1))][:8]
print(f"C = {c}, {len(wrong)} of {len(tested)} test images are wrong")


# %%
def prediction(row: int) -> dict:
    """Describe a prediction for `draw_predictions`."""
    best = np.argsort(-probabilities[row])[:5]
    top = [(dataset.class_names[i], float(probabilities[row, i])) for i in best]
    label = dataset.class_names[images.labels[tested[row]]]
    return {"label": label, "top": top, "name": images.names[tested[row]]}


pictures = [center_square(images.load_image(int(tested[row])), 160) for row in surest]
pictures = [np.round(picture).astype("uint8") for picture in pictures]
show_drawing(draw_predictions, pictures, [prediction(row) for row in surest])

# %% [markdown]
# ## Exercises
#
# 1. Why does the mean over *classes* matter? Caltech-101 has 31 to 800 images of a class.
# 2. Some images of Caltech-101 are in ImageNet too. What should one do, and in which set?
# 3. VGG's appendix B makes all vectors one unit long before the classifier. What does this change?
#
# <details><summary>Answers</summary>
#
# 1. Over images, a network that knows only airplanes, faces and motorbikes would look good.
# 2. Zeiler & Fergus found 44 of 9,144 and removed them from the training set of the network, which
#    they trained again. One can also remove them from the new task: `drop_duplicates`.
# 3. Bright or busy images have longer vectors. Without the length, only the direction counts, and
#    one value of C suits all images.
#
# </details>

# %% [markdown]
# ## Check
#
# scikit-learn, without any code of ours: a linear SVM on pool5 with the same images must have the
# same recall, up to a few images, and its nearest neighbors must be ours. And the classifier must
# be far above chance.

# %%
used = scores["pool5"].splits[0]
train_rows, test_rows = random_split(images.labels, dataset.class_names, 5, 5, seed=used.seed)
reduced = l2_normalize(smaller(vectors["pool5"], "pool5"))
svm = LinearSVC(C=used.c).fit(reduced[train_rows], images.labels[train_rows])
hits = svm.predict(reduced[test_rows]) == images.labels[test_rows]
truth = images.labels[test_rows]
recall = np.mean([hits[truth == label].mean() for label in np.unique(truth)])
nearest = NearestNeighbors(n_neighbors=6).fit(pool5).kneighbors(pool5[queries])[1]
chance = 1 / len(dataset.class_names)
assert abs(recall - scores["pool5"].mean) < 0.03, "scikit-learn's SVM has another recall."
assert np.array_equal(nearest, near), "scikit-learn finds other neighbors."
assert scores["pool5"].mean > 10 * chance or scores["pool5"].mean > 0.8, "Hardly above chance."
print(f"recall {100 * recall:.1f} % by scikit-learn, {100 * scores['pool5'].mean:.1f} % by cnnkit")
