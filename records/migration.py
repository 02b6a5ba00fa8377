"""`python -m records.migration DIR`: plans of an older schema in a results folder, written anew.

A plan is named by the hash of all that it says, so a new schema gives it a new name. Records are
not touched: they name no plan. Exit status: 0 done, 2 a plan cannot be read.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from records.store import Store


def migrate(store: Store) -> Iterator[tuple[Path, Path]]:
    """Give each plan the name of what it says in the newest schema; yields old and new files.

    The new file is there before the old one goes, so that no plan is lost however it ends.

    Raises:
        ValueError: A plan cannot be read, or says what no plan may say any more.
    """
    plans = [(path, store.read_plan(path)) for path in store.plan_paths()]  # all, or none
    for path, plan in plans:
        if path.name != plan.filename:
            new = store.save_plan(plan)
            path.unlink()
            yield path, new


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    if len(given) != 1 or not Path(given[0]).is_dir():
        print("usage: python -m records.migration DIR, a results folder", file=sys.stderr)
        return 2
    try:
        for old, new in migrate(Store(given[0])):
            print(f"{old} -> {new.name}")
    except (ValueError, OSError) as error:
        print(f"python -m records.migration: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
