"""What the features of a codebook are relative to, clip by clip: the speaker's centre, the clip itself, or nothing."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from mmpretrain.data.clips import ClipTable
from mmpretrain.data.exposure import people_of
from mmpretrain.files import DamagedError
from mmpretrain.observe.progress import Progress, is_main_process, log
from mmpretrain.parallel.mesh import of_main
from mmpretrain.parallel.processes import gather, on_main
from mmpretrain.targets.centres import CentreProgress, Centres, centres_of, load_centres, save_centres
from mmpretrain.targets.clip_features import CLIP_FEATURES, CentreOf, Relative
from mmpretrain.targets.labelling import clip_sums

Person = tuple[str, str]  # corpus and name: people of the same name in two corpora are two


@dataclasses.dataclass(frozen=True)
class Centring:
    """Of one codebook whose features are relative to the speakers of `tables`, those to train on and to validate on.

    kind: of its features. folder: where the centres lie, and what there is of them on the way. field, title: of the
    codebook, for messages. A clip of nobody named, or the only one of its speaker, is relative to itself.
    """

    kind: str
    tables: tuple[ClipTable, ClipTable]
    folder: Path
    field: str
    title: str
    num_workers: int

    @functools.cached_property
    def speakers(self) -> Mapping[Person, int]:
        """The row of each speaker's centre. Raises ValueError where nobody has two clips."""
        clips = {}
        for table in self.tables:
            people, person_N = people_of(table)
            for person, count in zip(people, np.bincount(person_N, minlength=len(people)).tolist(), strict=True):
                clips[person] = clips.get(person, 0) + count
        named = {person: count for person, count in clips.items() if person[1]}
        known = sorted(person for person, count in named.items() if count > 1)
        if not known:
            reason = "every speaker has one clip only" if named else "none of the clips says who speaks"
            raise ValueError(
                f"{self.field}.relative_to='speaker', but {reason} ({sum(clips.values())} clips of "
                f"{self.tables[0].folders()}); use 'clip' or 'none', or prepare a corpus that names its speakers"
            )
        alone, nobody = len(named) - len(known), sum(clips.values()) - sum(named.values())
        if alone or nobody:
            log(
                f"{self.title}: {nobody} clips name no speaker and {alone} are the only one of theirs; these are "
                f"relative to themselves, the others to {len(known)} speakers"
            )
        return {person: row for row, person in enumerate(known)}

    @property
    def fingerprint(self) -> str:
        """16 hex digits of who speaks in which clip."""
        of_tables = [[table.fingerprint, table.index.fingerprint("speakers")] for table in self.tables]
        content = json.dumps([of_tables, list(self.speakers)])
        return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()

    @property
    def made_of(self) -> str:
        return f"{self.kind}-{self.fingerprint}"

    def make(self) -> Centres:
        """Unless they are there it makes them, or goes on where an interrupted run had stopped. All take part.

        Raises Stopped between two groups of clips.
        """
        if not on_main(self._is_there):
            self._make()
        return self.centres

    @functools.cached_property
    def centres(self) -> Centres:
        """As process 0 has them, everywhere to the bit. All take part."""
        values_SC = np.zeros((len(self.speakers), len(self.relative.typical)), np.float32)
        if is_main_process():
            values_SC = load_centres(self.folder).centres_SC
        return Centres(tuple(self.speakers), of_main(values_SC), self.made_of)

    @property
    def relative(self) -> Relative:
        return CLIP_FEATURES[self.kind].relative

    def of(self, table: ClipTable) -> CentreOf:
        """The centre of the clip of each row of a table; None: of itself."""
        return CentreOf(self._rows(table), self.centres.centres_SC)

    def _rows(self, table: ClipTable) -> np.ndarray:
        """int64 [N]: the row of the centre of each clip, -1: none."""
        people, person_N = people_of(table)
        return np.array([self.speakers.get(person, -1) for person in people], np.int64)[person_N]

    def _is_there(self) -> bool:
        """Removes what is there, with a line in the log, if it is damaged or of others."""
        if not self.folder.exists():
            return False
        try:
            if load_centres(self.folder).made_of == self.made_of:
                return True
            reason = f"{self.folder} is of other clips or speakers"
        except DamagedError as error:
            reason = str(error)
        log(f"{self.title}: {reason}; the centres of the speakers are made again")
        shutil.rmtree(self.folder)
        return False

    def _make(self) -> None:
        num_clips = [len(table) for table in self.tables]
        on_the_way = self.folder.with_name("centring")
        progress = CentreProgress(on_the_way, self.made_of, num_clips=sum(num_clips))
        parts = on_main(progress.find)
        done = np.unpackbits(of_main(np.packbits(progress.done)), count=sum(num_clips)).astype(bool)
        share = (jax.process_index(), jax.process_count())
        with Progress(f"{self.title}: centres of {len(self.speakers)} speakers", unit="clip") as shown:
            try:
                for table, first in zip(self.tables, (0, num_clips[0]), strict=True):
                    row_N = self._rows(table)
                    wanted = ~done[first : first + len(table)] & (row_N >= 0)
                    for row, of_clip in clip_sums(
                        self.relative, table, wanted, share=share, num_workers=self.num_workers
                    ):
                        progress.add(first + row, int(row_N[row]), of_clip)
                        shown.update(1)
            finally:
                progress.flush()
        parts = sorted({*parts, *(name for names in gather(progress.written) for name in names)})

        def save() -> None:
            total_S2C = progress.total(parts, len(self.speakers), len(self.relative.typical))
            centres_SC, lacking = centres_of(total_S2C, self.relative.typical)
            if lacking:
                log(
                    f"{self.title}: {lacking} of {len(self.speakers)} speakers have under a second of something (such "
                    "as voiced frames); there the mean of all speakers stands for theirs"
                )
            save_centres(self.folder, Centres(tuple(self.speakers), centres_SC, self.made_of))
            shutil.rmtree(on_the_way, ignore_errors=True)

        on_main(save)
