"""Which SinkError an error of the operating system is."""

import errno

from worker.sinks.protocol import ErrorType, SinkError

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_PERMISSION = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_INVALID = frozenset({errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EINVAL, errno.EBADF})


def sink_error(doing: str, error: OSError) -> SinkError:
    """Translate `error`, met while `doing` (a verb and its object, as in "write results/x.jsonl")."""
    message = f"cannot {doing}: {error.strerror or type(error).__name__}"
    match error.errno:
        case code if code in _NO_SPACE:
            hint = "free some space or raise the quota; the delivery is tried again"
            return SinkError(message, error_type=ErrorType.NO_SPACE, retryable=True, hint=hint)
        case code if code in _PERMISSION:
            hint = "give the user batchmill runs as write permission there, or mount it writable"
            return SinkError(message, error_type=ErrorType.PERMISSION, retryable=True, hint=hint)
        case errno.EPIPE:
            hint = "restart batchmill together with the program that reads its output"
            return SinkError(message, error_type=ErrorType.REFUSED, retryable=False, hint=hint)
        case code if code in _INVALID:
            hint = "choose another path, or move away what stands there"
            return SinkError(message, error_type=ErrorType.INVALID, retryable=False, hint=hint)
        case _:
            hint = "look for disk or mount errors in the system's log; the delivery is tried again"
            return SinkError(message, error_type=ErrorType.IO, retryable=True, hint=hint)
