"""When a claim may be judged, and how much of the 5 % is spent at each look."""

ERROR = 0.05  # a claim's, over all its contrasts and looks
FEWEST_BLOCKS = 6  # with fewer, no exact test of paired signs can reach 5 %


def share(looks: tuple[int, ...]) -> float:
    """The error of one look: an equal part of a claim's 5 %.

    Looks at 6, 10 and 15 blocks, each at 5 %, make it 11 %.

    >>> share((10,)), share((6, 10))
    (0.05, 0.025)
    """
    return ERROR / len(looks)


def reached(looks: tuple[int, ...], complete: list[int]) -> list[int]:
    """The looks that there are blocks for: a look at n needs all of the blocks 0 to n - 1.

    So nobody chooses the blocks of a look, and what is run after it does not change it.

    >>> reached((6, 10), [0, 1, 2, 3, 4, 5, 7, 8, 9, 10])
    [6]
    """
    have = set(complete)
    return [look for look in looks if have.issuperset(range(look))]
