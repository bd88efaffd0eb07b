"""Where this server may send requests that its users ask for: to the public internet, and never back inside."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Self

import httpx

from duragraph.config import Settings
from duragraph.errors import Invalid

Address = IPv4Address | IPv6Address

_SCHEMES = ("http", "https")
_WHOLE = "send the whole address, as in https://example.com/hook"
_PRIVATE = tuple(
    map(
        ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
    )  # RFC 1918, 6598, 4193
)
# Where clouds keep the credentials of their machines; some are public addresses, some private ones.
_METADATA = tuple(
    map(ip_network, ("169.254.0.0/16", "168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::/32"))
)
# IPv6 that leads to an IPv4 address inside it: mapped, compatible, translated, 6to4, Teredo, NAT64 (RFC 6052, 8215).
_WRAPPED = tuple(
    map(
        ip_network,
        ("::ffff:0:0/96", "::/96", "::ffff:0:0:0/96", "2002::/16", "2001::/32", "64:ff9b::/96", "64:ff9b:1::/48"),
    )
)
# What is_global forgets: site-local, the relays of 6to4, segment routing, documentation.
_SPECIAL = tuple(map(ip_network, ("fec0::/10", "192.88.99.0/24", "5f00::/16", "3fff::/20")))
# The last label is no number: what ends in one is an address, or a trick.
_NAME = re.compile(r"(?:[a-z0-9_-]{1,63}\.)*(?!(?:\d+|0x[0-9a-f]*)$)[a-z0-9_-]{1,63}")
# What inet_aton() takes for an IPv4 address besides four decimal numbers: 127.1, 0x7f.1, 2130706433.
_ODD_IPV4 = re.compile(r"(?:0x[0-9a-f]*|\d+)(?:\.(?:0x[0-9a-f]*|\d+)){0,3}\.?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Egress:
    """What may be called, as the settings have it."""

    allow_loopback: bool = False
    allow_private: bool = False

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """As configured."""
        return cls(settings.webhook_allow_loopback, settings.webhook_allow_private)

    def refused(self, address: Address) -> str | None:
        """Why an address may not be called; None when it may. Anything that is not plainly public is refused."""
        if address.is_loopback:
            return None if self.allow_loopback else "a loopback address"
        if _within(address, _METADATA):
            return "a link-local address"
        if _within(address, _WRAPPED):
            return "an address inside another"
        if _within(address, _PRIVATE):
            return None if self.allow_private else "a private address"
        if address.is_multicast or not address.is_global or _within(address, _SPECIAL) or address.is_reserved:
            return "no public address"
        return None

    def check(self, url: str, field: str = "webhook") -> httpx.URL:
        """The address to call, if nothing is plainly wrong with it, or `Invalid`. Names are not resolved."""
        try:
            parsed = httpx.URL(url)
        except (httpx.InvalidURL, UnicodeError):
            raise _wrong(field, "not a URL", _WHOLE) from None
        if parsed.is_relative_url or parsed.scheme not in _SCHEMES:
            raise _wrong(field, "not an http or https address", _WHOLE)
        name = host_of(parsed)
        if parsed.userinfo:
            raise _wrong(field, "an address with a user or a password in it", "receivers check the signature instead")
        if parsed.port is not None and not 0 < parsed.port < 65536:
            raise _wrong(field, "an address with such a port", "use a port from 1 to 65535")
        literal = _literal(name)
        if literal is not None and (reason := self.refused(literal)):
            raise _wrong(field, reason, "use an address that is reachable from the internet")
        if literal is None and (len(name) > 253 or not _NAME.fullmatch(name)):
            raise _wrong(field, "an address without a host's name", _WHOLE)
        if not self.allow_loopback and (name == "localhost" or name.endswith(".localhost")):
            raise _wrong(field, "a loopback address", "use an address that is reachable from the internet")
        return parsed


def host_of(url: httpx.URL) -> str:
    """The host in ASCII, as it is looked up. (`URL.host` would decode it, and raise for a name that cannot be.)"""
    return url.raw_host.decode("ascii").rstrip(".").lower()


def _within(address: Address, networks: tuple[IPv4Network | IPv6Network, ...]) -> bool:
    return any(address in network for network in networks)


def _literal(host: str) -> Address | None:
    """The address that a host is by itself, in any of its spellings."""
    try:
        return ip_address(host.partition("%")[0])
    except ValueError:
        pass
    if _ODD_IPV4.fullmatch(host):
        try:
            return IPv4Address(socket.inet_aton(host.rstrip(".")))
        except OSError:
            return None
    return None


def _wrong(field: str, problem: str, hint: str) -> Invalid:
    return Invalid(f"{field}: {problem} cannot be called", code=f"invalid_{field}", field=field, hint=hint)
