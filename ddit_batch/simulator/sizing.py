"""How many GPUs are enough: a search over their number, which asks for as few runs as it can.

Pure. More GPUs are taken to be no slower. A policy may break that here and there, by a little; then
the answer is still a number that is enough while one less is not, but a smaller one might be, too.
"""

from __future__ import annotations

from collections.abc import Callable


def fewest_gpus(
    makespan_s: Callable[[int], float], *, by_s: float, at_least: int, at_most: int
) -> int | None:
    """The least number of GPUs with which all is done *by_s* seconds after the start.

    Args:
        makespan_s: Of so many GPUs. Asked near the answer, if *at_least* is near it.
        by_s: The time allowed.
        at_least: No smaller number can be enough; from 1.
        at_most: No larger number is tried.

    Returns:
        None if *at_most* GPUs are not enough.
    """
    too_few, enough, more = at_least - 1, at_least, 1
    while makespan_s(min(enough, at_most)) > by_s:
        if enough >= at_most:
            return None
        too_few, enough, more = enough, enough + more, more * 2
    enough = min(enough, at_most)
    while enough - too_few > 1:
        middle = (enough + too_few) // 2
        if makespan_s(middle) > by_s:
            too_few = middle
        else:
            enough = middle
    return enough
