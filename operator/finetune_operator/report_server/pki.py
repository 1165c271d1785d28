"""Certificates: a CA of our own, and under it one for the report server. Nothing here knows where they are kept."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CERT, KEY, CA_CERT, CA_KEY = "tls.crt", "tls.key", "ca.crt", "ca.key"
FILES = (CERT, KEY, CA_CERT)
CERT_DAYS = 365
"""The server's certificate is good for so long, and renewed when a sixth of its time is left."""


def good(files: Mapping[str, bytes], hosts: Sequence[str], now: float) -> bool:
    """Whether the certificate is for these hosts, of this CA, belongs to its key, and does not end soon."""
    try:
        certificate, authority = (x509.load_pem_x509_certificate(files[name]) for name in (CERT, CA_CERT))
        key = serialization.load_pem_private_key(files[KEY], None)
        certificate.verify_directly_issued_by(authority)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except Exception:  # whatever it is, it is of no use
        return False
    same = key.public_key() == certificate.public_key()
    ends, time = certificate.not_valid_after_utc, certificate.not_valid_after_utc - certificate.not_valid_before_utc
    fresh = ends.timestamp() - now > time.total_seconds() / 6
    return same and fresh and set(hosts) <= set(names.get_values_for_type(x509.DNSName))


def issue(files: Mapping[str, bytes], hosts: Sequence[str], now: float, ca_days: int) -> dict[str, bytes]:
    """A new certificate: under the CA given, or a new one where that is missing or ends within the certificate's
    time.
    """
    authority = _authority(files, now)
    ca, ca_key = authority or _new_authority(hosts[0], now, ca_days)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(hosts[0], ca.subject, key, now, min(CERT_DAYS, ca_days))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts]), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    certificate = builder.add_extension(issuer, critical=False).sign(ca_key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    return {
        CERT: certificate.public_bytes(pem),
        KEY: _private(key),
        CA_CERT: ca.public_bytes(pem),
        CA_KEY: _private(ca_key),
    }


def _authority(files: Mapping[str, bytes], now: float) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None:
    try:
        ca = x509.load_pem_x509_certificate(files[CA_CERT])
        key = serialization.load_pem_private_key(files[CA_KEY], None)
    except Exception:
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != ca.public_key():
        return None
    return (ca, key) if ca.not_valid_after_utc.timestamp() > now + CERT_DAYS * 86400 else None


def _new_authority(name: str, now: float, days: int) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(f"{name} CA")
    builder = _builder(f"{name} CA", subject, key, now, days)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    builder = builder.add_extension(usage, critical=True)
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return builder.add_extension(own, critical=False).sign(key, hashes.SHA256()), key


def _builder(
    name: str, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: float, days: int
) -> x509.CertificateBuilder:
    moment = datetime.datetime.fromtimestamp(now, datetime.UTC)
    return (
        x509.CertificateBuilder(issuer_name=issuer, subject_name=_name(name), public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment - datetime.timedelta(hours=1))
        .not_valid_after(moment + datetime.timedelta(days=days))
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common[:64])])


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(pem, form, serialization.NoEncryption())
