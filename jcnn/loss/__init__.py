"""Losses, one per example or per element: the mean, the sum or the mask over them is the caller's."""

from jcnn.loss.binary import binary_cross_entropy as binary_cross_entropy, focal_loss as focal_loss
from jcnn.loss.divergence import kl_divergence as kl_divergence
from jcnn.loss.regression import huber as huber, mse as mse
from jcnn.loss.softmax_cross_entropy import softmax_cross_entropy as softmax_cross_entropy
