"""Weights in files of Keras, PyTorch, Caffe and NumPy, for the networks of the papers."""

from cnnkit.models.weights.assign import assign_weights as assign_weights
from cnnkit.models.weights.open import open_weights as open_weights
from cnnkit.models.weights.weights_file import WeightsFile as WeightsFile
