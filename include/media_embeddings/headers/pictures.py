"""Format and size of an image, by Pillow, which reads no more than the header until it is asked for pixels."""

from __future__ import annotations

import struct
from typing import IO, cast

from PIL import Image, UnidentifiedImageError

from media_embeddings.headers.content import Content, ContentFile, MissingRangeError
from media_embeddings.headers.parsing import NoMediaError
from media_embeddings.media import MediaFacts, MediaType

# No pixel is decoded, so a large image is no danger here.
Image.MAX_IMAGE_PIXELS = None
# Those of cameras, browsers and scanners. FFmpeg is asked about others.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "AVIF", "TIFF", "BMP", "JPEG2000")
# Several JPEGs in one file, as cameras write them: whoever reads JPEG reads the first.
_NAMES = {"MPO": "jpeg"}


def picture_facts(content: Content) -> MediaFacts | None:
    """Return what an image's header says; None where the header is that of an image, but can't be understood.

    :raises NoMediaError: where it is the header of no image that Pillow knows.
    :raises MissingRangeError: where more of the object is needed.
    """
    try:
        with Image.open(cast(IO[bytes], ContentFile(content)), formats=_FORMATS) as image:
            width, height = image.size
            return MediaFacts(
                container=_NAMES.get(image.format or "", (image.format or "").lower()) or None,
                width=width,
                height=height,
                kind=MediaType.IMAGE,
            )
    except MissingRangeError:
        raise
    except UnidentifiedImageError as error:
        if content.missing is not None:
            raise MissingRangeError from error
        raise NoMediaError("it is no image that Pillow knows") from error
    except (OSError, ValueError, SyntaxError, ArithmeticError, LookupError, TypeError, struct.error) as error:
        if content.missing is not None:
            raise MissingRangeError from error
        return None
