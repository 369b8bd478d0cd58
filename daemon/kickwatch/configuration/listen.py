"""The address at which metrics are served, as it is configured."""

import ipaddress

from kickwatch.errors import ConfigError

_MOST_PORT, _IPV6 = 65_535, 6
_REMEDY = f"give an address and a port up to {_MOST_PORT}, 127.0.0.1:9893 or [::1]:9893"


def parse_listen(listen: str) -> tuple[str, int]:
    """(address, port) of `127.0.0.1:9893` or `[::1]:9893`. Raises ConfigError. No name is looked up."""
    host, _, port = listen.rpartition(":")
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
        number = int(port)
    except ValueError as error:
        raise ConfigError(f"metrics.listen: {listen} ({error})", _REMEDY) from error
    if not 0 <= number <= _MOST_PORT or host.startswith("[") is not (address.version == _IPV6):
        raise ConfigError(f"metrics.listen: {listen}", _REMEDY)
    return str(address), number
