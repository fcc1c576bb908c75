"""Gradients of convolutions that are faster than TensorFlow's on some processors.

`CNNKIT_CONV_GRADIENTS=framework` in the environment switches them off.
"""
