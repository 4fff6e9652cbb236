"""MSP-IMPROV: an evaluation file of turns and raters, names that say session, speaker and style."""

import pytest

from tests.data_prep.corpora.trees import check, clips_of, touch, write

EVALUATION = """UTD-IMPROV-S01A-F01-P-FM01.avi; H; A:2.500000 ; V:5.000000 ; D:3.000000 ; N:4.000000 ;
rater-1; Happy; Happy,Excited,; A:3.000000 ; V:4.000000 ; D:3.000000 ; N:4.000000 ;
rater-2; Depressed; Sad,; A:2.000000 ; V:2.000000 ; D:3.000000 ; N:4.000000 ;
rater-3; Concerned; Other,; A:2.000000 ; V:2.000000 ; D:3.000000 ; N:4.000000 ;

UTD-IMPROV-S20S-M06-T-MF07.avi; X; A:1.000000; V:3.000000; D:3.000000;
rater-1; Neutral; Neutral,; A:3.000000

UTD-IMPROV-S02N-M03-R-MF01.avi; O; A:1.000000; V:3.000000; D:3.000000;
"""


@pytest.fixture
def tree(tmp_path):
    write(tmp_path / "Evalution.txt", EVALUATION)
    place = "session1/S01A/P/MSP-IMPROV-S01A-F01-P-FM01"
    touch(tmp_path / "Audio" / f"{place}.wav", tmp_path / "Video" / f"{place}.avi")
    touch(tmp_path / "Audio" / "session6" / "S20S" / "T" / "MSP-IMPROV-S20S-M06-T-MF07.wav")
    touch(tmp_path / "Audio" / "session6" / "S20S" / "S" / "MSP-IMPROV-S20S-F06-S-FM09.wav", tmp_path / "intro.avi")
    return tmp_path


def test_turns_raters_and_scales(tree):
    clips = clips_of("msp_improv", tree)
    turn = clips["MSP-IMPROV-S01A-F01-P-FM01"]
    assert (turn.path.suffix, turn.sound.path.suffix, turn.speaker) == (".avi", ".wav", "improv-1F")
    assert turn.labels == {
        "emotion": "happy", "votes": ("happy", "sad"), "valence": 1.0, "arousal": -0.25, "dominance": 0.0,
        "style": "natural", "sex": "female", "session": "1", "dialogue": "1/S01A/P", "language": "en",
    }  # fmt: skip
    assert turn.info["votes"] == ["Happy", "Depressed", "Concerned"]
    undecided = clips["MSP-IMPROV-S20S-M06-T-MF07"]
    assert (undecided.labels["emotion"], undecided.info["emotion"]) == ("", "X")
    assert (undecided.labels["style"], undecided.speaker, undecided.path.suffix) == (
        "improvised target",
        "improv-6M",
        ".wav",
    )
    assert clips["MSP-IMPROV-S20S-F06-S-FM09"].note == "the evaluation does not name it"
    assert "not a name of MSP-IMPROV" in clips["intro"].refused


def test_what_is_rated_and_not_here_is_missing(tree, capsys):
    code, said = check(capsys, "msp_improv", tree)
    assert code == 1
    assert "MISSING: turns: 3 of 8,438 recordings; 1 are listed and not here: MSP-IMPROV-S02N-M03-R-MF01" in said
    (tree / "Evalution.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"Evalution\.txt"):
        clips_of("msp_improv", tree)
