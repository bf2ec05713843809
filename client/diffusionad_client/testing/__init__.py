"""A server without Triton, for the tests of those who use the client.

    from diffusionad_client import Client, Verdict
    from diffusionad_client.testing import FakeCategory, FakeServer, Fault

    def test_a_bad_part_is_ejected() -> None:
        with FakeServer(FakeCategory("screw", score=0.9)) as server, Client(server.url) as client:
            assert client.inspect(picture).verdict is Verdict.NG
            server.fail(Fault.QUEUE_FULL, times=2)  # the client asks again
            client.inspect(picture)
            assert server.counts["ModelInfer"] == 4

It is a real gRPC server in this process: what goes over the wire is what goes
to Triton, and comes back in Triton's words. Nothing of the client needs it.
"""

from diffusionad_client.testing.category import FakeCategory
from diffusionad_client.testing.faults import Fault
from diffusionad_client.testing.server import FakeServer, Received

__all__ = ["FakeCategory", "FakeServer", "Fault", "Received"]
