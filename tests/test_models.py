"""The networks equal the published ones, and take every layer of the library."""

import math
import pickle
from copy import deepcopy
from functools import partial

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock as PublishedBlock

from overconv.models.imagenet_resnet import ImageNetResNet
from overconv.models.mobilenet import MobileNetV2
from overconv.models.resnet import ResNet
from overconv.operators.base import OverConv2d
from overconv.operators.condconv import CondConv2d
from overconv.operators.dyconv import DyConv2d
from overconv.operators.maconv import MAConv2d
from overconv.operators.mdconv import MDConv2d
from overconv.surgery import replace_convs, select_convs, to_inference

EVERYWHERE = ("input", "middle", "output")
LAYERS = {
    "md": MDConv2d,
    "md-compact": partial(MDConv2d, form="compact", depth=3),
    "md-everywhere": partial(MDConv2d, placement=EVERYWHERE, spatial="last"),
    "md-output": partial(MDConv2d, placement=("output",), depth=1),
    "md-ungated": partial(MDConv2d, placement=(), depth=3),
    "md-batch": partial(MDConv2d, when="batch", squash="sigmoid"),
    "md-training": partial(MDConv2d, when="training", placement=("input", "middle")),
    "md-norm": partial(MDConv2d, middle_norm=True, spatial="last"),
    "ma": MAConv2d,
    "ma-gate": partial(MAConv2d, middle="gate", depth=3),
    "ma-both": partial(MAConv2d, middle="norm+gate", spatial="last"),
    "cond": partial(CondConv2d, num_kernels=2),
    "cond-features": partial(CondConv2d, num_kernels=3, on="features"),
    "dy": partial(DyConv2d, num_kernels=2, temperature=3.0),
    "dy-features": partial(DyConv2d, num_kernels=2, on="features"),
}
FOLDING = ("ma", "ma-gate", "ma-both", "md-ungated", "md-batch", "md-training")
NORMALISING = ("ma", "ma-both", "md-norm")
NETWORKS = {
    "resnet": partial(ResNet, depth=8, width=4, num_classes=5),
    "mobilenet": partial(MobileNetV2, width=0.1, num_classes=5, dropout=0.0),
}
IMAGES = {"resnet": (3, 3, 9, 8), "mobilenet": (3, 3, 16, 17)}


def randomise(network: nn.Module) -> nn.Module:
    """In float64, with norms and gates far from where they start."""
    network.double()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.1)
            nn.init.uniform_(module.bias, 0.2, 1.0)  # above zero, or hidden units could be dead
        if isinstance(getattr(module, "running", None), torch.Tensor):
            nn.init.uniform_(module.running, 0.3, 1.5)
    return network


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


# Structure.


@pytest.mark.parametrize(
    ("depth", "published"), [(20, 269722), (32, 464154), (44, 658586), (56, 853018), (110, 1727962)]
)
def test_resnet_has_the_published_parameters(depth, published):
    with torch.device("meta"):
        network = ResNet(depth)
    assert count(network) == published
    n = (depth - 2) // 6  # and by hand, from table 6 of the source
    convolutions = 27 * 16 + 2 * n * 9 * 16 * 16
    convolutions += 9 * 16 * 32 + (2 * n - 1) * 9 * 32 * 32
    convolutions += 9 * 32 * 64 + (2 * n - 1) * 9 * 64 * 64
    norms = 2 * (16 * (1 + 2 * n) + 32 * 2 * n + 64 * 2 * n)
    assert convolutions + norms + 64 * 10 + 10 == published


class PaddedSkip(nn.Module):
    """Option A of the source: subsample, then append zeros, pixel by pixel."""

    def __init__(self, channels: int, stride: int):
        super().__init__()
        self.channels, self.stride = channels, stride

    def forward(self, x):
        y = nn.functional.avg_pool2d(x, 1, self.stride)
        zeros = y.new_zeros(len(y), self.channels - y.shape[1], *y.shape[2:])
        return torch.cat([y, zeros], 1)


def published_resnet(depth: int, widths: list[int], stem_stride: int) -> nn.Module:
    """The same network from torchvision's blocks, parameters under the same names."""

    def stage(wide_in, wide, stride):
        skip = PaddedSkip(wide, stride)
        first = PublishedBlock(wide_in, wide, stride, skip)
        return nn.Sequential(first, *(PublishedBlock(wide, wide) for _ in range(depth // 6 - 1)))

    network = nn.Sequential()
    network.add_module("conv1", nn.Conv2d(3, widths[0], 3, stem_stride, 1, bias=False))
    network.add_module("bn1", nn.BatchNorm2d(widths[0]))
    network.add_module("relu", nn.ReLU())
    for index, (wide_in, wide) in enumerate(zip([widths[0], *widths], widths, strict=False)):
        network.add_module(f"layer{index + 1}", stage(wide_in, wide, 2 if index else 1))
    network.add_module("pool", nn.AdaptiveAvgPool2d(1))
    network.add_module("flatten", nn.Flatten())
    network.add_module("fc", nn.Linear(widths[2], 10))
    return network.double()


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize(
    ("depth", "width", "widths", "stem_stride"),
    [(8, 16, [16, 32, 64], 1), (14, 4.4, [4, 9, 18], 2), (20, 5, [5, 10, 20], 1)],
)
def test_resnet_computes_what_the_published_one_does(depth, width, widths, stem_stride, train):
    network = randomise(ResNet(depth, width, stem_stride)).train(train)
    published = published_resnet(depth, widths, stem_stride).train(train)
    published.load_state_dict(network.state_dict())
    x = torch.randn(3, 3, 15, 12, dtype=torch.float64)
    torch.testing.assert_close(network(x), published(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_imagenet_resnet_has_torchvisions_parameters(depth):
    with torch.device("meta"):
        ours = ImageNetResNet(depth)
        theirs = getattr(torchvision.models, f"resnet{depth}")()
    shapes = {name: value.shape for name, value in theirs.state_dict().items()}
    assert {name: value.shape for name, value in ours.state_dict().items()} == shapes
    assert depth != 50 or count(ours) == 25557032


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("depth", [18, 50])
def test_imagenet_resnet_computes_what_torchvisions_does(depth, train):
    ours = randomise(ImageNetResNet(depth, num_classes=7)).train(train)
    theirs = getattr(torchvision.models, f"resnet{depth}")(num_classes=7)
    theirs.double().train(train).load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, 65, 64, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-9)


def test_for_small_images_the_stem_alone_is_another():
    """Torchvision's, with the stem that is usual for images of 32 pixels."""
    ours = randomise(ImageNetResNet(18, num_classes=10, small_images=True))
    assert count(ours) == 11173962  # of the ResNet-18 of many a training on CIFAR-10
    theirs = torchvision.models.resnet18(num_classes=10)
    theirs.conv1, theirs.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    theirs.double().load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, 13, 16, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("width", "channels"), [(8, [8, 16, 32, 64]), (4.4, [4, 9, 18, 35])])
def test_imagenet_resnet_has_the_width_that_it_is_given(width, channels):
    for depth, times in ((18, 1), (50, 4)):
        network = ImageNetResNet(depth, width)
        stages = (network.layer1, network.layer2, network.layer3, network.layer4)
        assert [stage[-1].conv2.out_channels for stage in stages] == channels
        assert network.fc.in_features == times * channels[-1]


@pytest.mark.parametrize("width", [0.35, 0.5, 0.75, 1.0, 1.4])
def test_mobilenet_has_torchvisions_parameters(width):
    with torch.device("meta"):
        ours = MobileNetV2(width, num_classes=1000)
        theirs = torchvision.models.mobilenet_v2(width_mult=width)
    shapes = {name: value.shape for name, value in theirs.state_dict().items()}
    assert {name: value.shape for name, value in ours.state_dict().items()} == shapes
    assert width != 1 or count(ours) == 3504872


@pytest.mark.parametrize("train", [False, True])
def test_mobilenet_computes_what_torchvisions_does(train):
    strides = (1, 2, 2, 2, 1, 2, 1)
    ours = randomise(MobileNetV2(0.35, 7, stem_stride=2, strides=strides, dropout=0)).train(train)
    theirs = torchvision.models.mobilenet_v2(width_mult=0.35, num_classes=7, dropout=0.0)
    theirs.double().train(train).load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, 65, 64, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-10)


def test_networks_start_with_the_published_spread():
    """Checked against torchvision's own start: standard deviation by parameter."""
    theirs = dict(torchvision.models.mobilenet_v2(num_classes=1000).named_parameters())
    for name, ours in MobileNetV2(num_classes=1000).named_parameters():
        if ours.numel() > 1000 and ours.dim() > 1:
            ratio = ours.std() / theirs[name].std()
            assert ratio.item() == pytest.approx(1, abs=0.15), name
    for name, ours in ResNet(20, 32).named_parameters():
        if ours.dim() == 4:
            published = math.sqrt(2 / (9 * ours.shape[0]))
            assert ours.std().item() == pytest.approx(published, rel=0.1), name
    theirs = dict(torchvision.models.resnet18().named_parameters())
    for name, ours in ImageNetResNet(18).named_parameters():
        assert ours.std(correction=0).item() == pytest.approx(
            theirs[name].std(correction=0).item(), rel=0.1
        ), name


@pytest.mark.parametrize(
    ("network", "sizes"),
    [
        (ResNet(8, 4), [32, 32, 16, 8]),
        (ResNet(8, 4, stem_stride=2), [16, 16, 8, 4]),
        (MobileNetV2(0.1), [32, 32, 32, 16, 8, 8, 4, 4, 4]),
        (MobileNetV2(0.1, stem_stride=2), [16, 16, 16, 8, 4, 4, 2, 2, 2]),
    ],
    ids=["resnet", "resnet-2", "mobilenet", "mobilenet-2"],
)
def test_strides_are_those_of_small_images(network, sizes):
    seen = []
    watched = (
        [network.conv1, network.layer1, network.layer2, network.layer3]
        if isinstance(network, ResNet)
        else [network.features[index] for index in (0, 1, 3, 6, 10, 13, 16, 17, 18)]
    )  # ends of stages
    for module in watched:
        module.register_forward_hook(lambda module, args, output: seen.append(output.shape[-1]))
    network.eval()(torch.zeros(1, 3, 32, 32))
    assert seen == sizes


# Layers in their places.


@pytest.mark.parametrize("where", ["all", "all_but_stem", "spatial", "pointwise", "depthwise"])
@pytest.mark.parametrize("network", NETWORKS)
def test_where_means_the_same_in_networks_and_in_surgery(network, where):
    if network == "resnet" and where in ("pointwise", "depthwise"):
        with pytest.raises(ValueError, match="selects none"):
            NETWORKS[network](conv=MDConv2d, where=where)
        return
    plain = NETWORKS[network]()
    built, replaced = (
        NETWORKS[network](conv=MDConv2d, where=where),
        replace_convs(plain, MDConv2d, where),
    )
    places = {n for n, m in built.named_modules() if isinstance(m, OverConv2d)}
    assert places == set(select_convs(plain, where))
    assert {n for n, m in replaced.named_modules() if isinstance(m, OverConv2d)} == places
    shapes = {name: value.shape for name, value in replaced.state_dict().items()}
    assert {name: value.shape for name, value in built.state_dict().items()} == shapes


def test_a_predicate_gets_the_names_of_the_whole_network():
    names = []

    def where(name, conv):
        names.append(name)
        return name.endswith("conv2")

    network = ResNet(8, 4, conv=MDConv2d, where=where)
    assert names == list(select_convs(ResNet(8, 4), "all"))
    places = [n for n, m in network.named_modules() if isinstance(m, MDConv2d)]
    assert places == ["layer1.0.conv2", "layer2.0.conv2", "layer3.0.conv2"]


@pytest.mark.parametrize("where", ["spatial", "pointwise", "depthwise"])  # below: "all"
@pytest.mark.parametrize("layer", LAYERS)
def test_every_layer_in_every_place_of_mobilenet(layer, where):
    network = MobileNetV2(0.1, 5, conv=LAYERS[layer], where=where)
    assert network(torch.randn(2, 3, 16, 16)).shape == (2, 5)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("layer", LAYERS)
def test_every_layer_reaches_every_parameter(layer, network):
    model = randomise(NETWORKS[network](conv=LAYERS[layer], where="all"))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()  # in training the next one along would hide what this one adds
    y = model(torch.randn(*IMAGES[network], dtype=torch.float64))
    assert y.shape == (3, 5)
    (y * torch.randn_like(y)).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 1e-12, name


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("layer", LAYERS)
def test_inference_equals_eval(layer, network):
    model = randomise(NETWORKS[network](conv=LAYERS[layer], where="all")).train()
    x = torch.randn(*IMAGES[network], dtype=torch.float64)
    deployed = to_inference(model)
    assert model.training
    assert not any(module.training for module in deployed.modules())
    torch.testing.assert_close(deployed(x), model.eval()(x), rtol=0, atol=1e-10)
    left = any(isinstance(m, (OverConv2d, nn.BatchNorm2d)) for m in deployed.modules())
    assert left == (layer not in FOLDING), "convolutions that folded take their batch norms along"


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("layer", ["md-everywhere", "ma-both"])
def test_layers_go_into_imagenet_resnet(layer, depth):
    """Everywhere, its projections too: trained, saved, and deployed without a batch norm left."""
    build = partial(ImageNetResNet, depth, width=2, num_classes=5, small_images=depth == 18)
    model = randomise(build(conv=LAYERS[layer], where="all")).train()
    places = {n for n, m in model.named_modules() if isinstance(m, OverConv2d)}
    assert places == set(select_convs(build(), "all"))
    x = torch.randn(2, 3, 33, 32, dtype=torch.float64)
    model(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    deployed = to_inference(model)
    torch.testing.assert_close(deployed(x), model.eval()(x), rtol=1e-9, atol=1e-10)
    left = any(isinstance(m, (OverConv2d, nn.BatchNorm2d)) for m in deployed.modules())
    assert left == (layer not in FOLDING)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("layer", LAYERS)
def test_a_preserving_start_moves_no_output(layer, network):
    plain = randomise(NETWORKS[network]())
    x = torch.randn(*IMAGES[network], dtype=torch.float64)
    for train in (False, True):
        if train and layer in NORMALISING:
            continue  # preserves in eval() only, as documented
        replaced = replace_convs(plain.train(train), LAYERS[layer], "all", preserve=True)
        assert replaced.training is train
        expected = deepcopy(plain)(x)
        torch.testing.assert_close(replaced(x), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("layer", [nn.Conv2d, LAYERS["md-everywhere"], LAYERS["ma-both"]])
def test_networks_copy_pickle_and_load(layer, network):
    build = partial(NETWORKS[network], conv=layer)
    model = randomise(build()).eval()
    x = torch.randn(*IMAGES[network], dtype=torch.float64)
    other = build().double().eval()
    other.load_state_dict(model.state_dict())
    for again in (deepcopy(model), pickle.loads(pickle.dumps(model)), other):
        torch.testing.assert_close(again(x), model(x), rtol=0, atol=0)


@pytest.mark.parametrize("network", ["resnet", pytest.param("mobilenet", marks=pytest.mark.slow)])
def test_networks_compile_in_one_graph(network):
    model = NETWORKS[network](conv=MDConv2d).eval()
    x = torch.randn(IMAGES[network])
    torch.testing.assert_close(torch.compile(model, fullgraph=True, backend="eager")(x), model(x))


def test_the_same_seed_gives_the_same_plain_network_whatever_else_is_drawn():
    for build in NETWORKS.values():
        torch.manual_seed(3)
        first = build()
        torch.manual_seed(3)
        second = build(conv=nn.Conv2d, where="spatial")
        for one, other in zip(first.parameters(), second.parameters(), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (partial(ResNet, depth=18), "depth must be 6 n \\+ 2, such as 8, 14 or 20, got 18"),
        (partial(ResNet, depth=2), "depth must be at least 8, got 2"),
        (partial(ResNet, depth=20.0), "depth must be an integer, got 20.0"),
        (partial(ResNet, width=0), "width must be a positive number, got 0"),
        (partial(ResNet, width=0.4), "width must leave the first stage a channel, got 0.4"),
        (partial(ResNet, width=float("nan")), "width must be a positive number, got nan"),
        (partial(ResNet, stem_stride=0), "stem_stride must be at least 1, got 0"),
        (partial(ResNet, num_classes=0), "num_classes must be at least 1, got 0"),
        (partial(ResNet, in_channels=0), "in_channels must be at least 1, got 0"),
        (partial(ResNet, where="stem"), "where must be one of .*, got 'stem'"),
        (partial(ResNet, conv=MDConv2d, where="stem"), "where must be one of .*, got 'stem'"),
        (partial(ImageNetResNet, depth=20), "depth must be one of 18, 34, 50, 101, 152, got 20"),
        (partial(ImageNetResNet, width=0.4), "width must leave the first stage a channel, got 0.4"),
        (partial(ImageNetResNet, num_classes=0), "num_classes must be at least 1, got 0"),
        (partial(ImageNetResNet, in_channels=0), "in_channels must be at least 1, got 0"),
        (partial(ImageNetResNet, where="stem"), "where must be one of .*, got 'stem'"),
        (partial(MobileNetV2, width="1"), "width must be a positive number, got '1'"),
        (partial(MobileNetV2, num_classes=0), "num_classes must be at least 1, got 0"),
        (partial(MobileNetV2, strides=(1, 2)), "strides must be 7 integers, got \\(1, 2\\)"),
        (partial(MobileNetV2, strides=(0,) * 7), "strides must be at least 1, got 0"),
        (partial(MobileNetV2, dropout=2), "dropout"),
        (
            partial(MobileNetV2, conv=partial(MDConv2d, middle_channels=7)),
            "features.1.conv.0.0: middle_channels=7 does not split",
        ),
    ],
)
def test_bad_arguments_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
