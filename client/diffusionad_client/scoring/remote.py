"""Images at addresses: s3://, gs://, az://, http(s):// and others that fsspec reads."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from diffusionad_client import folders, regular_files
from diffusionad_client.errors import DeadlineExceededError, ImageError, SourceError
from diffusionad_client.folders import LeftOut
from diffusionad_client.scoring.archives import reason_to_leave_out
from diffusionad_client.scoring.sources import SourceImage, nothing_found

_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "http": "aiohttp"}
_KNOWN = ("s3", "gs", "az", "abfs", "http", "https", "file", "memory")
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError)  # no use to ask again for it


def is_address(source: str) -> bool:
    """Tell an address from a path."""
    return _ADDRESS.match(source) is not None


def find(sources: Sequence[str], timeout: float) -> RemoteImages:
    """Look whether there are images at an address. Raises `SourceError`."""
    if len(sources) > 1:
        raise SourceError(f"{sources[0]}: score one address a run, not {len(sources)} of them")
    images = RemoteImages(sources[0], timeout)
    if next(iter(images), None) is None:
        raise nothing_found(sources, images.left_out)
    return images


@dataclass(frozen=True)
class RemoteImages:
    """The images below an address, in the order of their names. A `Source`.

    Only one folder's names are in memory at once.
    """

    address: str
    timeout: float  # for reading one, in seconds
    left_out: LeftOut = field(default_factory=LeftOut)

    @property
    def root(self) -> str:
        """The address."""
        return self.address

    @property
    def count(self) -> None:
        """Nobody has counted them."""
        return

    def __iter__(self) -> Iterator[SourceImage]:
        files, path = _opened(self.address)
        left_out = LeftOut()
        try:
            for base, entry in _entries(files, path):
                place = str(entry["name"])
                name = place[len(base) :].strip("/")
                reason = reason_to_leave_out(name)
                if reason is None:
                    read = partial(_read, files, place, self.timeout)
                    yield SourceImage(name, read, _etag(entry))
                else:
                    left_out.add(reason, name)
        except GeneratorExit:
            raise
        except Exception as exc:  # each of them raises what its own library does
            raise SourceError(f"{self.address}: cannot be listed: {_reason(exc)}") from exc
        finally:
            self.left_out.counts.clear()
            self.left_out.examples.clear()
            self.left_out.include(left_out, "")


def _opened(address: str) -> tuple[Any, str]:
    """Give the file system of an address, and the path there."""
    found = _ADDRESS.match(address)
    protocol = found.group(1).lower() if found else ""
    if protocol not in _KNOWN:
        raise SourceError(f"{address}: addresses begin with one of {', '.join(_KNOWN)}")
    try:
        from fsspec.core import url_to_fs

        files, path = url_to_fs(address, use_listings_cache=False)
    except ImportError as exc:
        package = _PACKAGES.get(protocol.removesuffix("s"), _PACKAGES.get(protocol, "fsspec"))
        raise SourceError(
            f"{address}: needs {package}, which is not installed here; "
            "run `pip install 'diffusionad-client[remote]'`"
        ) from exc
    except Exception as exc:
        raise SourceError(f"{address}: cannot be opened: {_reason(exc)}") from exc
    return files, path


def _entries(files: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what is said of each file, and the beginning of its path that is not in its name."""
    is_web = "http" in files.protocol
    if any(sign in path for sign in ("*[" if is_web else "*?[")):
        base = re.split(r"[*?\[]", path)[0].rpartition("/")[0]
        found = files.glob(path, detail=True)
        for place in sorted(found):
            yield base, {**found[place], "name": place}
    elif folders.is_image(path) or (not is_web and files.isfile(path)):
        about = {} if is_web else files.info(path)
        yield path.rpartition("/")[0], {**about, "name": path}
    else:
        waiting = [path.rstrip("/") + "/" if is_web else path]
        while waiting:
            below = []
            for entry in sorted(files.ls(waiting.pop(), detail=True), key=lambda e: str(e["name"])):
                if entry["type"] != "directory":
                    yield path, entry
                elif entry["name"].startswith(path):  # pages of the web also link elsewhere
                    below.append(entry["name"])
            waiting.extend(reversed(below))


def _etag(entry: Mapping[str, Any]) -> str | None:
    """Give what the store says of an object's content: S3's ETag, and that of others.

    Weak ones are no promise of the same bytes. A date is none at all.
    """
    found = entry.get("ETag") or entry.get("etag")
    return found.strip('"') if isinstance(found, str) and not found.startswith("W/") else None


def _read(files: Any, place: str, timeout: float) -> bytes:
    try:
        return regular_files.in_time(lambda: bytes(files.cat_file(place)), place, timeout)
    except TimeoutError as exc:
        raise DeadlineExceededError(f"{place}: not read within {timeout:g} s") from exc
    except _FINAL as exc:
        raise ImageError(f"{place}: cannot be read: {_reason(exc)}") from exc
    except Exception as exc:
        raise DeadlineExceededError(f"{place}: cannot be read now: {_reason(exc)}") from exc


def _reason(exc: Exception) -> str:
    return str(getattr(exc, "strerror", None) or exc or type(exc).__name__)
