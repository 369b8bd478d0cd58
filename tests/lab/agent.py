"""Runs in the guest: executes the laboratory's commands from a virtio-serial port, one at a time.

A request is a line of JSON: `command`, `environment`, `given` (standard input, base64) and `timeout_s`. So is the
answer: `status` (128 + signal if killed, 124 after a timeout), `output` and `errors` (base64).
"""

import base64
import json
import os
import subprocess
import sys
from typing import Any

_TIMED_OUT = 124


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Run one command until it exits."""
    environment = {**os.environ, **request["environment"]}
    try:
        done = subprocess.run(
            request["command"],
            input=base64.b64decode(request["given"]),
            capture_output=True,
            env=environment,
            timeout=request["timeout_s"],
            check=False,
        )
        status, output, errors = done.returncode, done.stdout, done.stderr
    except subprocess.TimeoutExpired as late:
        status, output, errors = _TIMED_OUT, late.stdout or b"", (late.stderr or b"") + b"\nlab agent: timed out\n"
    except OSError as error:
        status, output, errors = 127, b"", f"{request['command'][0]}: {error.strerror}\n".encode()
    coded = {"output": base64.b64encode(output).decode(), "errors": base64.b64encode(errors).decode()}
    return {"status": status if status >= 0 else 128 - status, **coded}


def main() -> None:
    """Answer until the port is closed."""
    with open(sys.argv[1], "r+b", buffering=0) as port:  # noqa: PTH123 -- pathlib is not needed in the guest
        buffer = b""
        port.write(b'{"ready": true}\n')
        while chunk := port.read(65536):
            buffer += chunk
            while b"\n" in buffer:
                line, _, buffer = buffer.partition(b"\n")
                unsent = json.dumps(answer(json.loads(line))).encode() + b"\n"
                while unsent:
                    unsent = unsent[port.write(unsent) :]


if __name__ == "__main__":
    main()
