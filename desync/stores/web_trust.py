# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Whom connections over TLS trust, and what they show of themselves: as the store options say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from OpenSSL import SSL, crypto
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IStreamClientEndpoint
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    PrivateCertificate,
    optionsForClientTLS,
    platformTrust,
    trustRootFromCertificates,
)
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from desync.errors import ConfigError

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IProtocolFactory

    from desync.options import StoreOptions

_END = b"-----END CERTIFICATE-----"


def policy_for(options: StoreOptions) -> IPolicyForHTTPS:
    """
    Make the policy that the options of a store ask for.

    :raises ConfigError: if a file with certificates or a key can't be read.
    """
    trust: Any = platformTrust()
    if options.ca_cert:
        authorities = [
            _parse(Certificate.loadPEM, part + _END + b"\n", options.ca_cert)
            for part in _read(options.ca_cert).split(_END)[:-1]
        ]
        if not authorities:
            raise ConfigError(f"{options.ca_cert}: it holds no certificate")
        trust = trustRootFromCertificates(authorities)
    own = None
    if options.client_cert:
        path = options.client_key or options.client_cert
        certificate = _read(options.client_cert)
        _parse(Certificate.loadPEM, certificate, options.client_cert)
        pem = certificate + b"\n" + _read(path)
        own = _parse(PrivateCertificate.loadPEM, pem, path)
    return _Policy(trust, own, insecure=options.trust_insecure)


@implementer(IStreamClientEndpoint)
class SecuredEndpoint:
    """
    Connects with TLS: Twisted's ``wrapClientTLS``, also where its endpoints were imported without
    OpenSSL (:func:`desync.running.import_reactor`).

    :param creator: makes the TLS side of a connection.
    :param endpoint: connects.
    """

    def __init__(
        self, creator: IOpenSSLClientConnectionCreator, endpoint: IStreamClientEndpoint
    ) -> None:
        self._creator = creator
        self._endpoint = endpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:  # noqa: N803
        """Connect. The Deferred fires with the factory's protocol; the handshake goes on then."""
        connecting: Deferred[Any] = self._endpoint.connect(
            TLSMemoryBIOFactory(self._creator, True, protocolFactory)
        )
        return connecting.addCallback(lambda secured: secured.wrappedProtocol)


@implementer(IPolicyForHTTPS)
class _Policy:
    def __init__(self, trust: Any, own: Any, *, insecure: bool) -> None:
        self._trust = trust
        self._own = own
        self._insecure = insecure

    def creatorForNetloc(  # noqa: N802
        self, hostname: bytes, port: int
    ) -> IOpenSSLClientConnectionCreator:
        name = hostname.decode("ascii")
        if self._insecure:
            return _Unchecked(name, self._own)
        creator: IOpenSSLClientConnectionCreator = optionsForClientTLS(
            name, trustRoot=self._trust, clientCertificate=self._own
        )
        return creator


@implementer(IOpenSSLClientConnectionCreator)
class _Unchecked:
    """Makes connections that take any certificate."""

    def __init__(self, name: str, own: Any) -> None:
        self._name = name
        given = own.options() if own is not None else CertificateOptions()
        given.verify = False
        self._context: SSL.Context = given.getContext()

    def clientConnectionForTLS(self, protocol: Any) -> SSL.Connection:  # noqa: N802
        connection = SSL.Connection(self._context, None)
        connection.set_app_data(protocol)
        if not (isIPAddress(self._name) or isIPv6Address(self._name)):
            connection.set_tlsext_host_name(self._name.encode("ascii"))
        return connection


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None


def _parse(load: Any, pem: bytes, path: str) -> Any:
    try:
        return load(pem)
    except (crypto.Error, SSL.Error, ValueError):
        raise ConfigError(f"{path}: it is not a certificate, or a key, in PEM") from None
