"""Uploads that mean harm: files that name other files, and files that claim or unpack to more than a machine holds."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from media import write_clip

from portraitgen.clip import probe, read_frames
from portraitgen.decoding import MAX_TRACKS, decoded, opened
from portraitgen.errors import InputError


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        probe(path)
    return str(caught.value)


def boxed(kind: bytes, content: bytes) -> bytes:
    """A box of an MP4 or MOV."""
    return struct.pack(">I4s", 8 + len(content), kind) + content


def playlists(victim: Path) -> dict[str, bytes]:
    """Files that ask a player to open ``victim``, or an address, under names of clips."""
    movie = struct.pack(">I4sI", 0, b"url ", len(os.fsencode(victim)) + 1) + os.fsencode(victim) + b"\0"
    reference = boxed(b"moov", boxed(b"rmra", boxed(b"rmda", boxed(b"rdrf", movie))))
    texts = {
        "hls.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:{victim}\n#EXT-X-ENDLIST\n",
        "passwd.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n/etc/passwd\n#EXT-X-ENDLIST\n",
        "network.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/clip.ts\n#EXT-X-ENDLIST\n",
        "concat.mp4": f"ffconcat version 1.0\nfile '{victim}'\n",
        "concat.txt": f"file '{victim}'\n",
        "session.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
        "a=rtpmap:96 H264/90000\n",
        "dash.mp4": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
        f"<Representation><BaseURL>{victim}</BaseURL></Representation></AdaptationSet></Period></MPD>",
        "drawing.mp4": '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="99" height="99">'
        f'<image xlink:href="file://{victim}" width="99" height="99"/></svg>',
        "script.avs": f'DirectShowSource("{victim}")\n',
    }
    return {name: text.encode() for name, text in texts.items()} | {
        "movie.mov": boxed(b"ftyp", b"qt  \0\0\0\0qt  ") + reference
    }


@pytest.mark.parametrize("name", [*playlists(Path("x")), "picture%03d.png"])
def test_an_upload_opens_nothing_but_itself(tmp_path: Path, name: str) -> None:
    victim = write_clip(tmp_path / "victim.ts")
    upload = tmp_path / name
    content = playlists(victim).get(name)
    if content is None:  # a name that means a row of pictures to FFmpeg
        for number in range(3):
            cv2.imwrite(str(tmp_path / f"picture{number:03d}.png"), np.zeros((96, 96, 3), np.uint8))
        content = b"x"
    upload.write_bytes(content)
    code = """
import sys
from pathlib import Path
from portraitgen.clip import probe
from portraitgen.errors import InputError
try:
    probe(Path(sys.argv[1]))
except InputError as error:
    print(error)
"""
    trace = tmp_path / "trace"
    watched = ["strace", "-f", "-qq", "-e", "trace=%file,%network", "-o", str(trace)] if shutil.which("strace") else []
    run = [*watched, sys.executable, "-c", code, str(upload)]
    done = subprocess.run(run, capture_output=True, text=True, cwd=Path(__file__).parent.parent, check=True)
    said = done.stdout.strip()
    assert said.startswith(name), done.stderr
    assert said.endswith(".")
    assert str(tmp_path) not in said
    if watched:
        calls = trace.read_text().splitlines()
        assert any(str(upload) in line for line in calls)
        assert not [line for line in calls if "victim" in line or "/etc/passwd" in line or "picture000" in line]
        assert not [line for line in calls if "connect(" in line or "AF_INET" in line]


def test_an_address_is_no_file(tmp_path: Path) -> None:
    for name in ("http://127.0.0.1:9/clip.mp4", "concat:a.mp4|b.mp4", "pipe:0", "lavfi:testsrc"):
        with pytest.raises(InputError, match="There is no file"):
            probe(Path(name))


def test_nested_beyond_reason(tmp_path: Path) -> None:
    content = b""
    for _ in range(20000):
        content = boxed(b"moov", content)
    path = tmp_path / "nested.mp4"
    path.write_bytes(boxed(b"ftyp", b"isom\0\0\0\0isom") + content)
    assert "is broken" in refusal(path)


@pytest.mark.parametrize("side", [5000, 65535])
def test_a_picture_that_unpacks_to_gigabytes(tmp_path: Path, side: int) -> None:
    frame = b"\x2c" + struct.pack("<HHHH", 0, 0, side, side) + b"\0\x02\x02\x4c\x01\0"
    path = tmp_path / "huge.gif"
    path.write_bytes(b"GIF89a" + struct.pack("<HH", side, side) + b"\x80\0\0\0\0\0\xff\xff\xff" + frame * 4 + b";")
    assert refusal(path)


def test_pictures_that_turn_huge_in_the_middle_are_not_decoded(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.ts", options={"g": "1"}, count=8)
    huge = write_clip(tmp_path / "huge.ts", options={"preset": "ultrafast"}, size=(4608, 4608), start=0.32, count=2)
    with path.open("ab") as file:
        file.write(huge.read_bytes())
    info = probe(path)
    assert {frame.shape for frame in read_frames(path, info)} == {(128, 192, 3)}
    with opened(path) as (container, stream):
        assert {frame.width for frame in decoded(container, stream)} == {192}


def test_tracks_beyond_reason(tmp_path: Path) -> None:
    for suffix in ("mp4", "mkv"):
        path = tmp_path / f"many.{suffix}"
        with av.open(str(path), "w") as output:
            tracks = [output.add_stream("mpeg4", rate=25) for _ in range(MAX_TRACKS + 6)]
            for track in tracks:
                track.width, track.height, track.pix_fmt = 64, 64, "yuv420p"
            for number in range(3):
                for track in tracks:
                    frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), number * 50, np.uint8), format="rgb24")
                    frame.pts = number
                    output.mux(track.encode(frame))
            for track in tracks:
                output.mux(track.encode(None))
        assert f"more than {MAX_TRACKS} tracks" in refusal(path)


def test_rates_and_counts_beyond_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fast = write_clip(tmp_path / "fast.mkv", rate=500, count=40, size=(64, 64))
    assert "500 frames a second, at most 240" in refusal(fast)
    slow_motion = write_clip(
        tmp_path / "slow.mkv", rate=240, times=[round(n / 240, 3) for n in range(40)], size=(64, 64)
    )
    assert probe(slow_motion).frame_count == 40
    monkeypatch.setattr("portraitgen.decoding.MAX_PIXELS", 20 * 64 * 64)
    for name, codec in (("clip.mkv", "libx264"), ("clip.avi", "mpeg4")):
        path = write_clip(tmp_path / name, codec=codec, count=30, size=(64, 64))
        assert "more than 20 frames of this size" in refusal(path)
        assert probe(path, max_seconds=0.4).frame_count == 10


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("-inf")])
def test_no_length_is_no_length(tmp_path: Path, seconds: float) -> None:
    with pytest.raises(InputError, match="must be more than 0"):
        probe(write_clip(tmp_path / "clip.mp4"), max_seconds=seconds)
