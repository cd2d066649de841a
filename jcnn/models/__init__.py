"""Networks that are worth composing from: functions `(num_classes, ...) -> net`."""

from jcnn.models.lenet import lenet5 as lenet5
from jcnn.models.vgg import vgg_small as vgg_small
