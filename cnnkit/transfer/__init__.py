"""Transfer learning on frozen features: linear classifiers and the benchmarks that score them."""

from cnnkit.features.extract import LayerFeatures as LayerFeatures
from cnnkit.features.extract import extract_layers as extract_layers
from cnnkit.transfer.average_precision import average_precisions as average_precisions
from cnnkit.transfer.benchmark import SplitScore as SplitScore
from cnnkit.transfer.benchmark import TransferScore as TransferScore
from cnnkit.transfer.benchmark import evaluate_transfer as evaluate_transfer
from cnnkit.transfer.benchmark import score_features as score_features
from cnnkit.transfer.benchmark import score_layers as score_layers
from cnnkit.transfer.linear_classifier import CLASSIFIERS as CLASSIFIERS
from cnnkit.transfer.linear_classifier import fit_linear_classifier as fit_linear_classifier
from cnnkit.transfer.linear_probe import LinearProbe as LinearProbe
from cnnkit.transfer.linear_probe import load_linear_probe as load_linear_probe
from cnnkit.transfer.multilabel import MultiLabelScore as MultiLabelScore
from cnnkit.transfer.multilabel import fit_multilabel as fit_multilabel
from cnnkit.transfer.multilabel import score_multilabel as score_multilabel
from cnnkit.transfer.near_duplicates import DuplicatePair as DuplicatePair
from cnnkit.transfer.near_duplicates import drop_duplicates as drop_duplicates
from cnnkit.transfer.near_duplicates import find_duplicates as find_duplicates
from cnnkit.transfer.random_splits import random_split as random_split
