"""The layers that Keras does not have, registered so that saved models find them.

Importing this module is what registers them: `keras.saving.load_model` needs it once before it
reads a model of ours (`cnnkit.load_model` does that itself).
"""

from cnnkit.layers.backward_rules import RULES as RULES
from cnnkit.layers.backward_rules import backward_rule as backward_rule
from cnnkit.layers.class_probabilities import ClassProbabilities as ClassProbabilities
from cnnkit.layers.grouped_conv import GroupedConv2D as GroupedConv2D
from cnnkit.layers.lrn import LocalResponseNormalization as LocalResponseNormalization
from cnnkit.layers.max_pooling import CeilMaxPooling2D as CeilMaxPooling2D
from cnnkit.layers.preprocessing import SubtractMean as SubtractMean
from cnnkit.layers.relu import ReLU as ReLU
from cnnkit.layers.replica_dropout import Dropout as Dropout
