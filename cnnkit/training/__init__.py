"""Training under `tf.distribute`, resumable after every step."""

from cnnkit.training.loop import train as train
from cnnkit.training.optimizer import SGD as SGD
from cnnkit.training.progress import Progress as Progress
from cnnkit.training.stopping import Stopped as Stopped
from cnnkit.training.strategy import get_strategy as get_strategy
