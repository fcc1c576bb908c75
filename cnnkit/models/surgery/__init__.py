"""Change trained networks: the head, the image size, the groups of convolutions.

All functions return a new model with its own weights, except `copy_weights`, which changes its
target. They take networks whose layers form a chain. Each layer is built again from its
configuration, so names, dtype policies and trainable flags stay. The new model is not compiled.
"""

from cnnkit.models.surgery.copy_weights import COPY_RULES as COPY_RULES
from cnnkit.models.surgery.copy_weights import copy_weights as copy_weights
from cnnkit.models.surgery.fully_convolutional import to_classifier as to_classifier
from cnnkit.models.surgery.fully_convolutional import (
    to_fully_convolutional as to_fully_convolutional,
)
from cnnkit.models.surgery.grouping import group_kernel as group_kernel
from cnnkit.models.surgery.grouping import to_dense_convolutions as to_dense_convolutions
from cnnkit.models.surgery.grouping import to_grouped_convolutions as to_grouped_convolutions
from cnnkit.models.surgery.grouping import ungroup_kernel as ungroup_kernel
from cnnkit.models.surgery.replace_head import replace_head as replace_head
from cnnkit.models.surgery.resize_input import resize_input as resize_input
from cnnkit.models.surgery.sequential import SurgeryResult as SurgeryResult
