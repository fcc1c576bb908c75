# %% [markdown]
# # 10. Serving: a network behind a wire
#
# **Papers:** Krizhevsky et al. 2012 (AlexNet), section 4.1, for what happens to an image before the
# network; Zeiler & Fergus 2013, section 2.1, for what comes back. **Reading time:** 10 minutes.
#
# A trained network is a function. To use it in another program, on another machine, in another
# language, one saves it as a graph, starts a server, and calls it. Most errors happen on the way:
# in the colors, the sizes, the scale of pixels. So we check each step.

# %%
import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from lecture import read_digits, show_images

from cnnkit.client import Client, InvalidRequest
from cnnkit.export import export
from cnnkit.layers import SubtractMean
from cnnkit.server import EmbeddedServer
from cnnkit.training import SGD
from cnnkit.visualize import deconvnet

# %% [markdown]
# ## A network
#
# A small one, trained for some seconds on handwritten digits. It takes RGB images in 0..255, and
# subtracts the mean *itself*: the first layer is a part of the model. Nobody who calls it can
# forget to subtract, or subtract twice.

# %%
keras.utils.set_random_seed(0)
inputs = keras.Input((32, 32, 3))
maps = SubtractMean([60, 60, 60], std=[60, 60, 60])(inputs)
for number, width in enumerate((16, 32), 1):
    convolution = keras.layers.Conv2D(width, 3, activation="relu", name=f"conv{number}")
    maps = keras.layers.MaxPooling2D(3, 2, name=f"pool{number}")(convolution(maps))
hidden = keras.layers.Dense(64, activation="relu", name="fc1")(keras.layers.Flatten()(maps))
outputs = keras.layers.Dense(10, activation="softmax", name="predictions")(hidden)
model = keras.Model(inputs, outputs, name="digits")
images, labels = read_digits(32)
test_images, test_labels = read_digits(32, "test")
model.compile(SGD(0.05), "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(images, labels, batch_size=64, epochs=4, verbose=0)
error = 1 - model.evaluate(test_images, test_labels, verbose=0)[1]
print(f"test error {100 * error:.1f} %")

# %% [markdown]
# ## A SavedModel
#
# `export` writes a folder that TensorFlow Serving can load: a graph, its weights, and *signatures*,
# which are functions with named inputs and outputs. One takes pixels, others take whole image
# files; one returns features, and one an explanation. Versions are folders with numbers.

# %%
folder = Path(tempfile.mkdtemp())
names = [str(digit) for digit in range(10)]
version = export(model, names, folder / "digits", explain_layers=["conv2"], top=3)
for path in sorted(version.rglob("*")):
    if path.is_file():
        print(f"{path.relative_to(folder)}  {path.stat().st_size:,} bytes")

# %% [markdown]
# ## A server and a client
#
# The server runs in this process, on the loopback interface. It speaks gRPC, with the messages of
# TensorFlow Serving: a client for one is a client for the other. Ask it what it can do:

# %%
server = EmbeddedServer({"digits": folder / "digits"})
server.start()
client = Client(server.address)
for name, signature in client.metadata("digits").items():
    arguments = ", ".join(f"{key}: {one.dtype}" for key, one in signature.inputs.items())
    print(f"{name}({arguments}) -> {', '.join(signature.outputs)}")

# %% [markdown]
# ## Pixels over the wire
#
# Send five digits as arrays. The answer holds the probabilities of all classes.

# %%
five = test_images[:5]
response = client.predict(five, model="digits")
[probabilities] = response.values()
titles = [f"{row.argmax()}: {100 * row.max():.0f} %" for row in probabilities]
show_images(five, titles, columns=5, size=1.5)

# %% [markdown]
# ## Files over the wire
#
# Most callers have files, not arrays. The server decodes and resizes them with the same graph that
# was checked at the export. How many bytes does each way cost?

# %%
encoded = [tf.io.encode_png(tf.cast(tf.round(image), tf.uint8)).numpy() for image in five]
answers = client.classify(encoded, model="digits", top=3)
for answer in answers[:2]:
    print([f"{one.label}: {one.probability:.3f}" for one in answer])
print(f"five PNG files {sum(map(len, encoded)):,} bytes, five arrays {five.nbytes:,} bytes")

# %% [markdown]
# ## An explanation over the wire
#
# The deconvnet is a graph like any other, so it can be a signature too. The client needs no Keras,
# no weights, and no knowledge of the network. Here is the strongest unit of conv2 for each digit,
# projected to the pixels:

# %%
explanations = client.explain(encoded, model="digits", layer="conv2")
projections = [one.projection for one in explanations]
show_images([*five, *projections], columns=5, size=1.5)

# %% [markdown]
# ## Errors over the wire
#
# A server meets wrong requests every day. Each must have a code that programs can read, and a text
# that people can read. Send an image with one color channel, as an array of another shape:

# %%
try:
    client.predict(np.zeros((1, 32, 32, 1), "float32"), model="digits")
    problem = None
except (InvalidRequest, ValueError) as caught:
    problem = caught
print(type(problem).__name__, "-", problem)

# %% [markdown]
# The client knows the signature, so it refuses the array before it sends anything.
#
# ## Exercises
#
# 1. Why are the pixels of a network sent as 0..255, and not with the mean subtracted?
# 2. A client sends BGR in place of RGB. Which error code does it get?
#
# <details><summary>Answers</summary>
#
# 1. The mean is a part of the model, like its weights. A new version may have another mean, and no
#    client has to change.
# 2. None. The numbers are valid, and the answers are wrong. That is why a check with known images
#    belongs to every deployment: `cnnkit export verify`.
#
# </details>

# %% [markdown]
# ## Check
#
# Three ways to the same number: Keras in this process, the graph loaded by TensorFlow alone, and
# the server. They must agree. So must the projection, computed here and sent from there. The pixels
# of a PNG file are rounded, so for files we round here too.

# %%
by_keras = np.asarray(model(five))
graph = tf.saved_model.load(str(version)).signatures["serving_default"]
[by_graph] = graph(tf.constant(five)).values()
rounded = np.round(five)
local = deconvnet(model, rounded, "conv2")
wire = max(np.abs(a - b.projection).max() for a, b in zip(projections, local, strict=True))
files = [
    answer[0].probability - row.max()
    for answer, row in zip(answers, model(rounded).numpy(), strict=True)
]
assert np.abs(probabilities - by_keras).max() < 1e-5, "The server differs from Keras."
assert np.abs(by_graph - by_keras).max() < 1e-5, "The SavedModel differs from Keras."
assert wire < 1e-4, "The projection from the server differs."
assert np.abs(files).max() < 1e-4, "Files differ from arrays."
assert problem is not None, "The wrong shape was not refused."
client.close()
server.stop()
print(f"largest difference over the wire {np.abs(probabilities - by_keras).max():.1e}")
