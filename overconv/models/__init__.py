"""Small networks that take the layer in the place of their convolutions as an argument."""

from overconv.models.imagenet_resnet import ImageNetResNet as ImageNetResNet
from overconv.models.mobilenet import MobileNetV2 as MobileNetV2
from overconv.models.resnet import ResNet as ResNet
