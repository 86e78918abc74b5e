"""Which network addresses a download may connect to: the public ones, unless the study allows others."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from typing import Any

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # the last 32 bits are an IPv4 address


class PrivateAddressError(OSError):
    """A host that stands for an address of a private network, or of this machine.

    Its words are always the same: the connector merges errors of several addresses only when they read alike.
    """

    def __init__(self) -> None:
        super().__init__("not a public address")


def is_public(text: str) -> bool:
    """Whether an address belongs to the public internet, also where an IPv6 address wraps one of IPv4."""
    try:
        found: Address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        wrapped = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
        if wrapped is None and found in _NAT64:
            wrapped = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if wrapped is not None:
            found = wrapped
    return found.is_global and not found.is_multicast and not found.is_reserved


def socket_factory(allow_private: bool) -> Callable[[Any], socket.socket]:
    """Make the sockets of a connection pool. It sees the very address that is connected to, after every resolution
    and redirect, so that a name that changes its address between check and use gains nothing.
    """

    def make(info: Any) -> socket.socket:
        family, kind, protocol, _, address = info
        if not allow_private and not is_public(address[0]):
            raise PrivateAddressError
        return socket.socket(family, kind, protocol)

    return make
