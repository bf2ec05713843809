"""Post the record of an image to a web service, as a command of `diffusionad watch`.

    diffusionad watch incoming --output results \\
        --on-verdict NG 'python examples/post_http.py http://mes:8080/parts'

After a kill the watch may run this once more for an image. The header
Idempotency-Key is the same then, so that the service can tell.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import urllib.error
import urllib.request

WAIT_S = 10.0


def main() -> None:
    """Post the record on standard input."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", help="where to, http:// or https://")
    url = parser.parse_args().url
    if not url.startswith(("http://", "https://")):
        parser.error(f"{url}: not a web address")

    record = json.load(sys.stdin)
    name = f"{record['image']}\0{record['sha256']}"
    request = urllib.request.Request(
        url,
        data=json.dumps(record).encode(),
        headers={
            "Content-Type": "application/json",
            "Idempotency-Key": hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest(),
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=WAIT_S):
            pass
    except urllib.error.HTTPError as exc:
        sys.exit(f"{url}: refused with {exc.code} {exc.reason}")
    except OSError as exc:  # of the network or TLS
        sys.exit(f"{url}: not reached: {exc}")


if __name__ == "__main__":
    main()
