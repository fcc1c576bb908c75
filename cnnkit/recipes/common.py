"""What several recipes say in the same words."""

IMAGENET = "tfds:imagenet2012"
AUTOMATIC = "the learning rate drops after 5 epochs without improvement; the authors did it by hand"
CENTRE = "errors while training are of one centre crop; the paper averages several crops"
BILINEAR = "images are rescaled bilinearly with antialiasing; the paper names no filter"
CENTRE_MEAN = (
    "the centre of the mean image is subtracted from every crop; the authors subtract the part "
    "that lies under the crop"
)
INVERTED = "dropout scales up while training instead of scaling down at test time"
