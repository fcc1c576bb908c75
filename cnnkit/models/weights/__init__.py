"""Weights that people have: files of Keras, PyTorch, Caffe and NumPy into the papers' networks."""

from cnnkit.models.weights.filling import fill as fill
from cnnkit.models.weights.recognize import open_weights as open_weights
from cnnkit.models.weights.stored import WeightsFile as WeightsFile
