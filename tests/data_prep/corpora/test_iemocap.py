"""IEMOCAP as released: evaluation files, transcriptions with a stray line, turns cut out of dialogues, two halves."""

from collections import Counter

import pytest

from data_prep.corpora import iemocap
from tests.data_prep.corpora.trees import check, clips_of, touch, write

DIALOGUE = "Ses01F_impro01"
EVALUATION = """% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]

[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]
C-E2:\tNeutral;\t()
C-E3:\tHappiness; Excited;\t()
C-F1:\tSadness;\t(curious)
A-E3:\tval 3; act 2; dom  2;\t()

[3.0000 - 5.5000]\tSes01F_impro01_M000\texc\t[5.0000, 1.0000, 3.0000]
C-E2:\tExcited;\t()

[9.0000 - 9.5000]\tSes01F_impro01_FXX0\txxx\t[3.0000, 3.0000, 3.0000]

[9.5000 - 12.0000]\tSes01F_impro01_M012\tfru\t[2.0000, 4.0000, 3.5000]
"""
TRANSCRIPTION = """Ses01F_impro01_M000 [003.0000-005.5000]: Hello   there.
Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me.
M: this line has no time
"""
ALIGNMENT = """\t SFrm\t EFrm\t SegAScr Word
\t    0\t   42\t -219470 <s>
\t   43\t   92\t -100 EXCUSE(2)
\t   93\t  120\t -100 ME
\t  121\t  150\t -100 ++LAUGHTER++
\t  151\t  180\t -100 </s>
Total score:  -1
"""


@pytest.fixture
def tree(tmp_path):
    session = tmp_path / "Session1"
    write(session / "dialog" / "EmoEvaluation" / f"{DIALOGUE}.txt", EVALUATION)
    write(session / "dialog" / "EmoEvaluation" / f"._{DIALOGUE}.txt", "macOS")
    write(
        session / "dialog" / "EmoEvaluation" / "Categorical" / f"{DIALOGUE}_e2_cat.txt",
        "Ses01F_impro01_F000 :Neutral; ()",
    )
    write(session / "dialog" / "transcriptions" / f"{DIALOGUE}.txt", TRANSCRIPTION)
    touch(session / "dialog" / "avi" / "DivX" / f"{DIALOGUE}.avi")
    for turn in ("F000", "M000", "M012"):
        touch(session / "sentences" / "wav" / DIALOGUE / f"{DIALOGUE}_{turn}.wav")
    write(session / "sentences" / "ForcedAlignment" / DIALOGUE / f"{DIALOGUE}_F000.wdseg", ALIGNMENT)
    other = EVALUATION.replace("Ses01F", "Ses05M")
    write(
        tmp_path / "Session5" / "dialog" / "EmoEvaluation" / "Ses05M_script01_1.txt",
        other.replace("impro01", "script01_1"),
    )
    return tmp_path


def test_turns_have_all_kinds_of_labels(tree):
    (tree / "Session1" / "dialog" / "avi" / "DivX" / f"{DIALOGUE}.avi").unlink()  # turns are sound only
    clips = clips_of("iemocap", tree, validation_share=0.0)
    of_first = [clip_id for clip_id in clips if clip_id.startswith(DIALOGUE)]
    assert of_first == [f"{DIALOGUE}_{turn}" for turn in ("M000", "F000", "FXX0", "M012")]  # by time
    turn = clips[f"{DIALOGUE}_F000"]
    assert (turn.speaker, turn.split, turn.path.name) == ("iemocap-1F", "train", f"{DIALOGUE}_F000.wav")
    assert turn.labels == {
        "emotion": "neutral", "emotion4": "neutral", "votes": ("neutral", "happy", "excited"),
        "valence": -0.25, "arousal": -0.25, "dominance": -0.25, "text": "Excuse me.", "style": "improvised",
        "sex": "female", "session": "1", "dialogue": DIALOGUE, "turn": 1.0,
    }  # fmt: skip
    assert turn.info["scales"] == [2.5, 2.5, 2.5]
    assert turn.words == (("excuse", 0.43, 0.93), ("me", 0.93, 1.21))
    excited = clips[f"{DIALOGUE}_M000"]
    assert (excited.labels["emotion"], excited.labels["emotion4"]) == ("excited", "happy")
    assert (excited.labels["valence"], excited.labels["arousal"], excited.labels["text"]) == (1.0, -1.0, "Hello there.")
    nobody = clips[f"{DIALOGUE}_FXX0"]
    assert (nobody.labels["emotion"], nobody.info["emotion"], nobody.speaker) == ("", "xxx", "iemocap-1F")
    frustrated = clips[f"{DIALOGUE}_M012"]
    assert (frustrated.labels["emotion"], frustrated.labels["emotion4"]) == ("frustrated", "")
    scripted = clips["Ses05M_script01_1_F000"]
    assert (scripted.split, scripted.labels["style"], scripted.speaker) == ("test", "scripted", "iemocap-5F")


def test_words_with_times_that_are_of_another_text_are_left_out_and_said(tree):
    name, said = f"{DIALOGUE}_F000", tree / "Session1" / "dialog" / "transcriptions" / f"{DIALOGUE}.txt"
    assert "words" not in clips_of("iemocap", tree, validation_share=0.0)[name].note
    write(said, TRANSCRIPTION.replace("Excuse", "Pardon"))
    turn = clips_of("iemocap", tree, validation_share=0.0)[name]
    assert turn.words == ()
    assert "its words with times are not those of its text" in turn.note


@pytest.mark.parametrize(("marked", "woman", "man"), [("left", 0.0, 0.5), ("right", 0.5, 0.0)])
def test_pictures_are_halves_of_the_dialogues(tree, marked, woman, man):
    clips = clips_of("iemocap", tree, validation_share=0.0, marked=marked)
    turn = clips[f"{DIALOGUE}_F000"]
    assert (turn.path.name, turn.start_sec, turn.end_sec) == (f"{DIALOGUE}.avi", 6.2901, 8.2357)
    assert (turn.sound.path.name, turn.sound.start_sec) == (f"{DIALOGUE}_F000.wav", 0.0)
    assert turn.words[0] == ("excuse", pytest.approx(6.7201), pytest.approx(7.2201))
    assert turn.regions == ((woman, 0.0, woman + 0.5, 1.0),)  # the woman wears the markers in Ses01F
    assert clips[f"{DIALOGUE}_M000"].regions[0][0] == man
    assert clips["Ses05M_script01_1_M000"].regions[0][0] == woman  # and the man in Ses05M


def test_without_knowing_who_wears_the_markers_the_sound_tells_the_half(tree):
    turn = clips_of("iemocap", tree, validation_share=0.0)[f"{DIALOGUE}_F000"]
    assert (turn.path.name, turn.start_sec, turn.by_sound) == (f"{DIALOGUE}.avi", 6.2901, True)
    assert turn.regions == ((0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0))


def test_missing_turns_are_named(tree, capsys):
    code, said = check(capsys, "iemocap", tree)
    assert code == 1
    assert "MISSING: turns: 3 of 10,039 recordings; 5 are listed and not here: Ses01F_impro01_FXX0, Ses05M" in said
    with pytest.raises(FileNotFoundError, match="Session1"):
        iemocap.read(tree / "Session1", validation_share=0.0)


def test_dialogues_are_held_out_whole(tree):
    for number in range(20):
        name = f"Ses02M_impro{number:02d}"
        text = EVALUATION.replace("Ses01F_impro01", name)
        write(tree / "Session2" / "dialog" / "EmoEvaluation" / f"{name}.txt", text)
    splits = {}
    for clip in clips_of("iemocap", tree, validation_share=0.5).values():
        splits.setdefault(clip.labels["dialogue"], set()).add(clip.split)
    assert all(len(of_dialogue) == 1 for of_dialogue in splits.values())
    assert set(Counter(min(of_dialogue) for of_dialogue in splits.values())) == {"train", "validation", "test"}
