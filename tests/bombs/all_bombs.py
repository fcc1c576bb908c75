"""The whole zoo: importing this module fills it."""

import tests.bombs.archives_zoo
import tests.bombs.datasets_zoo
import tests.bombs.images_zoo
import tests.bombs.keras_zoo
import tests.bombs.pickle_zoo
import tests.bombs.stores_zoo
import tests.bombs.weights_zoo  # noqa: F401
from tests.bombs.zoo import ZOO as ZOO
