"""Orders of evaluation: every way to multiply a chain gives its outputs, and the best is found."""

from itertools import pairwise, product

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from overconv.operators.chain_macs import best_orders, compact, order_macs
from overconv.operators.mdconv import MDConv2d
from overconv.operators.order import (
    cheapest,
    expanding,
    factors,
    leaves,
    parse,
    segmentations,
    write,
)


def all_orders(parts):
    """Every way to put the parentheses, by brute force."""
    if len(parts) == 1:
        return [parts[0]]
    return [
        (left, right)
        for split in range(1, len(parts))
        for left in all_orders(parts[:split])
        for right in all_orders(parts[split:])
    ]


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_every_order_is_written_and_read(depth):
    for order in all_orders(factors(depth, range(depth + 1))):
        assert parse(write(order)) == order


@pytest.mark.parametrize(
    "text", ["", "x", "A1", "A2 D1 A1 x", "A2 (D1 (A1 x)", "A1 x)", "(A1 x)", "A2 () x", "(A1) x y"]
)
def test_what_is_no_product_of_pairs_is_told(text):
    with pytest.raises(ValueError, match="an order is a product of two factors"):
        parse(text)


def test_a_chain_of_ten_layers_keeps_its_numbers_apart():
    order = expanding(factors(11, [10]))
    assert leaves(parse(write(order)))[:3] == ("A11", "D10", "A10")


def test_segmentations_are_all_ways_to_cut():
    runs = segmentations(factors(4, [1, 2, 3]))
    assert len(set(runs)) == 8
    assert all(sum(cut, ()) == ("A4", "A3", "A2", "A1") for cut in runs)


@pytest.mark.parametrize(
    ("spatial", "depth", "placement"),
    [
        *product(["first", "last"], [2], [("middle",), ("input", "output")]),
        *product(["first", "last"], [2], [("input", "middle", "output"), ()]),
        *product(["first", "last"], [3], [("middle",), ("output",)]),
    ],
)
def test_every_order_computes_the_chain(spatial, depth, placement, oracle):
    """Outputs, gradients and counted products, with groups, a bias and shifts of folded norms."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, 6, 5, generator=generator, dtype=torch.float64)
    options = {"depth": depth, "placement": placement, "spatial": spatial, "middle_channels": 6}
    layer = MDConv2d(4, 6, (3, 2), (2, 1), (1, 2), groups=2, middle_norm=True, **options)
    oracle.randomise(layer).eval()
    definition = oracle.gradients(layer, lambda x: oracle.chain(layer, x), x)
    deployed = layer.to_inference()
    for order in all_orders(layer.product):
        layer.form = write(order)
        oracle.compare("orders = loops", oracle.gradients(layer, layer, x), definition, 1e-9)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            layer(x)
        macs = layer.macs((6, 5))
        products = 2 * (macs.gate + macs.compose + macs.convolution)
        shared = counter.get_total_flops() // 2 - products  # the rest of it is elementwise
        assert 0 <= shared <= macs.shared
    assert layer.form != "compact"
    if "middle" in placement:  # otherwise the layers are one
        for order in all_orders(deployed.product):
            deployed.form = write(order)
            oracle.compare("orders, norms folded = loops", deployed(x), definition[0], 1e-9)
            with torch.inference_mode():
                oracle.compare("orders, norms folded = loops", deployed(x), definition[0], 1e-9)


@pytest.mark.parametrize("depth", [2, 3])
def test_counted_products_are_those_of_a_run(depth):
    """Without constants everything but the gates' elementwise work is a matrix product."""
    layer = MDConv2d(4, 6, 3, padding=1, depth=depth, middle_channels=5, bias=False).eval()
    x = torch.randn(3, 4, 6, 5)
    for order in all_orders(layer.product):
        layer.form = write(order)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            layer(x)
        macs = layer.macs((6, 5))
        counted = 3 * (macs.gate + macs.compose + macs.convolution) + macs.shared
        assert counter.get_total_flops() == 2 * counted, layer.form


@pytest.mark.parametrize("spatial", ["first", "last"])
@pytest.mark.parametrize("image", [(1, 1), (4, 4), (40, 30)])
@pytest.mark.parametrize(
    "shape", [(4, 24, 1, 4), (24, 4, 1, 24), (8, 8, 3, 8), (16, 4, 3, 2), (4, 16, 5, 24)]
)
def test_the_programme_finds_the_cheapest_of_all_orders(shape, image, spatial):
    in_channels, out_channels, kernel_size, middle = shape
    for depth, placement in [(2, ("middle",)), (3, ("middle",)), (2, ("input", "middle"))]:
        options = {"depth": depth, "placement": placement, "spatial": spatial}
        layer = MDConv2d(
            in_channels, out_channels, kernel_size, middle_channels=middle, padding=2, **options
        ).eval()
        costs = {o: order_macs(layer, image, o).total for o in all_orders(layer.product)}
        found = best_orders(layer, image)
        assert order_macs(layer, image, found[0]).total == min(costs.values())
        ranked = [costs[order] for order in found]
        assert all(a <= b for a, b in pairwise(ranked))
        assert {expanding(layer.product), compact(layer)} <= costs.keys()
        whole = [o for o in costs if o[1] == "x"]  # all that compose the kernel first
        cheapest_whole = min(order_macs(layer, (1, 1), o).total for o in whole)
        assert order_macs(layer, (1, 1), compact(layer)).total == cheapest_whole


def test_ties_go_to_running_layer_by_layer():
    product_ = factors(3, [1, 2])
    assert cheapest(product_, lambda left, right: 0) == expanding(product_)


def test_small_images_are_run_layer_by_layer_and_large_ones_composed():
    """The crossing that a fixed form misses: at 7 x 7, composing costs the more."""
    layer = MDConv2d(64, 64, 3, padding=1).eval()
    small, large = layer.forms((7, 7)), layer.forms((112, 112))
    assert min(small, key=lambda form: small[form].total) == "expanding"
    assert min(large, key=lambda form: large[form].total) == "compact"


@pytest.mark.parametrize("batch", [1, 2, 32])
@pytest.mark.parametrize("when", ["sample", "batch"])
def test_the_cheapest_for_a_batch_shares_what_is_done_once(when, batch):
    for image in [(3, 3), (20, 20)]:
        layer = MDConv2d(12, 8, 1, depth=3, middle_channels=16, when=when)
        costs = [order_macs(layer, image, o).per_image(batch) for o in all_orders(layer.product)]
        assert order_macs(layer, image, best_orders(layer, image, batch)[0]).per_image(
            batch
        ) == min(costs)
        least = min(macs.per_image(batch) for macs in layer.forms(image, batch).values())
        assert least == min(costs)


def test_an_order_of_no_end_is_told():
    with pytest.raises(ValueError, match="an order is a product of two factors"):
        parse("(" * 5000)


def test_an_image_that_is_too_small_costs_nothing_negative():
    for macs in MDConv2d(8, 8, (3, 1)).forms((1, 1)).values():
        assert min(macs.gate, macs.compose, macs.convolution, macs.other, macs.shared) >= 0
