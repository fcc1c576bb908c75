"""The limits of what a file of a stranger may hold; each is above what real files need."""

from __future__ import annotations

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

# JSON: a configuration of the deepest Keras network has 2 MB; Python needs 25 times the bytes.
MAX_JSON_BYTES = 16 * MIB
# Lists and objects inside each other: a model in a model in a model of Keras has 40.
MAX_JSON_DEPTH = 100
# Bytes of a line of text that a field may have: a name, a fingerprint, a path.
MAX_TEXT_LENGTH = 4096

# Text files: names of a million images or classes.
MAX_TEXT_BYTES = 64 * MIB
# A line within a binary file, such as a name in a pickle.
MAX_LINE_BYTES = 64 * KIB

# Zip archives. PyTorch stores each tensor as a member; ResNet-152 has 930.
MAX_ZIP_MEMBERS = 10_000
# The directory is read at once when an archive is opened: 10,000 members with long names.
MAX_ZIP_DIRECTORY_BYTES = 2 * MIB
# Weights shrink by a tenth, zeros by a factor of 1,000; small archives may unfold to 64 MiB.
MAX_ZIP_RATIO = 100
FREE_UNFOLDED_BYTES = 64 * MIB

# NumPy: the header is a line of Python; NumPy's own limit for safe parsing is 10,000.
MAX_NPY_HEADER_BYTES = 10_000
MAX_ARRAY_AXES = 32
# A side of an array without numbers, (0, 4096): a longer one only makes loops endless.
MAX_FREE_SIDE = 1 << 16

# HDF5: EfficientNet-B7 with its optimizer has 15,000 groups and datasets; 1,000 take 0.4 s.
MAX_HDF5_OBJECTS = 20_000
MAX_HDF5_DEPTH = 50
# A read of the structure, such as one attribute: the model's configuration, or names of layers.
MAX_HDF5_METADATA_BYTES = 16 * MIB
# All reads of the structure together.
MAX_HDF5_STRUCTURE_BYTES = 512 * MIB
# A compressed chunk is unfolded at once. h5py's own choice is 1 MiB; some writers take a kernel.
MAX_HDF5_CHUNK_BYTES = 512 * MIB
MAX_HDF5_CHUNKS = 1_000_000

# Pickles of arrays by name (`.npy`): VGG-19 has 575 MB, in memory at once.
MAX_PICKLE_BYTES = 768 * MIB
# Steps of a pickle: a state dictionary needs 30 for each tensor.
MAX_PICKLE_STEPS = 1_000_000

# Pickles of PyTorch, whose numbers lie beside them: ResNet-152 with its optimizer has 1 MB.
MAX_TORCH_PICKLE_BYTES = 64 * MIB
# Entries of nested dictionaries; a pickle can hold one dictionary in many places.
MAX_PICKLE_ENTRIES = 100_000
MAX_PICKLE_DEPTH = 50

# Protobuf: the structure of GoogLeNet in Caffe has 3,000 fields and 60 kB beside its numbers.
MAX_MESSAGE_FIELDS = 100_000
MAX_MESSAGE_BYTES = 16 * MIB
MAX_MESSAGE_DEPTH = 10

# An array that is read whole though no network asks for it: a mean image of 1024 x 1024.
MAX_MEAN_BYTES = 32 * MIB
# A setting of a layer that is stored as an array: the mean image of AlexNet, 227 x 227, takes
# 1.2 MB at eight bytes for a number, and one of 512 x 512 takes 6.3 MB.
MAX_SETTING_BYTES = 8 * MIB

# Serialized objects (layers, initializers, tensors) in the configuration of a model.
MAX_MODEL_OBJECTS = 100_000
# Layers of a model. Keras builds 300 in a second, and the largest of its applications has 1,041.
MAX_MODEL_LAYERS = 2_500
# Numbers of a model that its file need not hold: states of generators, sums of normalizations.
UNSTORED_NUMBERS = 1_000_000
# Elements of the largest output of a layer for one image, 2 GB as float32: VGG at 2896 x 2896.
MAX_OUTPUT_NUMBERS = 512 * MIB
# Elements of a map while the preprocessing inside a model is measured: 1600 x 1600 pixels.
MAX_PROBE_NUMBERS = 8 * MIB
# Elements of the largest map of a network for the image of its fingerprint: VGG at 1448 x 1448.
MAX_FINGERPRINT_NUMBERS = 128 * MIB

# Feature stores. A dimension of 2^28 has a gigabyte for one image; a part holds 8,192 images at
# most unless `rows` says otherwise; its file is mapped, not read.
MAX_FEATURE_DIMENSION = 1 << 28
MAX_FEATURE_ROWS = 1 << 20
MAX_FEATURE_PARTS = 1_000_000

# Statistics of a training: a mean image of 4,096 x 4,096 pixels as float32 has 201 MB.
MAX_STATISTICS_BYTES = 256 * MIB

# Text files that are read as lines: names of a million images or classes.
MAX_LINES = 2_000_000

# Saved classifiers: 1,000 classes on 25,088 features have 200 MB. The schema has 18 KB for each
# class of a classifier of several classes per image. A value is a setting such as "lbfgs".
MAX_PIPELINE_BYTES = 512 * MIB
MAX_PIPELINE_SCHEMA_BYTES = 32 * MIB
MAX_ESTIMATOR_VALUE = 4096

# MATLAB files: the table of synsets of ImageNet's development kit has 100 kB.
MAX_MAT_BYTES = 16 * MIB

# Images: height times width. The pixels take up to 11 bytes each while they are decoded.
MAX_IMAGE_PIXELS = 50_000_000
# Bytes of a file for each of these pixels: RGBA without compression.
IMAGE_BYTES_PER_PIXEL = 4
# A file may have these in any case: an animation has small pictures, but many.
MIN_IMAGE_BYTES = 64 * MIB
# Scans of a JPEG file, each of which is as much work as the image. Encoders write 10 at most.
MAX_JPEG_SCANS = 40
# Segments of a JPEG file before its size: profiles and metadata of 64 kB each.
MAX_JPEG_SEGMENTS = 1000
# Chunks of a PNG file: libpng writes one for every 8 kB of pixels.
MAX_PNG_CHUNKS = 1 << 16

# Bounding boxes: COCO's training images have 860,000. A file of PASCAL VOC, which is XML, has 1 kB.
MAX_BOXES = 2_000_000
MAX_XML_BYTES = MIB
MAX_XML_DEPTH = 20
# Pixels from the corner of an image: a panorama has 100,000.
MAX_COORDINATE = 1_000_000

# Index of a sharded dataset: 66 bytes for each image of ImageNet, so 4 million of these in any
# case, and more where the shards are as large as photographs make them.
MAX_SHARD_INDEX_BYTES = 256 * MIB
SHARD_BYTES_PER_INDEX_BYTE = 20
