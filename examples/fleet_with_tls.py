"""A folder over three servers with TLS and a token, whatever one of them does meanwhile.

    python fleet_with_tls.py pictures/ --model screw --ca ca.pem --token-file token \\
        line1:8001 line2:8001 line3:8001

The token is for the gateway in front of the servers; its file, and the certificates', are
read again when they change.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from diffusionad_client import Client, Connection, Priority


def main() -> None:
    """Judge all pictures of a folder, and tell which server did how many."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", type=Path)
    parser.add_argument("servers", nargs="+", metavar="HOST:PORT")
    parser.add_argument("--model", required=True)
    parser.add_argument("--ca", type=Path, required=True, help="who signed the servers'")
    parser.add_argument("--token-file", type=Path)
    options = parser.parse_args()

    connection = Connection(options.servers, ca_cert=options.ca, token_file=options.token_file)
    verdicts: Counter[str] = Counter()
    with Client(connection, options.model, priority=Priority.BATCH) as client:
        for difference in client.health().differences:
            print(f"careful: {difference}")
        pictures = sorted(path for path in options.pictures.rglob("*") if path.is_file())
        for outcome in client.inspect_stream(pictures, window=12, ordered=False):
            if outcome.inspection is None:
                verdicts["no verdict"] += 1
                print(f"{outcome.image}: {outcome.error}")
            else:
                verdicts[outcome.inspection.verdict.value] += 1
        for server in client.stats().servers:
            print(f"{server.url}: {server.answers} of {server.tries}, {dict(server.errors)}")
    print(dict(verdicts))


if __name__ == "__main__":
    main()
