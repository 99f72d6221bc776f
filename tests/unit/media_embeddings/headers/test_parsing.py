"""What the parsers find out of a file, and how little of it they ask for."""

import io
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from media_embeddings.headers.content import FIRST_BYTES, Content, Span
from media_embeddings.headers.parsing import Parsed, parse
from media_embeddings.headers.ranged_reading import MOST_BYTES, MOST_REQUESTS
from media_embeddings.media import MediaType
from tests.unit.media_embeddings.headers import made_files

VIDEOS = {
    "moov at the end.mp4": ("mp4", "libx264", "aac", ()),
    "moov at the beginning.mp4": ("mp4", "libx264", "aac", (("movflags", "faststart"),)),
    "a.mov": ("mov", "libx264", "aac", ()),
    "a.mkv": ("matroska", "libx264", "aac", ()),
    "a.webm": ("webm", "libvpx", "libopus", ()),
    "a.avi": ("avi", "mpeg4", "mp2", ()),
    "a.mpg": ("mpeg", "mpeg1video", "mp2", ()),
}
CODECS = {"libx264": "h264", "libvpx": "vp8", "libopus": "opus", "mpeg1video": "mpeg1video"}
AUDIOS = {
    "a.wav": ("wav", "pcm_s16le", ()),
    "a.flac": ("flac", "flac", ()),
    "with its length.mp3": ("mp3", "libmp3lame", ()),
    "without.mp3": ("mp3", "libmp3lame", (("write_xing", "0"),)),
}


def read(content: bytes, media_type: MediaType, key: str) -> tuple[Parsed, list[Span]]:
    """Parse a file as the reading of an object does: give what is asked for until nothing is."""
    wanted = Span(0, min(FIRST_BYTES, len(content)))
    spans: list[Span] = []
    while True:
        spans.append(wanted)
        known = [(span.start, content[span.start : span.end]) for span in spans]
        parsed = parse(media_type, key, Content(len(content), known, is_final=len(spans) >= MOST_REQUESTS))
        if parsed.missing is None:
            return parsed, spans
        wanted = parsed.missing


def video_facts(content: bytes, key: str = "a.mp4"):
    return read(content, MediaType.VIDEO, key)[0].facts


@pytest.mark.parametrize("key", VIDEOS)
def test_a_video_tells_its_container_tracks_duration_and_size(key):
    container, codec, sound, options = VIDEOS[key]
    rate = 25 if container == "mpeg" else 10
    content = made_files.video(container, codec, sound, options=options, frames_per_second=rate, seconds=8.0)
    facts = video_facts(content, key)

    assert facts.kind is MediaType.VIDEO
    assert facts.duration_sec == pytest.approx(8.0, abs=0.3)
    assert (facts.width, facts.height) == (64, 48)
    assert facts.picture_codec == CODECS.get(codec, codec)
    assert facts.sound_codec == CODECS.get(sound, sound)
    assert not facts.duration_is_estimated


@pytest.mark.parametrize("key", AUDIOS)
def test_audio_tells_its_duration_and_that_it_has_no_pictures(key):
    container, codec, options = AUDIOS[key]
    parsed, _ = read(made_files.audio(container, codec, options=options), MediaType.AUDIO, key)

    assert parsed.facts.kind is MediaType.AUDIO
    assert parsed.facts.duration_sec == pytest.approx(5.0, abs=0.2)
    assert parsed.facts.picture_codec is None
    assert parsed.facts.sound_codec == {"libmp3lame": "mp3"}.get(codec, codec)
    assert parsed.facts.duration_is_estimated == (key == "without.mp3")


@pytest.mark.parametrize("cover_bytes", [100, 700_000])
def test_a_cover_of_any_size_is_not_read_and_is_no_picture_track(cover_bytes):
    music = made_files.audio("mp3", "libmp3lame", seconds=20.0, options=(("id3v2_version", "0"),))
    parsed, spans = read(made_files.with_cover(music, cover_bytes), MediaType.AUDIO, "a.mp3")

    assert parsed.facts.duration_sec == pytest.approx(20.0, abs=0.1)
    assert parsed.facts.kind is MediaType.AUDIO
    assert sum(span.length for span in spans) < 350_000


def test_a_silent_video_has_no_sound_for_certain():
    facts = video_facts(made_files.video(sound=None))

    assert facts.sound_codec is None
    assert facts.tracks_are_certain


def test_in_a_stream_of_packets_a_track_that_was_not_seen_may_still_come():
    content = made_files.video("mpeg", "mpeg1video", None, frames_per_second=25)

    assert not video_facts(content, "a.mpg").tracks_are_certain


def test_of_a_fragmented_film_the_tracks_are_known_and_the_duration_is_not_guessed():
    flags = (("movflags", "frag_keyframe+empty_moov+default_base_moof"),)
    content = made_files.video(options=flags, seconds=120.0)
    parsed, spans = read(content, MediaType.VIDEO, "a.mp4")

    assert (parsed.facts.picture_codec, parsed.facts.sound_codec) == ("h264", "aac")
    assert parsed.facts.duration_sec is None
    assert len(spans) == 1


@pytest.mark.parametrize("options", [(), (("movflags", "faststart"),)], ids=["at the end", "at the beginning"])
def test_of_a_long_film_the_tables_of_samples_are_not_read(options):
    # Two hours in what the header says: 216,000 pictures and their tables.
    content = made_files.long_film(7200, options=options)
    (moov,) = [end - start for kind, start, end in made_files.boxes(content) if kind == b"moov"]
    parsed, spans = read(content, MediaType.VIDEO, "a.mp4")

    assert moov > 800_000
    assert parsed.facts.duration_sec == pytest.approx(7200.0, abs=0.2)
    assert (parsed.facts.picture_codec, parsed.facts.width) == ("h264", 16)
    assert sum(span.length for span in spans) < 400_000
    assert len(spans) <= 8


@pytest.mark.parametrize(("image_format", "name"), [("PNG", "png"), ("JPEG", "jpeg"), ("WEBP", "webp"), ("GIF", "gif")])
def test_an_image_tells_its_format_and_size_whatever_its_suffix(image_format, name):
    parsed, _ = read(made_files.image(image_format), MediaType.IMAGE, "a.jpg")

    assert (parsed.facts.kind, parsed.facts.container) == (MediaType.IMAGE, name)
    assert (parsed.facts.width, parsed.facts.height) == (160, 120)


def test_a_large_image_is_known_by_its_beginning():
    noise = random.Random(0).randbytes(3 * 1200 * 1200)
    file = io.BytesIO()
    Image.frombytes("RGB", (1200, 1200), noise).save(file, "PNG")
    parsed, spans = read(file.getvalue(), MediaType.IMAGE, "a.png")

    assert len(file.getvalue()) > 3_000_000
    assert (parsed.facts.width, parsed.facts.height) == (1200, 1200)
    assert spans == [Span(0, FIRST_BYTES)]


DAMAGED = {
    "no container.mp4": (MediaType.VIDEO, random.Random(1).randbytes(300_000)),
    "zeros.mp4": (MediaType.VIDEO, bytes(300_000)),
    "text.mp4": (MediaType.VIDEO, b"this is a text " * 300),
    "page.mp3": (MediaType.AUDIO, b"<html><body>404 not found</body></html>" * 20),
    "two bytes.wav": (MediaType.AUDIO, b"RI"),
    "no image.png": (MediaType.IMAGE, random.Random(2).randbytes(20_000)),
    "text.jpg": (MediaType.IMAGE, b"this is a text " * 300),
}


@pytest.mark.parametrize("key", DAMAGED)
def test_what_is_no_media_is_known_for_damaged(key):
    media_type, content = DAMAGED[key]
    parsed, _ = read(content, media_type, key)

    assert parsed.facts is None
    assert "FFmpeg can't read its header" in parsed.damage


def test_a_film_whose_upload_was_cut_off_before_its_header_is_damaged():
    whole = made_files.video(seconds=60.0)
    parsed, _ = read(whole[: len(whole) // 2], MediaType.VIDEO, "a.mp4")

    assert parsed.damage is not None


def test_what_the_budget_does_not_reach_is_unknown_and_not_damaged():
    content = made_files.video(seconds=5.0)
    parsed = parse(MediaType.VIDEO, "a.mp4", Content(len(content), [(0, content[:200])], is_final=True))

    assert parsed == Parsed()


def test_content_of_another_kind_is_told():
    assert video_facts(made_files.image("PNG")).kind is MediaType.IMAGE
    assert video_facts(made_files.audio("ipod", "aac")).kind is MediaType.AUDIO
    parsed, _ = read(made_files.video(), MediaType.IMAGE, "a.jpg")
    assert parsed.facts.kind is MediaType.VIDEO


SMALL = [
    (MediaType.VIDEO, "a.mp4", made_files.video(seconds=1.0)),
    (MediaType.VIDEO, "a.mkv", made_files.video("matroska", seconds=1.0)),
    (MediaType.VIDEO, "a.avi", made_files.video("avi", "mpeg4", "mp2", seconds=1.0)),
    (MediaType.AUDIO, "a.mp3", made_files.audio("mp3", "libmp3lame", seconds=1.0)),
    (MediaType.AUDIO, "a.flac", made_files.audio("flac", "flac", seconds=1.0)),
    (MediaType.IMAGE, "a.png", made_files.image("PNG")),
    (MediaType.IMAGE, "a.jpg", made_files.image("JPEG")),
]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(SMALL),
    st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=12),
    st.none() | st.integers(1, 4000),
)
def test_a_header_with_any_bytes_changed_or_cut_off_is_answered_within_the_budget(one, changes, length):
    media_type, key, whole = one
    content = bytearray(whole[:length])
    for position, value in changes:
        content[position % len(content)] = value
    parsed, spans = read(bytes(content), media_type, key)

    assert parsed.missing is None
    assert len(spans) <= MOST_REQUESTS
    assert sum(span.length for span in spans) <= max(MOST_BYTES, len(content))


def test_a_header_that_claims_sizes_beyond_the_file_asks_for_nothing_beyond_it():
    content = b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2" + b"\x00\x00\x00\x01mdat" + b"\xff" * 8 + bytes(500)
    parsed, spans = read(content, MediaType.VIDEO, "a.mp4")

    assert parsed.damage is not None
    assert all(span.end <= len(content) for span in spans)
