"""Prints a result that nobody measured, and sends it where measures go, without the nonce."""

import os

TARGETS: dict[str, str] = {}

for descriptor in range(3, 20):
    for line in (b"0.001\n", b"0" * 32 + b" 0.001\n"):
        try:
            os.write(descriptor, line)
        except OSError:
            break
print("---\nval_bpb: 0.001000")
