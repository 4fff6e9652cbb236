"""What the packets of a file say before anything is decoded: where its clock starts anew, as where recordings were
joined, and how much of the file is read at all."""

from __future__ import annotations

import bisect
import dataclasses
import functools
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from av.format import Flags

from data_prep.media.container import Clock, open_container, packets_of

BACK_SEC = 0.5  # stamps in decoding order never go back; by more than this it is another clock
JUMP_SEC = 5.0  # in formats of broadcasting, where all streams go forward by more than this together, it is too
OVERLAP_SEC = 0.1  # of the sound, at a join where the picture goes on without a gap


@dataclasses.dataclass
class _Stamps:
    """One stream's packets that can be believed, P of them: their number in the stream, their place in the file, and
    in seconds when each is decoded, begins and ends. steps: positions among them at which another clock begins."""

    number_P: np.ndarray
    place_P: np.ndarray
    decode_P: np.ndarray
    begin_P: np.ndarray
    end_P: np.ndarray
    steps: list[int]

    @classmethod
    def of(cls, rows: list[tuple[int, int, float, float, float]], may_jump: bool) -> _Stamps:
        columns = np.array(rows, np.float64).T
        decode = columns[2]
        before, now, after = decode[:-2], decode[1:-1], decode[2:]
        # A stamp that stands alone is broken: those around it go on without it.
        odd = _is_step(now - before, may_jump) | _is_step(after - now, may_jump)
        keep = np.ones(len(decode), bool)
        keep[1:-1] = ~odd | _is_step(after - before, may_jump)
        number, place, *times = columns[:, keep]
        steps = np.flatnonzero(_is_step(np.diff(times[0]), may_jump)) + 1
        return cls(number.astype(int), place.astype(int), *times, steps.tolist())


def clock_of(path: Path) -> Clock:
    """Reads all packets of a file, once for all of its parts."""
    stat = path.stat()
    return _read_clock(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=16)
def _read_clock(path: Path, size: int, _changed: int) -> Clock:
    with open_container(path) as container:
        may_jump = bool(container.format.flags & Flags.ts_discont.value)
        streams = [s for s in (*container.streams.video, *container.streams.audio) if s.codec_context is not None]
        pictures = {stream.index for stream in streams if stream.type == "video"}
        reorder = {stream.index for stream in streams if stream.type == "video" and stream.codec_context.has_b_frames}
        rows, counts, ends, last_byte = defaultdict(list), defaultdict(int), {}, defaultdict(float)
        for place, packet in enumerate(packets_of(container, streams)):
            index, number = packet.stream_index, counts[packet.stream_index]
            counts[index] += 1
            last_byte[index] = max(last_byte[index], ((packet.pos or 0) + packet.size) / max(size, 1))
            begin = next((stamp for stamp in (packet.pts, packet.dts, ends.get(index)) if stamp is not None), None)
            if begin is not None and packet.size:
                decode = begin if packet.dts is None else packet.dts
                ends[index] = begin + (packet.duration or 0)
                times = (float(stamp * packet.time_base) for stamp in (decode, begin, ends[index]))
                rows[index].append((number, place, *times))
    stamps = {index: _Stamps.of(of_stream, may_jump) for index, of_stream in rows.items()}
    shifts = _shifts(stamps, pictures)
    added = {index: _added(of_stream.number_P, shifts.get(index, [])) for index, of_stream in stamps.items()}
    begin = min(((added[index] + of_stream.begin_P).min() for index, of_stream in stamps.items()), default=0.0)
    end = max(((added[index] + of_stream.end_P).max() for index, of_stream in stamps.items()), default=0.0)
    in_decode_order = {index for index in reorder & stamps.keys() if _follow_decoding(stamps[index])}
    return Clock(shifts, frozenset(in_decode_order), float(begin), float(end), dict(last_byte))


def _shifts(stamps: dict[int, _Stamps], pictures: set[int]) -> dict[int, list[tuple[int, float]]]:
    """One shift for all streams at each restart, so that sound and picture stay together."""
    edges = {index: [0] for index in stamps}  # where each clock of a stream begins
    shifts: dict[int, list[tuple[int, float]]] = {index: [] for index in stamps}
    for event in _restarts(stamps):
        ends, begins = {}, {}
        for index, position in event.items():
            of_stream, shift = stamps[index], shifts[index][-1][1] if shifts[index] else 0.0
            following = [*of_stream.steps, len(of_stream.begin_P)][bisect.bisect(of_stream.steps, position)]
            begins[index] = of_stream.begin_P[position:following].min()
            if position > 0:
                ends[index] = shift + of_stream.end_P[edges[index][-1] : position].max()
            edges[index].append(position)
        shift = max(ends.values()) - min(begins.values())
        for index in pictures & ends.keys():
            if 0 <= shift - (ends[index] - begins[index]) <= OVERLAP_SEC:
                shift = ends[index] - begins[index]
        for index, position in event.items():
            shifts[index].append((int(stamps[index].number_P[position]), float(shift)))
    return {index: steps for index, steps in shifts.items() if steps}


def _restarts(stamps: dict[int, _Stamps]) -> Iterator[dict[int, int]]:
    """Where clocks start anew, in the order of the file: by stream, its first packet on the new one."""
    steps = sorted(
        (int(of_stream.place_P[position]), index, position)
        for index, of_stream in stamps.items()
        for position in of_stream.steps
    )
    events: list[dict[int, int]] = []
    for _, index, position in steps:
        to_sec = stamps[index].decode_P[position]
        if events and index not in events[-1]:
            other, there = next(iter(events[-1].items()))
            if abs(stamps[other].decode_P[there] - to_sec) < JUMP_SEC:
                events[-1][index] = position
                continue
        events.append({index: position})
    for event in events:
        index, position = next(iter(event.items()))
        place = stamps[index].place_P[position]
        forward = stamps[index].decode_P[position] > stamps[index].decode_P[position - 1]
        go_on = {other for other in stamps if stamps[other].place_P[-1] >= place}
        if forward and go_on - event.keys():
            continue  # a hole in one of the streams
        yield event | {other: 0 for other in go_on - event.keys() if stamps[other].place_P[0] > place}


def _is_step(step_sec: np.ndarray, may_jump: bool) -> np.ndarray:
    """Whether stamps that follow each other with such a step are of different clocks."""
    return (step_sec < -BACK_SEC) | (may_jump & (step_sec > JUMP_SEC))


def _added(number_P: np.ndarray, steps: list[tuple[int, float]]) -> np.ndarray:
    """The shift of each packet."""
    froms = [0, *(number for number, _ in steps)]
    return np.array([0.0, *(sec for _, sec in steps)])[np.searchsorted(froms, number_P, side="right") - 1]


def _follow_decoding(stamps: _Stamps) -> bool:
    """Whether the stamps never go back, although pictures are not shown in the order in which they are decoded."""
    return len(stamps.begin_P) > 1 and bool((np.diff(stamps.begin_P) > 0).mean() > 0.99)
