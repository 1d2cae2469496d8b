"""What models need beyond NumPy. Arrays are NCHW; float32 stays float32."""

from ckpt.nn.activations import gelu, leaky_relu, relu, sigmoid, silu, softplus
from ckpt.nn.attention import attention
from ckpt.nn.convolution import conv1d, conv2d, conv_transpose2d
from ckpt.nn.embedding import embedding
from ckpt.nn.losses import cross_entropy, mse
from ckpt.nn.normalization import batch_norm, group_norm, layer_norm, rms_norm
from ckpt.nn.pooling import (
    avg_pool2d,
    global_avg_pool,
    global_max_pool,
    max_pool2d,
    pad2d,
    upsample,
)
from ckpt.nn.random import dropout
from ckpt.nn.softmax import log_softmax, logsumexp, softmax

__all__ = [
    "attention",
    "avg_pool2d",
    "batch_norm",
    "conv1d",
    "conv2d",
    "conv_transpose2d",
    "cross_entropy",
    "dropout",
    "embedding",
    "gelu",
    "global_avg_pool",
    "global_max_pool",
    "group_norm",
    "layer_norm",
    "leaky_relu",
    "log_softmax",
    "logsumexp",
    "max_pool2d",
    "mse",
    "pad2d",
    "relu",
    "rms_norm",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "upsample",
]
