"""Training with `tf.distribute`, resumable after every step."""

from cnnkit.training.callbacks import Callback as Callback
from cnnkit.training.callbacks import CallbackList as CallbackList
from cnnkit.training.distribute import get_strategy as get_strategy
from cnnkit.training.epoch import Interrupted as Interrupted
from cnnkit.training.estimate import TrainingEstimate as TrainingEstimate
from cnnkit.training.estimate import estimate_training as estimate_training
from cnnkit.training.finetune import finetune as finetune
from cnnkit.training.learning_rate_sweep import LearningRateSweep as LearningRateSweep
from cnnkit.training.learning_rate_sweep import sweep_learning_rate as sweep_learning_rate
from cnnkit.training.optimizer import SGD as SGD
from cnnkit.training.train import train as train
