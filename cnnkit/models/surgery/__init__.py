"""Networks taken apart and put together again: other heads, other sizes, other towers.

Every function but `copy_weights` leaves the model it is given as it was and returns a new one with
weights of its own. Networks are chains of layers; each layer is made anew from its configuration,
so names, dtype policies and trainable flags stay. What `compile` set does not come along.
"""

from cnnkit.models.surgery.convolutional import to_classifier as to_classifier
from cnnkit.models.surgery.convolutional import to_fully_convolutional as to_fully_convolutional
from cnnkit.models.surgery.copying import COPY_RULES as COPY_RULES
from cnnkit.models.surgery.copying import copy_weights as copy_weights
from cnnkit.models.surgery.kernels import group_kernel as group_kernel
from cnnkit.models.surgery.kernels import ungroup_kernel as ungroup_kernel
from cnnkit.models.surgery.replacing import replace_head as replace_head
from cnnkit.models.surgery.result import Surgery as Surgery
from cnnkit.models.surgery.sizes import resize_input as resize_input
from cnnkit.models.surgery.towers import group as group
from cnnkit.models.surgery.towers import ungroup as ungroup
