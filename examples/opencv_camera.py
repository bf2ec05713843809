"""Frames of an OpenCV camera, several under way at a time, the newest verdict on the frame.

    pip install opencv-python-headless
    python opencv_camera.py line1:8001 screw --camera 0
    python opencv_camera.py line1:8001 screw --frames 20      without a camera

OpenCV's arrays are BGR: say so with `color="bgr"`, or red parts are judged as blue ones.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from diffusionad_client import Client


def frames_of(camera: int, count: int) -> Iterator[NDArray[np.uint8]]:
    """Take frames from a camera."""
    import cv2

    capture = cv2.VideoCapture(camera)
    try:
        for _ in range(count):
            there, frame = capture.read()
            if not there:
                raise SystemExit(f"camera {camera} gives no frame")
            yield frame
    finally:
        capture.release()


def drawn_frames(count: int) -> Iterator[NDArray[np.uint8]]:
    """Draw frames as OpenCV would give them, for a try without a camera."""
    for number in range(count):
        frame = np.full((240, 320, 3), 90, np.uint8)
        frame[100:140, 10 * number % 280 : 10 * number % 280 + 40] = (40, 40, 200)  # red, as BGR
        yield frame


def main() -> None:
    """Judge frame by frame, until they end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", help="HOST:PORT of the server")
    parser.add_argument("model", help="category")
    parser.add_argument("--camera", type=int, help="its number; without it, frames are drawn")
    parser.add_argument("--frames", type=int, default=100)
    options = parser.parse_args()

    if options.camera is None:
        frames = drawn_frames(options.frames)
    else:
        frames = frames_of(options.camera, options.frames)
    with Client(options.url, options.model) as client:
        # The window holds the camera back when the server is slower than it.
        for outcome in client.inspect_stream(frames, window=4, color="bgr", reconstruction=False):
            if outcome.inspection is None:
                print(f"frame {outcome.index}: {outcome.error}")
                continue
            found = outcome.inspection
            print(f"frame {outcome.index}: {found.verdict.value} {found.score:.3f}")
        print(f"median {1e3 * client.stats().latencies.p50:.0f} ms")


if __name__ == "__main__":
    main()
