"""Networks that are worth composing from: functions `(num_classes, ...) -> net`."""

from jcnn.models.airbench import airbench as airbench
from jcnn.models.convnext import convnext as convnext
from jcnn.models.lenet import lenet5 as lenet5
from jcnn.models.mobilenet import mobilenet_v2 as mobilenet_v2
from jcnn.models.resnet import resnet as resnet, resnext as resnext
from jcnn.models.vgg import vgg_small as vgg_small
