"""A certificate authority for the tests, by Debian's openssl: `ca-certificates` brings it, so it is no package of ours."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

DAYS = "2"
CURVE = ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime256v1")
CONFIG = "[req]\nprompt = no\ndistinguished_name = subject\n[subject]\n"  # nothing of the machine's own openssl.cnf


def missing() -> str:
    """Why no certificates can be made here, or ""."""
    return "" if shutil.which("openssl") else "there is no openssl (apt-get install openssl)"


class Authority:
    """Signs certificates of servers and of clients; keeps all of them in one private folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.certificate = folder / "ca.crt"
        folder.mkdir(mode=0o700)
        (folder / "openssl.cnf").write_text(CONFIG)
        constraints = "basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign", "subjectKeyIdentifier=hash"
        self._request("ca", "/CN=rayscope-test-ca", constraints)

    def server(self, name: str, *addresses: str) -> tuple[Path, Path]:
        """Certificate and key of a server at these addresses, each as openssl writes it: "IP:127.0.0.1", "DNS:localhost"."""
        return self._signed(name, f"/CN={name}", "serverAuth", f"subjectAltName={','.join(addresses)}")

    def client(self, user: str, *groups: str) -> tuple[Path, Path]:
        """Certificate and key of a client that the API server sees as this user in these groups."""
        subject = "".join(f"/O={group}" for group in groups) + f"/CN={user}"
        return self._signed(user.replace(":", "-"), subject, "clientAuth")

    def key_pair(self, name: str) -> tuple[Path, Path]:
        """A private and a public key without a certificate, such as service account tokens are signed with."""
        private, public = self.folder / f"{name}.key", self.folder / f"{name}.pub"
        openssl("genpkey", *CURVE, "-out", str(private))
        openssl("pkey", "-in", str(private), "-pubout", "-out", str(public))
        return private, public

    def _signed(self, name: str, subject: str, usage: str, *extensions: str) -> tuple[Path, Path]:
        signer = ["-CA", str(self.certificate), "-CAkey", str(self.folder / "ca.key")]
        fixed = "basicConstraints=critical,CA:FALSE", "keyUsage=critical,digitalSignature", f"extendedKeyUsage={usage}"
        return self._request(name, subject, (*fixed, "authorityKeyIdentifier=keyid", *extensions), signer)

    def _request(self, name: str, subject: str, extensions: tuple[str, ...], signer: list[str] | None = None) -> tuple[Path, Path]:
        key, certificate = self.folder / f"{name}.key", self.folder / f"{name}.crt"
        openssl("genpkey", *CURVE, "-out", str(key))
        added = [argument for extension in extensions for argument in ("-addext", extension)]
        files = ["-config", str(self.folder / "openssl.cnf"), "-key", str(key), "-out", str(certificate)]
        openssl("req", "-x509", "-new", "-days", DAYS, "-subj", subject, *files, *added, *(signer or []))
        return certificate, key


def openssl(*arguments: str) -> None:
    """Raises AssertionError with what openssl said."""
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, f"openssl {' '.join(arguments)}: {done.stderr}"
