"""A pair of fresh processes, one for head and one for base."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from overconv.bench.workers import Place, Unreadable, Worker


@contextmanager
def pair(
    here: Place, tree: Path | None, core: int | None
) -> Iterator[tuple[Worker, Worker | None]]:
    """Both processes, their cases read; None for base where that has no cases.

    Args:
        here: The place of head.
        tree: Where the base is checked out; None: there is no base.
        core: The only one that both may run on; None: any.

    Raises:
        CannotJudge: The cases of either cannot be read.
    """
    with ExitStack() as stack:
        head = stack.enter_context(Worker("head", here, here, core))
        base = None
        place = None if tree is None else here.moved(tree)
        if place is not None and place.cases.exists():
            base = stack.enter_context(Worker("base", place, here, core))
        yield head.read(), None if base is None else _old(base)


def _old(base: Worker) -> Worker | None:
    """The base's process, or None if its cases are older than what cases are made of."""
    try:
        return base.read()
    except Unreadable as unreadable:
        if unreadable.before_cases:
            return None
        raise
