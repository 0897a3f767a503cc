"""The proxy on the way to a server, from the variables of the environment.

httpx reads them too, but knows no networks in NO_PROXY, takes no `socks://`, and sends loopback
through a proxy that cannot reach it.
"""

import importlib.util
import ipaddress
import os
from fnmatch import fnmatchcase
from urllib.request import getproxies, proxy_bypass

import httpx

from stepback_client.errors import BadSetting

_SCHEMES = {"http", "https", "socks5", "socks5h"}
# `socks` is how desktops write version 5.
_SOCKS = {"socks": "socks5h", "socks5": "socks5", "socks5h": "socks5h"}


def proxy_for(url: httpx.URL) -> str | None:
    """The proxy that the environment names for a server; None to ask it directly.

    Raises BadSetting for one that cannot be used.
    """
    host = url.host
    # A proxy would look for this machine's server at its own loopback.
    if not host or _is_loopback(host) or _is_excepted(host, url.port):
        return None
    # The standard library's, which also knows the settings of macOS and Windows.
    proxies = getproxies()
    name = url.scheme if url.scheme in proxies else "all"
    return _usable(name, proxies[name]) if proxies.get(name) else None


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    address = _address(host)
    return address is not None and (address.is_loopback or address.is_unspecified)


def _is_excepted(host: str, port: int | None) -> bool:
    """Tell whether NO_PROXY, or the desktop's settings, keep a host from the proxy."""
    if proxy_bypass(f"{host}:{port}" if port else host):
        return True
    address = _address(host)
    return any(
        # Patterns (*.internal, 10.*) as other programs take them; `proxy_bypass` knows plain names.
        ("*" in entry and fnmatchcase(host, entry))
        or (address is not None and _has(entry, address))
        for entry in _entries()
    )


def _entries() -> list[str]:
    """Names in NO_PROXY, between commas or spaces."""
    named = os.environ.get("no_proxy") or os.environ.get("NO_PROXY", "")
    return named.replace(",", " ").lower().split()


def _has(entry: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Tell whether an entry is an address, or a network (10.0.0.0/8), with this address in it."""
    try:
        return address in ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:  # a name
        return False


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None


def _usable(name: str, proxy: str) -> str:
    """The proxy as httpx takes it."""
    # Messages leave it out, since it may hold a password.
    variable = f"{name.upper()}_PROXY"
    scheme, separator, rest = proxy.strip().partition("://")
    # Many write HOST:PORT alone, and curl takes it as http.
    scheme, rest = (scheme.lower(), rest) if separator else ("http", proxy.strip())
    if scheme in _SOCKS and importlib.util.find_spec("socksio") is None:
        raise BadSetting(
            f"{variable} names a SOCKS proxy: pip install 'stepback-llm[socks]', or name this "
            "server in NO_PROXY"
        )
    scheme = _SOCKS.get(scheme, scheme)
    if scheme not in _SCHEMES:
        raise BadSetting(
            f"{variable}: {scheme}:// is not spoken here, only {', '.join(sorted(_SCHEMES))}"
        )
    return f"{scheme}://{rest}"
