"""Which addresses a backend may have: without this, whoever may register one could have the gateway ask for what is inside.

The guard resolves a name itself, and what it answers is what is connected to: a name that says something else a moment later
(DNS rebinding) changes nothing, for nobody resolves it again.
"""

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from domain.errors import UpstreamFailed

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")

_log = logging.getLogger("tollhouse.upstream")


async def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of a name, in the system's order. Raises `OSError`, `UnicodeError`."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(place[0]) for *_, place in found))


@dataclass(frozen=True, slots=True)
class AddressGuard:
    """`loopback`: this machine itself may be a backend; `private`: that, and networks that are not public. Never: link-local
    addresses (where clouds keep credentials), multicast, and what is reserved."""

    loopback: bool
    private: bool
    resolve: Resolve = resolve

    async def addresses(self, host: str, port: int) -> Sequence[str]:
        """The addresses of `host` that may be connected to. Raises `UpstreamFailed` if it has none, else what resolving does."""
        found = await self.resolve(host, port)
        allowed = [text for text in found if self.allows(text)]
        if not allowed:
            _log.warning("backend %s is not connected to: %s is not public, see TOLLHOUSE_ALLOW_PRIVATE", host, found)
            raise UpstreamFailed("the backend's address is one that may not be connected to", sent=False)
        return allowed

    def allows(self, text: str) -> bool:
        """Whether an address, as text, may be connected to; also where another one is packed into it."""
        address = ipaddress.ip_address(text.partition("%")[0])
        return all(self._allows(each) for each in (address, *_inside(address)))

    def _allows(self, address: _Address) -> bool:
        if address.is_loopback or address.is_unspecified:  # connecting to "any" is connecting to this machine
            return self.loopback or self.private
        if address.is_link_local or address.is_multicast or (address.is_reserved and not _carries(address)):
            return False
        return self.private or address.is_global or _carries(address)


def _inside(address: _Address) -> Sequence[_Address]:
    """The addresses that an IPv6 address leads to in the end."""
    if isinstance(address, ipaddress.IPv4Address):
        return ()
    found = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in _NAT64:
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [each for each in found if each is not None]


def _carries(address: _Address) -> bool:
    """Whether only what is inside decides."""
    return bool(_inside(address))
