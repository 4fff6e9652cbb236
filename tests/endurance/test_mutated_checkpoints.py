"""2,000 damaged and forged checkpoints: nothing in them runs, and each is one clear line or a whole import, soon.

pytest -m endurance tests/endurance/test_mutated_checkpoints.py
"""

import codecs
import io
import json
import os
import pickletools
import random
import resource
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.export.avhubert.test_checkpoint import content, fine_tuned, small_arrays
from tests.export.avhubert.torch_files import LAYOUTS, save

ROOT = Path(__file__).parents[2]
CASES, AT_ONCE = 2_000, 250  # files of one process
SECONDS, MEGABYTES = 10, 1_500  # for one file; of address space more than the process has with its libraries

pytestmark = [pytest.mark.endurance, pytest.mark.timeout(7_200)]


def flipped(data: bytearray, draw: random.Random) -> bytearray:
    for _ in range(draw.choice((1, 1, 2, 8, 64))):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return data


def inserted(data: bytearray, draw: random.Random) -> bytearray:
    place = draw.randrange(len(data))
    data[place:place] = draw.randbytes(draw.choice((1, 2, 4, 100)))
    return data


def removed(data: bytearray, draw: random.Random) -> bytearray:
    place = draw.randrange(len(data))
    del data[place : place + draw.choice((1, 2, 4, 1000))]
    return data


def moved(data: bytearray, draw: random.Random) -> bytearray:
    a, b, size = draw.randrange(len(data)), draw.randrange(len(data)), draw.choice((1, 4, 30, 300))
    data[a : a + size] = data[b : b + size]
    return data


def numbers(data: bytearray, draw: random.Random) -> bytearray:
    """A field of a directory, a length or a count becomes one that is large, negative or 0."""
    place, size = draw.randrange(len(data)), draw.choice((1, 2, 4, 8))
    data[place : place + size] = draw.choice((b"\xff", b"\x7f", b"\x80", b"\0")) * size
    return data


def other_opcodes(data: bytearray, draw: random.Random) -> bytearray:
    """In place of some opcodes stand others; what followed them is read as something else."""
    places = [place for _, _, place in pickletools.genops(io.BytesIO(bytes(data)))]
    codes = [opcode.code.encode("latin-1") for opcode in pickletools.opcodes]
    for _ in range(draw.choice((1, 2, 5))):
        place = draw.choice(places)
        data[place : place + 1] = draw.choice(codes)
    return data


def repeated(data: bytearray, draw: random.Random) -> bytearray:
    """A stretch of opcodes again and again, up to twice what a pickle may have of them."""
    places = [place for _, _, place in pickletools.genops(io.BytesIO(bytes(data)))]
    first = draw.randrange(len(places) - 2)
    start, end = places[first], places[min(len(places) - 1, first + draw.choice((1, 2, 3, 10)))]
    data[start:start] = data[start:end] * draw.choice((2, 1_000, 200_000))
    return data


ANYWHERE = (flipped, inserted, removed, moved, numbers)
IN_A_PICKLE = (*ANYWHERE, other_opcodes, other_opcodes, repeated)


def rezipped(whole: bytes, draw: random.Random) -> bytes:
    """The zip with its pickle, a storage or its list of entries changed, and right checksums of it all."""
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        entries = [(name, bytearray(archive.read(name))) for name in archive.namelist()]
    what = draw.choice(("pickle", "pickle", "pickle", "storage", "entries"))
    if what == "entries":
        entries = draw.sample(entries, draw.randrange(1, len(entries)))
    i = draw.randrange(len(entries))
    if what == "pickle":
        i = next(i for i, (name, _) in enumerate(entries) if name.endswith("data.pkl"))
    if len(entries[i][1]) > 8:
        change = draw.choice(IN_A_PICKLE if what == "pickle" else ANYWHERE)
        entries[i] = (entries[i][0], change(entries[i][1], draw))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in entries:
            archive.writestr(name, bytes(data))
    return file.getvalue()


def mutated(wholes: list[tuple[str, bytes]], case: int) -> bytes:
    draw = random.Random(case)
    layout, whole = draw.choice(wholes)
    if layout == "zip" and draw.random() < 0.6:
        return rezipped(whole, draw)
    data = bytearray(whole)
    if draw.random() < 0.5:  # where most of the structure is: of a stream at the front, of a zip at the end too
        size = min(len(data), 40_000)
        start = draw.choice((0, len(data) - size))
        data[start : start + size] = draw.choice(ANYWHERE)(data[start : start + size], draw)
    else:
        data = draw.choice(ANYWHERE)(data, draw)
    return bytes(data)


def test_two_thousand_mutated_checkpoints(tmp_path):
    wholes = []
    for layout in LAYOUTS:
        for tuned in (False, True):
            arrays = fine_tuned(small_arrays()) if tuned else small_arrays()
            save(tmp_path / "whole.pt", content(arrays), layout=layout)
            wholes.append((layout, (tmp_path / "whole.pt").read_bytes()))
    outcomes = []
    for first in range(0, CASES, AT_ONCE):
        files = tmp_path / f"files{first}"
        files.mkdir()
        for case in range(first, min(CASES, first + AT_ONCE)):
            (files / f"{case}.pt").write_bytes(mutated(wholes, case))
        done = subprocess.run(
            [sys.executable, "-m", "tests.endurance.test_mutated_checkpoints", files, tmp_path / f"out{first}"],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        outcomes += [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        for file in files.iterdir():
            file.unlink()
    assert len(outcomes) == CASES
    wrong = [o for o in outcomes if o["events"] or o["seconds"] > SECONDS or o["error"] not in ("", "ValueError")]
    wrong += [o for o in outcomes if o["error"] and not (o["file"] in o["message"] and len(o["message"]) < 500)]
    imported = [o for o in outcomes if not o["error"]]
    print(
        f"\n{CASES} files: {CASES - len(imported)} refused, {len(imported)} imported, {len(wrong)} wrong; slowest "
        f"{max(o['seconds'] for o in outcomes):.1f} s, most memory {max(o['megabytes'] for o in outcomes)} MB in all"
    )
    assert not wrong, wrong[:5]
    assert imported, "changes that matter to nothing, of a date in the zip, say"


# Events of Python that a file must never cause. Files are opened to be read, and to be written under the output alone.
FORBIDDEN = ("exec", "os.", "subprocess.", "socket.", "ctypes.", "marshal.", "pickle.find_class", "shutil.", "import")
HARMLESS = ("os.listdir", "os.scandir", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.fsync", "os.putenv",
            "shutil.rmtree", "os.utime", "os.chmod", "os.truncate")  # fmt: skip


def read_all(files: Path, output: Path) -> None:
    """In a process of its own: imports every file, and prints a line of JSON on each."""
    import time

    import numpy as np

    from mmpretrain.encoders.encoder import load_encoder
    from mmpretrain.export.avhubert.checkpoint import import_checkpoint

    save(files / "whole.pt", content(small_arrays()), layout="zip")
    import_checkpoint(files / "whole.pt", output / "whole")  # whatever libraries load late is there now
    (files / "whole.pt").unlink()
    load_encoder(output / "whole")
    for codec in ("raw-unicode-escape", "unicode-escape", "latin-1", "ascii"):  # Python's own, of texts in a pickle
        codecs.lookup(codec)
    events, listening = [], [False]

    def heard(event: str, arguments: tuple) -> None:
        if not listening[0]:
            return
        if event == "open":
            written = isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if written and not str(arguments[0]).startswith(str(output)):
                events.append(f"open {arguments[0]}")
        elif event.startswith(FORBIDDEN) and event not in HARMLESS:
            events.append(f"{event} {str(arguments)[:80]}")

    sys.addaudithook(heard)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEGABYTES * 2**20,) * 2)
    for file in sorted(files.iterdir()):
        begin, error, message = time.monotonic(), "", ""
        events.clear()
        listening[0] = True
        try:
            import_checkpoint(file, output / file.stem)
        except BaseException as caught:
            error, message = type(caught).__name__, str(caught)
        listening[0] = False
        seconds = time.monotonic() - begin
        if not error:
            weights = load_encoder(output / file.stem)  # which finds every number finite, of the shape it should have
            assert np.isfinite(weights.config.inputs.pixel_std)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        outcome = {"file": file.name, "seconds": round(seconds, 2), "error": error, "message": message[:1000]}
        outcome |= {"events": list(events), "megabytes": peak}
        print(json.dumps(outcome), flush=True)


if __name__ == "__main__":
    read_all(Path(sys.argv[1]), Path(sys.argv[2]))
