"""Published tables: what is compared, that nothing is left unexplained, and that errors show."""

import json
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torchvision.models import get_model_weights

from benchmark.published import counters
from benchmark.published.networks import from_torchvision, mobileone, repvgg
from benchmark.published.rows import ROWS, VISION, Figure
from benchmark.published.table import TOLERANCE, holds, measure, measure_row, text
from benchmark.tables import FOLDER, load
from overconv.costs import count_costs
from overconv.operators.acb import ACConv2d
from overconv.operators.condconv import CondConv2d
from overconv.operators.odconv import ODConv2d
from overconv.operators.repvgg import RepVGGConv2d
from overconv.operators.se import SEConv2d
from overconv.surgery import replace_convs

KINDS = ("parameters", "macs")


def rows(network, **options):
    """The rows of a network, of those with the given fields."""
    chosen = [row for row in ROWS if row.network == network]
    return [row for row in chosen if all(getattr(row, k) == v for k, v in options.items())]


def with_layer(network, kernels):
    (row,) = (r for r in rows(network) if getattr(r.layer, "keywords", None) == kernels)
    return row


# The committed table.


def test_the_committed_table_is_that_of_its_record():
    assert (FOLDER / "published.md").read_text() == text(load("published")).rstrip("\n") + "\n"


def test_every_row_is_within_the_tolerance_or_explained_by_a_count():
    found = load("published")
    assert found["tolerance"] == TOLERANCE == 0.005
    assert len(found["rows"]) >= 25
    for row in found["rows"]:
        for kind in KINDS:
            figure = row[kind]
            if figure is None:
                continue
            where = f"{row['network']} with {row['layer']}, {kind}"
            published = Figure(figure["published"])
            ours = published.beyond_rounding(figure["ours"])
            assert ours == figure["beyond_rounding"], where
            if abs(ours) > TOLERANCE:
                assert figure["why"], where
                assert figure["counted_so"] != figure["ours"], where
                left = published.beyond_rounding(figure["counted_so"])
                assert abs(left) <= TOLERANCE, where
            assert holds(figure), where


def test_the_committed_table_holds_the_rows_that_there_are():
    """What is data in the row; the counts are taken anew below."""
    found = load("published")["rows"]
    assert len(found) == len(ROWS)
    for row, committed in zip(ROWS, found, strict=True):
        assert (row.network, row.source) == (committed["network"], committed["source"])
        assert ("deployed" if row.deployed else "training") == committed["form"]
        whys = row.why_parameters, row.why_macs
        for kind, written, why in zip(KINDS, (row.parameters, row.macs), whys, strict=True):
            figure = committed[kind] or {"published": None, "why": why and why.words}
            assert figure["published"] == written
            assert figure["why"] == (None if why is None else why.words)


def test_no_row_is_without_a_source_or_a_figure_or_told_twice():
    told = [(row.network, row.source, str(row.layer), row.deployed) for row in ROWS]
    assert len(set(told)) == len(told)
    for row in ROWS:
        assert any(part in row.source for part in ("README.md at ", ".csv at ", "torchvision, "))
        assert row.parameters or row.macs
        assert (row.layer is None) == (row.replaced == "-")


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row.source == VISION], ids=lambda row: row.network
)
def test_figures_of_torchvision_are_those_of_its_weights(row):
    meta = next(iter(get_model_weights(row.network))).meta
    assert row.parameters == f"{meta['num_params']:,}"
    assert row.macs == f"{meta['_ops']:.3f}G"


SAMPLE = (
    *rows("mobilenet_v3_small"),
    *rows("MobileNetV2 0.35"),
    *rows("ResNet-50", layer=None),
    with_layer("ResNet-18", {"num_kernels": 4}),
    with_layer("EfficientNet-B0", {"num_kernels": 4}),
    *rows("ResNet-50", layer=SEConv2d),
    *rows("RepVGG-A0"),
    *rows("MobileOne-S0"),
)


@pytest.mark.parametrize("row", SAMPLE, ids=lambda row: f"{row.network}-{row.deployed}")
def test_a_row_of_each_source_counts_as_committed(row):
    committed = load("published")["rows"][ROWS.index(row)]
    assert json.loads(json.dumps(measure_row(row))) == committed


@pytest.mark.slow
def test_all_rows_count_as_committed():
    assert json.loads(json.dumps(measure()["rows"])) == load("published")["rows"]


# Errors show.


@pytest.mark.parametrize(
    ("row", "kind", "planted"),
    [
        (0, "parameters", {"layer": partial(ODConv2d, num_kernels=4, reduction=4)}),
        (0, "parameters", {"layer": partial(ODConv2d, num_kernels=3)}),
        (0, "parameters", {"where": "all_but_stem"}),
        (1, "parameters", {"layer": partial(CondConv2d, num_kernels=5)}),
        (2, "parameters", {"layer": partial(SEConv2d, reduction=8)}),
        (2, "macs", {"build": partial(from_torchvision, "resnet101")}),
        (3, "parameters", {"layer": ACConv2d}),
        (3, "macs", {"layer": ACConv2d}),
        (4, "parameters", {"build": partial(mobileone, 0.75, 1.0, 1.0, 2.25)}),
    ],
)
def test_a_wrong_layer_or_network_is_seen(row, kind, planted):
    right = (
        with_layer("ResNet-18", {"num_kernels": 4}),
        with_layer("EfficientNet-B0", {"num_kernels": 4}),
        *rows("ResNet-50", layer=SEConv2d),
        *rows("RepVGG-A0", deployed=False),
        *rows("MobileOne-S0"),
    )[row]
    assert not holds(measure_row(replace(right, **planted))[kind])


def test_what_is_left_over_is_told():
    wrong = replace(rows("RepVGG-A0", deployed=True)[0], parameters="8.41M")
    found = measure([wrong])
    assert "1 are ours within 0.5 % beyond rounding" in text(found)
    assert "and 1 are not." in text(found)
    assert "Not explained: RepVGG-A0 with RepVGGConv2d, 8.41M." in text(found)
    right = measure([replace(wrong, parameters="8.31M")])
    assert "and 0 are not." in text(right)
    assert "Not explained" not in text(right)


# Figures.


@pytest.mark.parametrize(
    ("written", "value", "rounding"),
    [
        ("11.69M", 11.69e6, 5e3),
        ("1.814G", 1.814e9, 5e5),
        ("413M", 413e6, 5e5),
        ("3,504,872", 3504872, 0),
    ],
)
def test_a_figure_has_the_precision_of_its_digits(written, value, rounding):
    figure = Figure(written)
    assert figure.value == pytest.approx(value, rel=1e-12)
    assert figure.rounding == pytest.approx(rounding, rel=1e-12)
    assert figure.beyond_rounding(round(value + rounding)) == pytest.approx(0, abs=1e-12)
    assert figure.beyond_rounding(round(value - rounding)) == pytest.approx(0, abs=1e-12)
    assert figure.beyond_rounding(round(1.01 * value + rounding)) == pytest.approx(0.01, rel=1e-3)
    assert figure.beyond_rounding(round(0.99 * value - rounding)) == pytest.approx(-0.01, rel=1e-3)


@pytest.mark.parametrize("written", ["11.69", "1.8 G", "about 3M", "3.5B", ""])
def test_what_is_no_figure_is_told(written):
    with pytest.raises(ValueError, match="not a figure: "):
        assert Figure(written).value


# Counters, on networks small enough to count by hand.


def small(*layers):
    with torch.device("meta"):
        network = nn.Sequential(*(layer() for layer in layers))
    return network, count_costs(network, counters.EXAMPLE).training


def test_norms_are_left_out():
    network, cost = small(partial(nn.Conv2d, 3, 5, 1), partial(nn.BatchNorm2d, 5))
    assert counters.without_norms(network, cost) == 3 * 5 + 5


def test_norms_relus_and_pools_are_counted():
    network, cost = small(
        partial(SEConv2d, 3, 8, 1, stride=4, bias=False),
        partial(nn.BatchNorm2d, 8),
        nn.ReLU,
        partial(nn.MaxPool2d, 2),
    )
    pixels, hidden = 56 * 56, 4
    expected = 24 * pixels + 2 * 8 * hidden  # the convolution and its gate's two layers
    expected += (1 + 2 + 1 + 1) * 8 * pixels  # the gate's pooling, norm, ReLU, pooling
    assert counters.norms_and_relus_counted(network, cost) == expected


@pytest.mark.parametrize("kernels", [1, 4])
def test_gates_on_kernels_by_hand(kernels):
    conv = partial(nn.Conv2d, 3, 6, 3, stride=2, padding=1, bias=False)
    network, _ = small(conv)
    with torch.device("meta"):
        network = replace_convs(network, partial(ODConv2d, num_kernels=kernels), "all")
    gate = 16 * (3 + 3 + 6 + 9 + (4 if kernels == 4 else 0))
    weights, pixels = 3 * 6 * 9, 112 * 112
    operations = {1: 2, 4: 4 + 3 + 2}[kernels]  # multiplications, additions, gates
    expected = weights * pixels + gate + operations * weights + 3 * pixels
    cost = count_costs(network, counters.EXAMPLE).training
    assert counters.gates_on_kernels(network, cost) == expected


def test_squeezing_counts_twice_what_a_block_reads():
    (row,) = rows("EfficientNet-B0", layer=None)
    network = row.build()
    cost = count_costs(network, counters.EXAMPLE).training
    # channels behind the depthwise convolution of each block, and the side of their image
    read = [(32, 112), (96, 56), (144, 56), (144, 28), (240, 28), (240, 14), *[(480, 14)] * 3,
            *[(672, 14)] * 2, (672, 7), *[(1152, 7)] * 4]  # fmt: skip
    expected = 2 * sum(channels * side**2 for channels, side in read)
    assert counters.squeezing_counted(network, cost) - cost.macs.total == expected


def test_a_moved_stride_keeps_the_network_and_leaves_the_given_one():
    network = from_torchvision("resnet50")
    moved = counters.stride_first(network)
    assert network.layer2[0].conv2.stride == moved.layer2[0].conv1.stride == (2, 2)
    assert network.layer2[0].conv1.stride == moved.layer2[0].conv2.stride == (1, 1)
    assert network.layer1[0].conv1.stride == moved.layer1[0].conv1.stride == (1, 1)
    images = counters.EXAMPLE
    assert network.eval()(images).shape == moved.eval()(images).shape


def test_counting_leaves_networks_in_their_mode_and_without_hooks():
    network, _ = small(partial(nn.Conv2d, 3, 4, 1))
    assert len(counters.calls(network.train(), nn.Conv2d)) == 1
    assert network.training
    assert not network[0]._forward_hooks


def test_repvgg_deployed_is_the_plain_network_and_its_biases():
    network = repvgg((2, 4, 14, 1), 0.75, 2.5)
    channels = sum(m.out_channels for m in network.modules() if isinstance(m, nn.Conv2d))
    plain = count_costs(network, counters.EXAMPLE).training
    with torch.device("meta"):
        replaced = replace_convs(network, RepVGGConv2d, "all")
    deployed = count_costs(replaced, counters.EXAMPLE).deployed
    assert deployed.parameters == plain.parameters + channels
    assert deployed.macs == plain.macs
