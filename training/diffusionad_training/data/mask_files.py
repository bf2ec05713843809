"""Which mask belongs to which image: by its name, whatever the suffix and its case."""

from __future__ import annotations

from pathlib import Path, PurePath

from diffusionad_client.folders import find_images


class MaskFiles:
    """The masks below a folder, if there is one."""

    def __init__(self, folder: Path) -> None:
        self._by_name: dict[PurePath, Path] = {}
        for found in find_images(folder) if folder.is_dir() else ():
            path = Path(found)
            self._by_name.setdefault(path.relative_to(folder).with_suffix(""), path)

    def find(self, *names: PurePath, ending: str = "_mask") -> Path | None:
        """Find an image's mask, called like it, with the ending or without, by any of its names."""
        for name in names:
            for stem in (f"{name.stem}{ending}", name.stem):
                if (path := self._by_name.get(name.with_name(stem))) is not None:
                    return path
        return None
