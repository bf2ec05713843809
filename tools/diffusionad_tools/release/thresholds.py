"""Release a category with other thresholds: its ensembles and their judgement, on its networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from diffusionad_client.artifacts.metadata import SET_BY_HAND, ReleaseMetadata
from diffusionad_client.contract import Step
from diffusionad_tools.errors import ReleaseError, SignatureError
from diffusionad_tools.release import durable, model_config
from diffusionad_tools.release.candidate import (
    Candidate,
    lay_out_ensembles,
    lay_out_judgement,
    published,
)
from diffusionad_tools.release.check import read_whole, require_servable
from diffusionad_tools.release.keys import SigningKey, TrustedKeys
from diffusionad_tools.release.procedure import DEFAULT, Procedure
from diffusionad_tools.release.promote import Switched
from diffusionad_tools.release.publish import publish, switch
from diffusionad_tools.release.repository import find_release
from diffusionad_tools.release.signatures import require_signed, sign_candidate
from diffusionad_tools.release.staging import changing


def set_thresholds(
    repository: Path,
    category: str,
    *,
    accept: float | None = None,
    reject: float | None = None,
    pixel: float | None = None,
    procedure: Procedure = DEFAULT,
) -> Switched:
    """Publish a new version of the served release with the thresholds that are not None.

    Nothing is held against references: the networks and their configurations
    stay the ones that the gate held against them, to the byte, and thresholds
    are in neither. So scores and maps are those of the release before. A release
    of an older contract becomes one of the newest, whatever its thresholds.
    Raises a `DiffusionADError` and changes nothing if the thresholds make no
    sense or the graphs are no longer those that were published.
    """
    if accept is None and reject is None and pixel is None:
        raise ReleaseError("no threshold is given; give --accept, --reject or --pixel")
    with changing(repository, wait=procedure.wait) as aside:
        found = read_whole(repository, category)
        served = found.release()
        require_servable(found, served)
        metadata = published(_with_thresholds(served.metadata, accept, reject, pixel))
        if metadata == served.metadata:  # it may have been killed half-way
            configs = found.published_configs(served)
            switch(found, aside, configs, served.served_before, procedure)
            return Switched(served, served)
        require_signed(repository, served, procedure.trusted)
        if procedure.trusted is not None:
            _check_key(procedure.trusted, procedure.key)
        version = found.highest_version + 1
        candidate = Candidate(aside / "candidate", metadata, version)
        durable.make_folder(candidate.folder)
        lay_out_judgement(candidate, repository)
        lay_out_ensembles(
            model_config.ensemble_configs(
                metadata,
                version,
                {**served.step_versions, Step.JUDGEMENT: version},
                found.decoding_version(metadata),
            ),
            version,
            candidate.folder,
        )
        if procedure.key is not None:
            sign_candidate(candidate, procedure.key)
        publish(candidate, found, procedure)
        return Switched(find_release(repository, category), served)


def _check_key(trusted: TrustedKeys, key: SigningKey | None) -> None:
    """Raise `SignatureError` unless what this key signs can be served."""
    if key is None:
        raise SignatureError(
            f"only what {trusted} signed is taken, and other thresholds are another release; give "
            "the key to sign it with, as --key FILE"
        )
    if key.fingerprint not in trusted.keys:
        raise SignatureError(f"--key is {key.fingerprint}, and trusted is {trusted}")


def _with_thresholds(
    metadata: ReleaseMetadata, accept: float | None, reject: float | None, pixel: float | None
) -> ReleaseMetadata:
    changed = metadata.changed(
        thresholds=metadata.thresholds.with_changes(accept=accept, reject=reject),
        pixel_threshold=metadata.pixel_threshold if pixel is None else pixel,
    )
    if changed == metadata:
        return metadata
    note = (
        f"{SET_BY_HAND} after release {metadata.release}; the rates are those that its "
        "calibration aimed at"
    )
    return replace(changed, calibration=replace(metadata.calibration, warning=note))
