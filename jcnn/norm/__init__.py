"""Normalisations: of activations by the batch, an example or a pixel, and of weights."""

from jcnn.norm.batch import (
    BatchNormResiduals as BatchNormResiduals,
    BatchStats as BatchStats,
    batch_norm as batch_norm,
    update_running_stats as update_running_stats,
)
from jcnn.norm.group import group_norm as group_norm, instance_norm as instance_norm
from jcnn.norm.inference import batch_norm_inference as batch_norm_inference
from jcnn.norm.layer import layer_norm as layer_norm
from jcnn.norm.response import local_response_norm as local_response_norm
from jcnn.norm.rms import rms_norm as rms_norm
from jcnn.norm.weight import weight_standardize as weight_standardize
