"""Stands before an HTTP server that anybody may connect to: how many connections there are, and how long each has.

Counted from the accept on, before a TLS handshake has cost anything: so many in all, so many from one address. Each has
a deadline for its handshake and for every request, or it is cut; a server that waits for whoever sends half a header
can be kept from everybody else by a few thousand of those. When there is no room, the address that holds most gives up
its oldest connection that has not yet had a request answered with success.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from asyncio import sslproto
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

TLS_BUFFER = 16 * 1024
"""A TLS record; asyncio's own buffer is sixteen times that, for each connection, before a byte of it is needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Connections in all and from one address; seconds for a handshake, a header or a body, and for working on a
    request.
    """

    total: int = 512
    per_address: int = 64
    receive: float = 8.0
    work: float = 60.0
    spare: float = 1.0  # a connection so young is not given up for another


class _Tls(sslproto.SSLProtocol):
    """asyncio's TLS, with a buffer as small as does; reports when the connection is lost, be it before the handshake's
    end.
    """

    max_size = TLS_BUFFER

    def __init__(self, *args: Any, lost: Callable[[], None], **options: Any) -> None:
        super().__init__(*args, **options)
        self._on_lost = lost

    def connection_lost(self, exc: BaseException | None) -> None:
        self._on_lost()
        super().connection_lost(exc)


class _Connection(asyncio.Protocol):
    """One connection: hands everything on to the server's own protocol, through TLS where there is any."""

    def __init__(self, guard: Guard) -> None:
        self._guard, self._inner = guard, guard.serve()
        self.loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport | None = None
        self.peer: Any = None
        self.address = ""
        self.since = self.loop.time()
        self.admitted = self.proven = False
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.peer = transport, transport.get_extra_info("peername")
        self.address = address_of(self.peer)
        self.admitted = self._guard.enter(self)
        if not self.admitted:
            transport.abort()
            return
        self.within(self._guard.limits.receive)
        if self._guard.tls is None:
            self._inner.connection_made(transport)
            return
        handshake = _Tls(
            self.loop,
            self._inner,
            self._guard.tls,
            None,
            server_side=True,
            ssl_handshake_timeout=self._guard.limits.receive,
            ssl_shutdown_timeout=1.0,
            lost=self.lost,
        )
        transport.set_protocol(handshake)
        handshake.connection_made(transport)

    def within(self, seconds: float) -> None:
        """From now on it has so long."""
        if self._timer:
            self._timer.cancel()
        self._timer = self.loop.call_later(seconds, self._late)

    def _late(self) -> None:
        self._guard.cut(self, "deadline")

    def lost(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._guard.leave(self)

    # Without TLS, everything passes through here.

    def data_received(self, data: bytes) -> None:
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost()
        if self.admitted:
            self._inner.connection_lost(exc)


class Guard:
    """Makes a protocol for each connection, as `loop.create_server` asks for.

    `serve` makes the server's protocol; `count` takes the cause of each cut.
    """

    def __init__(
        self, serve: Callable[[], Any], tls: ssl.SSLContext | None, *, limits: Limits, count: Callable[[str], None]
    ) -> None:
        self.serve, self.tls, self.limits, self._count = serve, tls, limits, count
        self._by_peer: dict[Any, _Connection] = {}
        self._unproven: dict[str, OrderedDict[_Connection, None]] = {}  # by address, the oldest first

    def __call__(self) -> asyncio.Protocol:
        """A protocol for one more connection."""
        return _Connection(self)

    def __len__(self) -> int:
        return len(self._by_peer)

    def working(self, peer: Any) -> None:
        """A request's header has come from this peer: the time it takes now is ours."""
        if peer in self._by_peer:
            self._by_peer[peer].within(self.limits.work)

    def answered(self, peer: Any, success: bool) -> None:
        """The request has its answer; the next one must come soon.

        With success the connection is no longer in question.
        """
        connection = self._by_peer.get(peer)
        if connection is None:
            return
        connection.within(self.limits.receive)
        if success and not connection.proven:
            connection.proven = True
            self._forget(connection)

    def enter(self, connection: _Connection) -> bool:
        """Whether there is room for this connection, made by cutting another where needed."""
        mine = self._unproven.get(connection.address, ())
        if len(mine) >= self.limits.per_address and not self._give_up(connection.address, "address", connection.since):
            return False
        if len(self._by_peer) >= self.limits.total:
            most = max(self._unproven, key=lambda address: len(self._unproven[address]), default=None)
            if most is None or (len(self._unproven[most]) <= len(mine) and most != connection.address):
                most = connection.address
            young = len(self._unproven.get(most, ())) > len(mine) + 1  # whoever holds more gives up even a young one
            if not self._give_up(most, "total", connection.since, even_young=young):
                return False
        self._by_peer[connection.peer] = connection
        self._unproven.setdefault(connection.address, OrderedDict())[connection] = None
        return True

    def _give_up(self, address: str, cause: str, now: float, *, even_young: bool = False) -> bool:
        """Cut the oldest connection in question of an address. Returns False where there is none that is old enough."""
        oldest = next(iter(self._unproven.get(address, ())), None)
        if oldest is None or (now - oldest.since < self.limits.spare and not even_young):
            self._count(cause)
            return False
        self.cut(oldest, cause)
        return True

    def cut(self, connection: _Connection, cause: str) -> None:
        """End it at once."""
        self._count(cause)
        assert connection.transport
        connection.transport.abort()
        self.leave(connection)

    def leave(self, connection: _Connection) -> None:
        """The connection is no more."""
        if self._by_peer.get(connection.peer) is connection:
            del self._by_peer[connection.peer]
        self._forget(connection)

    def _forget(self, connection: _Connection) -> None:
        unproven = self._unproven.get(connection.address)
        if unproven is not None:
            unproven.pop(connection, None)
            if not unproven:
                del self._unproven[connection.address]


def address_of(peer: Any) -> str:
    """Whose connection it is: an IPv4 address, or the network of 64 bits that an IPv6 host has to itself."""
    host = str(peer[0]) if peer else ""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        mapped = address.ipv4_mapped
        return str(mapped) if mapped else str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
    return str(address)
