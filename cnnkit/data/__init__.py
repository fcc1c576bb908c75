"""Datasets, augmentation and batches of images."""

from cnnkit.data.augmentation import Augmentation as Augmentation
from cnnkit.data.augmentation import ColorComponents as ColorComponents
from cnnkit.data.augmentation import PCAColorNoise as PCAColorNoise
from cnnkit.data.dataset import Dataset as Dataset
from cnnkit.data.dataset import Split as Split
from cnnkit.data.decode import decode_image as decode_image
from cnnkit.data.decode import resize_shorter_side as resize_shorter_side
from cnnkit.data.load import load_dataset as load_dataset
from cnnkit.data.pipeline import batches as batches
from cnnkit.data.pipeline import cache_in_memory as cache_in_memory
from cnnkit.data.pipeline import report_undecodable as report_undecodable
from cnnkit.data.sources.tfrecord import write_shards as write_shards
from cnnkit.data.statistics import color_components as color_components
from cnnkit.data.statistics import mean_color as mean_color
from cnnkit.data.statistics import mean_image as mean_image
from cnnkit.data.validation import check_dataset as check_dataset
