"""Making a failing run simpler: choices are set to 0, the harmless one, as long as it still fails in the same way."""

from collections.abc import Callable, Sequence

TRIES = 400


def shrink(choices: Sequence[int], fails: Callable[[Sequence[int]], bool], *, tries: int = TRIES) -> tuple[int, ...]:
    """Return simpler choices that still fail: first a shorter run, then ever smaller pieces of it made harmless."""
    best = list(choices)
    left = tries

    def try_it(simpler: list[int]) -> bool:
        nonlocal best, left
        if left <= 0 or simpler == best:
            return False
        left -= 1
        if not fails(simpler):
            return False
        best = simpler
        return True

    size = len(best)
    while size > 0:
        while len(best) > size and try_it(best[:-size]):
            pass
        size //= 2
    size = max(1, len(best) // 2)
    while size > 0:
        for start in range(0, len(best), size):
            piece = best[start : start + size]
            if any(piece):
                try_it([*best[:start], *[0] * len(piece), *best[start + size :]])
        size //= 2
    while best and best[-1] == 0:
        best.pop()
    return tuple(best)
