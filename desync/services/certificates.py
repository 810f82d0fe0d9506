# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
What servers speak TLS with: read from files, and read again while connections come in.

Connections that are there go on with what they began with; further ones get what was read last.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from zope.interface import implementer

from desync.errors import FileError

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IProtocolFactory

    from .settings import ServerSettings


@implementer(IOpenSSLServerConnectionCreator)
class Certificates:
    """
    Makes the server's side of TLS connections.

    :param load: reads the files, and gives what connections are made with.
    """

    def __init__(self, load: Callable[[], Any]) -> None:
        self._load = load
        self._current = load()

    def over(self, factory: IProtocolFactory) -> IProtocolFactory:
        """Put TLS over a server's protocol."""
        from twisted.protocols.tls import TLSMemoryBIOFactory

        return TLSMemoryBIOFactory(self, False, factory)

    def serverConnectionForTLS(self, protocol: Any) -> Any:  # noqa: N802
        """See :class:`twisted.internet.interfaces.IOpenSSLServerConnectionCreator`."""
        return self._current.serverConnectionForTLS(protocol)

    def read_again(self, report: Callable[[str], None]) -> None:
        """
        Read the files again, and use them. If that can't be, leave all as it is.

        :param report: takes one line about what came of it.
        """
        try:
            self._current = self._load()
        except Exception as error:
            # Whatever is wrong with them, those that are in use are better than none.
            why = " ".join(str(error).split()) or type(error).__name__
            report(f"failed to reload certificates: {why}")
        else:
            report("reloaded certificates")


def certificates_of(settings: ServerSettings) -> Certificates | None:
    """
    Read what ``--cert``, ``--key`` and ``--client-ca`` name.

    :returns: None if they name nothing.
    :raises FileError: if one of the files can't be read, or isn't what it should be.
    """
    cert, key, client_ca = settings.cert, settings.key, settings.client_ca
    if not cert or not key:
        return None
    return Certificates(lambda: tls_options(cert, key, client_ca))


def certificates_at(description: str) -> Certificates:
    """
    Read what an ``ssl:`` endpoint names.

    :raises Exception: Twisted's, if that can't be.
    """
    return Certificates(lambda: _context_of(description))


class ListeningWith:
    """
    A reactor whose ``ssl:`` endpoints use other certificates than those that they name.

    :param reactor: it listens.
    """

    def __init__(self, reactor: Any, certificates: Certificates) -> None:
        self._reactor = reactor
        self._certificates = certificates

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenSSL(self, port: int, factory: Any, contextFactory: Any, **more: Any) -> Any:  # noqa: N802, N803
        """See :meth:`twisted.internet.interfaces.IReactorSSL.listenSSL`."""
        return self._reactor.listenSSL(port, factory, self._certificates, **more)


def _context_of(description: str) -> Any:
    """Have Twisted read the files that an endpoint names, without listening."""
    from twisted.internet.endpoints import serverFromString
    from twisted.internet.protocol import Factory

    found: list[Any] = []

    class Looking:
        def listenSSL(self, port: int, factory: Any, contextFactory: Any, **more: Any) -> None:  # noqa: N802, N803
            found.append(contextFactory)

    looking: Any = Looking()
    serverFromString(looking, description).listen(Factory())
    [options] = found
    # It fails if the key isn't the certificate's.
    options.getContext().check_privatekey()
    return options


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
