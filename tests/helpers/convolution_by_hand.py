"""The gradients of a convolution, written out."""

import numpy as np


def both_gradients(images, kernel, signal):
    """Returns those for the images and for the kernel, weight by weight; stride 1, `"same"`."""
    size, (_, height, width, _) = len(kernel), images.shape
    half = size // 2
    padded = np.pad(images, [(0, 0), (half, half), (half, half), (0, 0)])
    for_padded, for_kernel = np.zeros_like(padded), np.empty_like(kernel)
    for row, column in np.ndindex(size, size):
        window = np.s_[:, row : row + height, column : column + width]
        for_kernel[row, column] = np.einsum("nhwc,nhwf->cf", padded[window], signal)
        for_padded[window] += signal @ kernel[row, column].T
    return for_padded[:, half : half + height, half : half + width], for_kernel
