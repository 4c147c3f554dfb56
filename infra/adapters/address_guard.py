"""Which addresses a backend may have: without this, whoever may register one could have the gateway ask for what is inside.

The guard resolves a name itself, and what it answers is what is connected to: a name that says something else a moment later
(DNS rebinding) changes nothing, for nobody resolves it again. However a host is written (in decimal, octal or hex, with a dot at
its end, in other alphabets), what counts is the address that the system makes of it.
"""

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from domain.errors import UpstreamFailed

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

_PUBLIC6 = ipaddress.ip_network("2000::/3")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)
"""The upper half of an interface's id that carries an IPv4 address in its lower half."""

_PRIVATE = tuple(map(ipaddress.ip_network, ("100.64.0.0/10", "fc00::/7", "fec0::/10")))
"""Beyond what the registries call private: carrier networks, unique local and the site-local ones before them."""

_NEVER = tuple(
    map(
        ipaddress.ip_network,
        (
            "0.0.0.0/8",  # this network: `_is_here` has the one address of it that leads somewhere
            "192.0.0.0/24",  # protocol assignments; Oracle's metadata
            "192.88.99.0/24",  # relays of 6to4: whoever answers
            "168.63.129.16/32",  # Azure's wire server, in public space
            "100.100.100.200/32",  # Alibaba's metadata
            "fd00:ec2::/32",  # Amazon's metadata, names and time
            "fd20:ce::/32",  # Google's metadata
            "fd00:c1::/32",  # Oracle's
            "fd00:42::/32",  # Scaleway's
            "3fff::/20",  # documentation
        ),
    )
)
"""What no setting allows, beside link-local addresses, multicast and what is reserved: clouds keep credentials there."""

_log = logging.getLogger("tollhouse.upstream")


async def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of a name, in the system's order. Raises `OSError`, `UnicodeError`."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(place[0]) for *_, place in found))


@dataclass(frozen=True, slots=True)
class AddressGuard:
    """`loopback`: this machine itself may be a backend; `private`: that, and networks that are not public."""

    loopback: bool
    private: bool
    resolve: Resolve = resolve
    _asking: dict[tuple[str, int], "asyncio.Future[Sequence[str]]"] = field(default_factory=dict)

    async def addresses(self, host: str, port: int) -> Sequence[str]:
        """The addresses of `host` that may be connected to. Raises `UpstreamFailed` if it has none, else what resolving does."""
        found = await self._found(host, port)
        allowed = [text for text in found if self.allows(text)]
        if not allowed:
            _log.warning("backend %s is not connected to: %s is not public, see TOLLHOUSE_ALLOW_PRIVATE", host, found)
            raise UpstreamFailed("the backend's address is one that may not be connected to", sent=False)
        return allowed

    def allows(self, text: str) -> bool:
        """Whether an address, as text, may be connected to; also where another one is packed into it."""
        address = ipaddress.ip_address(text.partition("%")[0])
        if carried := _carried(address):  # only they decide
            return all(self._allows(each) for each in carried)
        return self._allows(address)

    def _allows(self, address: _Address) -> bool:
        if _is_here(address):
            return self.loopback or self.private
        if address.is_link_local or address.is_multicast or address.is_reserved or _among(address, _NEVER):
            return False
        if isinstance(address, ipaddress.IPv6Address) and (int(address) >> 32) & 0xFFFF_FFFF in _ISATAP:
            return self._allows(_last_four(address)) and (self.private or address.is_global)
        return self.private or _is_public(address)

    async def _found(self, host: str, port: int) -> Sequence[str]:
        """What `resolve` says; who asks while another asks the same waits for the same answer. A name whose servers are silent
        keeps one thread waiting, and not all there are."""
        asking = self._asking.get((host, port))
        if asking is None:
            asking = self._asking[host, port] = asyncio.ensure_future(self.resolve(host, port))
            asking.add_done_callback(lambda done: self._answered((host, port), done))
        return await asyncio.shield(asking)

    def _answered(self, name: tuple[str, int], done: "asyncio.Future[Sequence[str]]") -> None:
        del self._asking[name]
        if not done.cancelled():
            done.exception()  # whoever waited has it


def _is_here(address: _Address) -> bool:
    """Connecting to "any" is connecting to this machine, too."""
    return address.is_loopback or address.is_unspecified


def _is_public(address: _Address) -> bool:
    if _among(address, _PRIVATE) or not address.is_global:
        return False
    return isinstance(address, ipaddress.IPv4Address) or address in _PUBLIC6


def _among(address: _Address, networks: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    return any(address in network for network in networks)


def _carried(address: _Address) -> Sequence[_Address]:
    """The addresses that an IPv6 address leads to in the end."""
    if isinstance(address, ipaddress.IPv4Address):
        return ()
    found = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in _NAT64:
        found.append(_last_four(address))
    return [each for each in found if each is not None]


def _last_four(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
