"""Parsing of `metrics.listen`, the address at which metrics are served."""

import ipaddress

from kickwatch.errors import ConfigError

_MAX_PORT, _IPV6 = 65_535, 6
_REMEDY = f"give an address and a port up to {_MAX_PORT}, for example 127.0.0.1:9893 or [::1]:9893"


def parse_listen(listen: str) -> tuple[str, int]:
    """(address, port) of `127.0.0.1:9893`, `[::1]:9893` or `[fe80::1%eth0]:9893`. Looks up no host names.

    Raises ConfigError for what no node can listen on.
    """
    host, _, port = listen.rpartition(":")
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
        number = int(port)
    except ValueError as error:
        raise ConfigError(f"metrics.listen: {listen} ({error})", _REMEDY) from error
    if not 0 <= number <= _MAX_PORT or host.startswith("[") is not (address.version == _IPV6):
        raise ConfigError(f"metrics.listen: {listen} is not an address and a port", _REMEDY)
    if isinstance(address, ipaddress.IPv6Address):
        _check_ipv6(listen, address)
    return str(address), number


def _check_ipv6(listen: str, address: ipaddress.IPv6Address) -> None:
    if address.is_link_local and not address.scope_id:
        raise ConfigError(f"metrics.listen: {listen} has no interface", f"add it, for example [{address}%eth0]:9893")
    if address.scope_id and not address.is_link_local:
        what = f"metrics.listen: {listen} has an interface, which only an address in fe80::/10 needs"
        raise ConfigError(what, f"remove %{address.scope_id}")
    if address.is_multicast or address.ipv4_mapped is not None:
        what = f"metrics.listen: {listen} is {'a multicast' if address.is_multicast else 'an IPv4-mapped'} address"
        raise ConfigError(what, _REMEDY)
