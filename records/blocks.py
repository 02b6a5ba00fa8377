"""To which stratum a block belongs, when its trials were recorded in several."""

from collections import defaultdict
from collections.abc import Iterable

from records.record import Record


def owner(records: Iterable[Record]) -> str | None:
    """The stratum of a block, given all records of its trials: None if there are none.

    The stratum that holds most of the block's trials; of several, the one that finished its
    first trial last. Results of different strata are never compared, so a block that is run anew
    in a second one passes to it once that one holds as much of it.
    """
    trials: dict[str, set[str]] = defaultdict(set)
    first: dict[str, float] = {}
    for record in records:
        trials[record.stratum].add(record.trial)
        finished = record.times["finished"]
        first[record.stratum] = min(finished, first.get(record.stratum, finished))
    return min(trials, key=lambda s: (-len(trials[s]), -first[s], s), default=None)
