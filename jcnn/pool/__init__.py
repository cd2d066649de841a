"""Pooling: maxima, means and norms over windows, over the whole image, or over a given number of windows."""

from jcnn.pool.adaptive import (
    adaptive_avg_pool as adaptive_avg_pool,
    adaptive_max_pool as adaptive_max_pool,
)
from jcnn.pool.lp import lp_pool as lp_pool
from jcnn.pool.maximum import max_pool as max_pool, max_unpool as max_unpool
from jcnn.pool.mean import avg_pool as avg_pool
from jcnn.pool.whole import global_avg_pool as global_avg_pool, global_max_pool as global_max_pool
