"""The custom_id of a request: proof of whose it is, and the way back to the prompt.

`<deployment>_<batch uid>_<attempt>_<stream entry id>`, at most 61 of the API's 64 characters. The attempt always
takes two digits, so the size of a body is known when its range is sealed.
"""

import re
from hashlib import blake2s

import msgspec

DEPLOYMENT_LENGTH = 6
UID_LENGTH = 16  # 60 random bits and 20 of the lane in base32
LANE_LENGTH = 4
MAX_ATTEMPT = 99

_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
_NUMBER = r"(?:0|[1-9]\d{0,19})"  # as Redis spells it: another spelling would be a second name for one prompt
_TOKEN = re.compile(rf"([a-z2-7]{{6}})_([a-z2-7]{{16}})_(?!00)(\d\d)_({_NUMBER}-{_NUMBER})", re.ASCII)


class Token(msgspec.Struct, frozen=True, gc=False):
    """What a custom_id of ours says. `entry_id` is the prompt's stream entry id."""

    deployment: str
    uid: str
    attempt: int
    entry_id: str


def prefix(deployment: str, uid: str, attempt: int) -> str:
    """Return what all custom_ids of one submission start with; an entry id completes it."""
    if not 0 < attempt <= MAX_ATTEMPT:
        raise ValueError(f"attempt {attempt} is not within 1..{MAX_ATTEMPT}")
    return f"{deployment}_{uid}_{attempt:02d}_"


PREFIX_LENGTH = len(prefix("d" * DEPLOYMENT_LENGTH, "u" * UID_LENGTH, 1))


def pattern(deployment: str, uid: str) -> re.Pattern[str]:
    """Return what a batch's custom_ids match, whatever their attempt; groups are the entry id and its two halves."""
    return re.compile(rf"{re.escape(deployment)}_{re.escape(uid)}_(?!00)\d\d_(({_NUMBER})-({_NUMBER}))", re.ASCII)


def decode(custom_id: str) -> Token | None:
    """Read a custom_id; None when it is not of our making."""
    match = _TOKEN.fullmatch(custom_id)
    if match is None:
        return None
    deployment, uid, attempt, entry_id = match.groups()
    return Token(deployment, uid, int(attempt), entry_id)


def spell(random: bytes) -> str:
    """Spell random bytes in base32, five bits a letter: 10 bytes make a uid, 4 a deployment (cut to length)."""
    number = int.from_bytes(random, "big")
    letters = [_ALPHABET[(number >> shift) & 31] for shift in range(0, len(random) * 8 // 5 * 5, 5)]
    return "".join(letters)


def spell_uid(lane: str, random: bytes) -> str:
    """Spell a batch's uid from 8 or more random bytes: chance, and the lane it is of."""
    return spell(random)[: UID_LENGTH - LANE_LENGTH] + _spell_lane(lane)


def is_of_lane(uid: str, lane: str) -> bool:
    """Whether a uid is of this lane; by chance it is also said of one in a million others.

    An entry id is unique in its own stream only, so a custom_id must tell the lane as well: otherwise a batch that
    Redis has forgotten could be taken for prompts of another lane, and answer them.
    """
    return uid.endswith(_spell_lane(lane))


def _spell_lane(lane: str) -> str:
    return spell(blake2s(lane.encode(), digest_size=3).digest())[:LANE_LENGTH]
