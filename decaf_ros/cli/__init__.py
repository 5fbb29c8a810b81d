"""The commands of ``decaf``."""

INTERRUPTED = 130  # exit status, as shells have it

# Of an error that ends a command: one line, but with all that it lists. Names of files in it may hold anything.
MESSAGE_CHARACTERS = 4000
