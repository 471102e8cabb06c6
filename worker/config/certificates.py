"""Whether the files for TLS can be used: told at the start, with the setting's name, instead of at some handshake."""

import ssl
from collections.abc import Iterator
from pathlib import Path

from worker.config.model import Redis


def unusable_files(redis: Redis, cwd: Path) -> Iterator[str]:
    """Tell which of the files for TLS with Redis cannot be used, and why."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if redis.tls_ca_file:
        try:
            context.load_verify_locations(cafile=cwd / redis.tls_ca_file)
        except OSError as error:
            yield f"redis.tls_ca_file: {redis.tls_ca_file} {_why(error, 'holds no certificate')}"
    if redis.tls_cert_file:
        key = cwd / (redis.tls_key_file or redis.tls_cert_file)
        try:
            # an empty password, since OpenSSL would ask for one on the terminal
            context.load_cert_chain(cwd / redis.tls_cert_file, key, password="")
        except OSError as error:
            yield (
                f"redis.tls_cert_file, redis.tls_key_file: {_why(error, 'no certificate with its key, unencrypted')}"
            )


def _why(error: OSError, otherwise: str) -> str:
    return otherwise if isinstance(error, ssl.SSLError) else f"cannot be read: {error.strerror}"
