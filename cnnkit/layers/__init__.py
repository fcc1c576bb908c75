"""Layers that Keras does not have.

Importing this module registers them with Keras. Import it once before `keras.saving.load_model`
reads a model that holds them; `cnnkit.load_model` does so itself. Files hold the registered names
(`cnnkit>ReLU`), so models saved by older versions load although the classes have moved.
"""

from cnnkit.layers.backward_rules import RULES as RULES
from cnnkit.layers.backward_rules import backward_rule as backward_rule
from cnnkit.layers.class_boxes import ClassBoxes as ClassBoxes
from cnnkit.layers.class_probabilities import ClassProbabilities as ClassProbabilities
from cnnkit.layers.grouped_conv import GroupedConv2D as GroupedConv2D
from cnnkit.layers.lrn import LocalResponseNormalization as LocalResponseNormalization
from cnnkit.layers.max_pooling import CeilMaxPooling2D as CeilMaxPooling2D
from cnnkit.layers.preprocessing import SubtractMean as SubtractMean
from cnnkit.layers.relu import ReLU as ReLU
from cnnkit.layers.replica_dropout import Dropout as Dropout
