"""Publish the record of an image by MQTT, as a command of `diffusionad watch`.

    pip install 'paho-mqtt>=2,<3'
    diffusionad watch incoming --output results \\
        --on-verdict ANY 'python examples/publish_mqtt.py broker:1883'

The topic is diffusionad/CATEGORY/VERDICT, and the quality of service 1: the broker
has the message when this ends with 0. After a kill the watch may run this once more
for an image, so a receiver goes by the record's `image` and `sha256`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from paho.mqtt import publish

WAIT_S = 10.0


def main() -> None:
    """Publish the record on standard input."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("broker", help="HOST:PORT")
    parser.add_argument("--prefix", default="diffusionad", help="what the topic begins with")
    parser.add_argument("--user", help="to log in as")
    parser.add_argument("--password-file", type=Path, help="for --user")
    parser.add_argument("--ca-cert", help="speak TLS, and trust brokers that this vouches for")
    options = parser.parse_args()
    host, _, port = options.broker.rpartition(":")

    record = json.load(sys.stdin)
    verdict = record["verdict"] or "FAILED"
    login = None
    if options.user is not None:
        password = options.password_file.read_text().strip() if options.password_file else None
        login = {"username": options.user, "password": password}
    try:
        publish.single(
            f"{options.prefix}/{record['model'] or 'unknown'}/{verdict}",
            json.dumps(record),
            qos=1,
            hostname=host,
            port=int(port),
            keepalive=int(WAIT_S),
            auth=login,
            tls={"ca_certs": options.ca_cert} if options.ca_cert else None,
        )
    except Exception as exc:  # of the network, TLS or the protocol: the watch reports it
        sys.exit(f"{options.broker}: not published: {exc}")


if __name__ == "__main__":
    main()
