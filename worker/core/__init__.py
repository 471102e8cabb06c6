"""The rules of batchmill, without I/O: every function here is pure, time and chance are arguments."""
