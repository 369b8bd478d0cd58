"""Parsing of `metrics.listen`, the address at which metrics are served."""

import ipaddress

from kickwatch.errors import ConfigError

_MAX_PORT, _IPV6 = 65_535, 6
_REMEDY = f"give an address and a port up to {_MAX_PORT}, for example 127.0.0.1:9893 or [::1]:9893"


def parse_listen(listen: str) -> tuple[str, int]:
    """(address, port) of `127.0.0.1:9893` or `[::1]:9893`. Raises ConfigError. Looks up no host names."""
    host, _, port = listen.rpartition(":")
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
        number = int(port)
    except ValueError as error:
        raise ConfigError(f"metrics.listen: {listen} ({error})", _REMEDY) from error
    if not 0 <= number <= _MAX_PORT or host.startswith("[") is not (address.version == _IPV6):
        raise ConfigError(f"metrics.listen: {listen} is not an address and a port", _REMEDY)
    return str(address), number
