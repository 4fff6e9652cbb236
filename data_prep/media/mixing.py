"""How the channels of a sound become one. A track is listened to before it is mixed, so that no channel is muted or
cancelled by another, and no sample blown up to noise, unnoticed: what a `Listener` hears decides the `Mix`.

C: channels. N: samples.
"""

from __future__ import annotations

import dataclasses

import av
import numpy as np

ORDINARY_OVER = 2.0  # loud masters go over full scale, by less than this; what does is clipped
MOST_OVER = 16.0  # few recordings go so far over full scale: rubbish does, and integers
MOST_GAIN = 256.0  # what goes further are integers
NO_SAMPLE = 2.0**32  # beyond any integers
MANY = 1e-3  # a share of samples that is worth a note, and that decides how far a track goes
QUIETER = 0.01  # a muted channel with less than this of the loudest one's energy is no loss
BASS_HZ = 150.0  # what a subwoofer plays lies below, a voice above
CANCELLED = 0.1  # where so little of the channels' energy is left in their mix, they cancel each other
CANCELLED_SHARE = 0.1  # of a track's energy; where more is cancelled, one channel is better than the mix


class Reader:
    """Frames of one format as float32 [C, N], full scale 1."""

    def __init__(self, frame: av.AudioFrame):
        self._num_channels = frame.layout.nb_channels
        # Packed, since PyAV reads beyond the planes of a frame that has more than seven of them.
        self._convert = av.AudioResampler(format="flt", layout=frame.layout, rate=frame.sample_rate)

    def read(self, frame: av.AudioFrame) -> np.ndarray:
        frame.pts = None
        pieces = [piece.to_ndarray().reshape(-1, self._num_channels).T for piece in self._convert.resample(frame)]
        return np.concatenate(pieces, axis=1) if pieces else np.zeros((self._num_channels, 0), np.float32)


@dataclasses.dataclass(frozen=True)
class Mix:
    """What is done with samples of one format: those beyond `limit` (or no numbers) become silence, what is left is
    multiplied by `scale`, and channels are added by `weights_C`. energy: of the loudest channel, in seconds at full
    scale. spoilt: samples that are no numbers or beyond the limit. notes: what a report should say."""

    weights_C: np.ndarray
    scale: float
    limit: float
    energy: float
    spoilt: int
    notes: tuple[str, ...]

    def apply(self, samples_CN: np.ndarray) -> np.ndarray:
        """Mono float32 [N]."""
        with np.errstate(invalid="ignore"):
            fit = np.abs(samples_CN) <= self.limit  # no number is not
        mono = self.weights_C @ np.where(fit, samples_CN, 0) * self.scale
        # Still to be clipped at full scale, but only after resampling; far beyond it the resampler's integers wrap.
        return np.clip(mono, -MOST_OVER, MOST_OVER).astype(np.float32)


class Listener:
    """Hears all frames of one format that a track has, then says how to mix them."""

    def __init__(self, frame: av.AudioFrame):
        self._reader, self._rate = Reader(frame), frame.sample_rate
        self._may_leave_range = may_leave_range(frame.format)
        num_channels = frame.layout.nb_channels
        by_layout = _layout_weights(frame.layout)
        mean = np.full(num_channels, 1 / num_channels, np.float32)
        self._layout_is_known = by_layout is not None
        self._ways_2C = np.stack([mean if by_layout is None else by_layout, mean])
        self._names = [channel.name for channel in frame.layout.channels]
        self._num_samples = self._no_numbers = self._overs = 0
        # Each of frames that stay below MOST_OVER, and of those that do not.
        self._by_exponent = np.zeros((2, 49), int)  # samples of size 0 to 2^-15, to 2^-14, ..., to 2^33
        self._energy_C, self._slope_C = np.zeros((2, num_channels)), np.zeros((2, num_channels))
        self._expected_2, self._cancelled_2 = np.zeros((2, 2)), np.zeros((2, 2))

    def add(self, frame: av.AudioFrame) -> None:
        samples_CN = self._reader.read(frame)
        self._num_samples += samples_CN.size
        which = 0
        if self._may_leave_range and samples_CN.size:
            with np.errstate(invalid="ignore"):
                fit = np.abs(samples_CN) < NO_SAMPLE
            samples_CN = np.where(fit, samples_CN, 0)
            self._no_numbers += int((~fit).sum())
            size_CN = np.abs(samples_CN)
            self._overs += int((size_CN > 1).sum())
            which = int(size_CN.max() > MOST_OVER)
            exponents = np.where(size_CN > 0, np.maximum(np.frexp(size_CN)[1] + 15, 0), 0)
            self._by_exponent[which] += np.bincount(exponents.ravel(), minlength=49)
        if samples_CN.shape[1] > 1:
            self._add_energy(samples_CN.astype(np.float64), which)

    def _add_energy(self, samples_CN: np.ndarray, which: int) -> None:
        samples_CN = samples_CN - samples_CN.mean(axis=1, keepdims=True)
        energy_C = np.square(samples_CN).sum(axis=1)
        self._energy_C[which] += energy_C
        self._slope_C[which] += np.square(np.diff(samples_CN)).sum(axis=1)
        expected_2 = np.square(self._ways_2C) @ energy_C
        left_2 = np.square(self._ways_2C @ samples_CN).sum(axis=1)
        self._expected_2[which] += expected_2
        self._cancelled_2[which] += np.where(left_2 < CANCELLED * expected_2, expected_2, 0)

    def mix(self) -> Mix:
        scale, limit, spoilt, notes = self._range()
        heard = slice(None) if limit > MOST_OVER else slice(1)
        weights_C, note = self._weights(heard)
        energy = float(self._energy_C[heard].sum(axis=0).max()) * scale**2 / self._rate
        return Mix(weights_C, scale, limit, energy, spoilt, (*notes, *([note] if note else [])))

    def _range(self) -> tuple[float, float, int, list[str]]:
        """(scale, limit, spoilt, notes): what full scale is, by how far nearly all samples go that are not silence."""
        above = _at_least(self._by_exponent.sum(axis=0))
        reach = _reach(above)
        # A stretch of rubbish is neither most of a track, nor near in size to what is beside it.
        all_over = 2 * above[16] > above[1] or _reach(_at_least(self._by_exponent[0])) > ORDINARY_OVER
        scale, limit, notes = 1.0, MOST_OVER, []
        if all_over and reach > MOST_GAIN:
            bits = next((bits for bits in (16, 24) if reach <= 2.0 ** (bits - 1)), 32)
            scale, limit = 2.0 ** (1 - bits), 2.0**bits
            notes.append(f"the samples are in the range of {bits}-bit integers and are scaled by it")
        elif reach > ORDINARY_OVER and (all_over or reach <= MOST_OVER):
            scale, limit = 1 / reach, max(MOST_OVER, 2 * reach)
            notes.append(f"the samples go up to {reach:g} times full scale and are scaled by it")
        elif self._overs > MANY * self._num_samples:
            share = self._overs / self._num_samples
            notes.append(f"{100 * share:.1f} % of the samples are over full scale and clipped")
        if spoilt := self._no_numbers + int(above[int(np.log2(limit)) + 16]):
            of_all = f"{spoilt} of {self._num_samples} samples"
            notes.append(f"{of_all} are no numbers or far out of range and are made silence")
        return scale, limit, spoilt, notes

    def _weights(self, heard: slice) -> tuple[np.ndarray, str]:
        """What each channel counts in the mix, and what is to be said about that."""
        by_layout_C, mean_C = self._ways_2C
        energy_C, slope_C = self._energy_C[heard].sum(axis=0), self._slope_C[heard].sum(axis=0)
        way, note = 0, ""
        with np.errstate(divide="ignore", invalid="ignore"):
            rms_hz_C = np.sqrt(slope_C / energy_C) * self._rate / (2 * np.pi)
        lost_C = (by_layout_C == 0) & (energy_C > QUIETER * energy_C.max()) & (rms_hz_C > BASS_HZ)
        if not self._layout_is_known and len(mean_C) > 2:
            note = f"nobody says what the {len(mean_C)} channels are: all of them count alike"
        elif lost_C.any():
            lost = int(lost_C.argmax())
            way, note = 1, f"channel {lost + 1} ({self._names[lost]}) holds more than bass: all channels count alike"
        if self._cancelled_2[heard].sum(axis=0)[way] > CANCELLED_SHARE * self._expected_2[heard].sum(axis=0)[way]:
            loudest = int(np.argmax(energy_C > 0.99 * energy_C.max()))  # the first of equals
            one_C = np.zeros_like(mean_C)
            one_C[loudest] = 1
            return one_C, f"the channels cancel each other: channel {loudest + 1} of {len(mean_C)} is taken"
        return self._ways_2C[way], note


def may_leave_range(numbers: av.AudioFormat | None) -> bool:
    """Whether samples of this format (None: one that is not known yet) may be over full scale, or no numbers."""
    return numbers is None or numbers.name.startswith(("flt", "dbl"))


def _at_least(by_exponent: np.ndarray) -> np.ndarray:
    """How many samples are of size 2^(k-16) or more, for each k from 1 on; at 0 all of them."""
    return by_exponent[::-1].cumsum()[::-1]


def _reach(at_least: np.ndarray) -> float:
    """The power of two that nearly no sample exceeds, of those that are not silence."""
    return 2.0 ** (int(np.argmax(np.append(at_least[1:], 0) <= MANY * at_least[1])) - 15)


def _layout_weights(layout: av.AudioLayout) -> np.ndarray | None:
    """What each channel counts in a mix to mono by the layout, float32 [C] with sum 1; None for one nobody knows.

    Found by mixing one impulse a channel, one after the other.
    """
    num_channels = layout.nb_channels
    if all(channel.name == "NONE" for channel in layout.channels):
        return None
    impulses = np.eye(num_channels, dtype=np.float32).reshape(1, -1)
    try:
        frame = av.AudioFrame.from_ndarray(impulses, format="flt", layout=layout.name)
        frame.sample_rate = 16_000
        mixed = av.AudioResampler(format="flt", layout="mono", rate=16_000).resample(frame)
    except (av.FFmpegError, ValueError):
        return None
    weights_C = np.concatenate([piece.to_ndarray().reshape(-1) for piece in mixed])
    return weights_C / weights_C.sum() if len(weights_C) == num_channels and weights_C.sum() > 0 else None
