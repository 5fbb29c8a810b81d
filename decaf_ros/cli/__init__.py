"""The commands of ``decaf``."""

INTERRUPTED = 130  # exit status, as shells have it
