"""What a run says of one image, as a row of its results."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from diffusionad_client.artifacts.metadata import Thresholds, Verdict
from diffusionad_client.errors import MetadataError
from diffusionad_client.sdk.inspection import Inspection

_VERDICTS = tuple(verdict.value for verdict in Verdict)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One image: either scored, or failed with an error. Fields are the columns of the CSV."""

    image: str  # its name: the path relative to the run's root
    score: float | None = None  # None also for a score that is not a number
    verdict: str | None = None
    accept: float | None = None
    reject: float | None = None
    model: str | None = None
    version: str | None = None
    release: str | None = None
    roi: str | None = None  # digest of the region that was inspected; None: the whole image
    decode_s: float | None = None
    resize_s: float | None = None
    request_s: float | None = None
    heatmap: str | None = None  # files, relative to the output folder
    reconstruction: str | None = None
    anomaly_map: str | None = None
    error_type: str | None = None
    error_message: str | None = None
    sha256: str | None = None  # of the image's file; None if it could not be read

    @classmethod
    def scored(
        cls,
        image: str,
        inspection: Inspection,
        *,
        decode_s: float,
        sha256: str,
        pictures: Mapping[str, str],
    ) -> Row:
        """Make the row of an inspected image; `pictures` are the files made of it, by field."""
        return cls(
            image=image,
            score=inspection.score if math.isfinite(inspection.score) else None,
            verdict=inspection.verdict.value,
            accept=inspection.thresholds.accept,
            reject=inspection.thresholds.reject,
            model=inspection.model,
            version=inspection.version,
            release=inspection.release,
            roi=inspection.roi,
            decode_s=round(decode_s, 6),
            resize_s=round(inspection.timings.resize_s, 6),
            request_s=round(inspection.timings.request_s, 6),
            sha256=sha256,
            **pictures,
        )

    @classmethod
    def failed(cls, image: str, error: Exception, *, sha256: str | None = None) -> Row:
        """Make the row of an image that could not be scored."""
        return cls(
            image=image, error_type=type(error).__name__, error_message=str(error), sha256=sha256
        )

    def to_document(self) -> dict[str, Any]:
        """Give the JSON form: timings, thresholds and error as objects, null where not known."""
        flat = asdict(self)
        document = {name: flat[name] for name in ("image", "score", "verdict")}
        document["thresholds"] = _group(flat, "accept", "reject")
        document |= {name: flat[name] for name in ("model", "version", "release", "roi")}
        document["timings"] = _group(flat, "decode_s", "resize_s", "request_s")
        document |= {name: flat[name] for name in ("heatmap", "reconstruction", "anomaly_map")}
        error = {"type": self.error_type, "message": self.error_message}
        document["error"] = error if self.error_type is not None else None
        document["sha256"] = self.sha256
        return document

    @classmethod
    def from_document(cls, document: object) -> Row:
        """Read what `to_document` gave; fields of a later version are passed over.

        Raises `ValueError` with what is wrong: people edit results, and scripts write them.
        """
        flat = dict(_object(document, "the line"))
        flat |= _object(flat.pop("thresholds", None) or {}, "thresholds")
        flat |= _object(flat.pop("timings", None) or {}, "timings")
        error = flat.pop("error", None)
        if error is not None:
            said = _object(error, "error")
            flat |= {"error_type": said.get("type", "Error"), "error_message": said.get("message")}
        for name in _TEXTS:
            _check(name, flat.get(name), str, "a text")
        for name in _NUMBERS:
            _check(name, flat.get(name), (int, float), "a number")
        if not flat.get("image"):
            raise ValueError("it names no image")
        verdict = flat.get("verdict")
        if verdict not in (None, *_VERDICTS):
            raise ValueError(f"the verdict is {verdict!r}, not one of {', '.join(_VERDICTS)}")
        if verdict is None and error is None:
            raise ValueError("it has neither a verdict nor an error")
        if verdict is not None:
            _check_thresholds(flat.get("accept"), flat.get("reject"))
        return cls(**{name: flat[name] for name in (*_TEXTS, *_NUMBERS) if name in flat})


_NUMBERS = ("score", "accept", "reject", "decode_s", "resize_s", "request_s")
_TEXTS = tuple(name for name in Row.__dataclass_fields__ if name not in _NUMBERS)


def _group(flat: dict[str, Any], *names: str) -> dict[str, Any] | None:
    return None if flat[names[0]] is None else {name: flat[name] for name in names}


def _object(value: object, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} is {_shown(value)}, not an object")
    return value


def _check(name: str, value: object, kind: type | tuple[type, ...], wanted: str) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, kind):
        raise ValueError(f"its {name} is {_shown(value)}, not {wanted}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"its {name} is {value}, not a finite number")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "..."


@lru_cache(maxsize=64)
def _check_thresholds(accept: float | None, reject: float | None) -> None:
    if accept is None or reject is None:
        raise ValueError("it has a verdict, but not the thresholds that gave it")
    try:
        Thresholds.as_stored(accept, reject)
    except MetadataError as exc:
        raise ValueError(str(exc)) from exc
