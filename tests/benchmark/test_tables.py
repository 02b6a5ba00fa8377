"""Tables: text from a record alone, and README.md from the committed records."""

import json
import math

import pytest
import torch
from scipy import stats
from torch import nn

from benchmark import capacity, inference, plans, training
from benchmark.cli import TABLES, main
from benchmark.medians import median_interval
from benchmark.readme import README, filled
from benchmark.shapes import Shape, layer_shapes, shapes_of
from benchmark.tables import load, markdown, record, save, with_other_machines
from overconv.operators.condconv import CondConv2d
from overconv.operators.maconv import MAConv2d
from overconv.operators.mdconv import MDConv2d
from overconv.surgery import replace_convs, to_inference

SMALL = Shape("made", 4, 6, 3, 1, 1, 1, 5)


def test_markdown_keeps_columns_apart():
    assert markdown(["a", "long"], [[1, "x|y"], ["two", 3]]) == (
        "| a   | long |\n|-----|------|\n| 1   | x\\|y |\n| two | 3    |\n"
    )


def test_a_record_says_where_it_comes_from(tmp_path):
    found = record("python -m benchmark made", [{"x": 1}], batch=2)
    assert found["environment"].keys() >= {"torch", "threads", "processor", "commit"}
    assert "host" not in found["environment"]
    path = save("made", found, "text\n\n", tmp_path)
    assert path.read_text() == "text\n"
    assert load("made", tmp_path) == json.loads(json.dumps(found))


def test_the_readme_shows_the_committed_tables():
    assert main(["readme", "--check"]) == 0


@pytest.mark.parametrize("name", TABLES)
def test_committed_tables_are_those_of_their_records(name, tmp_path):
    """The text beside each record is made from it, and nothing else."""
    committed = load(name)
    (tmp_path / f"{name}.json").write_text(json.dumps(committed))
    assert main([name, "--text-only", "--out", str(tmp_path)]) == 0
    folder = README.parent / "benchmark" / "tables"
    assert (tmp_path / f"{name}.md").read_text() == (folder / f"{name}.md").read_text()
    assert committed["command"] == f"python -m benchmark {name}"


def test_a_place_is_filled_and_the_rest_kept(tmp_path):
    save("made", record("python -m benchmark made", []), "", tmp_path)
    text = "a\n<!-- table: made -->\nold\n<!-- end of table -->\nb\n"
    fresh = filled(text, {"made": lambda found: "new\n"}, tmp_path)
    assert fresh.startswith("a\n<!-- table: made -->\nnew\n\n*`python -m benchmark made`, torch ")
    assert fresh.endswith("<!-- end of table -->\nb\n")
    assert filled(fresh, {"made": lambda found: "new\n"}, tmp_path) == fresh
    with pytest.raises(ValueError, match="names the table 'made'; there are other"):
        filled(text, {"other": lambda found: ""}, tmp_path)


# Shapes.


def test_shapes_are_those_of_the_networks():
    """MobileNetV2 by table 2 of its paper, ResNet-18 by table 1."""
    mobile, residual = shapes_of("mobilenet_v2"), shapes_of("resnet18")
    assert mobile[0] == Shape("mobilenet_v2", 3, 32, 3, 2, 1, 1, 224)
    assert mobile[-1] == Shape("mobilenet_v2", 320, 1280, 1, 1, 0, 1, 7)
    assert Shape("mobilenet_v2", 960, 960, 3, 1, 1, 960, 7) in mobile
    assert residual[0] == Shape("resnet18", 3, 64, 7, 2, 3, 1, 224)
    assert len(residual) == 11
    assert {shape.kind for shape in mobile} == {"spatial", "pointwise", "depthwise"}
    assert len(layer_shapes()) >= 40
    assert str(mobile[-1]) == "320-1280 1x1 at 7"
    assert nn.Conv2d(*mobile[-1].arguments).weight.shape == (1280, 320, 1, 1)


# Capacity.


@pytest.mark.parametrize("name", capacity.LAYERS)
@pytest.mark.parametrize("shape", [(2, 4, 3), (6, 4, 1), (4, 4, 2)])
def test_the_dimension_by_formula_is_the_rank(name, shape):
    layer = capacity.build(capacity.LAYERS[name], shape)
    if isinstance(layer, nn.Conv2d):
        return
    assert layer.kernel_dimension() == capacity.numerical_dimension(layer)


@pytest.mark.parametrize("spatial", ["first", "last"])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("middle", [2, 6])
def test_the_dimension_of_a_chain_is_the_rank(depth, groups, spatial, middle):
    for placement in [(), ("input",), ("output",), ("middle",), ("input", "middle"),
                      ("middle", "output"), ("input", "middle", "output")]:  # fmt: skip
        layer = MDConv2d(
            4, 6, (2, 1), depth=depth, groups=groups, spatial=spatial, placement=placement,
            middle_channels=middle, bias=False,
        )  # fmt: skip
        assert layer.kernel_dimension() == capacity.numerical_dimension(layer), placement


# Plans, inference, training.


def test_a_plan_is_held_against_all_forms():
    row = plans._row("made", MDConv2d, SMALL, 2, 0.01)
    assert row["ratio_latency"] >= 1
    assert row["fastest"] in row["milliseconds"]
    assert {row["form_latency"], row["form_macs"]} <= row["macs"].keys()
    made = [row | {"ratio_latency": 1.1, "ratio_macs": 1.0}, row | {"ratio_latency": 1.0}]
    text = plans.text({"rows": made})
    assert f"| {1.1**0.5:.3f} " in text
    assert "Where the latency plan lost more than 3 %" in text
    assert "lost more" not in plans.text({"rows": made[1:]})


def test_a_deployed_network_is_compared_module_for_module():
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1)).eval()
    same = to_inference(replace_convs(plain, MAConv2d, "all", preserve=True))
    assert inference._same_graph(same, to_inference(plain))
    assert not inference._same_graph(same[:2], plain)
    other = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1, bias=False))
    assert not inference._same_graph(other, plain)
    dynamic = to_inference(replace_convs(plain, CondConv2d, "all", preserve=True))
    assert not inference._same_graph(dynamic, plain)
    assert inference._forms(dynamic) == {"weights": 2}
    assert inference._inside_a_layer(dynamic, "0.gate")
    assert not inference._inside_a_layer(dynamic, "1")


def test_every_folding_layer_is_measured():
    assert {
        "ACConv2d",
        "RepVGGConv2d",
        "OREPAConv2d",
        "MAConv2d",
    } <= inference.folding_layers().keys()


def test_a_training_step_is_timed_and_its_bytes_counted():
    ours, theirs = training.PAIRS["MDConv2d, depth 2 / plain"]
    row = training._row("MDConv2d, depth 2 / plain", ours, theirs, SMALL, 0.01)
    assert training._INSTANCES <= row["instances"] <= training._MOST_INSTANCES
    for side in ("", "_planned"):
        low, high = row[f"interval{side}"]
        assert low <= row[f"ratio{side}"] <= high
    assert row["saved_bytes"]["theirs"] == 0  # the input and the weight are there anyway
    # the middle's features, before and after the gate, and little else
    assert row["saved_bytes"]["ours"] >= 2 * 4 * training.BATCH * 6 * 25
    assert "| 1 " in training.text({"rows": [row]})


def test_a_ratio_is_the_median_over_instances_not_that_of_the_least_times(monkeypatch):
    times = {"ours": iter([6.0, 9.0, 2.0] * 2), "theirs": iter([2.0, 3.0, 8.0] * 2)}
    times["planned"] = iter([20.0, 30.0, 80.0] * 2)

    monkeypatch.setattr(
        training, "interleaved", lambda steps, **o: {s: [next(times[s])] for s in steps}
    )
    ours, theirs = training.PAIRS["MDConv2d, depth 2 / plain"]
    row = training._row("MDConv2d, depth 2 / plain", ours, theirs, SMALL, 0.01)
    assert (row["ratio"], row["ratio_planned"], row["instances"]) == (3.0, 10.0, 6)
    assert row["interval"] == (0.25, 3.0)


@pytest.mark.parametrize("n", range(1, 61))
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_the_interval_of_a_median_is_the_shortest_that_holds(n, confidence):
    """By the coverage of every pair of order statistics of n coins."""
    values = [float(i) for i in range(n)]
    low, high = median_interval(values[::-1], confidence)
    chance = stats.binom(n, 0.5)
    held = [k for k in range(1, n + 1) if 2 * chance.cdf(k - 1) <= 1 - confidence]
    if not held:
        assert (low, high) == (-math.inf, math.inf)
        return
    assert (low, high) == (values[max(held) - 1], values[n - max(held)])


def test_a_ratio_near_to_one_is_timed_until_it_is_known_and_no_longer_than_allowed():
    known = {"ours": [1.0] * 6, "planned": [0.5, 0.8, 0.6, 0.7, 0.4, 0.9], "theirs": [1.0] * 6}
    assert training._is_told(known)
    wide = [0.9, 1.1, 1.0, 0.95, 1.05, 1.0]
    assert not training._is_told({**known, "ours": wide})
    assert not training._is_told({**known, "planned": wide})
    assert training._is_told({**known, "ours": [2 * ratio for ratio in wide]})


def test_the_slowest_against_timms_layer_is_named():
    pair = "CondConv2d, 4 kernels / timm's"
    row = {
        "pair": pair, "shape": "a", "kind": "spatial", "instances": 6, "form": "weights",
        "ratio": 0.9, "ratio_planned": 1.3, "interval": (0.8, 0.95), "interval_planned": (1.2, 1.4),
        "saved_bytes": {"ours": 0, "planned": 0, "theirs": 0},
    }  # fmt: skip
    other = {**row, "shape": "b", "ratio": 1.1, "interval": (1.05, 1.15), "ratio_planned": 1.0}
    text = training.text({"rows": [row, other]})
    assert "CondConv2d, 4 kernels, by default: 1.100 (1.050 to 1.150), b;" in text
    assert "CondConv2d, 4 kernels, planned: 1.300 (1.200 to 1.400), a." in text


def test_another_kind_of_processor_keeps_its_record():
    def made(processor, ratio):
        row = {
            "layer": "L", "where": "all", "parameters": 1e6, "ratio": ratio,
            "graph_is_plain": False, "forms": {"weights": 2},
        }  # fmt: skip
        environment = {"processor": processor}
        return {"environment": environment, "parameters_plain": 1e6, "rows": [row]}

    first = with_other_machines(made("A", 1.5), None)
    assert first["others"] == []
    both = with_other_machines(made("B", 1.25), first)
    again = with_other_machines(made("A", 1.75), both)
    found = [(r["environment"]["processor"], r["rows"][0]["ratio"]) for r in again["others"]]
    assert found == [("B", 1.25)] and again["rows"][0]["ratio"] == 1.75
    head, _, line = inference.text(again).splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in (head, line)]
    shown = dict(zip(*cells, strict=True))
    assert shown["time / plain, A"] == "1.75" and shown["time / plain, B"] == "1.25"
    assert shown["deployed as, B"] == "weights: 2"


def test_kept_bytes_are_those_of_the_features():
    x = torch.randn(2, 3, 8, 8)
    assert training.saved_bytes(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()), x) == 4 * 2 * 4 * 64


def test_timms_layer_computes_what_ours_does():
    layer, timms = CondConv2d(4, 6, 3, 1, 1, num_kernels=3), training.TimmCondConv(SMALL, 3)
    with torch.no_grad():
        timms.conv.weight.copy_(layer.weight.reshape(3, -1))
        timms.conv.bias.copy_(layer.bias)
        timms.gate.load_state_dict(layer.gate.state_dict())
    x = torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(layer(x), timms(x))
