"""Exported encoders: they come back as they were, take clips of any kind, and say what is wrong with a folder."""

import dataclasses
import functools
import itertools
import json
import re
import shutil

import jax
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

import mmpretrain
from mmpretrain.config import CorpusConfig, InputConfig
from mmpretrain.data.clips import open_clips
from mmpretrain.data.exposure import TrainingData
from mmpretrain.encoders.encoder import FRAME_MULTIPLE, Encoder
from mmpretrain.encoders.figures import add_figures, read_figures
from mmpretrain.encoders.folder import load_head, read_config, read_training_data, save_encoder
from mmpretrain.features.filterbank import audio_features
from mmpretrain.files import seal
from mmpretrain.models.encoder import AVEncoder
from mmpretrain.prepared import put_terms
from mmpretrain.records import Clip
from tests.corpus_fixture import make_clip, write_corpus
from tests.tiny import initial, random_batch, tiny_model, with_inputs, with_present

LINEAGE = {"fingerprint": "0123456789abcdef", "round": 2, "corpora": "tiny"}
random = np.random.default_rng(0)


@functools.cache
def module(*modalities) -> AVEncoder:
    config = tiny_model(*modalities)
    return nnx.merge(*initial(lambda rngs: AVEncoder(config, rngs=rngs)))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "encoder"
    save_encoder(folder, module("audio", "video"), lineage=LINEAGE)
    return folder


@pytest.fixture(scope="module")
def encoder(exported) -> Encoder:
    return mmpretrain.load_encoder(exported)


def clip(num_frames: int, size: int = 20):
    samples = random.integers(-9000, 9000, 640 * num_frames).astype(np.int16)
    return samples, random.integers(0, 256, (num_frames, size, size), np.uint8)


def by_hand(num_frames, audio, video):
    """The encoder that was saved, on exactly the frames of a clip."""
    model = module("audio", "video")
    batch = random_batch((num_frames,), model=model.config)
    batch = with_inputs(
        with_present(batch, audio=[audio is not None], video=[video is not None]),
        audio=audio_features(audio, num_frames, "frame")[None] if audio is not None else 0 * batch.inputs["audio"],
        video=video[None, :, 2:18, 2:18] if video is not None else 0 * batch.inputs["video"],
    )
    graphdef, state = nnx.split(model)
    return np.asarray(jax.jit(lambda state, batch: nnx.merge(graphdef, state)(batch))(state, batch)[0])


@pytest.mark.parametrize("given", [("audio", "video"), ("audio",), ("video",)])
def test_a_loaded_encoder_gives_the_features_of_the_saved_one(encoder, given):
    samples, crops = clip(13)
    audio, video = (samples if "audio" in given else None), (crops if "video" in given else None)
    features_TD = encoder.features(audio=audio, video=video)
    assert features_TD.shape == (13, 16)
    assert features_TD.dtype == np.float32
    np.testing.assert_allclose(features_TD, by_hand(13, audio, video), atol=2e-5)


def test_every_tensor_comes_back_as_it_was(encoder):
    ours, saved = (nnx.state(m) for m in (encoder.module, module("audio", "video")))
    for a, b in zip(*map(jax.tree.leaves, (ours, saved)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert encoder.lineage == LINEAGE
    assert encoder.config == module("audio", "video").config


@pytest.mark.parametrize("num_frames", [1, FRAME_MULTIPLE - 1, FRAME_MULTIPLE, FRAME_MULTIPLE + 1])
def test_any_length_and_sound_that_ends_inside_a_frame(num_frames):
    encoder = Encoder(module("audio"), {})
    samples, _ = clip(num_frames)
    whole = encoder.features(audio=samples)
    assert whole.shape == (num_frames, 16)
    assert encoder.features(audio=samples[:-600]).shape == (num_frames, 16)
    assert np.isfinite(whole).all()


def test_the_video_decides_the_length(encoder):
    samples, crops = clip(9)
    assert encoder.features(audio=samples[: 640 * 7], video=crops).shape == (9, 16)
    assert encoder.features(audio=np.tile(samples, 2), video=crops).shape == (9, 16)


def test_a_prepared_clip_goes_in_by_its_view_and_without_what_it_lacks():
    config = tiny_model("audio", "video", inputs=InputConfig(view="face", image_size=16))
    encoder = Encoder(AVEncoder(config, rngs=nnx.Rngs(0)), {})
    sound, crops = clip(3)
    whole = Clip("c", sound, 255 - crops, crops)
    np.testing.assert_array_equal(encoder.outputs_of(whole).output, encoder.outputs(sound, crops).output)
    mute = dataclasses.replace(whole, audio=sound[:0])
    for found in (encoder.outputs_of(mute).output, encoder.features(sound[:0], crops)):
        np.testing.assert_array_equal(found, encoder.features(video=crops))


def test_an_encoder_of_sound_takes_pictures_of_any_size():
    samples, crops = clip(9, size=4)
    encoder = Encoder(module("audio"), {})
    np.testing.assert_array_equal(encoder.features(samples, crops), encoder.features(samples))


def test_layers_by_number():
    encoder = Encoder(module("audio"), {})
    samples, _ = clip(5)
    layers = [encoder.features(audio=samples, layer=layer) for layer in (0, 1, 2, None)]
    for one, next_ in itertools.pairwise(layers):
        assert np.abs(one - next_).max() > 1e-3


@pytest.mark.parametrize("layer", [-1, 3, 1.5])
def test_a_layer_that_there_is_not_is_refused(layer):
    with pytest.raises(ValueError, match=rf"layer={layer}; this encoder has layers 1 to 2, and 0"):
        Encoder(module("audio"), {}).features(audio=clip(3)[0], layer=layer)


def test_features_of_nothing_are_refused(encoder):
    with pytest.raises(ValueError, match=r"this encoder is of audio and video: features\(\) needs audio or video"):
        encoder.features()
    with pytest.raises(ValueError, match="the clip is empty"):
        encoder.features(audio=np.zeros(0, np.int16))
    with pytest.raises(ValueError, match="the clip is empty"):
        encoder.features(audio=clip(3)[0], video=np.zeros((0, 20, 20), np.uint8))
    with pytest.raises(ValueError, match=r"this encoder takes no 'vidoe': features\(\) needs audio or video"):
        encoder.features(audio=clip(3)[0], vidoe=clip(3)[1])


@pytest.mark.parametrize(("has", "lacks"), [("audio", "video"), ("video", "audio")])
def test_features_of_what_the_encoder_cannot_take_are_refused(has, lacks):
    given = dict(zip(("audio", "video"), clip(3), strict=True))
    with pytest.raises(ValueError, match=rf"this encoder is of {has}: features\(\) needs {has}"):
        Encoder(module(has), {}).features(**{lacks: given[lacks]})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"audio": np.zeros(6400, np.float32)}, r"audio must be int16 \[N\].* but is float32 \[6400\]"),
        ({"audio": np.zeros((2, 6400), np.int16)}, r"audio must be int16 \[N\].* but is int16 \[2, 6400\]"),
        ({"audio": [0] * 6400}, r"audio must be int16 \[N\].* but is int64 \[6400\]"),
        ({"video": np.zeros((5, 20, 20), np.float32)}, r"video must be uint8 .* but is float32 \[5, 20, 20\]"),
        ({"video": np.zeros((5, 20, 20, 3), np.uint8)}, r"grey crops .* but is uint8 \[5, 20, 20, 3\]"),
        ({"video": np.zeros((5, 12, 12), np.uint8)}, r"S at least 16, but is uint8 \[5, 12, 12\]"),
    ],
)
def test_clips_of_another_kind_are_refused(encoder, given, words):
    with pytest.raises(ValueError, match=words):
        encoder.features(**given)


def test_a_dtype_that_the_network_does_not_know_is_refused(exported):
    with pytest.raises(ValueError, match="dtype='float16'; it must be one of float32, bfloat16"):
        mmpretrain.load_encoder(exported, dtype="float16")


@pytest.fixture
def damaged(exported, tmp_path):
    """A copy of the folder to damage."""
    return shutil.copytree(exported, tmp_path / "damaged")


def change_tensors(folder, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    seal(folder)


def change_config(folder, change) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    seal(folder)


def refusal(folder) -> str:
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        mmpretrain.load_encoder(folder)
    return str(caught.value)


def test_a_folder_that_is_none_is_refused(tmp_path):
    assert "is no exported encoder: it has no config.json; `mmpretrain export` makes one" in refusal(tmp_path / "x")


def test_another_format_is_refused_by_its_name_and_with_the_remedy(damaged):
    # As version 1 wrote it: other fields and other tensors, which must not be what the message is about.
    change_config(damaged, lambda config: config.update(format="mmpretrain-encoder-1"))
    change_config(damaged, lambda config: config["model"].update(norm="pre", similarity="cosine"))
    change_tensors(damaged, lambda tensors: tensors.update(audio_proj=np.zeros(3, np.float32)))
    message = refusal(damaged)
    assert "format='mmpretrain-encoder-1', but this version reads 'mmpretrain-encoder-4'" in message
    assert f"`mmpretrain export {damaged} --format=avhubert --output=FILE.pt`" in message
    assert "`mmpretrain import-avhubert FILE.pt --output=DIR`" in message


def test_a_damaged_config_is_refused(damaged):
    (damaged / "config.json").write_text('{"format": "mmpretrain')
    assert "config.json is damaged" in refusal(damaged)


def test_an_unknown_field_of_the_model_is_refused(damaged):
    change_config(damaged, lambda config: config["model"].update(depth=3))
    assert "unknown field 'depth' of ModelConfig; known are" in refusal(damaged)


def test_missing_weights_are_refused(damaged):
    (damaged / "model.safetensors").unlink()
    assert "has no model.safetensors" in refusal(damaged)


def test_truncated_weights_are_refused(damaged):
    file = damaged / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert "is damaged" in refusal(damaged)
    file.write_bytes(b"")
    assert "is damaged" in refusal(damaged)


def test_no_changed_bit_is_believed(exported, tmp_path):
    draw, folder = np.random.default_rng(0), tmp_path / "encoder"
    head = {"mask_emb": np.arange(6, dtype=np.float32)}
    save_encoder(folder, module("audio"), lineage=LINEAGE, head=head)
    assert load_head(folder)["mask_emb"].tolist() == head["mask_emb"].tolist()

    def load() -> None:
        mmpretrain.load_encoder(folder)
        load_head(folder)
        read_training_data(folder)

    for name in (
        "training_data.npz",
        "config.json",
        "model.safetensors",
        "pretraining_head.safetensors",
        "digests.json",
    ):
        whole = (folder / name).read_bytes()
        for bit in draw.integers(0, 8 * len(whole), 15):
            changed = bytearray(whole)
            changed[bit // 8] ^= 1 << int(bit % 8)
            (folder / name).write_bytes(changed)
            with pytest.raises((ValueError, FileNotFoundError), match=re.escape(str(folder))) as caught:
                load()
            assert name in str(caught.value), (name, bit)
        (folder / name).write_bytes(whole)
    load()


def test_a_folder_may_be_copied_and_its_card_changed_and_files_added(exported, tmp_path, encoder):
    folder = shutil.copytree(exported, tmp_path / "mine")
    (folder / "README.md").write_text("My encoder")
    (folder / "LICENSE").write_text("mine")
    samples, crops = clip(3)
    np.testing.assert_array_equal(
        mmpretrain.load_encoder(folder).features(samples, crops), encoder.features(samples, crops)
    )
    (folder / "README.md").unlink()
    mmpretrain.load_encoder(folder)
    (folder / "digests.json").unlink()
    assert "digests.json, which says what the files were, is missing" in refusal(folder)
    assert "copy the folder again, all of it" in refusal(folder)


def test_a_missing_tensor_is_named(damaged):
    change_tensors(damaged, lambda tensors: tensors.pop("fusion.proj.kernel"))
    assert "lacks the tensor 'fusion.proj.kernel'" in refusal(damaged)


def test_a_tensor_too_many_is_named(damaged):
    change_tensors(damaged, lambda tensors: tensors.update({"video.stem.other": np.zeros(3, np.float32)}))
    assert "has a tensor 'video.stem.other' that its config.json has no place for" in refusal(damaged)


def test_a_tensor_of_another_shape_is_named(damaged):
    change_tensors(damaged, lambda tensors: tensors.update({"fusion.norm.bias": np.zeros(3, np.float32)}))
    assert "tensor 'fusion.norm.bias' has shape (3,); its config.json calls for (32,)" in refusal(damaged)


def test_the_folder_says_what_it_is(exported):
    config, lineage = read_config(exported)
    assert config == tiny_model("audio", "video")
    assert lineage == LINEAGE
    card = (exported / "README.md").read_text()
    assert "features = encoder.features(audio=samples, video=crops)" in card
    assert "| fingerprint | 0123456789abcdef |" in card
    names = {"config.json", "model.safetensors", "README.md", "digests.json", "training_data.npz"}
    assert {path.name for path in exported.iterdir()} == names


def test_figures_are_put_on_the_card_when_they_are_known_and_none_is_made_up(exported, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "mine")
    card = folder / "README.md"
    assert "## Figures\n\nNone were written beside this encoder." in card.read_text()
    assert add_figures(folder, {"health of round 1": "masked accuracy 40.1%"})
    assert add_figures(folder, {"emotion/ua, test clips": "0.512"})
    assert add_figures(folder, {})
    rows = "| health of round 1 | masked accuracy 40.1% |\n| emotion/ua, test clips | 0.512 |"
    assert f"## Figures\n\n| | |\n|---|---|\n{rows}\n" in card.read_text()
    assert "terms of its corpora" not in card.read_text()
    card.write_text("My encoder")
    assert not add_figures(folder, {"emotion/ua, test clips": "0.6"})
    assert card.read_text() == "My encoder", "what somebody wrote stays"
    assert read_figures(folder)["emotion/ua, test clips"] == "0.6"
    mmpretrain.load_encoder(folder)
    (folder / "figures.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"figures\.json.*remove it: nothing but the cards needs it"):
        read_figures(folder)


def test_a_card_has_the_terms_of_the_corpora_whose_clips_were_seen(tmp_path):
    clips = [make_clip("a", 9, size=32, speaker="01")]
    corpora = {name: write_corpus(tmp_path / name, clips, 32, 48) for name in ("ours", "theirs")}
    put_terms(corpora["theirs"], "CC BY 4.0")
    seen = [TrainingData.of(open_clips([CorpusConfig(str(path))])) for path in corpora.values()]
    save_encoder(tmp_path / "encoder", module("audio"), lineage=LINEAGE, training_data=seen[0] | seen[1])
    terms = "| terms of its corpora | ours: not stated: those of whoever recorded the clips; theirs: CC BY 4.0 |"
    assert terms in (tmp_path / "encoder" / "README.md").read_text()
    add_figures(tmp_path / "encoder", {"health of round 1": "fine"})
    assert terms in (tmp_path / "encoder" / "README.md").read_text(), "they lie beside the encoder"


def test_the_folder_says_how_its_clips_were_prepared_and_is_refused_where_that_is_done_otherwise_now(tmp_path):
    folder = tmp_path / "encoder"
    save_encoder(folder, module("audio", "video"), lineage=LINEAGE, crop_size=24)
    assert mmpretrain.load_encoder(folder).crop_size == 24
    said = json.loads((folder / "config.json").read_text())["preprocessing"]
    assert said["video"]["mean_face"][0] == [73.0, 94.0]
    assert said["video"]["mean"] == 0.421
    assert (said["audio"]["mel_bands"], said["audio"]["rate_hz"], said["video"]["rate_hz"]) == (26, 16_000, 25)
    change_config(folder, lambda config: config["preprocessing"]["video"].update(mouth_side=90))
    assert "preprocessing: video.mouth_side is not as this program prepares clips" in refusal(folder)
    change_config(folder, lambda config: config["preprocessing"]["video"].update(crop_size=12))
    assert "preprocessing.video.crop_size=12; it must be a number of pixels, at least model" in refusal(folder)


def test_an_encoder_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    folder = tmp_path / "encoder"

    def stop(*_):
        assert not folder.exists() or read_config(folder)[1] == LINEAGE
        raise KeyboardInterrupt

    def save_half():
        with monkeypatch.context() as patch:
            patch.setattr("mmpretrain.encoders.folder.model_card", stop)  # written last
            with pytest.raises(KeyboardInterrupt):
                save_encoder(folder, module("audio"), lineage={"fingerprint": "another"})

    save_half()
    assert not list(tmp_path.iterdir())
    save_encoder(folder, module("audio"), lineage=LINEAGE)
    save_half()
    assert read_config(folder)[1] == LINEAGE
    assert [path.name for path in tmp_path.iterdir()] == ["encoder"]


def test_windows_of_a_long_clip_say_nearly_what_the_whole_says(encoder):
    """Nearly: attention sees one minute of the clip instead of two; docs/training.md has figures of a trained model."""
    rng = np.random.default_rng(3)
    samples = rng.integers(-9000, 9000, 640 * 3000).astype(np.int16)
    features_TD, whole_TD = encoder.features(audio=samples), by_hand(3000, samples, None)
    assert features_TD.shape == whole_TD.shape
    difference_T = np.linalg.norm(features_TD - whole_TD, axis=1) / np.linalg.norm(whole_TD, axis=1)
    assert np.median(difference_T) < 0.002
    assert difference_T.max() < 0.005  # at the seams as elsewhere
