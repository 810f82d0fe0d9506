# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Where servers listen: what users write, and the endpoint that it means."""

from __future__ import annotations

import re
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.endpoints import quoteStringArgument, serverFromString

from desync.errors import DesyncError, UsageError

if TYPE_CHECKING:
    from twisted.internet.interfaces import IListeningPort, IProtocolFactory

#: What Twisted's endpoint descriptions begin with. A host of that name has to be written otherwise.
_KINDS: Final = frozenset({"tcp", "tcp6", "ssl", "unix", "systemd", "haproxy", "fd"})

#: All addresses, of both families where the system has them.
_ANY: Final = "::" if socket.has_ipv6 else "0.0.0.0"

#: Connections that wait to be accepted. Of many that come at once those beyond it try again only a
#: second later.
_BACKLOG: Final = 1024


class CannotListen(DesyncError):
    """A server can't listen where it was told to."""


def endpoint_description(text: str, host_if_none: str = _ANY) -> str:
    """
    Make an endpoint description of Twisted's of where a user wants a server to listen.

    :param text: ``host:port``, ``:port``, with names of ports as ``http``, or a description.
    :param host_if_none: where ``:port`` is.
    :raises UsageError: if it is none of these.
    """
    kind, colon, rest = text.partition(":")
    if kind in _KINDS and colon and rest:
        return text
    host, colon, port = text.rpartition(":")
    if not colon or not port:
        raise UsageError(f"can't listen at {text!r}: it names no port")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise UsageError(f"can't listen at {text!r}: an IPv6 address goes into brackets")
    number, interface = _port_number(text, port), quoteStringArgument(host or host_if_none)
    return f"tcp:{number}:interface={interface}:backlog={_BACKLOG}"


def _port_number(text: str, port: str) -> int:
    if re.fullmatch(r"[0-9]{1,5}", port):
        number = int(port)
        if number < 1 << 16:
            return number
    else:
        try:
            return socket.getservbyname(port, "tcp")
        except OSError:
            pass
    raise UsageError(f"can't listen at {text!r}: unknown port {port!r}")


def is_tls_description(description: str) -> bool:
    """Tell whether an endpoint speaks TLS by itself."""
    return description.startswith("ssl:")


async def listen(reactor: Any, description: str, factory: IProtocolFactory) -> IListeningPort:
    """
    Begin to listen.

    :raises CannotListen: naming the place and the reason.
    """
    try:
        endpoint = serverFromString(reactor, description)
    except Exception as error:
        raise CannotListen(f"can't listen at {description}: {error or type(error)}") from None
    try:
        port: IListeningPort = await endpoint.listen(factory)
    except Exception as error:
        if f"interface={quoteStringArgument('::')}" in description and _lacks_ipv6(error):
            return await listen(
                reactor, description.replace(quoteStringArgument("::"), "0.0.0.0"), factory
            )
        reason = getattr(error, "socketError", error)
        why = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
        raise CannotListen(f"can't listen at {description}: {why}") from None
    return port


def _lacks_ipv6(error: Exception) -> bool:
    import errno

    reason = getattr(error, "socketError", error)
    return getattr(reason, "errno", None) in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


def shown_address(port: IListeningPort, tls: bool) -> str:
    """Say for people where a port is."""
    address: Any = port.getHost()
    name = getattr(address, "name", None)
    if name is not None:
        return f"unix:{name.decode('utf-8', 'backslashreplace')}"
    scheme = "https" if tls or getattr(port, "_type", "") == "TLS" else "http"
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{scheme}://{host}:{address.port}/"


def allow_descriptors(wanted: int) -> None:
    """
    Let the process have so many connections open, as far as its hard limit goes.

    Where the system has no such limits, or none is in the way, nothing is done.
    """
    try:
        import resource
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
