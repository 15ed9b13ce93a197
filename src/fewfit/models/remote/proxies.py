"""Proxies that the environment names, as the standard library's urllib finds them."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from fewfit.errors import ModelError


@dataclass(frozen=True, repr=False)
class Proxy:
    """A proxy that is spoken to in plain HTTP; what goes to ``https://`` is tunnelled through it.

    Attributes
    ----------
    host, port : str, int
    authorization : str or None
        Value of the header ``Proxy-Authorization``.
    secrets : tuple of str
        What of it must not be said.
    """

    host: str
    port: int
    authorization: str | None = None
    secrets: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"the proxy {self.host}:{self.port}"


def proxy_for(scheme: str, netloc: str) -> Proxy | None:
    """Return the proxy for an address, or None.

    ``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``, in lower case first; on macOS
    and Windows what the system is set to, where the environment says nothing.

    Raises
    ------
    ModelError
        For a proxy of a kind that is not spoken to, such as SOCKS.
    """
    proxies = getproxies()
    name = scheme if proxies.get(scheme) else "all"
    address = proxies.get(name)
    if not address or proxy_bypass(netloc):
        return None
    try:
        split = urlsplit(address if "://" in address else f"http://{address}")
        host, port = split.hostname, split.port or 80
    except ValueError:
        host, port, split = None, 0, urlsplit("")
    if split.scheme != "http" or host is None:
        raise ModelError(
            f"the environment's {name.upper()}_PROXY is not http://host:port, the only kind of "
            "proxy that is spoken to; unset it, or list the server in NO_PROXY"
        )
    if split.username is None:
        return Proxy(host, port)
    user, password = unquote(split.username), unquote(split.password or "")
    pair = f"{user}:{password}".encode("utf-8", "surrogateescape")
    encoded = base64.b64encode(pair).decode("ascii")
    known = (password, split.password or "", encoded)
    return Proxy(host, port, f"Basic {encoded}", tuple(secret for secret in known if secret))
