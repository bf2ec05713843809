"""A server without Triton, for the tests of those who use the client.

    from diffusionad_client import Client, Thresholds, Verdict
    from diffusionad_client.testing import FakeCategory, FakeServer, Fault

    def test_a_bad_part_is_ejected() -> None:
        with FakeServer(FakeCategory("screw", score=0.9)) as server, Client(server.url) as client:
            assert client.inspect(picture).verdict is Verdict.NG
            server.fail(Fault.QUEUE_FULL, times=2)  # the client asks again
            client.inspect(picture)
            assert server.counts["ModelInfer"] == 4
            server.promote(thresholds=Thresholds(0.92, 0.95))  # another release of "screw"
            assert client.inspect(picture).verdict is Verdict.OK

It is a real gRPC server in this process: what goes over the wire is what goes
to Triton, and comes back in Triton's words, checked against a real one. The
score may depend on the image as it arrived, (S, S, 3) uint8 RGB:

    FakeCategory("screw", score=lambda image: image[..., 0].mean() / 255)

What goes wrong is a `Fault`, or a `Refusal` with a status and words of your
own, for some calls, some seconds or until it is healed; `stop` and `start`
take the server away and bring it back at the same address. Two servers with
different releases are a fleet in the middle of a promotion. As a fixture:

    @pytest.fixture
    def server() -> Iterator[FakeServer]:
        with FakeServer() as server:
            yield server

What it does not do: it runs no networks and has no queue of its own, its
models are categories alone, and a step of one answers no image.
"""

from diffusionad_client.testing.calls import Received
from diffusionad_client.testing.category import FakeCategory
from diffusionad_client.testing.faults import Fault, Refusal
from diffusionad_client.testing.server import FakeServer

__all__ = ["FakeCategory", "FakeServer", "Fault", "Received", "Refusal"]
