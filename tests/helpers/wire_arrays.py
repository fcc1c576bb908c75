"""Arrays of every dtype that can be sent, for property tests."""

import ml_dtypes
import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cnnkit.wire.dtypes import WIRE_TYPES

NUMERIC = [np.dtype(kind.name) for kind in WIRE_TYPES if kind.name not in ("string", "bfloat16")]
NUMERIC.append(np.dtype(ml_dtypes.bfloat16))
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
EXAMPLES = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)


@st.composite
def arrays(draw):
    """Arrays of any dtype and shape, of random bytes: every bit pattern except NaN."""
    dtype = draw(st.sampled_from([*NUMERIC, np.dtype(object)]))
    shape = draw(SHAPES)
    count = int(np.prod(shape))
    if dtype.kind == "O":
        flat = np.empty(count, object)
        flat[:] = draw(st.lists(st.binary(max_size=9), min_size=count, max_size=count))
        return flat.reshape(shape)
    if dtype.kind == "b":
        return draw(hnp.arrays(bool, shape))
    raw = draw(st.binary(min_size=count * dtype.itemsize, max_size=count * dtype.itemsize))
    array = np.frombuffer(raw, dtype).reshape(shape).copy()
    if dtype.kind not in "iu":
        # isnan() of a signaling NaN in float16 warns.
        with np.errstate(invalid="ignore"):
            array[np.isnan(array)] = 0
    return array


def assert_same(ours, theirs):
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    if ours.dtype.kind == "O":
        assert ours.tolist() == theirs.tolist()
    else:
        assert ours.tobytes() == theirs.tobytes()
