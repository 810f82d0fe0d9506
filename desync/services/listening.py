# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Where servers listen: what users write, the endpoint that it means, and TLS."""

from __future__ import annotations

import re
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.endpoints import quoteStringArgument, serverFromString

from desync.errors import DesyncError, FileError, UsageError

if TYPE_CHECKING:
    from twisted.internet.interfaces import IListeningPort, IProtocolFactory

    from .settings import ServerSettings

#: What Twisted's endpoint descriptions begin with. A host of that name has to be written otherwise.
_KINDS: Final = frozenset({"tcp", "tcp6", "ssl", "unix", "systemd", "haproxy", "fd"})

#: All addresses, of both families where the system has them.
_ANY: Final = "::" if socket.has_ipv6 else "0.0.0.0"


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
    return f"tcp:{_port_number(text, port)}:interface={quoteStringArgument(host or host_if_none)}"


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


def with_tls(settings: ServerSettings, factory: IProtocolFactory) -> IProtocolFactory:
    """Put TLS over a server's protocol if its settings ask for that."""
    if not settings.cert or not settings.key:
        return factory
    from twisted.protocols.tls import TLSMemoryBIOFactory

    options = tls_options(settings.cert, settings.key, settings.client_ca)
    return TLSMemoryBIOFactory(options, False, factory)


def tls_options(cert: str, key: str, client_ca: str | None) -> Any:
    """
    Make what TLS connections are accepted with: TLS 1.2 and newer.

    :param cert: path of the server's certificate, followed by those up to its authority, PEM.
    :param key: path of its key.
    :param client_ca: path of the authorities of clients' certificates; None if clients need none.
    :raises FileError: if one of the files can't be read, or isn't what it should be.
    """
    from OpenSSL import SSL, crypto
    from twisted.internet.ssl import (
        Certificate,
        CertificateOptions,
        TLSVersion,
        trustRootFromCertificates,
    )

    chain = [crypto.load_certificate(crypto.FILETYPE_PEM, block) for block in _certificates(cert)]
    try:
        private = crypto.load_privatekey(crypto.FILETYPE_PEM, _content(key), b"")
    except (crypto.Error, ValueError, TypeError):
        raise FileError(key, "no private key, or one with a password") from None
    trust = None
    if client_ca is not None:
        trust = trustRootFromCertificates(
            [Certificate.loadPEM(block) for block in _certificates(client_ca)]
        )
    options = CertificateOptions(
        privateKey=private,
        certificate=chain[0],
        extraCertChain=chain[1:] or None,
        trustRoot=trust,
        raiseMinimumTo=TLSVersion.TLSv1_2,
        acceptableProtocols=[b"http/1.1"],
    )
    try:
        options.getContext().check_privatekey()
    except SSL.Error:
        raise FileError(key, f"not the key of the certificate in {cert}") from None
    return options


def _content(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(1 << 22)
    except OSError as error:
        raise FileError(path, error.strerror or str(error)) from None


def _certificates(path: str) -> list[bytes]:
    from cryptography import x509

    blocks = re.findall(
        rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\s*", _content(path), re.DOTALL
    )
    try:
        for block in blocks:
            x509.load_pem_x509_certificate(block)
    except ValueError:
        blocks = []
    if not blocks:
        raise FileError(path, "no certificates found in it")
    return blocks


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
