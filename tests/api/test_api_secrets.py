from collections.abc import Callable

import pytest
from api_fakes import WholeBody, nothing
from scripted_server import Server, answers, failure

from worker.batches_api import BatchesApi, Refused


def test_an_error_shows_neither_the_key_nor_what_the_api_wrote(api: BatchesApi, server: Server) -> None:
    """What the API says may quote a prompt: it is kept for judging, shortened, and out of every text."""
    quoted = "you said: canary-prompt " * 100
    server.plays(answers(400, failure("invalid_request_error", quoted, "canary prompt"), request_id="evil\tid"))
    with pytest.raises(Refused) as caught:
        api.create(WholeBody(), before_last_byte=nothing)
    err = caught.value
    assert "canary" not in str(err) + repr(err) + repr(err.args)
    assert err.message == quoted[:500]
    assert err.error_code is None
    assert err.__suppress_context__ or err.__context__ is None


@pytest.mark.parametrize("key", ["", "sk-ant\n-canary", "sk ant canary", "sk-ant-cänary"])
def test_a_key_no_header_can_carry_is_refused_without_being_shown(connect: Callable[..., BatchesApi], key: str) -> None:
    """The HTTP library would quote it in its own exception."""
    with pytest.raises(ValueError, match="API key") as caught:
        connect("http://127.0.0.1:1", api_key=key)
    assert "nary" not in str(caught.value)
