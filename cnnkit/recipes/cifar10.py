"""Small networks on CIFAR-10, which a laptop can train."""

from __future__ import annotations

from dataclasses import replace

from cnnkit.config import TrainingConfig
from cnnkit.recipes.recipe import Recipe, TrainingStage

# Caffe's examples/cifar10: 100 images a step, 500 steps an epoch of the 50,000.
QUICK = TrainingConfig(
    model="cifar10_quick",
    dataset="folder:cifar10",
    image_size=32,
    mean="pixel",
    epochs=10,
    batch_size=100,
    learning_rate=1e-3,
    lr_milestones=(9,),
    weight_decay=0.004,
    weight_decay_on_biases=True,
    lr_multipliers={"*/bias": 2},
    checkpoint_every="5m",
)
FULL = replace(
    QUICK,
    model="cifar10_full",
    epochs=140,
    lr_milestones=(121, 131),
    weight_decay_multipliers={"fc4/kernel": 250, "fc4/bias": 0},
)
# Krizhevsky et al. 2012, Fig. 1: no regularization at all. The learning rate of each activation was
# the best after two epochs: of 0.002 and 0.004 with ReLUs, of 0.002, 0.008 and 0.02 with tanh,
# with the biases at twice the rate.
RELU = TrainingConfig(
    model="cifar10_full",
    model_options={"lrn": False, "activation": "relu"},
    dataset="folder:cifar10",
    image_size=32,
    mean="pixel",
    epochs=60,
    batch_size=100,
    learning_rate=4e-3,
    weight_decay=0.0,
    stop_at_train_error=0.25,
    checkpoint_every="5m",
)
TANH = replace(RELU, model_options={**RELU.model_options, "activation": "tanh"}, learning_rate=0.02)

DATA = (
    "image files in the folders train and test, one subfolder a class; JPEG files instead of "
    "lossless pixels cost 1 to 3 points"
)
CIFAR = {
    "cifar10-quick": Recipe(
        config=QUICK,
        source="Caffe, examples/cifar10, cifar10_quick",
        command="cnnkit train --recipe cifar10-quick --dataset folder:PATH",
        cost="some minutes on 2 CPU cores",
        result="Caffe: about 25 % test error",
        deviations=(DATA,),
    ),
    "cifar10-full": Recipe(
        config=FULL,
        source="Caffe, examples/cifar10, cifar10_full, after cuda-convnet's 18 % network",
        command="cnnkit train --recipe cifar10-full --dataset folder:PATH",
        cost="about 70 minutes on 2 CPU cores",
        result="Caffe: about 18 % test error",
        deviations=(DATA,),
    ),
    "alexnet-fig1": Recipe(
        config=TANH,
        source="Krizhevsky et al. 2012, Fig. 1",
        command="cnnkit train --recipe alexnet-fig1 --dataset folder:PATH --output runs/fig1",
        cost="about 80 minutes on a CPU core; each part ends at 25 % training error or after 60 "
        "epochs",
        result="the paper: a network of four layers comes to 25 % training error six times faster "
        "with ReLUs than with tanh; measured here: in 9 epochs, with tanh not in 60",
        deviations=(
            DATA,
            "the paper does not describe its network: this is cifar10_full without normalization",
        ),
        stages=(TrainingStage("relu", RELU), TrainingStage("tanh", TANH)),
    ),
}
