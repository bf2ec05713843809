"""Signed releases: keys, what a signature is of, and who refuses what is not signed."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from diffusionad_client import contract
from diffusionad_client.artifacts.bundle import Bundle
from diffusionad_client.artifacts.metadata import Thresholds
from diffusionad_client.cli import main
from diffusionad_client.errors import CredentialsError, ServeError
from diffusionad_tools.errors import RepositoryError, SignatureError
from diffusionad_tools.release import keys, model_config, signatures
from diffusionad_tools.release.keys import (
    SigningKey,
    TrustedKeys,
    make_key,
    read_signing_key,
    read_trusted_keys,
)
from diffusionad_tools.release.procedure import Procedure
from diffusionad_tools.release.promote import promote, rollback
from diffusionad_tools.release.repository import find_release
from diffusionad_tools.release.thresholds import set_thresholds
from diffusionad_tools.release.verify import verify
from diffusionad_tools.server import supervisor
from diffusionad_tools.server.site import Site


@dataclass(frozen=True)
class Keys:
    """A key, its files, and what is taken where only that key is trusted."""

    file: Path

    @property
    def public(self) -> Path:
        return self.file.with_name(self.file.name + keys.PUBLIC_SUFFIX)

    @property
    def key(self) -> SigningKey:
        return read_signing_key(self.file)

    @property
    def trusted(self) -> TrustedKeys:
        trusted = read_trusted_keys([self.public])
        assert trusted is not None
        return trusted

    @property
    def procedure(self) -> Procedure:
        return Procedure(trusted=self.trusted)


@pytest.fixture
def new_key(tmp_path: Path) -> Callable[[str], Keys]:
    def make(name: str) -> Keys:
        make_key(tmp_path / "keys" / name)
        return Keys(tmp_path / "keys" / name)

    return make


@pytest.fixture
def plant(new_key: Callable[[str], Keys]) -> Keys:
    return new_key("plant.key")


@pytest.fixture
def signed(make_bundle: Any, plant: Keys) -> Bundle:
    bundle: Bundle = make_bundle()
    signatures.sign_bundle(bundle, plant.key)
    return bundle


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tmp_path / "repository"


def command(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def text_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


# Keys


def test_a_new_key_is_its_owners_alone_and_openssl_reads_both_halves(plant: Keys) -> None:
    assert stat.S_IMODE(plant.file.stat().st_mode) == 0o600
    assert "PRIVATE" not in plant.public.read_text()
    asked = ["openssl", "pkey", "-in", plant.file, "-pubout"]
    said = subprocess.run(asked, capture_output=True, text=True, check=True)
    assert said.stdout == plant.public.read_text()
    assert "BEGIN" not in repr(plant.key)


def test_a_key_is_never_written_over(plant: Keys) -> None:
    before = plant.file.read_bytes()
    with pytest.raises(SignatureError, match="is there already"):
        make_key(plant.file)
    assert plant.file.read_bytes() == before


def test_a_key_that_others_can_read_is_not_used(plant: Keys) -> None:
    plant.file.chmod(0o644)
    with pytest.raises(CredentialsError, match=r"mode 0644.*chmod 600"):
        read_signing_key(plant.file)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"], "another kind"),
        (["genpkey", "-algorithm", "ed25519", "-aes128", "-pass", "pass:x"], "not a private key"),
        (["version"], "not a private key"),
    ],
)
def test_what_is_no_such_key_is_told_so(tmp_path: Path, kind: list[str], reason: str) -> None:
    made = subprocess.run(["openssl", *kind], capture_output=True, check=True).stdout
    file = tmp_path / "odd.key"
    file.write_bytes(made)
    file.chmod(0o600)
    with pytest.raises(SignatureError, match=reason):
        read_signing_key(file)


def test_trusted_are_public_keys_that_can_be_read(plant: Keys, tmp_path: Path) -> None:
    with pytest.raises(SignatureError, match=r"is a private key.*plant\.key\.pub"):
        read_trusted_keys([plant.file])
    with pytest.raises(CredentialsError, match="cannot be read"):
        read_trusted_keys([tmp_path / "none.pub"])
    (tmp_path / "text.pub").write_text("ssh-ed25519 AAAA")
    with pytest.raises(SignatureError, match="not a public key in PEM"):
        read_trusted_keys([tmp_path / "text.pub"])
    assert read_trusted_keys([]) is None


def test_without_the_package_for_it_the_remedy_is_told(
    plant: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SignatureError, match=r"pip install 'diffusionad-tools\[signing\]'"):
        read_trusted_keys([plant.public])


# Bundles


def test_only_what_a_trusted_key_signed_is_added(
    signed: Bundle, plant: Keys, new_key: Any, make_bundle: Any, add_ungated: Any, repository: Path
) -> None:
    other = new_key("other.key")
    refusal = f"signed with the key {plant.key.fingerprint}, and trusted is"
    with pytest.raises(SignatureError, match=refusal):
        add_ungated(signed, repository, procedure=other.procedure)
    with pytest.raises(SignatureError, match=r"is not signed.*release sign .* --key FILE"):
        add_ungated(make_bundle(), repository, procedure=plant.procedure)
    assert not repository.exists()

    both = Procedure(trusted=read_trusted_keys([other.public, plant.public]))
    assert add_ungated(signed, repository, procedure=both).added
    assert verify(repository, plant.trusted) == 1
    with pytest.raises(RepositoryError, match=refusal):
        verify(repository, other.trusted)


@pytest.mark.parametrize("file", ["references.npz", "NOTICE"])
def test_a_changed_file_is_named_even_where_nobody_is_trusted(
    make_bundle: Any, plant: Keys, add_ungated: Any, repository: Path, file: str
) -> None:
    bundle = make_bundle()
    (bundle.folder / "NOTICE").write_text("weights of others")
    signatures.sign_bundle(bundle, plant.key)
    with (bundle.folder / file).open("ab") as changed:
        changed.write(b" ")
    for procedure in (Procedure(), plant.procedure):
        with pytest.raises(SignatureError, match=rf"{file}: is not the file that was signed"):
            add_ungated(bundle, repository, procedure=procedure)
    signatures.sign_bundle(bundle, plant.key)  # the change was wanted
    assert add_ungated(bundle, repository, procedure=plant.procedure).added


def test_a_bundle_has_neither_more_nor_fewer_files_than_were_signed(
    signed: Bundle, plant: Keys
) -> None:
    (signed.folder / "agreement.npz").touch()
    with pytest.raises(SignatureError, match=r"agreement\.npz: was not signed with the rest"):
        signatures.check_bundle(signed, "widget", plant.trusted)
    (signed.folder / "agreement.npz").unlink()
    (signed.folder / "references.npz").unlink()
    with pytest.raises(SignatureError, match=r"references\.npz: was signed and is missing"):
        signatures.check_bundle(signed, "widget", plant.trusted)
    (signed.folder / "references.npz").symlink_to("/dev/null")
    with pytest.raises(SignatureError, match="neither can be signed"):
        signatures.sign_bundle(signed, plant.key)


def test_what_the_signature_says_is_what_was_signed(signed: Bundle, plant: Keys) -> None:
    path = signed.folder / signatures.SIGNATURE_FILE
    whole = path.read_text()
    for changes in (
        {"category": "nut"},
        {"files": {}},
        {"signature": "AAAA"},
        {"signature": signatures.base64.b64encode(bytes(64)).decode()},
    ):
        edit(path, **changes)
        with pytest.raises(SignatureError, match="altered after"):
            signatures.check_bundle(signed, "nut", plant.trusted)
        path.write_text(whole)
    signatures.check_bundle(signed, "widget", plant.trusted)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "not a signature"),
        ("[]", "not a signature"),
        ('{"schema": 1}', "'category' is missing"),
        ('{"schema": 9}', "update diffusionad-tools"),
        ('{"schema": 1, "category": 1, "files": {}, "key": "", "signature": ""}', "no text"),
        ('{"schema": 1, "category": "a", "files": {}, "key": "", "signature": "?"}', "not a sig"),
    ],
)
def test_a_signature_that_cannot_be_read_is_no_signature(
    signed: Bundle, content: str, reason: str
) -> None:
    (signed.folder / signatures.SIGNATURE_FILE).write_text(content)
    with pytest.raises(SignatureError, match=reason):
        signatures.check_bundle(signed, "widget", None)


def test_a_bundle_is_released_as_the_category_that_it_was_signed_for(
    signed: Bundle, plant: Keys, add_ungated: Any, repository: Path
) -> None:
    with pytest.raises(SignatureError, match=r"of widget, not of nut.*release sign --name nut"):
        add_ungated(signed, repository, name="nut", procedure=plant.procedure)
    add_ungated(signed, repository, name="bolt")  # where nobody is trusted, it is just not kept
    assert signatures.kept_text(repository, find_release(repository, "bolt")) is None
    shutil.rmtree(repository)
    signatures.sign_bundle(signed, plant.key, category="nut")
    add_ungated(signed, repository, name="nut", procedure=plant.procedure)
    assert verify(repository, plant.trusted) == 1


# Releases


def test_a_release_that_was_signed_later_is_a_version_of_its_own(
    make_bundle: Any, plant: Keys, add_ungated: Any, repository: Path
) -> None:
    bundle = make_bundle()
    assert add_ungated(bundle, repository).added
    with pytest.raises(RepositoryError, match=r"widget version 1: is not signed"):
        verify(repository, plant.trusted)
    signatures.sign_bundle(bundle, plant.key)
    assert [add_ungated(bundle, repository).added for _ in range(2)] == [True, False]
    assert verify(repository, plant.trusted) == 1
    with pytest.raises(SignatureError, match=r"version 1: is not signed.*Nothing was changed"):
        rollback(repository, "widget", procedure=plant.procedure)
    assert find_release(repository, "widget").version == 2
    rollback(repository, "widget")
    promote(repository, "widget", 2, plant.procedure)


def test_other_thresholds_are_signed_anew(
    signed: Bundle, plant: Keys, new_key: Any, add_ungated: Any, repository: Path
) -> None:
    add_ungated(signed, repository)
    before = text_of(repository)
    for key, reason in ((None, "give the key"), (new_key("other.key").key, "and trusted is")):
        procedure = replace(plant.procedure, key=key)
        with pytest.raises(SignatureError, match=reason):
            set_thresholds(repository, "widget", accept=0.1, procedure=procedure)
    assert text_of(repository) == before
    procedure = replace(plant.procedure, key=plant.key)
    set_thresholds(repository, "widget", accept=0.1, procedure=procedure)
    assert find_release(repository, "widget").metadata.thresholds.accept == 0.1
    assert verify(repository, plant.trusted) == 1


def test_pruning_takes_a_signature_with_its_release(
    make_bundle: Any, plant: Keys, add_ungated: Any, repository: Path
) -> None:
    for accept in (0.1, 0.2):
        bundle = make_bundle(thresholds=Thresholds(accept=accept, reject=0.3))
        signatures.sign_bundle(bundle, plant.key)
        result = add_ungated(bundle, repository, keep=1)
    assert result.pruned == [1]
    assert not (repository / "widget" / "1").exists()


def test_whoever_can_write_the_repository_cannot_make_a_release_that_is_signed(
    signed: Bundle, plant: Keys, add_ungated: Any, repository: Path, publish_ungated: Any,
    make_bundle: Any,
) -> None:  # fmt: skip
    """Digests and all: configurations and judgement fit each other, only the signature does not."""
    add_ungated(signed, repository)
    kept = signatures.folder_of(repository, find_release(repository, "widget"))
    lax = make_bundle(thresholds=Thresholds(accept=0.9, reject=1))
    publish_ungated(lax, repository)
    forged = signatures.folder_of(repository, find_release(repository, "widget"))
    for name in signatures.SIGNED_FILES:
        shutil.copy(kept / name, forged)
    assert verify(repository) == 1
    with pytest.raises(RepositoryError, match=r"its metadata .* are not those that were signed"):
        verify(repository, plant.trusted)
    (forged / "metadata.json").write_text(lax.metadata.to_json())
    with pytest.raises(RepositoryError, match=r"metadata\.json: is not the file that was signed"):
        verify(repository, plant.trusted)


def test_a_release_of_another_category_does_not_pass_for_ones_own(
    make_bundle: Any, plant: Keys, add_ungated: Any, publish_ungated: Any, repository: Path
) -> None:
    bolt = make_bundle(category="bolt")
    signatures.sign_bundle(bolt, plant.key)
    add_ungated(bolt, repository)
    publish_ungated(replace(bolt, metadata=bolt.metadata.changed(category="nut")), repository)
    for name in signatures.SIGNED_FILES:
        shutil.copy(repository / "bolt" / "1" / name, repository / "nut" / "1")
    with pytest.raises(RepositoryError, match=r"nut version 1: its signature is for .* bolt"):
        verify(repository, plant.trusted)


def test_both_forms_of_a_category_must_be_what_was_signed(
    signed: Bundle, plant: Keys, add_ungated: Any, repository: Path
) -> None:
    add_ungated(signed, repository, encoded=True)
    assert verify(repository, plant.trusted) == 1
    encoded = repository / contract.encoded_model("widget")
    for path in (encoded / "config.pbtxt", encoded / "1" / "release.pbtxt"):
        config = model_config.read(path)
        metadata = find_release(repository, "widget").metadata
        other = metadata.changed(thresholds=Thresholds(accept=0.9, reject=1))
        config.parameters[contract.METADATA_PARAMETER].string_value = other.to_json()
        path.write_text(model_config.render(config))
    with pytest.raises(RepositoryError, match="are not those that were signed"):
        verify(repository, plant.trusted)


# Commands


def test_the_commands_make_a_key_sign_and_refuse(
    make_bundle: Any, tmp_path: Path, repository: Path, add_ungated: Any
) -> None:
    made_bundle, file = make_bundle(), tmp_path / "release.key"
    bundle = made_bundle.folder
    made = command("release", "keygen", file)
    assert made.exit_code == 0, made.output
    assert command("release", "keygen", file).exit_code == 1
    unsigned = command("release", "add", bundle, "--repository", repository,
                       "--trusted-key", f"{file}.pub")  # fmt: skip
    assert unsigned.exit_code == 1
    assert "is not signed" in unsigned.stderr
    assert "--key FILE" in command("release", "sign", bundle).stderr
    said = command("release", "sign", bundle, "--key", file)
    assert said.exit_code == 0, said.output
    assert "Signed 5 files" in said.stdout
    add_ungated(made_bundle, repository)
    options = ("--repository", repository, "--trusted-key", f"{file}.pub")
    lax = ("release", "thresholds", "widget", "--accept", 0.1, *options)
    assert command(*lax).exit_code == 1
    assert command(*lax, "--key", file).exit_code == 0
    assert command("release", "promote", "widget", 1, *options).exit_code == 0


def test_trusted_keys_of_the_environment_are_the_rule_for_a_machine(
    make_bundle: Any, plant: Keys, new_key: Any, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = f"{new_key('other.key').public}:{plant.public}"
    monkeypatch.setenv("DIFFUSIONAD_TRUSTED_KEYS", both)
    result = command("release", "add", make_bundle().folder, "--repository", repository)
    assert result.exit_code == 1
    assert plant.key.fingerprint in result.stderr


def test_a_server_with_trusted_keys_starts_on_what_they_signed_alone(
    signed: Bundle, plant: Keys, new_key: Any, add_ungated: Any, repository: Path,
) -> None:  # fmt: skip
    add_ungated(signed, repository)
    other = new_key("other.key").public
    result = command("serve", "--repository", repository, "--trusted-key", other)
    assert result.exit_code == 1
    assert "so it is not served" in result.stderr
    assert "trusted is" in result.stderr


def test_a_server_says_whose_signature_it_has_found(
    signed: Bundle, plant: Keys, add_ungated: Any, repository: Path, monkeypatch: Any
) -> None:
    def fail(site: Site) -> None:
        raise ServeError("far enough")

    monkeypatch.setattr(supervisor, "TritonProcess", fail)
    add_ungated(signed, repository)
    ports = ("--grpc-port", 0, "--metrics-port", 0)
    result = command("serve", "--repository", repository, "--trusted-key", plant.public, *ports)
    assert f"signed with {plant.key.fingerprint}." in result.stderr
    assert "far enough" in result.stderr


def listed(repository: Path, *options: object) -> list[Any]:
    said = command("release", "list", "--repository", repository, "--json", *options)
    assert said.exit_code == 0, said.output
    rows: list[Any] = json.loads(said.stdout)
    return rows


def test_the_list_says_who_signed_and_with_a_trusted_key_whether_that_is_so(
    signed: Bundle, plant: Keys, new_key: Any, make_bundle: Any, add_ungated: Any, repository: Path
) -> None:
    add_ungated(signed, repository)
    add_ungated(make_bundle(thresholds=Thresholds(accept=0.1, reject=0.3)), repository)
    first, second = listed(repository)
    assert (first["signed_by"], second["signed_by"]) == (plant.key.fingerprint, None)
    assert first["signature_verified"] is None
    assert first["signature_problems"] == []

    first, second = listed(repository, "--trusted-key", plant.public)
    assert (first["signature_verified"], second["signature_verified"]) == (True, False)
    assert "is not signed" in second["signature_problems"][0]
    first, _ = listed(repository, "--trusted-key", new_key("other.key").public)
    assert first["signature_verified"] is False

    plain = command("release", "list", "--repository", repository).stdout.splitlines()
    assert "signed by" in plain[0]
    assert plant.key.fingerprint in plain[1]
    assert "nobody" in plain[2]
    said = command("release", "list", "--repository", repository, "--trusted-key", plant.public)
    assert f"{plant.key.fingerprint} " in said.stdout
    assert "nobody (see below)" in said.stdout
    assert "widget version 2: is not signed" in said.stderr


def test_the_list_shows_a_forged_or_broken_signature_and_all_other_releases(
    signed: Bundle, plant: Keys, make_bundle: Any, add_ungated: Any, repository: Path
) -> None:
    add_ungated(signed, repository)
    add_ungated(make_bundle(category="bolt"), repository)
    path = signatures.folder_of(repository, find_release(repository, "widget"))
    edit(path / signatures.SIGNATURE_FILE, files={})
    _, widget = listed(repository, "--trusted-key", plant.public)
    assert (widget["signed_by"], widget["signature_verified"]) == (plant.key.fingerprint, False)
    assert "altered after" in widget["signature_problems"][0]

    (path / signatures.SIGNATURE_FILE).write_text("{")
    bolt, widget = listed(repository)
    assert (bolt["category"], bolt["signature_problems"]) == ("bolt", [])
    assert widget["signed_by"] is None
    assert "not a signature" in widget["signature_problems"][0]
