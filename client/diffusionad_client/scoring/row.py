"""What a run says of one image: a row of its results, the record that all else is made from.

One line of results.jsonl is one row; `record.schema.json` beside this module is its
published form. Of several rows of one image the last one holds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

from diffusionad_client.artifacts.metadata import Thresholds, Verdict
from diffusionad_client.errors import MetadataError
from diffusionad_client.sdk.inspection import Inspection

# A field more keeps the number; one that changes its meaning, or goes, raises it. Rows of
# before there was a number are of schema 1, and are read as well.
SCHEMA = 2

_VERDICTS = tuple(verdict.value for verdict in Verdict)


class NewerSchemaError(ValueError):
    """A row was written by a later version, in a form that this one does not know."""


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """What is known of an image's file, whether it could be scored or not. None: it is not."""

    sha256: str | None = None
    size: int | None = None  # bytes
    etag: str | None = None  # what a store says of the content
    width: int | None = None  # pixels, turned upright
    height: int | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One image: either scored, or failed with an error."""

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
    size: int | None = None  # of the file, in bytes
    width: int | None = None  # of the image turned upright, in pixels
    height: int | None = None
    area_percent: float | None = None  # of the image, that defects cover; None: no map was asked
    regions: tuple[Mapping[str, Any], ...] | None = None  # defects, as sdk.regions.Region has them
    request_id: str | None = None  # as the server's logs and traces have it
    server: str | None = None  # the address that answered
    scored_at: str | None = None  # ISO 8601, in UTC
    settings: str | None = None  # digest of the settings that change a result
    etag: str | None = None  # of a bucket's object: another content has another
    fields: Mapping[str, str] = field(default_factory=dict)  # the user's, such as lot and serial

    @classmethod
    def scored(
        cls,
        image: str,
        inspection: Inspection,
        *,
        decode_s: float,
        facts: FileFacts,
        pictures: Mapping[str, Any],
        **others: Any,
    ) -> Row:
        """Make the row of an inspected image; `pictures` are the files made of it, by field."""
        if inspection.anomaly_map is not None:
            size = inspection.size or (facts.height or 1, facts.width or 1)
            others["area_percent"] = round(inspection.area_percent, 4)
            others["regions"] = tuple(map(asdict, inspection.regions_at(*size)))
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
            request_id=inspection.request_id or None,
            server=inspection.server or None,
            **asdict(facts),
            **pictures,
            **others,
        )

    @classmethod
    def failed(
        cls, image: str, error: Exception, facts: FileFacts | None = None, **others: Any
    ) -> Row:
        """Make the row of an image that could not be scored."""
        return cls(
            image=image,
            error_type=type(error).__name__,
            error_message=str(error),
            **({} if facts is None else asdict(facts)),
            **others,
        )

    @property
    def facts(self) -> FileFacts:
        """What is known of the image's file."""
        return FileFacts(**{name: getattr(self, name) for name in FileFacts.__dataclass_fields__})

    def to_document(self) -> dict[str, Any]:
        """Give the JSON form: timings, thresholds and error as objects, null where not known."""
        document: dict[str, Any] = {"schema": SCHEMA}
        document |= {name: getattr(self, name) for name in ("image", "score", "verdict")}
        document["thresholds"] = self._group("accept", "reject")
        document |= {name: getattr(self, name) for name in ("model", "version", "release", "roi")}
        document["timings"] = self._group("decode_s", "resize_s", "request_s")
        document |= {
            name: getattr(self, name) for name in ("heatmap", "reconstruction", "anomaly_map")
        }
        error = {"type": self.error_type, "message": self.error_message}
        document["error"] = error if self.error_type is not None else None
        document |= {name: getattr(self, name) for name in _AFTER_THE_ERROR}
        document["regions"] = None if self.regions is None else [*map(dict, self.regions)]
        document["fields"] = dict(self.fields)
        return document

    def _group(self, *names: str) -> dict[str, Any] | None:
        if getattr(self, names[0]) is None:
            return None
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_document(cls, document: object) -> Row:
        """Read what `to_document` gave, now or in an earlier version.

        Fields that are not known are passed over. Raises `ValueError` with
        what is wrong: people edit results, and scripts write them; and
        `NewerSchemaError` for a form of a later version.
        """
        flat = dict(_object(document, "the line"))
        _check_schema(flat.pop("schema", 1))
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
        for name in _WHOLE:
            _check(name, flat.get(name), int, "a whole number")
        if not flat.get("image"):
            raise ValueError("it names no image")
        verdict = flat.get("verdict")
        if verdict not in (None, *_VERDICTS):
            raise ValueError(f"the verdict is {verdict!r}, not one of {', '.join(_VERDICTS)}")
        if verdict is None and error is None:
            raise ValueError("it has neither a verdict nor an error")
        if verdict is not None:
            _check_thresholds(flat.get("accept"), flat.get("reject"))
        known = {name: flat[name] for name in (*_TEXTS, *_NUMBERS, *_WHOLE) if name in flat}
        return cls(**known, regions=_regions(flat.get("regions")), fields=_fields(flat))


_NUMBERS = ("score", "accept", "reject", "decode_s", "resize_s", "request_s", "area_percent")
_WHOLE = ("size", "width", "height")
_TEXTS = tuple(
    name
    for name in Row.__dataclass_fields__
    if name not in (*_NUMBERS, *_WHOLE, "regions", "fields")
)
_AFTER_THE_ERROR = (
    *("sha256", "size", "etag", "width", "height", "area_percent"),
    *("request_id", "server", "scored_at", "settings"),
)


def _check_schema(schema: object) -> None:
    if isinstance(schema, bool) or not isinstance(schema, int) or schema < 1:
        raise ValueError(f"its schema is {_shown(schema)}, not a whole number from 1 on")
    if schema > SCHEMA:
        raise NewerSchemaError(
            f"it is of schema {schema}, and this version of diffusionad-client knows them up to "
            f"{SCHEMA}; upgrade it"
        )


def _regions(value: object) -> tuple[Mapping[str, Any], ...] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise ValueError(f"its regions are {_shown(value)}, not a list")
    return tuple(_object(each, "a region") for each in value)


def _fields(flat: Mapping[str, Any]) -> Mapping[str, str]:
    fields = _object(flat.get("fields") or {}, "fields")
    for name, value in fields.items():
        _check(f"field {name}", value, str, "a text")
    return {name: value for name, value in fields.items() if value is not None}


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
