"""What a layer answers to images, as vectors: in memory, or as files of a folder."""

from cnnkit.features.extract import Features as Features
from cnnkit.features.extract import extract as extract
from cnnkit.features.extract import stream as stream
from cnnkit.features.network import Describer as Describer
from cnnkit.features.network import unit as unit
from cnnkit.features.protocol import Protocol as Protocol
from cnnkit.features.reading import files_split as files_split
from cnnkit.features.reading import split_of as split_of
from cnnkit.features.shards import Index as Index
from cnnkit.features.shards import is_features as is_features
from cnnkit.features.shards import load_features as load_features
from cnnkit.features.shards import merge_features as merge_features
from cnnkit.features.shards import missing_parts as missing_parts
from cnnkit.features.shards import read_index as read_index
from cnnkit.features.shards import read_parts as read_parts
from cnnkit.features.shards import write_features as write_features
