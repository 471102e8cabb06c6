import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.custom_id import MAX_ATTEMPT, PREFIX_LENGTH, Token, decode, is_of_lane, prefix, spell, spell_uid

DEPLOYMENT, UID = "abc234", "k7m2q2x4t2w2z3b5"
LAST_MILLISECOND_OF_2285 = 9_999_999_999_999
LARGEST_SEQUENCE = 2**64 - 1

letters = st.sampled_from("abcdefghijklmnopqrstuvwxyz234567")
deployments = st.text(letters, min_size=6, max_size=6)
uids = st.text(letters, min_size=16, max_size=16)
attempts = st.integers(1, MAX_ATTEMPT)
entry_ids = st.builds("{}-{}".format, st.integers(0, LAST_MILLISECOND_OF_2285), st.integers(0, LARGEST_SEQUENCE))


@given(deployments, uids, attempts, entry_ids)
def test_a_custom_id_tells_everything_back(deployment: str, uid: str, attempt: int, entry_id: str) -> None:
    """One result line alone gives deployment, batch, attempt and prompt."""
    custom_id = prefix(deployment, uid, attempt) + entry_id
    assert decode(custom_id) == Token(deployment, uid, attempt, entry_id)


@given(deployments, uids, attempts, entry_ids)
def test_a_custom_id_is_one_that_the_api_takes(deployment: str, uid: str, attempt: int, entry_id: str) -> None:
    """One id outside the API's pattern would refuse 100,000 prompts."""
    custom_id = prefix(deployment, uid, attempt) + entry_id
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", custom_id)


def test_the_longest_custom_id_has_61_characters() -> None:
    """The largest sequence number in the last millisecond of thirteen digits still fits."""
    longest = prefix(DEPLOYMENT, UID, MAX_ATTEMPT) + f"{LAST_MILLISECOND_OF_2285}-{LARGEST_SEQUENCE}"
    assert len(longest) == 61


@pytest.mark.parametrize("attempt", [1, 9, 10, 99])
def test_every_attempt_takes_the_same_room(attempt: int) -> None:
    """The size of a body is fixed when its range is sealed, before anybody knows the attempt."""
    assert len(prefix(DEPLOYMENT, UID, attempt)) == PREFIX_LENGTH == 27


@pytest.mark.parametrize("attempt", [0, -1, 100])
def test_an_attempt_that_takes_more_room_is_refused(attempt: int) -> None:
    """A hundredth attempt would make the body longer than its Content-Length."""
    with pytest.raises(ValueError, match=r"is not within 1\.\.99"):
        prefix(DEPLOYMENT, UID, attempt)


@pytest.mark.parametrize(
    "custom_id",
    [
        "",
        "request-1",
        "my-own-id_with_underscores_1-0",
        f"{DEPLOYMENT}_{UID}_01_",
        f"{DEPLOYMENT}_{UID}_01_1795348800000",
        f"{DEPLOYMENT}_{UID}_1_1795348800000-0",
        f"{DEPLOYMENT}_{UID}_00_1795348800000-0",
        f"{DEPLOYMENT}_{UID}_001_1795348800000-0",
        f"{DEPLOYMENT}_{UID[:-1]}_01_1795348800000-0",
        f"{DEPLOYMENT.upper()}_{UID}_01_1795348800000-0",
        f"abc189_{UID}_01_1795348800000-0",
        f"{DEPLOYMENT}_{UID}_01_01795348800000-0",
        f"{DEPLOYMENT}_{UID}_01_1795348800000-00",
        f"{DEPLOYMENT}_{UID}_01_-1-0",
        f"{DEPLOYMENT}_{UID}_01_1795348800000-0\n",
        f" {DEPLOYMENT}_{UID}_01_1795348800000-0",
        f"{DEPLOYMENT}_{UID}_01_1795348800000-0 ",
        f"{DEPLOYMENT}_{UID}_\u0660\u0661_1795348800000-0",
        f"{DEPLOYMENT}_{UID}_01_\u0661795348800000-0",
    ],
)
def test_what_only_resembles_a_custom_id_is_not_ours(custom_id: str) -> None:
    """Other programs in the workspace name their requests as they like."""
    assert decode(custom_id) is None


@given(
    st.one_of(
        st.text(),
        st.from_regex(r"[a-z2-7]{6}_[a-z2-7]{16}_\d\d_\d{1,20}-\d{1,20}", fullmatch=True),
        st.from_regex(r"[a-zA-Z0-9_-]{1,64}", fullmatch=True),
    )
)
def test_nothing_decodes_that_we_would_not_have_spelled_so(custom_id: str) -> None:
    """What decodes is spelled the same again: no prompt has a second name."""
    token = decode(custom_id)
    if token is not None:
        assert prefix(token.deployment, token.uid, token.attempt) + token.entry_id == custom_id


@given(st.binary(min_size=10, max_size=10), st.binary(min_size=10, max_size=10))
def test_two_uids_are_as_different_as_their_random_bytes(one: bytes, other: bytes) -> None:
    """Ten bytes make sixteen letters of five bits each, and no bit is lost."""
    assert re.fullmatch(r"[a-z2-7]{16}", spell(one))
    assert (spell(one) == spell(other)) is (one == other)


def test_a_deployment_is_the_first_six_letters_of_four_bytes() -> None:
    """Four bytes are six letters and two bits, which are left out."""
    assert spell(b"\x00\x00\x00\x01") == "baaaaa"
    assert len(spell(b"\xff" * 4)) == 6


@given(st.binary(min_size=10, max_size=10), st.text("abcdefghijklmnopqrstuvwxyz0123456789._-", min_size=1, max_size=63))
def test_a_uid_tells_its_lane(random: bytes, lane: str) -> None:
    """A custom_id leads to a prompt only together with its lane: entry ids repeat from lane to lane."""
    uid = spell_uid(lane, random)
    assert decode(prefix(DEPLOYMENT, uid, 1) + "1-1") == Token(DEPLOYMENT, uid, 1, "1-1")
    assert is_of_lane(uid, lane)


def test_a_uid_is_not_of_other_lanes() -> None:
    """Twenty bits of the lane's name tell a thousand lanes apart."""
    uid = spell_uid("default", bytes(10))
    assert not any(is_of_lane(uid, f"lane{number}") for number in range(1000))


def test_uids_of_one_lane_differ_by_chance() -> None:
    """Sixty random bits are left, and each of them counts."""
    uids = {spell_uid("default", (1 << bit).to_bytes(10, "big")) for bit in range(60)}
    assert len(uids) == 60
