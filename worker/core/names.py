"""The names of lanes: safe in a Redis key, a path and a metric label."""

import re

LANE_NAME = r"[a-z0-9][a-z0-9._-]{0,62}"

_LANE = re.compile(LANE_NAME)


def is_lane_name(text: str) -> bool:
    """Say whether a lane may be called so."""
    return _LANE.fullmatch(text) is not None
