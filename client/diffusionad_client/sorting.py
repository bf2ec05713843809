"""Sort more texts than memory should hold: in runs on the disk, merged as they are read."""

from __future__ import annotations

import heapq
import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from typing import IO

IN_MEMORY = 50_000  # texts that are sorted at once; each is some hundred bytes


def sorted_texts(texts: Iterable[str]) -> Iterator[str]:
    """Yield texts in their order; they are all read before the first is yielded.

    Raises `OSError` if there are many and the folder for temporary files is full.
    """
    left = iter(texts)
    first = sorted(islice(left, IN_MEMORY))
    if len(first) < IN_MEMORY:
        yield from first
        return
    with ExitStack() as files:
        runs = [_stored(first, files)]
        del first
        while more := sorted(islice(left, IN_MEMORY)):
            runs.append(_stored(more, files))
        yield from heapq.merge(*map(_read, runs))


def _stored(texts: Iterable[str], files: ExitStack) -> IO[str]:
    file = files.enter_context(tempfile.TemporaryFile("w+", encoding="ascii"))  # noqa: SIM115
    # As JSON, names of files may hold line ends, and what is no Unicode.
    file.writelines(json.dumps(text) + "\n" for text in texts)
    file.seek(0)
    return file


def _read(file: IO[str]) -> Iterator[str]:
    return (json.loads(line) for line in file)
