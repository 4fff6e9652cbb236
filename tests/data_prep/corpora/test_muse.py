"""MuSe: labels in time, by segment and by recording, with the oddities of each task."""

import numpy as np
import pytest

from tests.data_prep.corpora.trees import check, clips_of, touch, write

PARTITION = "Id,Proposal\n12,train\n13,devel\n14,test\n"


def label(path, *rows, header="timestamp,value"):
    write(path, header + "\n" + "".join(f"{row}\n" for row in rows))


@pytest.fixture
def stress(tmp_path):
    write(tmp_path / "metadata" / "partition.csv", PARTITION)
    for name in ("12", "13"):
        label(tmp_path / "label_segments" / "valence" / f"{name}.csv", "0,-1.0", "500,0.0", "1000,1.0")
        label(tmp_path / "label_segments" / "physio-arousal" / f"{name}.csv", "0,0.5", "500,0.5", "1000,0.5")
    label(tmp_path / "label_segments" / "valence" / "14.csv", "0,", "500,")
    touch(tmp_path / "raw" / "12.mp4", tmp_path / "raw" / "12.wav", tmp_path / "raw" / "13.wav")
    return tmp_path


def test_labels_in_time_are_on_the_grid_of_frames(stress, capsys):
    clips = clips_of("muse", stress)
    assert {clip_id: (clip.split, clip.path.suffix) for clip_id, clip in clips.items()} == {
        "12": ("train", ".mp4"), "13": ("validation", ".wav"), "14": ("test", ".mp4"),
    }  # fmt: skip
    valence = clips["12"].curves["valence"].track(0.0, 30)
    assert valence[:25] == pytest.approx(2 * (np.arange(25) + 0.5) / 25 - 1, abs=1e-6)
    assert clips["12"].curves["physio_arousal"].track(0.0, 25) == pytest.approx(0.5)
    assert not clips["14"].curves  # withheld
    code, said = check(capsys, "muse", stress)
    assert code == 1
    assert "MISSING: test: 0 of 1 recordings; 1 are listed and not here: 14" in said
    assert "whole: devel: 1 of 1 recordings" in said


def test_segments_are_cut_out_of_their_recordings(tmp_path):
    write(tmp_path / "metadata" / "partition.csv", PARTITION)
    rows = [f"{t},{t / 10000},{1 + (t >= 2000)}" for t in (0, 250, 500, 4000, 4250)]
    for dimension in ("valence", "arousal"):
        label(tmp_path / "label_segments" / dimension / "12.csv", *rows, header="timestamp,value,segment_id")
    media = tmp_path / "elsewhere"
    touch(media / "12.mp4")
    clips = clips_of("muse", tmp_path, media=media)
    assert (clips["12_1"].start_sec, clips["12_1"].end_sec) == (0.0, 0.75)
    assert (clips["12_2"].start_sec, clips["12_2"].end_sec) == (4.0, 4.5)
    assert clips["12_2"].curves["arousal"].track(4.0, 5) == pytest.approx(0.4 + (np.arange(5) + 0.5) / 250, abs=1e-6)
    assert {clip.speaker for clip in clips.values()} == {"muse-12", "muse-13", "muse-14"}
    with pytest.raises(FileNotFoundError, match=r"--media .*nowhere is not a folder"):
        clips_of("muse", tmp_path, media=tmp_path / "nowhere")


def test_classes_of_segments_find_their_times_among_the_features(tmp_path):
    write(tmp_path / "metadata" / "partition.csv", PARTITION)
    label(tmp_path / "label_segments" / "valence" / "12.csv", "4,1", "0,2", header="value,segment_id")
    label(
        tmp_path / "feature_segments" / "au" / "12.csv", "1000,1,0.1", "1250,1,0.1", "3000,2,0.1", "3250,2,0.1",
        header="timestamp,segment_id,AU01",
    )  # fmt: skip
    clips = clips_of("muse", tmp_path)
    assert clips["12_1"].labels == {"valence_class": "4"}
    assert (clips["12_2"].labels["valence_class"], clips["12_2"].start_sec, clips["12_2"].end_sec) == ("0", 3.0, 3.5)


def test_humour_lies_a_level_deeper_and_is_the_last_column(tmp_path):
    write(tmp_path / "metadata" / "partition.csv", "Id,Proposal\ncoach_3,train\n")
    label(
        tmp_path / "label_segments" / "coach" / "coach_3.csv", "0,2000,x,0", "2000,4000,x,1", "4000,6000,x,1",
        header="timestamp_start,timestamp_end,what,label",
    )  # fmt: skip
    track = clips_of("muse", tmp_path)["coach_3"].curves["humor"].track(0.0, 150)
    assert track.tolist() == [0.0] * 50 + [1.0] * 100  # never between the two
    assert clips_of("muse", tmp_path)["coach_3"].speaker == "muse-coach"


def test_values_of_recordings_have_ids_in_more_quotation_marks(tmp_path):
    write(tmp_path / "metadata" / "partition.csv", "Id,Proposal\n00012,train\n00013,test\n")
    write(tmp_path / "labels.csv", 'Id,Approval,Empathic-Pain\n"""00012""",0.25,1\n"""00013""",,\n')
    clips = clips_of("muse", tmp_path)
    assert clips["00012"].labels == {"approval": 0.25, "empathic_pain": 1.0}
    assert np.isnan(clips["00013"].labels["approval"])


def test_a_folder_that_is_no_task_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"partition\.csv"):
        clips_of("muse", tmp_path)
