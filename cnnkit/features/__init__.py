"""What a layer answers to images, as vectors: in memory, or as files of a folder."""

from cnnkit.features.extract import FeatureBatch as FeatureBatch
from cnnkit.features.extract import extract_features as extract_features
from cnnkit.features.extract import stream_features as stream_features
from cnnkit.features.extractor import FeatureExtractor as FeatureExtractor
from cnnkit.features.extractor import l2_normalize as l2_normalize
from cnnkit.features.image_batches import select_features_split as select_features_split
from cnnkit.features.image_batches import split_from_files as split_from_files
from cnnkit.features.spec import FeatureSpec as FeatureSpec
from cnnkit.features.store import FeatureIndex as FeatureIndex
from cnnkit.features.store import is_feature_store as is_feature_store
from cnnkit.features.store import iter_parts as iter_parts
from cnnkit.features.store import load_features as load_features
from cnnkit.features.store import merge_features as merge_features
from cnnkit.features.store import missing_parts as missing_parts
from cnnkit.features.store import read_index as read_index
from cnnkit.features.store import write_features as write_features
