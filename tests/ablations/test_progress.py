"""What people are told of a run."""

import io

from ablations.engines.engine import Task
from ablations.progress import Progress, duration


def task(arm: str, block: int = 0) -> Task:
    return Task(
        study="s", study_hash="h", preset="p", results="r", arm=arm, block=block, expect="t/s"
    )


TASKS = [task("plain"), task("gated"), task("plain", 1), task("gated", 1)]
GOOD = {
    "outcome": "finished", "validation_accuracy": 0.91234, "train_loss": 0.25, "seconds": 3.2,
}  # fmt: skip


def told(*heard) -> tuple[Progress, list[str]]:
    stream = io.StringIO()
    progress = Progress(dict.fromkeys(TASKS, 2), stream)
    for subject, message in heard:
        progress.heard(subject, message)
    return progress, stream.getvalue().splitlines()


def test_it_says_what_came_of_each_and_what_is_left():
    progress, lines = told(
        (TASKS[0], {"epoch": 0, "values": {"validation_accuracy": 0.5}}),
        (TASKS[0], {"epoch": 1, "values": {"validation_accuracy": 0.5}}),
        (TASKS[0], {"finished": GOOD}),
        (TASKS[1], {"failed": "Traceback\nValueError: no\n"}),
        (TASKS[2], {"finished": GOOD | {"outcome": "diverged", "seconds": 1.0}}),
        (TASKS[3], {"recorded": None}),
    )
    assert lines[0].startswith("[1/4] plain block 0: 91.23 % validation accuracy, 3 s; about ")
    assert lines[1] == "[2/4] gated block 0: FAILED"
    assert lines[3] == "ValueError: no; about 0 s left"
    assert lines[-2].startswith("[3/4] plain block 1: diverged, 1 s")
    assert lines[-1] == "[4/4] gated block 1: recorded by another launcher"
    assert progress.num_done == progress.total


def test_a_test_score_is_not_shown():
    """Whoever watches trials would come to choose by it."""
    unseen = GOOD | {"validation_accuracy": None, "test_accuracy": 0.9}
    for finished in (GOOD | {"test_accuracy": 0.9}, unseen):
        _, lines = told((TASKS[0], {"finished": finished}))
        assert "90" not in lines[0] and "test" not in lines[0]
    assert lines[0].startswith("[1/4] plain block 0: training loss 0.250, 3 s")


def test_what_befalls_a_trial_is_a_line():
    _, lines = told(
        (TASKS[0], {"resumed": 40}),
        (TASKS[0], {"note": "7.checkpoint is passed over"}),
        (TASKS[0], {"retried": "much that was said\nworker process 9 ended: SIGKILL"}),
        (TASKS[1], {"held": "node3 process 8"}),
        (TASKS[1], {"held": "node3 process 8"}),
        (TASKS[0], {"stopped": 60}),
    )
    assert lines == [
        "plain block 0: taken up from its checkpoint at step 40",
        "plain block 0: 7.checkpoint is passed over",
        "plain block 0: worker process 9 ended: SIGKILL; tried once more",
        "gated block 0: is being run by node3 process 8; looked at again later",
        "plain block 0: stopped after step 60, checkpoint kept",
    ]


def test_epochs_that_were_not_trained_here_do_not_count_as_fast():
    """Three epochs of eight are over, one of them trained here: the others say nothing of time."""
    progress, _ = told(
        (TASKS[3], {"recorded": GOOD}),
        (TASKS[0], {"resumed": 40}),
        (TASKS[0], {"epoch": 0, "values": {}}),
    )
    assert (progress.num_done, progress.num_trained) == (3, 1)
    progress.start -= 10.0
    assert progress._left() == "; about 50 s left"


def test_an_epoch_that_is_trained_twice_counts_once():
    progress, _ = told(
        (TASKS[0], {"epoch": 0, "values": {}}),
        (TASKS[0], {"retried": "killed"}),
        (TASKS[0], {"epoch": 0, "values": {}}),
        (TASKS[0], {"epoch": 1, "values": {}}),
    )
    assert progress.num_done == 2


def test_durations_are_for_people():
    assert [duration(s) for s in (4.4, 99, 200, 5400, 7500)] == [
        "4 s", "99 s", "3 min", "90 min", "2 h 05 min",
    ]  # fmt: skip
