"""A certificate authority of our own, made with the openssl command."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its key, as PEM files."""

    certificate: Path
    key: Path


class Certificates:
    """An authority in a folder, and what it signs. Skips without openssl, except in CI."""

    def __init__(self, folder: Path, *, name: str = "authority") -> None:
        program = shutil.which("openssl")
        if program is None:
            if os.environ.get("CI"):
                pytest.fail("CI needs openssl on PATH")
            pytest.skip("no openssl on PATH")
        self._program = program
        self._folder = folder
        self.ca = folder / f"{name}.pem"
        self._key = folder / f"{name}.key"
        self._openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"),
            *("-subj", f"/CN={name}", "-keyout", str(self._key), "-out", str(self.ca)),
        )

    def issue(self, name: str, alternatives: str = "DNS:localhost,IP:127.0.0.1") -> Issued:
        """Sign a certificate for these names."""
        made = Issued(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        extensions = self._folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={alternatives}\n", "utf-8")
        request = self._folder / f"{name}.csr"
        self._openssl(
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={name}"),
            *("-keyout", str(made.key), "-out", str(request)),
        )
        self._openssl(
            *("x509", "-req", "-in", str(request), "-CA", str(self.ca), "-CAkey", str(self._key), "-CAcreateserial"),
            *("-days", "2", "-extfile", str(extensions), "-out", str(made.certificate)),
        )
        return made

    def encrypt(self, key: Path) -> Path:
        """Return a copy of a key that opens with a passphrase only."""
        closed = key.with_suffix(".closed")
        self._openssl("pkey", "-in", str(key), "-aes256", "-passout", "pass:open sesame", "-out", str(closed))
        return closed

    def _openssl(self, *words: str) -> None:
        subprocess.run([self._program, *words], check=True, capture_output=True, timeout=60)
