"""A Valkey of our own, for when no Redis URL is given.

One directory holds one server: its append-only file, its socket, and two locks. `server.lock` is held by the server
process itself through a descriptor it inherits, so it is free exactly when no server runs there, whoever died how.
`owner.lock` is held by the process that started it. Any other process adopts the server: same data, same URL. On
Linux the kernel ends the server when its owner dies, however it dies; an adopter then sees `is_alive()` turn false
and starts a server of its own from the same data. Elsewhere the server outlives a killed owner, and the next
`start` adopts it and becomes its owner.
"""

from worker.embedded.program import EmbeddedUnavailable, Program, find_program
from worker.embedded.server import EmbeddedServer
from worker.embedded.spawn import EmbeddedFailed

__all__ = ["EmbeddedFailed", "EmbeddedServer", "EmbeddedUnavailable", "Program", "find_program"]
