"""Other tasks on the features of trained networks: linear classifiers and their protocols."""

from cnnkit.transfer.classifiers import KINDS as KINDS
from cnnkit.transfer.classifiers import fit as fit
from cnnkit.transfer.scores import Score as Score
from cnnkit.transfer.scores import SplitScore as SplitScore
from cnnkit.transfer.scores import score as score
from cnnkit.transfer.scores import transfer as transfer
from cnnkit.transfer.splits import random_split as random_split
