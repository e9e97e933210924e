"""Pictures that were brought in: checked, made upright RGB, kept as PNG under an id of ours.

What is served again is always our own PNG, never the bytes that came: html or svg posing as a picture ends here.
"""

from __future__ import annotations

import base64
import binascii
import io
import secrets
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.errors import NotFound, QuotaReached
from app.paths import StudioPaths, is_id
from app.spec import JobSpec
from app.store import Store
from engine.errors import MediaError
from engine.media import fit_image, load_image
from engine.media.publish import atomic_file

if TYPE_CHECKING:
    from PIL import Image

LONGEST_SIDE = 4096  # more than any model sees; a camera's 24 megapixels would be 70 MB as PNG
GUEST_BYTES = 256 << 20
GUEST_FILES = 64
KEPT_NAME = 120


@dataclass(frozen=True)
class Upload:
    """A picture that jobs can name. Attributes: id, owner, name (as it was called), width, height, bytes, created."""

    id: str
    owner: str
    name: str
    width: int
    height: int
    bytes: int
    created: float


class Uploads:
    """The uploads of one studio; lists them in the same database."""

    def __init__(self, store: Store, paths: StudioPaths) -> None:
        self._store = store
        self.paths = paths

    def add(self, source: Path | Image.Image, owner: str, name: str = "", guest: bool = False) -> Upload:
        """Takes a picture in.

        Args:
            source: a file, or a picture that is already open.
            guest: guests may keep `GUEST_FILES` pictures of `GUEST_BYTES` together.

        Raises:
            MediaError: not a PNG, JPEG or WebP picture, too large or damaged.
            QuotaReached: a guest has as many as guests may have.
        """
        if guest:
            row = self._store.row("SELECT count(*), coalesce(sum(bytes), 0) FROM uploads WHERE owner = ?", (owner,))
            if row is not None and (row[0] >= GUEST_FILES or row[1] >= GUEST_BYTES):
                raise QuotaReached("you have brought in as many pictures as guests may; use one of them again")
        picture = load_image(source)
        if max(picture.size) > LONGEST_SIDE:
            picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
        upload_id = secrets.token_hex(16)
        target = self.paths.upload(upload_id)
        with atomic_file(target) as part:
            picture.save(part, "PNG", compress_level=3)
        shown = name or (source.name if isinstance(source, Path) else "")
        upload = Upload(
            upload_id, owner, shown[:KEPT_NAME], *picture.size, bytes=target.stat().st_size, created=time.time()
        )
        with self._store.writing() as connection:
            connection.execute(
                "INSERT INTO uploads (id, owner, name, width, height, bytes, created) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (upload.id, owner, upload.name, upload.width, upload.height, upload.bytes, upload.created),
            )
        return upload

    def get(self, upload_id: str, owner: str | None = None) -> Upload:
        """One upload.

        Raises:
            NotFound: there is none, or it is another's.
        """
        row = self._store.row("SELECT * FROM uploads WHERE id = ?", (upload_id,)) if is_id(upload_id) else None
        if row is None or (owner is not None and row["owner"] != owner):
            raise NotFound("no such picture; upload it again")
        return Upload(**dict(row))

    def path(self, upload: Upload) -> Path:
        return self.paths.upload(upload.id)

    def check(self, spec: JobSpec, owner: str | None) -> None:
        """Raises:
        NotFound: the spec names a picture that is not there, or is another's.
        """
        for upload_id in (spec.image, spec.last_image):
            if upload_id is not None:
                self.get(upload_id, owner)

    def restore(self, spec: JobSpec, settings: dict[str, Any], owner: str, guest: bool = False) -> JobSpec:
        """The spec with the pictures that travelled with a clip made into uploads of `owner`.

        A picture that did not travel and is not here is left out of the spec.
        """
        packed = settings.get("pictures")
        packed = packed if isinstance(packed, dict) else {}
        changes: dict[str, Any] = {}
        for side, crop in (("image", "crop"), ("last_image", "last_crop")):
            picture = unpack_picture(packed.get(side))
            if picture is not None:
                changes |= {side: self.add(picture, owner, f"{side}.png", guest).id, crop: None}
                continue
            try:
                if getattr(spec, side) is not None:
                    self.get(getattr(spec, side), owner)
            except NotFound:
                changes |= {side: None, crop: None}
        return replace(spec, **changes)


def prepared(path: Path, width: int, height: int, crop: tuple[float, float] | None) -> Image.Image:
    """A picture as the model sees it: cut and scaled to exactly this size. Also what the crop preview shows."""
    return fit_image(load_image(path), width, height, crop)


def pack_picture(picture: Image.Image) -> str:
    """A picture as text that settings can carry, without loss."""
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", lossless=True, quality=70, method=4, exact=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def unpack_picture(text: Any) -> Image.Image | None:
    """Undoes `pack_picture`; None for anything that is not such a picture."""
    if not isinstance(text, str) or not text:
        return None
    try:
        return picture_of(base64.b64decode(text, validate=True), "the picture in the settings")
    except (binascii.Error, MediaError, ValueError):
        return None


def picture_of(data: bytes, name: str) -> Image.Image:
    """A picture from bytes that came over the network, through the same checks as a file.

    Raises:
        MediaError: not a PNG, JPEG or WebP picture, too large or damaged; the message calls it `name`.
    """
    with tempfile.TemporaryDirectory(prefix="mova-") as folder:
        path = Path(folder) / "brought-in.bin"
        path.write_bytes(data)
        try:
            return load_image(path)
        except MediaError as error:
            raise MediaError(str(error).replace(path.name, name)) from None
