"""Bytes to and from the API through Anthropic's SDK: no retries, no redirects, no models, no logs.

Everything the SDK would do on its own that could create a second batch or show the key or a prompt is off. Its client
still brings what we do not want to keep up ourselves: authentication, versions, proxies, TLS, keep-alive.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import anthropic
import httpx2
from anthropic import RequestOptions

from worker.batches_api.bounds import Watch, bound, keep_watch, no_cookies
from worker.batches_api.budget import Clock
from worker.batches_api.wire import Answer, NoAnswer
from worker.batches_api.withheld import WithheldBody

_BATCHES = "/v1/messages/batches"
_CONNECT_TIMEOUT = 10.0
_WRITE_TIMEOUT = 60.0
_READ_TIMEOUT = 60.0
# Timeouts are for one read or write. These are for a whole answer, and for results between two pieces.
_ANSWER_SECONDS = 120.0
# Slower than this in bytes a second, after a while of grace, nothing of size ever arrives.
_SLOWEST_UPLOAD, _SLOWEST_DOWNLOAD = 25_000, 1000
_GRACE = 600.0


@dataclass(frozen=True, slots=True)
class Download:
    """An answer whose body is still to come. Close it, however far it was read."""

    response: httpx2.Response
    watch: Watch
    clock: Clock

    def chunks(self) -> Iterator[bytes]:
        """Give the decoded body as it arrives. Raises NoAnswer where it ends before its end, or will never end."""
        pieces = self.response.iter_bytes()
        waited, received = 0.0, 0
        while True:
            began = self.clock.monotonic()
            try:
                with self.watch.over(answer=_ANSWER_SECONDS):
                    piece = next(pieces, None)
            except (httpx2.HTTPError, httpx2.StreamError) as err:
                raise NoAnswer(_cause(err)) from None
            if piece is None:
                return
            waited += self.clock.monotonic() - began
            received += len(piece)
            if waited > _GRACE + received / _SLOWEST_DOWNLOAD:
                raise NoAnswer("results come too slowly")
            yield piece

    def close(self) -> None:
        """Let go of the connection."""
        self.response.close()


class Connection:
    """Two clients of one account: one that reads, and one that creates and never uses a connection twice."""

    def __init__(
        self,
        *,
        api_key: str,
        base_url: str,
        api_version: str,
        betas: tuple[str, ...],
        answer_timeout: float,
        clock: Clock,
    ) -> None:
        silence_sdk()
        self._clock = clock
        self._watch = Watch(clock)
        self._answer_timeout = answer_timeout
        tls = httpx2.create_ssl_context()
        headers = {"anthropic-version": api_version, **({"anthropic-beta": ",".join(betas)} if betas else {})}

        def client(read_timeout: float) -> anthropic.Anthropic:
            timeout = httpx2.Timeout(read_timeout, connect=_CONNECT_TIMEOUT, write=_WRITE_TIMEOUT)
            http_client = anthropic.DefaultHttpxClient(
                verify=tls,
                timeout=timeout,
                follow_redirects=False,
                http2=False,
                cookies=no_cookies(),
                event_hooks={"response": [bound]},
            )
            keep_watch(http_client, self._watch)
            return anthropic.Anthropic(
                api_key=api_key,
                base_url=base_url,
                default_headers=headers,
                max_retries=0,
                timeout=timeout,
                open_telemetry=False,
                http_client=http_client,
            )

        self._reader = client(_READ_TIMEOUT)
        self._creator = client(answer_timeout)

    def create(self, body: WithheldBody, nbytes: int) -> Answer:
        """Post one batch. Raises NoAnswer, whatever the reason: `body` knows whether its last byte has left."""
        # A reused connection may be dead already: the body would vanish in it, and the create be in doubt for nothing.
        headers = {"Content-Length": str(nbytes), "Connection": "close"}
        sending = _GRACE + nbytes / _SLOWEST_UPLOAD
        try:
            with self._watch.over(answer=self._answer_timeout, sending=sending):
                response = self._creator.post(
                    _BATCHES, cast_to=httpx2.Response, content=body, options=_options(headers=headers)
                )
        except anthropic.APIStatusError as err:
            response = err.response
        except Exception as err:  # noqa: BLE001 - in this call not even a bug may pass for something it is not
            raise NoAnswer(_cause(err)) from None
        return _answer(response)

    def get(self, path: str, params: Mapping[str, object]) -> Answer:
        """Read something small. Raises NoAnswer."""
        return self._complete(
            lambda: self._reader.get(_BATCHES + path, cast_to=httpx2.Response, options=_options(params=params))
        )

    def post(self, path: str) -> Answer:
        """Order something, without a body. Raises NoAnswer."""
        return self._complete(lambda: self._reader.post(_BATCHES + path, cast_to=httpx2.Response, options=_options()))

    def delete(self, path: str) -> Answer:
        """Delete something. Raises NoAnswer."""
        return self._complete(lambda: self._reader.delete(_BATCHES + path, cast_to=httpx2.Response, options=_options()))

    def download(self, path: str) -> Answer | Download:
        """Open a stream: a Download if the API agrees, its complete answer if not. Raises NoAnswer."""
        headers = {"Accept": "application/binary", "Accept-Encoding": "identity"}
        stream: bool = True  # as a plain bool it asks the SDK for no event-stream class
        try:
            with self._watch.over(answer=_ANSWER_SECONDS):
                response = self._reader.get(
                    _BATCHES + path, cast_to=httpx2.Response, stream=stream, options=_options(headers=headers)
                )
        except anthropic.APIStatusError as err:
            return _answer(err.response)
        except (anthropic.APIConnectionError, httpx2.HTTPError) as err:
            raise NoAnswer(_cause(err)) from None
        return Download(response, self._watch, self._clock)

    def close(self) -> None:
        """Close every idle connection; the object is of no use afterwards."""
        self._reader.close()
        self._creator.close()

    def _complete(self, ask: Callable[[], httpx2.Response]) -> Answer:
        try:
            with self._watch.over(answer=_ANSWER_SECONDS):
                return _answer(ask())
        except anthropic.APIStatusError as err:
            return _answer(err.response)
        except (anthropic.APIConnectionError, httpx2.HTTPError) as err:
            raise NoAnswer(_cause(err)) from None


def silence_sdk() -> None:
    """Let the SDK log warnings at most, also after the root logger's level changes.

    At DEBUG it writes whole bodies, and `ANTHROPIC_LOG` may have asked for just that.
    """
    for name in ("anthropic", "httpx2", "httpcore2"):
        logger = logging.getLogger(name)
        logger.setLevel(max(logger.level, logging.WARNING))


def _options(*, headers: Mapping[str, str] | None = None, params: Mapping[str, object] | None = None) -> RequestOptions:
    return {"headers": headers or {}, "params": params or {}}


def _answer(response: httpx2.Response) -> Answer:
    return Answer(response.status_code, response.headers, response.content)


def _cause(err: BaseException) -> str:
    """Name what happened; the words of network errors are the operating system's, others may quote headers."""
    while err.__cause__ is not None and not isinstance(err, httpx2.HTTPError):
        err = err.__cause__
    name = type(err).__name__
    return f"{name}: {err}" if isinstance(err, httpx2.NetworkError) and str(err) else name
