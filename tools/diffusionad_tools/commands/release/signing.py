"""`diffusionad release keygen` and `sign`: vouch for a bundle, away from where it is served."""

from __future__ import annotations

from pathlib import Path

import click

from diffusionad_tools.commands.release import options


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def keygen(file: Path) -> None:
    """Make a key to sign releases with: FILE, which only you can read, and FILE.pub for servers.

    Keep FILE where bundles are signed, off every server, and a copy of it
    somewhere safe.

    \b
    Example:
      diffusionad release keygen release.key
    """
    from diffusionad_tools.release.keys import PUBLIC_SUFFIX, make_key

    key = make_key(file)
    click.echo(f"Made the key {key.fingerprint}: {file}, and {file}{PUBLIC_SUFFIX} to be trusted")


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@options.signing_key
@click.option("--name", help="The category that it is released as. [default: the bundle's]")
def sign(bundle: Path, key_file: Path | None, name: str | None) -> None:
    """Sign BUNDLE, a folder from `diffusionad export`: every file of it, as it is now.

    \b
    Example:
      diffusionad release sign bundles/screw --key release.key
    """
    from diffusionad_client.artifacts.bundle import read_bundle
    from diffusionad_client.contract import check_category
    from diffusionad_tools.release.keys import read_signing_key
    from diffusionad_tools.release.signatures import sign_bundle

    if key_file is None:
        raise click.UsageError("give the key to sign with: --key FILE")
    key = read_signing_key(key_file)
    category = None if name is None else check_category(name)
    signature = sign_bundle(read_bundle(bundle), key, category=category)
    click.echo(
        f"Signed {len(signature.files)} files of {bundle} with {signature.key}, as a release of "
        f"{signature.category}"
    )
