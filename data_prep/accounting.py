"""Decides what of a clip is kept, and accounts for every clip: a row of `report.csv` each, and a summary to read."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from data_prep.inspection import FileFacts, Inspection, SoundFacts
from data_prep.options import Options
from data_prep.parts import Cut
from data_prep.sources import SourceClip
from mmpretrain.doubles import find_doubles, warnings
from mmpretrain.files import write_text
from mmpretrain.index import Index
from mmpretrain.listing import readable
from mmpretrain.records import FRAME_RATE_HZ, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME, Clip

MIN_FRAMES = 5  # a shorter picture or sound is not a clip
ENDS_EARLY_SEC = 0.5  # a file that ends this much before the length it declares is worth a note
FEW_FRAMES = 3  # so many may be lost, as where sound of two recordings overlaps at their join
FACE_SEEN = 0.9  # a smaller share of the frames with a face is worth a note
STILL_SEC = 1.0  # a picture that is shown for longer is worth a note
UNREAD = 0.25  # of a file behind its last packet: what another one leaves that was joined to it
_SAME = "has the content of "  # a note, and the clip
UNEQUAL_SEC = 0.1  # so much that sound and picture, or a part and what is left of it, differ in length is worth a note
LONGER_SEC = 5.0  # a clip may be this much longer than its file said when it was decided whether to cut it
_MEASURED = (
    "fps", "width", "height", "sample_rate", "channels", "face_rate", "faces", "eye_distance_px", "evidence", "rival",
    "lag_ms", "confidence", "jitter_pct", "loudness_dbfs", "clipped", "spoilt", "dropped", "damaged",
)  # fmt: skip


@dataclasses.dataclass
class ReportRow:
    """One clip of the source, kept, refused or cut into others, with what was found in it.

    Sizes and rates are those of the file. unknown_emotion: the corpus's own word, where it is none of ours. again:
    it is refused for want of memory or the like; the next run tries it again. What was measured is explained in
    docs/corpora.md.
    """

    clip_id: str
    source: str
    status: str = "kept"
    reason: str = ""
    has_audio: int = 0
    has_video: int = 0
    frames: int = 0
    seconds: float = 0.0
    fps: float = 0.0
    width: int = 0
    height: int = 0
    sample_rate: int = 0
    channels: int = 0
    face_rate: float = 0.0
    faces: int = 0
    eye_distance_px: float = 0.0
    by_sound: int = 0
    evidence: float = 0.0
    rival: float = 0.0
    lag_ms: int = 0
    confidence: float = 0.0
    frames_with_face: int = 0
    jitter_pct: float = 0.0
    sharpness: float = 0.0
    black_share: float = 0.0
    hands_rate: float = 0.0
    loudness_dbfs: float = 0.0
    clipped: int = 0
    spoilt: int = 0
    dropped: int = 0
    damaged: int = 0
    emotion: str = ""
    unknown_emotion: str = ""
    speaker: str = ""
    split: str = ""
    notes: str = ""
    again: int = 0

    def refuse(self, reason: str, again: bool = False) -> None:
        self.status, self.reason, self.again = "refused", reason, int(again)
        self.has_audio = self.has_video = self.frames = 0
        self.seconds = 0.0

    def set_length(self, num_frames: int) -> None:
        self.frames, self.seconds = num_frames, round(num_frames / FRAME_RATE_HZ, 2)

    def set_contents(self, clip: Clip, note: str, measures: Mapping[str, float]) -> None:
        """What was in fact written, and what is to be said of it."""
        self.notes = "; ".join(filter(None, (self.notes, note)))
        self.has_audio, self.has_video = int(len(clip.audio) > 0), int(len(clip.mouth) > 0)
        self.set_length(clip.num_frames)
        for name, value in measures.items():
            setattr(self, name, value)


def row_of_cut(cut: Cut) -> ReportRow:
    """A file that is no clip itself: its parts are."""
    row = ReportRow(cut.whole.clip_id, str(cut.whole.path), "cut", f"{cut.seconds:.1f} s long")
    row.notes = f"cut at pauses into {len(cut.parts)} parts, {cut.parts[0].clip_id} to {cut.parts[-1].clip_id}"
    return row


def row_of(clip: SourceClip, found: Inspection | None, options: Options) -> ReportRow:
    """The decision on one clip: `has_video` and `has_audio` say what of it is kept.

    found is None where there was nothing to look at: refused by the reader, drawn instead of decoded, or text alone.
    """
    described = {name: getattr(clip, name) for name in ("clip_id", "speaker", "split")}
    source = str(clip.path or ("drawn" if clip.render else "text"))
    row = ReportRow(source=source, emotion=clip.labels.get("emotion", ""), **described)
    row.unknown_emotion = "" if row.emotion else clip.info.get("emotion", "")
    notes = [clip.note]
    if clip.refused:
        row.refuse(clip.refused)
    elif clip.render is not None:
        row.has_audio = row.has_video = 1
    elif clip.path is None:
        pass  # its text alone
    elif found.error:
        row.refuse(found.error, found.again)
    else:
        facts = found.facts()
        for name in _MEASURED:
            setattr(row, name, facts[name])
        row.by_sound = int(found.face.by_sound)
        row.frames_with_face = round(found.face.face_rate * found.picture.num_frames)
        row.has_video, picture_note = _judge_picture(clip, found, options)
        row.has_audio, sound_note = _judge_sound(found.sound)
        notes += [picture_note, sound_note, *found.file.notes]
        seen_sec = max(found.picture.num_frames / FRAME_RATE_HZ, found.sound.num_samples / SAMPLE_RATE_HZ)
        if row.has_audio:
            notes += _compare_lengths(found, row.has_video, is_part=clip.start_sec > 0)
        if clip.end_sec is not None and (wanted_sec := clip.end_sec - clip.start_sec) - seen_sec > UNEQUAL_SEC:
            notes.append(f"the part is {seen_sec:.1f} instead of {wanted_sec:.1f} s long: the file ends there")
        if found.file.declared_sec - seen_sec > ENDS_EARLY_SEC:
            notes.append(f"ends after {seen_sec:.1f} of {found.file.declared_sec:.1f} s")
        if found.file.damaged:
            notes.append(f"{found.file.damaged} damaged packets passed over")
        notes += _notes_on_clock(found.file)
        row.set_length(
            _frames_kept(found, options) if row.has_video else -(-found.sound.num_samples // SAMPLES_PER_FRAME)
        )
        if seen_sec > options.max_clip_sec + LONGER_SEC:
            row.refuse(f"is {seen_sec:.0f} s long, but the file says {found.file.declared_sec:.0f} s: write it anew")
        elif not row.has_video and not row.has_audio:
            row.refuse(" and ".join(note for note in (picture_note, sound_note) if note))
            notes = [note for note in notes if note not in (picture_note, sound_note)]
        elif not row.has_video and picture_note:
            notes.append("kept as sound only")
    row.notes = "; ".join(note for note in notes if note)
    return row


def _frames_kept(found: Inspection, options: Options) -> int:
    first, last = span_of(found, options) or (0, found.picture.num_frames)
    return last - first


def _notes_on_clock(file: FileFacts) -> Iterator[str]:
    if file.restarts:
        yield f"{file.restarts + 1} recordings joined, whose clocks start anew: one follows the other"
    if file.dropped > FEW_FRAMES:
        yield f"{file.dropped} frames passed over whose time stamps go back"
    if file.still_sec > STILL_SEC:
        yield f"one picture is shown for {file.still_sec:.1f} s"
    if file.unread > UNREAD:
        share = f"{100 * file.unread:.0f} %"
        yield f"the last {share} of the file cannot be read; if files were joined into it, prepare each by itself"


def _judge_picture(clip: SourceClip, found: Inspection, options: Options) -> tuple[int, str]:
    picture, face = found.picture, found.face
    if picture.num_frames == 0:
        return 0, "no picture could be decoded" if picture.picture_lost else ""
    if picture.num_frames < MIN_FRAMES:
        return 0, f"the picture has {picture.num_frames} frames at 25 fps, fewer than {MIN_FRAMES}"
    if face.face_rate == 0:
        return 0, "no face found"
    if face.face_rate < options.min_face_rate:
        return 0, f"a face in {100 * face.face_rate:.0f} % of the frames only"
    if clip.by_sound and not face.by_sound:
        return 0, f"which face speaks cannot be told: no mouth clearly moves with the sound ({face.evidence:.1f})"
    span = span_of(found, options)
    if span and span[1] - span[0] < max(options.min_face_rate * picture.num_frames, MIN_FRAMES):
        return 0, f"the face is away for longer than {options.max_gap_sec:g} s, and no part with it is long enough"
    why = (
        f"the one that speaks ({face.evidence:.1f} to {face.rival:.1f})"
        if face.by_sound
        else "the largest and longest seen"
    )
    notes = [f"{face.faces} faces, {why} is kept"] if face.faces > 1 else []
    if span:
        first, last = (frame / FRAME_RATE_HZ for frame in span)
        words = ", without its text" if clip.labels.get("text") and not clip.words else ""
        notes.append(f"cut to {first:.2f} to {last:.2f} s, where the face is never away for long{words}")
    if face.face_rate < FACE_SEEN:
        notes.append(f"a face in {100 * face.face_rate:.0f} % of the frames, its place in the others is guessed")
    return 1, "; ".join(notes)


def span_of(found: Inspection, options: Options) -> tuple[int, int] | None:
    """The frames (first, last + 1) of the longest part of a clip without a gap of more than `max_gap_sec`; None if that
    is all of it."""
    long = [gap for gap in found.face.gaps if gap[1] - gap[0] > options.max_gap_sec * FRAME_RATE_HZ]
    if not long:
        return None
    firsts, lasts = [0, *(gap[1] for gap in long)], [*(gap[0] for gap in long), found.picture.num_frames]
    return max(zip(firsts, lasts, strict=True), key=lambda span: span[1] - span[0])


def _judge_sound(sound: SoundFacts) -> tuple[int, str]:
    if sound.sample_rate == 0:
        return 0, "no audio track"
    if sound.num_samples < MIN_FRAMES * SAMPLES_PER_FRAME:
        return 0, f"the sound is shorter than {MIN_FRAMES} frames"
    if sound.silent:
        return 0, "the audio track is silent"
    return 1, ""


def _compare_lengths(found: Inspection, has_video: int, is_part: bool) -> list[str]:
    """What of the sound is not beside the picture, and what of the picture has no sound."""
    notes = []
    if found.sound.sound_from_sec > UNEQUAL_SEC:
        notes.append(f"the sound begins after {found.sound.sound_from_sec:.1f} s")
    elif found.sound.sound_from_sec < -UNEQUAL_SEC and not is_part:
        notes.append(f"the first {-found.sound.sound_from_sec:.1f} s of the sound, before the picture, are cut")
    beyond_sec = found.sound.num_samples / SAMPLE_RATE_HZ - found.picture.num_frames / FRAME_RATE_HZ
    if has_video and beyond_sec > UNEQUAL_SEC:
        notes.append(f"the last {beyond_sec:.1f} s of the sound, after the picture, are cut")
    elif has_video and beyond_sec < -UNEQUAL_SEC:
        notes.append(f"the sound ends {-beyond_sec:.1f} s before the picture")
    return notes


def write_report(path: Path, rows: Iterable[ReportRow]) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [field.name for field in dataclasses.fields(ReportRow)], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        values = dataclasses.asdict(row)
        writer.writerow({name: readable(value) if isinstance(value, str) else value for name, value in values.items()})
    write_text(path, text.getvalue())


def note_doubles(rows: Mapping[str, ReportRow], index: Index) -> list[str]:
    """Notes on the rows of clips whose content others have which those are. Returns what to say of it at the end."""
    groups = find_doubles(index)
    for group in groups:
        first, second, *_ = clip_ids = [index.clip_ids[i] for i in group]
        for clip_id in clip_ids:
            more = f" and of {len(clip_ids) - 2} more" if len(clip_ids) > 2 else ""
            note = f"{_SAME}{second if clip_id == first else first}{more}"
            rows[clip_id].notes = "; ".join(filter(None, [rows[clip_id].notes, note]))
    return warnings(index, groups)


def summarize(rows: Collection[ReportRow]) -> str:
    """A few lines for the terminal: how much was kept of what, and why the rest was not."""
    cut, rows = ([row for row in rows if (row.status == "cut") == wanted] for wanted in (True, False))
    kept = [row for row in rows if row.status == "kept"]
    minutes = sum(row.seconds for row in kept) / 60
    length = f"{minutes / 60:.2f} h" if minutes >= 60 else f"{minutes:.1f} min"
    lines = [f"kept {len(kept)} of {len(rows)} clips, {length}"]
    lines += [f"  {len(cut)} long files are cut into parts, which are clips of their own"] if cut else []
    kinds = Counter((row.has_audio, row.has_video) for row in kept)
    names = {(1, 1): "picture and sound", (1, 0): "sound only", (0, 1): "picture only", (0, 0): "text only"}
    lines.append("  " + ", ".join(f"{kinds[kind]} {name}" for kind, name in names.items() if kinds[kind]))
    for title, values in (("split", "split"), ("emotion", "emotion")):
        counts = Counter(getattr(row, values) or "none" for row in kept)
        lines.append(f"  {title}: " + ", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
    if unknown := Counter(row.unknown_emotion for row in kept if row.unknown_emotion):
        said = ", ".join(f"{word} {count}" for word, count in unknown.most_common(12))
        more = f" and {len(unknown) - 12} more words" if len(unknown) > 12 else ""
        lines.append(f"  no emotion label for {unknown.total()} clips, whose word for it is none of ours: {said}{more}")
    for reason, count in Counter(row.reason for row in rows if row.status == "refused").most_common(8):
        lines.append(f"  refused {count}: {reason}")
    notes = (note for row in kept for note in row.notes.split("; ") if note and not note.startswith(("part ", _SAME)))
    for note, count in Counter(notes).most_common(8):
        lines.append(f"  note on {count}: {note}")
    return "\n".join(lines)
