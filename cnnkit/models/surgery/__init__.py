"""Networks taken apart and put together again: other heads, other sizes, other towers.

Every function but `copy_weights` leaves the model it is given as it was and returns a new one with
weights of its own. Networks are chains of layers; each layer is made anew from its configuration,
so names, dtype policies and trainable flags stay. What `compile` set does not come along.
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
