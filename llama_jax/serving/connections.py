"""Limits on the server's connections: how many there are, and how long one may take to send a request."""

import asyncio
import json

from uvicorn.protocols.http.h11_impl import H11Protocol

from llama_jax.serving.protocol import RequestError

REQUEST_SECONDS = 20
"""Seconds from the opening of a connection, or the first byte of a later request, to the end of the request's headers. Bodies
have `server.BODY_SECONDS` of their own."""
MAX_HEADER_BYTES = 16 << 10
"""Bytes of a request's line and headers together."""


class BoundedConnection(H11Protocol):
    """uvicorn's HTTP/1.1 connection, which otherwise waits for the end of a half-sent request for ever."""

    most_connections: int
    """Connections that may be open at one time; `bounded_protocol` sets it."""
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Take a connection, or refuse it with status 503 where there are enough."""
        super().connection_made(transport)
        if len(self.connections) > self.most_connections:
            self._refuse(RequestError(503, "too many connections are open; try again in a moment.", code="too_many_connections"))
        else:
            self._start_timer()

    def data_received(self, data: bytes) -> None:
        """Read what came, and watch the time while a request is not complete."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        if not self._waits_for_request():
            self._stop_timer()
        elif self._timer is None:
            self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_timer()
        super().connection_lost(exc)

    def _waits_for_request(self) -> bool:
        """Whether no request is being answered. What comes after an answer that did not read all of its request counts, too."""
        return self.cycle is None or self.cycle.response_complete

    def _start_timer(self) -> None:
        self._timer = self.loop.call_later(REQUEST_SECONDS, self._give_up)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        if self._waits_for_request() and not self.transport.is_closing():
            self._refuse(RequestError(408, f"the request did not come within {REQUEST_SECONDS} seconds.", code="request_timeout"))

    def _refuse(self, error: RequestError) -> None:
        """Answer without a request, and close."""
        body = json.dumps(error.body).encode()
        head = (f"HTTP/1.1 {error.status} {'Request Timeout' if error.status == 408 else 'Service Unavailable'}\r\n"
                f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n")
        self.transport.write(head.encode() + body)
        self.transport.close()


def bounded_protocol(connections: int) -> type[BoundedConnection]:
    """The class of connections for uvicorn's setting `http`, of which `connections` may be open at one time."""
    return type("BoundedConnection", (BoundedConnection,), {"most_connections": connections})
