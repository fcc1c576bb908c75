"""The layers that Keras does not have, registered so that saved models find them.

Importing this module is what registers them: `keras.saving.load_model` needs it once before it
reads a model of ours (`cnnkit.load_model` does that itself).
"""

from cnnkit.layers.activation import ReLU as ReLU
from cnnkit.layers.convolution import GroupedConv2D as GroupedConv2D
from cnnkit.layers.dropout import Dropout as Dropout
from cnnkit.layers.normalization import (
    LocalResponseNormalization as LocalResponseNormalization,
)
from cnnkit.layers.pooling import CeilMaxPooling2D as CeilMaxPooling2D
from cnnkit.layers.preprocessing import SubtractMean as SubtractMean
from cnnkit.layers.probabilities import Probabilities as Probabilities
from cnnkit.layers.rules import RULES as RULES
from cnnkit.layers.rules import backward_rule as backward_rule
