"""Opens a media file and hands out what its streams decode to, in the order of time, on one clock."""

from __future__ import annotations

import dataclasses
import heapq
import math
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

import av

from data_prep.faults import is_shortage
from data_prep.media import limits
from mmpretrain.listing import file_url
from mmpretrain.records import FRAME_RATE_HZ

MAX_GAP_SEC = 60.0  # a larger hole is a broken clock
RUN_UP_SEC = {"video": 1.0, "audio": 10.0}  # decoders need one before the part that is wanted, sound to come to rest
FROM_BEGINNING_SEC = {"video": 20.0, "audio": 300.0}  # parts that begin earlier: all is decoded, in about a second
MAX_REORDERED = 18  # a picture is decoded at most so many pictures before it is shown (16 B frames and what they need)


@dataclasses.dataclass(frozen=True)
class Clock:
    """What the packets of a file say about its time.

    shifts: by stream, from which of its packets on how many seconds are added to its stamps.
    in_decode_order: streams whose stamps are those of decoding, so that a picture shown later may bear an earlier one.
    begin_sec, end_sec: where the first packet begins and the last one ends, shifted. last_byte: by stream, where in the
    file its last packet ends, as a share of the file.
    """

    shifts: dict[int, list[tuple[int, float]]]
    in_decode_order: frozenset[int]
    begin_sec: float
    end_sec: float
    last_byte: dict[int, float]

    @property
    def num_restarts(self) -> int:
        return max((len(steps) for steps in self.shifts.values()), default=0)


# Titles in any encoding are let pass. PyAV after 18 does so by itself and does not know the argument.
_ANY_METADATA = {"metadata_errors": "replace"} if hasattr(av.container.Container, "metadata_errors") else {}


@dataclasses.dataclass
class Media:
    """One file, or a part of it, and what its streams say. Times are on the container's clock, which goes on where it
    starts anew in the file.

    width, height: of the picture as shown (rotated, square pixels); 0 without one. declared_sec: the length the file
    claims. clock: what its packets say. damaged: packets that could not be decoded; dropped: frames passed over since
    their time stamps are not after those before; still_sec: the longest time for which one frame is shown; all three of
    what was read. picture_track: whether there is one that should be a picture, though nothing of it may decode.
    aspects: since when pixels have another aspect than the file says, found while reading: (time, aspect) in order.
    unread: share of the file behind the last packet of what is read. file_sec: the length of the whole file, as it
    claims; 0 if it does not. notes: what a report should say. sound_from_sec: where the sound begins, from the clip's
    beginning; sound_notes: what was done with it; spoilt: its samples that are no numbers, now silence. All
    are known once the sound is read, and its rate and channels are then those of the track that was taken.
    """

    path: Path
    has_picture: bool
    has_sound: bool
    clock: Clock
    origin_sec: float
    end_sec: float
    declared_sec: float = 0.0
    fps: float = 0.0
    width: int = 0
    height: int = 0
    sample_rate: int = 0
    channels: int = 0
    damaged: int = 0
    dropped: int = 0
    still_sec: float = 0.0
    picture_track: bool = False
    unread: float = 0.0
    file_sec: float = 0.0
    notes: tuple[str, ...] = ()
    sound_from_sec: float = 0.0
    sound_notes: tuple[str, ...] = ()
    spoilt: int = 0
    aspects: list[tuple[float, float]] = dataclasses.field(default_factory=list)


def open_container(path: Path) -> av.container.InputContainer:
    try:
        return av.open(file_url(path), **_ANY_METADATA)
    except av.FFmpegError as error:
        if isinstance(error, OSError) or is_shortage(error):  # the disk or the machine, not the file
            raise
        with open(path, "rb") as file:
            if file.read(40).startswith(b"version https://git-lfs"):
                raise ValueError("is a git-lfs pointer, not the file: run `git lfs pull` in the corpus") from None
        raise ValueError(f"cannot be opened: {error.strerror}") from None


def seek(container: av.container.InputContainer, stream: av.stream.Stream, media: Media) -> bool:
    """Takes a container just opened to where decoding gives the same from `media.origin_sec` on as from the beginning.
    Returns whether that is another place than the beginning.

    Formats land before, on or after the key frame that is asked for, or somewhere else. So another container tries it:
    what it decodes first must be a key frame before what is wanted. If none is found, all is decoded.
    """
    begin_sec = (container.start_time or 0) / 1e6
    run_up_sec = RUN_UP_SEC[stream.type]
    wanted_sec = media.origin_sec - run_up_sec
    if media.origin_sec - begin_sec < FROM_BEGINNING_SEC[stream.type] or media.clock.shifts:
        return False
    with open_container(media.path) as trial:
        while wanted_sec > begin_sec:
            place = round(wanted_sec / stream.time_base)
            try:
                trial.seek(place, stream=trial.streams[stream.index])
                found = _first_frame(trial, trial.streams[stream.index], media.origin_sec)
            except av.FFmpegError as error:
                if is_shortage(error):
                    raise
                return False
            if found is not None and found <= media.origin_sec - RUN_UP_SEC[stream.type] / 2:
                container.seek(place, stream=stream)
                return True
            run_up_sec *= 2
            wanted_sec = media.origin_sec - run_up_sec
    return False


def _first_frame(container: av.container.InputContainer, stream: av.stream.Stream, before_sec: float) -> float | None:
    """The time of what is decoded first, from where the container is; None if that is no key frame, or comes later."""
    stream.codec_context.options = limits.DECODER_OPTIONS
    for packet in packets_of(container, [stream]):
        if packet.dts is not None and packet.dts * packet.time_base >= before_sec:
            return None
        try:
            frames = stream.decode(packet)
        except av.FFmpegError as error:
            if is_shortage(error):
                raise
            continue
        for frame in frames:
            return frame.time if getattr(frame, "key_frame", True) else None
    return None


def decode(
    container: av.container.InputContainer, stream: av.stream.Stream, media: Media
) -> Iterator[tuple[float, av.frame.Frame]]:
    """Frames of a stream with their times in rising order. Packets that do not decode are counted and passed over, and
    so are frames whose time does not rise."""
    stream.codec_context.options = limits.DECODER_OPTIONS
    last = -math.inf
    frames = _frames(container, stream, media)
    for time, frame in _reordered(frames) if stream.index in media.clock.in_decode_order else frames:
        if time > last:
            yield time, frame
            last = time
        else:  # before a part there may be pieces of what a seek landed in
            media.dropped += time >= media.origin_sec


def _frames(container, stream, media: Media) -> Iterator[tuple[float, av.frame.Frame]]:
    """What the decoder gives, with its time on the one clock."""
    shifts = deque(media.clock.shifts.get(stream.index, ()))
    shift, time = 0, -math.inf
    aspect = getattr(stream.codec_context, "sample_aspect_ratio", None)
    for number, packet in enumerate(packets_of(container, [stream], media)):
        if shifts and number == shifts[0][0]:
            # The decoder hands out what it holds of one recording, which the next, of another size, may make it lose.
            yield from ((frame.time, frame) for frame in stream.decode(_last_packet(stream)) if frame.time is not None)
            stream.codec_context.flush_buffers()
            shift = round(shifts.popleft()[1] / stream.time_base)
        if shift:
            packet.pts, packet.dts = (stamp if stamp is None else stamp + shift for stamp in (packet.pts, packet.dts))
        try:
            frames = stream.decode(packet)
        except av.FFmpegError as error:
            if is_shortage(error):
                raise
            media.damaged += packet.dts is None or packet.dts * packet.time_base >= media.origin_sec
            continue
        if (now := getattr(stream.codec_context, "sample_aspect_ratio", None)) != aspect:
            aspect = now  # of this packet's picture, which the decoder may hand out later
            media.aspects.append(
                (time if packet.pts is None else float(packet.pts * packet.time_base), float(now or 1))
            )
        for frame in frames:
            if frame.time is not None:
                time = frame.time
            else:
                time = 0.0 if time == -math.inf else time + duration(frame, stream)
            limits.check_frame(frame, time - media.origin_sec)
            yield time, frame


def _reordered(frames: Iterable[tuple[float, av.frame.Frame]]) -> Iterator[tuple[float, av.frame.Frame]]:
    """Frames in the order they are shown in, each with the earliest stamp that is left: the stamps are those of
    decoding, as AVI has no others."""
    waiting: deque[av.frame.Frame] = deque()
    times: list[float] = []
    for time, frame in frames:
        waiting.append(frame)
        heapq.heappush(times, time)
        if len(waiting) > MAX_REORDERED:
            yield heapq.heappop(times), waiting.popleft()
    while waiting:
        yield heapq.heappop(times), waiting.popleft()


def packets_of(
    container: av.container.InputContainer, streams: list[av.stream.Stream], media: Media | None = None
) -> Iterator[av.Packet]:
    """Packets of some streams, and at the end an empty one each, which makes a decoder hand out what it still holds,
    also where a file breaks off (counted as damage)."""
    try:
        yield from container.demux(streams)
    except (av.FFmpegError, IndexError) as error:  # IndexError: PyAV, where a stream turns up in the midst of a file
        if is_shortage(error):
            raise
        if media is not None:
            media.damaged += 1
        yield from (_last_packet(stream) for stream in streams)


def _last_packet(stream: av.stream.Stream) -> av.Packet:
    packet = av.Packet()
    packet.stream = stream
    packet.time_base = stream.time_base
    return packet


def duration(frame: av.frame.Frame, stream: av.stream.Stream) -> float:
    """How long a frame lasts by what it says, or by the stream's rate."""
    if isinstance(frame, av.AudioFrame):
        return frame.samples / frame.sample_rate
    if frame.duration and frame.time_base:
        return float(frame.duration * frame.time_base)
    return 1 / float(stream.average_rate or FRAME_RATE_HZ)
