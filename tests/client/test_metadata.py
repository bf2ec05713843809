from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusionad_client.artifacts.calibration import threshold_for
from diffusionad_client.artifacts.metadata import (
    Agreement,
    GateRecord,
    Precision,
    ReleaseMetadata,
    Thresholds,
    Verdict,
)
from diffusionad_client.errors import MetadataError

Make = Callable[..., ReleaseMetadata]

AGREEMENT = Agreement(images=8, anomalous=4, spearman=0.995, verdict_flips=0.0, auroc_loss=0.001)
GATE = GateRecord(
    references=8,
    score_difference=1e-5,
    score_tolerance=1e-3,
    map_difference=1e-4,
    map_tolerance=5e-3,
    server="triton 2.51.0",
    onnxruntime="1.19.2",
    agreement=AGREEMENT,
)
LOWERED = {"precision": Precision.INT8, "agreement": AGREEMENT, "speedup": 1.5, "roi": "e" * 64}


def test_a_document_is_read_as_it_was_written(make_metadata: Make) -> None:
    metadata = make_metadata()
    assert ReleaseMetadata.from_json(metadata.to_json()) == metadata


def test_the_depth_of_images_is_told_only_where_it_matters(make_metadata: Make) -> None:
    full, twelve = make_metadata().changed(), make_metadata().changed(depth=12)
    assert "depth" not in json.loads(full.to_json())
    assert ReleaseMetadata.from_json(full.to_json()).depth == 16
    assert ReleaseMetadata.from_json(twelve.to_json()) == twelve
    assert twelve.release != full.release
    with pytest.raises(MetadataError, match="8 to 16 bits, not 20"):
        make_metadata(depth=20)


def test_a_lower_precision_its_gate_and_its_region_are_read_as_they_were_written(
    make_metadata: Make,
) -> None:
    metadata = make_metadata(**LOWERED, gate=GATE)
    assert ReleaseMetadata.from_json(metadata.to_json()) == metadata


def test_a_document_of_before_there_were_precisions_is_of_fp32_and_the_whole_image(
    make_metadata: Make,
) -> None:
    document = json.loads(make_metadata().to_json())
    for name in ("precision", "agreement", "speedup", "roi", "gate"):
        del document[name]
    read = ReleaseMetadata.from_json(json.dumps(document))
    assert read == make_metadata()
    assert (read.precision, read.roi, read.gate) == (Precision.FP32, None, None)


def test_what_is_measured_anew_each_time_does_not_make_another_release(
    make_metadata: Make,
) -> None:
    once = make_metadata(**LOWERED, gate=GATE)
    again = make_metadata(**LOWERED | {"speedup": 1.25})
    assert once != again
    assert once.as_exported() == again.as_exported()
    assert once.as_exported() != make_metadata(**LOWERED | {"roi": None}).as_exported()


def test_a_lower_precision_that_does_not_say_how_far_it_agrees_is_refused(
    make_metadata: Make,
) -> None:
    with pytest.raises(MetadataError, match="how far fp16 agrees with fp32"):
        make_metadata(precision=Precision.FP16)


def test_equal_metadata_is_equal_bytes(make_metadata: Make) -> None:
    read = ReleaseMetadata.from_json(make_metadata().to_json())
    assert read.to_json() == make_metadata().to_json()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("schema_version",), 3, "schema 3"),
        (("size",), "256", r"metadata\.size: expected int"),
        (("size",), True, r"metadata\.size: expected int"),
        (("size",), 0, "positive"),
        (("category",), "a__b", "cannot name a category"),
        (("thresholds",), None, r"metadata\.thresholds: expected an object"),
        (("thresholds", "accept"), None, r"metadata\.thresholds\.accept: expected float"),
        (("thresholds", "accept"), 0.9, "above the reject threshold"),
        (("thresholds", "extra"), 1, r"metadata\.thresholds: unknown fields \['extra'\]"),
        (("pixel_threshold",), float("nan"), "finite"),
        (("metrics",), [], r"metadata\.metrics: expected object"),
        (("metrics", "image_auroc"), "high", r"metadata\.metrics\.image_auroc: expected float"),
        (("digests",), {}, "digests must name the steps"),
        (("precision",), "fp8", r"metadata\.precision: expected one of fp32, fp16, int8"),
        (("precision",), [], r"metadata\.precision: expected one of fp32, fp16, int8"),
        (("agreement",), {}, r"metadata\.agreement: .*missing fields"),
        (("gate",), 1, r"metadata\.gate: expected an object"),
        (("roi",), 1, r"metadata\.roi: expected str"),
        (("calibration", "warning"), 3, r"metadata\.calibration\.warning: expected str"),
    ],
)
def test_a_document_that_is_not_as_it_must_be_is_refused_with_the_place(
    make_metadata: Make, path: tuple[str, ...], value: Any, message: str
) -> None:
    document = json.loads(make_metadata().to_json())
    target = document
    for name in path[:-1]:
        target = target[name]
    target[path[-1]] = value
    with pytest.raises(MetadataError, match=message):
        ReleaseMetadata.from_json(json.dumps(document))


@pytest.mark.parametrize("field", ["category", "thresholds", "pixel_threshold", "digests"])
def test_a_missing_field_is_named(make_metadata: Make, field: str) -> None:
    document = json.loads(make_metadata().to_json())
    del document[field]
    with pytest.raises(MetadataError, match=rf"missing fields \['{field}'\]"):
        ReleaseMetadata.from_json(json.dumps(document))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"text"'])
def test_text_that_is_no_json_object_is_refused(text: str) -> None:
    with pytest.raises(MetadataError, match="JSON"):
        ReleaseMetadata.from_json(text)


SCORES = st.floats(0, 1)


@given(SCORES, st.tuples(SCORES, SCORES).map(sorted))
def test_verdicts_split_the_scores_at_the_thresholds(score: float, limits: list[float]) -> None:
    accept, reject = limits
    verdict = Thresholds(accept, reject).verdict(score)
    assert (verdict is Verdict.NG) == (score >= reject)
    assert (verdict is Verdict.OK) == (score < accept and score < reject)


def test_a_score_that_is_not_a_number_is_never_ok() -> None:
    assert Thresholds(0.5, 0.5).verdict(math.nan) is Verdict.REVIEW


def test_a_verdict_prints_as_its_word() -> None:
    assert f"{Verdict.NG}" == str(Verdict.NG) == "NG"


@pytest.mark.parametrize("limits", [(40, 50), (-0.1, 0.5), (0.5, 1.001), (-5, -1)])
def test_thresholds_that_no_score_can_meet_are_refused(limits: tuple[float, float]) -> None:
    with pytest.raises(MetadataError, match=r"in \[0, 1\], as scores do, not"):
        Thresholds(*limits)


def test_a_threshold_just_above_the_highest_score_is_taken() -> None:
    highest = threshold_for(np.ones(50, np.float32), 0.01)
    assert highest > 1
    assert Thresholds(highest, highest).verdict(1.0) is Verdict.OK


@pytest.mark.parametrize(("accept", "reject"), [(40.0, 50.0), (-1.0, 2.0), (0.2, 1e300)])
def test_a_release_of_before_with_any_thresholds_is_still_read(
    make_metadata: Make, accept: float, reject: float
) -> None:
    document = json.loads(make_metadata().to_json())
    document["thresholds"] = {"accept": accept, "reject": reject}
    read = ReleaseMetadata.from_json(json.dumps(document))
    assert (read.thresholds.accept, read.thresholds.reject) == (accept, reject)
    assert read.thresholds.with_changes(accept=None, reject=None) is read.thresholds
    assert ReleaseMetadata.from_json(read.to_json()) == read


@pytest.mark.parametrize("value", ["1e999", "1" + "0" * 400])
def test_a_number_that_is_too_large_is_refused(make_metadata: Make, value: str) -> None:
    text = make_metadata().to_json().replace('"accept": 0.3', f'"accept": {value}')
    with pytest.raises(MetadataError):
        ReleaseMetadata.from_json(text)


@pytest.mark.parametrize("pixel", [-0.1, 40, math.nan, math.inf])
def test_a_pixel_threshold_that_no_map_can_meet_is_no_change(
    make_metadata: Make, pixel: float
) -> None:
    with pytest.raises(MetadataError, match="pixel threshold must lie"):
        make_metadata().changed(pixel_threshold=pixel)
    assert make_metadata(pixel_threshold=2.0).changed(size=64).pixel_threshold == 2.0  # of before


def test_json_that_is_nested_too_deeply_is_refused() -> None:
    with pytest.raises(MetadataError, match="not JSON"):
        ReleaseMetadata.from_json("[" * 100_000)


@pytest.mark.parametrize(("accept", "reject"), [(0.6, 0.5), (math.nan, 0.5), (0.1, math.inf)])
def test_thresholds_that_make_no_sense_are_refused(accept: float, reject: float) -> None:
    with pytest.raises(MetadataError):
        Thresholds(accept, reject)
