"""Feature vectors of images at a layer of a network: extraction, storage and nearest neighbors."""

from cnnkit.features.extract import FeatureBatch as FeatureBatch
from cnnkit.features.extract import LayerFeatures as LayerFeatures
from cnnkit.features.extract import extract_features as extract_features
from cnnkit.features.extract import extract_layers as extract_layers
from cnnkit.features.extract import stream_features as stream_features
from cnnkit.features.extractor import FeatureExtractor as FeatureExtractor
from cnnkit.features.extractor import l2_normalize as l2_normalize
from cnnkit.features.image_batches import select_features_split as select_features_split
from cnnkit.features.image_batches import split_from_files as split_from_files
from cnnkit.features.index import FeatureIndex as FeatureIndex
from cnnkit.features.index import is_feature_store as is_feature_store
from cnnkit.features.index import read_index as read_index
from cnnkit.features.nearest_neighbors import MemoryEstimate as MemoryEstimate
from cnnkit.features.nearest_neighbors import NearestIndices as NearestIndices
from cnnkit.features.nearest_neighbors import Neighbor as Neighbor
from cnnkit.features.nearest_neighbors import find_neighbors as find_neighbors
from cnnkit.features.nearest_neighbors import memory_estimate as memory_estimate
from cnnkit.features.nearest_neighbors import nearest_neighbors as nearest_neighbors
from cnnkit.features.spec import FeatureSpec as FeatureSpec
from cnnkit.features.store import iter_parts as iter_parts
from cnnkit.features.store import load_features as load_features
from cnnkit.features.store import merge_features as merge_features
from cnnkit.features.store import missing_parts as missing_parts
from cnnkit.features.store import write_features as write_features
