import itertools

import pytest

from overconv.bench.judging import PAIRS
from overconv.bench.rounds import Rounds, Task
from overconv.bench.workers import CannotJudge, Refused

COSTS = {"one": 3e-4, "two": 5e-3, "plain": 1e-4}
TASKS = [Task("one", 1.05, "base"), Task("two", 1.05, "base")]


@pytest.fixture
def run(scripted):
    """Rounds over scripted pairs; ``head`` and ``base`` say how the n-th pair is."""

    def run(tasks=TASKS, slower=lambda n: {}, head=lambda n: {}, base=lambda n: {}, **more):
        said = []
        rounds = Rounds(tasks, said.append, seed=1, **more)
        for n in range(PAIRS):
            costs = COSTS | {case: COSTS[case] * by for case, by in slower(n).items()}
            pair = (
                scripted("head", costs, seed=n, **head(n)),
                scripted("base", COSTS, seed=n, **base(n)),
            )
            rounds.measure(*pair)
            if not rounds.pending:
                break
        rounds.said, rounds.last = said, pair
        return rounds

    return run


def outcomes(rounds):
    return {case: verdict.outcome for case, verdict in rounds.verdicts.items()}


def test_equal_revisions_pass_in_one_pair(run):
    rounds = run()
    assert outcomes(rounds) == {"one": "pass", "two": "pass"}
    assert rounds.done == 1 and rounds.calibration.outcome == "pass"
    verdict = rounds.verdicts["one"]
    assert verdict.against == "base" and verdict.pairs == 1 and verdict.groups >= 20
    assert verdict.reason.startswith(f"{verdict.ratio.estimate:.3f} (")
    assert rounds.said[0].startswith("self-test, pair 1: equal work reads 1.0")
    assert any(line.startswith("pass     one: ") for line in rounds.said)


def test_a_slower_case_fails_after_a_second_pair_and_alone(run):
    rounds = run(slower=lambda n: {"two": 1.1})
    assert outcomes(rounds) == {"one": "pass", "two": "fail"}
    assert rounds.done == 2
    verdict = rounds.verdicts["two"]
    assert verdict.pairs == 2 and verdict.ratio.estimate == pytest.approx(1.1, abs=0.01)
    assert "limit 1.05; earlier pairs of processes: fail at 1.1" in verdict.reason
    assert ("case", "one") not in rounds.last[0].log  # what has a verdict is not timed again
    assert any(line.startswith("again    two: ") for line in rounds.said)


def test_a_faster_case_passes_and_is_said_to_be_faster(run):
    assert "; faster" in run(slower=lambda n: {"two": 0.8}).verdicts["two"].reason
    assert "faster" not in run().verdicts["two"].reason


def test_an_unlucky_layout_of_one_process_does_not_fail(run):
    rounds = run(slower=lambda n: {"two": 1.09 if n == 0 else 1.0})
    assert outcomes(rounds) == {"one": "pass", "two": "pass"}
    assert rounds.done == 3  # one pair says slower, two say not
    assert "earlier pairs of processes: fail at 1.0" in rounds.verdicts["two"].reason
    # Where all that a process does is slower, its self-test shows it.
    rounds = run(head=lambda n: {"layout": 1.08 if n == 0 else 1.0})
    assert outcomes(rounds) == {"one": "pass", "two": "pass"} and rounds.done == 2


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ({"layout": 1.1}, "equal work reads 1.1"),
        ({"spread": 3.0}, "equal work reads"),
        ({"layout": 0.9}, "10 % more reads 0.9"),
    ],
)
def test_a_machine_that_cannot_resolve_ten_per_cent_judges_nothing(run, head, words):
    rounds = run(slower=lambda n: {"two": 3.0}, head=lambda n: head)
    assert outcomes(rounds) == {"one": "unclear", "two": "unclear"}
    assert rounds.calibration.outcome == "unclear"
    assert "this machine cannot resolve 10 % now: " in rounds.calibration.reason
    assert words in rounds.calibration.reason
    assert "this machine cannot resolve 10 % now" in rounds.verdicts["two"].reason
    assert all(what == "fixed" for what, _ in rounds.last[0].log)
    assert rounds.done == PAIRS


def test_a_load_that_ends_costs_a_pair_of_processes_and_no_more(run):
    rounds = run(head=lambda n: {"spread": 3.0 if n == 0 else 0.01})
    assert outcomes(rounds) == {"one": "pass", "two": "pass"}
    assert rounds.done == 2 and rounds.calibration.outcome == "pass"


def test_a_slow_down_that_no_second_pair_can_confirm_is_unclear(run):
    rounds = run(slower=lambda n: {"two": 1.1}, head=lambda n: {"spread": 3.0 if n else 0.01})
    assert outcomes(rounds) == {"one": "pass", "two": "unclear"}
    assert "no other pair of processes confirms it" in rounds.verdicts["two"].reason


def test_waiting_is_not_judged_by_one_clock(run, scripted):
    class Waits(scripted):
        def sample(self, what, calls):
            taken = super().sample(what, calls)
            more = 1.3 if what == "case" else 1.0
            return type(taken)(taken.wall * more, taken.cpu, 0)

    rounds = Rounds([TASKS[0]], lambda _: None, seed=1)
    while rounds.pending:
        rounds.measure(Waits("head", COSTS), scripted("base", COSTS))
    verdict = rounds.verdicts["one"]
    assert verdict.outcome == "unclear"
    assert "a layer that waits, or that starts threads, cannot be judged" in verdict.reason


def test_a_case_against_plain_is_timed_in_one_process(run):
    rounds = run([Task("one", 1.05, "plain", (3.0, 3.0))])
    assert outcomes(rounds) == {"one": "pass"}
    assert rounds.verdicts["one"].against == "plain"
    assert "of the recorded ratio to plain" in rounds.verdicts["one"].reason
    assert ("plain", "one") in rounds.last[0].log
    assert all(case is None for _, case in rounds.last[1].log)
    assert outcomes(run([Task("one", 1.05, "plain", (2.7, 2.7))])) == {"one": "fail"}


def refuses(what, kind):
    return {"prepared": {(what, "one"): Refused("one puts out something else", kind)}}


def test_a_wrong_output_of_head_fails_and_one_of_base_cannot_be_judged(run):
    rounds = run(head=lambda n: refuses("case", "output"))
    assert outcomes(rounds) == {"one": "fail", "two": "pass"}
    assert rounds.verdicts["one"].reason == "one puts out something else"
    rounds = run(base=lambda n: refuses("case", "output"))
    assert outcomes(rounds) == {"one": "unclear", "two": "pass"}
    assert rounds.verdicts["one"].reason == (
        "there is nothing right to compare with, base fails: one puts out something else; if head"
        " mends it, say --gone one"
    )


def test_code_that_raises_is_told_from_code_that_computes_something_else(run):
    rounds = run(head=lambda n: refuses("case", "raised"))
    assert rounds.verdicts["one"].reason == "it fails in head: one puts out something else"
    rounds = run([Task("one", 1.05, "plain")], head=lambda n: refuses("plain", "raised"))
    assert rounds.verdicts["one"].outcome == "unclear"
    assert "its plain counterpart in head fails" in rounds.verdicts["one"].reason


def test_code_from_elsewhere_ends_all(run):
    with pytest.raises(CannotJudge, match="in head, one puts out"):
        run(head=lambda n: refuses("case", "revision"))


def test_time_that_is_used_up_leaves_the_rest_unclear(run):
    left = itertools.chain([1.0], itertools.repeat(-1.0))
    rounds = run(left=lambda: next(left))
    assert outcomes(rounds) == {"one": "pass", "two": "unclear"}
    assert rounds.verdicts["two"].reason == (
        "not timed: the time of this run is used up: give it more with --minutes"
    )
    assert rounds.done == 1
