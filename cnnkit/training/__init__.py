"""Training with `tf.distribute`, resumable after every step."""

from cnnkit.training.callbacks import Callback as Callback
from cnnkit.training.callbacks import CallbackList as CallbackList
from cnnkit.training.distribute import get_strategy as get_strategy
from cnnkit.training.epoch import Interrupted as Interrupted
from cnnkit.training.optimizer import SGD as SGD
from cnnkit.training.train import train as train
