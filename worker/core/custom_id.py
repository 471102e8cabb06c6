"""The custom_id of a request: proof of whose it is, and the way back to the prompt.

`<deployment>_<batch uid>_<attempt>_<stream entry id>`, at most 61 of the API's 64 characters. The attempt always
takes two digits, so the size of a body is known when its range is sealed.
"""

import re
from dataclasses import dataclass

DEPLOYMENT_LENGTH = 6
UID_LENGTH = 16  # 80 random bits in base32
MAX_ATTEMPT = 99

_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
_NUMBER = r"(?:0|[1-9]\d{0,19})"  # as Redis spells it: another spelling would be a second name for one prompt
_TOKEN = re.compile(rf"([a-z2-7]{{6}})_([a-z2-7]{{16}})_(?!00)(\d\d)_({_NUMBER}-{_NUMBER})")


@dataclass(frozen=True, slots=True)
class Token:
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


def decode(custom_id: str) -> Token | None:
    """Read a custom_id; None when it is not of our making."""
    match = _TOKEN.fullmatch(custom_id)
    if match is None or not custom_id.isascii():
        return None
    deployment, uid, attempt, entry_id = match.groups()
    return Token(deployment, uid, int(attempt), entry_id)


def spell(random: bytes) -> str:
    """Spell random bytes in base32, five bits a letter: 10 bytes make a uid, 4 a deployment (cut to length)."""
    number = int.from_bytes(random, "big")
    letters = [_ALPHABET[(number >> shift) & 31] for shift in range(0, len(random) * 8 // 5 * 5, 5)]
    return "".join(letters)
