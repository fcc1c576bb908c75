"""Other tasks on the features of trained networks: linear classifiers and their protocols."""

from cnnkit.transfer.classifiers import KINDS as KINDS
from cnnkit.transfer.classifiers import fit as fit
from cnnkit.transfer.describing import Description as Description
from cnnkit.transfer.describing import describe as describe
from cnnkit.transfer.multilabel import PrecisionScore as PrecisionScore
from cnnkit.transfer.multilabel import fit_multilabel as fit_multilabel
from cnnkit.transfer.multilabel import precisions as precisions
from cnnkit.transfer.multilabel import score_multilabel as score_multilabel
from cnnkit.transfer.overlapping import overlap as overlap
from cnnkit.transfer.overlapping import without_overlap as without_overlap
from cnnkit.transfer.saved import Transferred as Transferred
from cnnkit.transfer.saved import load_transferred as load_transferred
from cnnkit.transfer.scores import Score as Score
from cnnkit.transfer.scores import SplitScore as SplitScore
from cnnkit.transfer.scores import score as score
from cnnkit.transfer.scores import score_layers as score_layers
from cnnkit.transfer.scores import transfer as transfer
from cnnkit.transfer.splits import random_split as random_split
