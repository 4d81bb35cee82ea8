"""The cluster's certificates: one CA, with the extensions that Python's strict verification asks for."""

from __future__ import annotations

import base64
import ipaddress
import json
import subprocess
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.e2e.layout import (
    ADMIN_KUBECONFIG,
    API_PORT,
    HOST_ADDRESS,
    KUBERNETES_SERVICE,
    NODE,
    NODE_ADDRESS,
    PKI,
    SSH_KEY,
)

_PEM = serialization.Encoding.PEM

CERTIFICATES: dict[str, tuple[str, str | None, Sequence[str]]] = {
    "apiserver": (
        "kube-apiserver",
        None,
        ("localhost", "kubernetes", "kubernetes.default.svc", "127.0.0.1", HOST_ADDRESS, KUBERNETES_SERVICE),
    ),
    "admin": ("admin", "system:masters", ()),
    "kubelet": (f"system:node:{NODE}", "system:nodes", (NODE, "localhost", "127.0.0.1", NODE_ADDRESS)),
    "kubelet-client": ("kube-apiserver-kubelet-client", "system:masters", ()),
    "front-proxy": ("front-proxy", None, ()),
    "metrics-server": ("system:serviceaccount:kube-system:metrics-server", None, (HOST_ADDRESS,)),
    "collector": ("podtally", None, (NODE_ADDRESS, NODE)),
}
"""Each by file name: common name, organisation (a group to Kubernetes), names and addresses."""


def make() -> None:
    """Make all that is missing. The files are kept: a disk that was made with them stays valid."""
    if ADMIN_KUBECONFIG.exists():
        return
    PKI.mkdir(parents=True, exist_ok=True)
    ca_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "podtally-e2e")])
    ca = _builder(ca_name, ca_name, ca_key.public_key(), ca=True).sign(ca_key, hashes.SHA256())
    (PKI / "ca.crt").write_bytes(ca.public_bytes(_PEM))
    for name, (common_name, organisation, names) in CERTIFICATES.items():
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        subject = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
        if organisation:
            subject.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation))
        builder = _builder(x509.Name(subject), ca_name, key.public_key(), ca=False).add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([_general(n) for n in names]), critical=False)
        _write(name, key, builder.sign(ca_key, hashes.SHA256()))
    sa = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    (PKI / "sa.key").write_bytes(_private(sa))
    (PKI / "sa.pub").write_bytes(sa.public_key().public_bytes(_PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(SSH_KEY)], check=True)
    for user in ("kubelet", "metrics-server", "admin"):
        write_kubeconfig(PKI / f"{user}.kubeconfig", user)


def write_kubeconfig(file: Path, user: str) -> None:
    """A kubeconfig of that certificate's user."""
    data = {
        name: base64.b64encode((PKI / name).read_bytes()).decode() for name in ("ca.crt", f"{user}.crt", f"{user}.key")
    }
    cluster = {"server": f"https://{HOST_ADDRESS}:{API_PORT}", "certificate-authority-data": data["ca.crt"]}
    credentials = {"client-certificate-data": data[f"{user}.crt"], "client-key-data": data[f"{user}.key"]}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "e2e", "cluster": cluster}],
        "users": [{"name": user, "user": credentials}],
        "contexts": [{"name": "e2e", "context": {"cluster": "e2e", "user": user}}],
        "current-context": "e2e",
    }
    file.write_text(json.dumps(config))
    file.chmod(0o600)


def _builder(subject: x509.Name, issuer: x509.Name, key: rsa.RSAPublicKey, *, ca: bool) -> x509.CertificateBuilder:
    now = datetime.now(timezone.utc)
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=not ca,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )
    if ca:
        return builder
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    return builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _private(key: rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _write(name: str, key: rsa.RSAPrivateKey, certificate: x509.Certificate) -> None:
    (PKI / f"{name}.crt").write_bytes(certificate.public_bytes(_PEM))
    file = PKI / f"{name}.key"
    file.write_bytes(_private(key))
    file.chmod(0o600)
