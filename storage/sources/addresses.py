"""The network addresses that a download may connect to: public ones, unless the study allows others."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from typing import Any

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # the last 32 bits are an IPv4 address


class PrivateAddressError(OSError):
    """A host resolves to an address of a private network, or of this machine.

    The message is always the same. If a host has several addresses, aiohttp merges their errors into one only when the
    messages are equal.
    """

    def __init__(self) -> None:
        super().__init__("not a public address")


def is_public(text: str) -> bool:
    """Whether an address is on the public internet. An IPv4 address inside an IPv6 address decides."""
    try:
        ip: Address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        wrapped = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if wrapped is None and ip in _NAT64:
            wrapped = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if wrapped is not None:
            ip = wrapped
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def socket_factory(allow_private: bool) -> Callable[[Any], socket.socket]:
    """Return the function that creates a connection pool's sockets and refuses private addresses.

    The function checks the address to which the socket will connect, after every name resolution and redirect. So a
    name cannot get another address between check and use.
    """

    def make(info: Any) -> socket.socket:
        family, kind, protocol, _, address = info
        if not allow_private and not is_public(address[0]):
            raise PrivateAddressError
        return socket.socket(family, kind, protocol)

    return make
