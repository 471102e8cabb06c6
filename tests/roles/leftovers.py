"""What stays in Redis for ever without a right to: looked for after every test of the roles, whatever it has done."""

import re
from typing import Any

from worker.ledger.keys import PERMANENT, Keys

KEYS = Keys("batchmill:")
OF_LANES = ("prompts", "lane", "due", "fences", "settled", "dead", "unposted")
_LANE = re.compile(r"batchmill:\{([^}]*)\}:")


def leftovers(redis: Any) -> list[str]:
    """Return the keys without a time to live that `ledger/keys.py` gives no owner, and members without their batch."""
    names = {key.decode() for key in redis.keys("*")}
    allowed = {getattr(KEYS, noun) for noun in (*PERMANENT, "barrier_mark")}  # a crash leaves the mark to the next turn
    strays = []
    for lane in {match[1] for name in names if (match := _LANE.match(name))} - {"knocks"}:
        live = _texts(redis.zrange(KEYS.due(lane), 0, -1))
        members = _texts(redis.hkeys(KEYS.fences(lane))) | _texts(redis.zrange(KEYS.unposted(lane), 0, -1))
        strays += [f"{uid} outlives its batch in lane {lane}" for uid in members - live]
        allowed |= {getattr(KEYS, noun)(lane) for noun in OF_LANES}
        allowed |= {key(lane, uid) for uid in live for key in (KEYS.batch, KEYS.unusable)}
    return strays + sorted(name for name in names - allowed if redis.ttl(name) == -1 and "{knocks}" not in name)


def _texts(found: list[bytes]) -> set[str]:
    return {each.decode() for each in found}
