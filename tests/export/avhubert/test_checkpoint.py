"""Checkpoints of the reference become encoders of ours and come back, tensor by tensor; bad ones are named."""

import argparse
import functools
import json
import shutil

import jax
import numpy as np
import pytest
from flax import nnx

import mmpretrain
from mmpretrain.__main__ import main
from mmpretrain.config import InputConfig, ModelConfig, ReferenceModelConfig
from mmpretrain.encoders.folder import HEAD_FILE, read_config, read_crop_size, save_encoder
from mmpretrain.export.avhubert.checkpoint import export_checkpoint, import_checkpoint
from mmpretrain.export.avhubert.names import EncoderOnly, reference_tensors
from mmpretrain.export.avhubert.torch_file import open_torch_file
from mmpretrain.models.encoder import AVEncoder
from mmpretrain.records import Batch
from tests.corpus_fixture import make_clip, write_corpus
from tests.export.avhubert.torch_files import LAYOUTS, ChoiceEnum, DictConfig, Dictionary, Processor, Tensor, save
from tests.parity.fixture_files import check, file_names, folder, load_arrays
from tests.parity.model_files import resnet_weights
from tests.tiny import initial, tiny_model

FINE_TUNED = "encoder.w2v_model."
# No two sizes are alike, and no option has its default.
CONFIG = ModelConfig(
    width=12, num_layers=3, num_heads=2, mlp_dim=20, resnet_width=2, pos_conv_kernel=8, pos_conv_groups=4, proj_dim=5,
    temperature=0.2, dropout=0.3, attention_dropout=0.15, activation_dropout=0.05, input_dropout=0.25, layerdrop=0.07,
    feature_grad_scale=0.5, reference=ReferenceModelConfig(post_norm=True, dot_similarity=True, tied_projection=True),
    inputs=InputConfig(view="face", image_size=80, pixel_mean=0.5, pixel_std=0.25),
)  # fmt: skip
NETWORK = {
    "_name": "av_hubert", "encoder_embed_dim": 12, "encoder_layers": 3, "encoder_attention_heads": 2,
    "encoder_ffn_embed_dim": 20, "conv_pos": 8, "conv_pos_groups": 4, "final_dim": 5, "modality_fuse": "concat",
    "logit_temp": 0.2, "dropout": 0.3, "attention_dropout": 0.15, "activation_dropout": 0.05, "dropout_input": 0.25,
    "encoder_layerdrop": 0.07, "feature_grad_mult": 0.5, "layer_norm_first": False, "audio_feat_dim": 104,
    "resnet_relu_type": "prelu", "sub_encoder_layers": 0, "activation_fn": "gelu", "label_rate": 25,
    "sim_type": "dot", "untie_final_proj": False,
}  # fmt: skip
INPUTS = {
    "_name": "av_hubert_pretraining", "normalize": True, "image_crop_size": 80, "image_mean": 0.5, "image_std": 0.25,
    "labels": ["km"],
}  # fmt: skip
OURS = {"mmpretrain": {"view": "face", "crop_size": 90, "resnet_width": 2}}


def arrays_of(shapes: dict[str, tuple]) -> dict[str, np.ndarray]:
    """Random float16, cheaply; counters are int64."""
    block = np.random.default_rng(0).standard_normal(1_000_003).astype(np.float16) / 8
    arrays = {name: np.resize(np.roll(block, 1000 * i), shape) for i, (name, shape) in enumerate(shapes.items())}
    counters = {name for name in shapes if name.endswith("num_batches_tracked")}
    return arrays | {name: np.array(1000) for name in counters}


@functools.cache
def small_arrays() -> dict[str, np.ndarray]:
    encoder = nnx.eval_shape(lambda: AVEncoder(CONFIG, rngs=nnx.Rngs(0)))
    shapes = {tensor.name: tensor.shape for tensor in reference_tensors(EncoderOnly(encoder))}
    norms = [name.removesuffix("running_var") for name in shapes if name.endswith("running_var")]
    head = {"mask_emb": (104,), "label_embs_concat": (9, 5), "final_proj.weight": (5, 12), "final_proj.bias": (5,)}
    return arrays_of(shapes | head | {f"{norm}num_batches_tracked": () for norm in norms})


def content(arrays: dict[str, np.ndarray], **changes) -> dict:
    """A pretraining checkpoint as one finds it, with what else lies in it."""
    cfg = {"common": {"seed": 1337, "fp16": True}, "task": INPUTS, "model": NETWORK}
    return {
        "args": None, "cfg": cfg, "model": {name: Tensor.of(array) for name, array in arrays.items()},
        "criterion": None, "optimizer_history": [{"optimizer_name": "FairseqAdam", "num_updates": 3}],
        "task_state": {"dictionaries": [Dictionary()], "s2s_tokenizer": Processor()}, "extra_state": OURS,
        "last_optimizer_state": {"state": {0: {"step": 3, "exp_avg": Tensor.of(np.ones(3, np.float32))}}},
    } | changes  # fmt: skip


def fine_tuned(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    kept = {FINE_TUNED + name: array for name, array in arrays.items() if not name.startswith("final_proj")}
    return kept | {"decoder.embed_tokens.weight": np.ones((7, 12)), "decoder.layers.0.fc1.bias": np.ones(3)}


def read(file) -> dict[str, np.ndarray]:
    with open_torch_file(file) as opened:
        return {name: np.array(tensor) for name, tensor in opened.tensors(opened.content["model"]).items()}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_checkpoint_becomes_an_encoder_and_comes_back(tmp_path, layout):
    arrays = small_arrays()
    save(tmp_path / "public.pt", content(arrays), layout=layout)
    assert import_checkpoint(tmp_path / "public.pt", tmp_path / "encoder") == []
    config, lineage = read_config(tmp_path / "encoder")
    assert config == CONFIG
    assert lineage["layout"] == "pretrained"
    assert len(lineage["fingerprint"]) == 16
    assert "Imported from an AV-HuBERT checkpoint" in (tmp_path / "encoder" / "README.md").read_text()

    assert export_checkpoint(tmp_path / "encoder", tmp_path / "again.pt") == []
    again = read(tmp_path / "again.pt")
    assert set(again) == set(arrays)
    for name, array in arrays.items():
        assert again[name].dtype == (np.int64 if array.dtype == np.int64 else np.float32)
        np.testing.assert_array_equal(again[name], array, name)
    with open_torch_file(tmp_path / "again.pt") as file:  # what `load_checkpoint_to_cpu` of fairseq takes from it
        written = file.content
    assert {"lr_scheduler_state", "optimizer_name", "num_updates"} <= set(written["optimizer_history"][-1])
    assert set(written["extra_state"]["train_iterator"]) == {"epoch", "iterations_in_epoch"}
    assert written["args"] is None
    import_checkpoint(tmp_path / "again.pt", tmp_path / "encoder2")
    assert read_config(tmp_path / "encoder2")[0] == CONFIG
    assert [read_crop_size(tmp_path / name) for name in ("encoder", "encoder2")] == [90, 90]
    for file in ("model.safetensors", HEAD_FILE):
        assert (tmp_path / "encoder2" / file).read_bytes() == (tmp_path / "encoder" / file).read_bytes()


CONFIGURATIONS = {
    "args": {"cfg": None, "args": argparse.Namespace(**NETWORK | INPUTS)},
    "omegaconf": {"cfg": DictConfig({"task": INPUTS, "model": NETWORK})},
    "enumeration": {"cfg": {"task": INPUTS, "model": NETWORK | {"modality_fuse": ChoiceEnum.CONCAT}}},
    "of the pretraining": {
        "cfg": {
            "task": {"normalize": False},
            "model": {"decoder_layers": 6, "dropout": 0.0, "activation_fn": "relu",
                      "w2v_args": DictConfig({"task": INPUTS, "model": NETWORK})},
        }
    },
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("where", CONFIGURATIONS)
def test_the_configuration_is_found_wherever_it_is(tmp_path, layout, where):
    save(tmp_path / "public.pt", content(small_arrays(), **CONFIGURATIONS[where]), layout=layout)
    import_checkpoint(tmp_path / "public.pt", tmp_path / "encoder")
    assert read_config(tmp_path / "encoder")[0] == CONFIG


def test_without_a_configuration_sizes_are_read_off_the_tensors(tmp_path):
    unreadable = {"task": None, "model": {"encoder_layers": "${a.b}", "encoder_embed_dim": None}}
    save(tmp_path / "public.pt", content(small_arrays(), cfg=unreadable), layout="zip")
    (says,) = import_checkpoint(tmp_path / "public.pt", tmp_path / "encoder")
    for words in ("width=12", "num_layers=3", "mlp_dim=20", "fusion=concat", "pos_conv_groups=4", "num_heads=1",
                  "num_heads assumes 64 dims a head"):  # fmt: skip
        assert words in says
    sizes = ("width", "num_layers", "mlp_dim", "fusion", "pos_conv_kernel", "pos_conv_groups", "proj_dim")
    config = read_config(tmp_path / "encoder")[0]
    assert {size: getattr(config, size) for size in sizes} == {size: getattr(CONFIG, size) for size in sizes}


def test_of_a_fine_tuned_checkpoint_the_encoder_is_taken_and_the_rest_named(tmp_path):
    arrays = small_arrays()
    save(tmp_path / "tuned.pt", content(fine_tuned(arrays)), layout="stream")
    says = import_checkpoint(tmp_path / "tuned.pt", tmp_path / "encoder")
    assert says == ["left out: decoder (2), label_embs_concat (1), mask_emb (1)"]
    assert read_config(tmp_path / "encoder")[1]["layout"] == "fine-tuned"
    (says,) = export_checkpoint(tmp_path / "encoder", tmp_path / "again.pt")
    assert "has no pretraining head" in says
    again = read(tmp_path / "again.pt")
    head = {"mask_emb", "label_embs_concat", "final_proj.weight", "final_proj.bias"}
    assert set(again) == set(arrays) - head
    for name, array in again.items():
        np.testing.assert_array_equal(array, arrays[name], name)
    assert import_checkpoint(tmp_path / "again.pt", tmp_path / "encoder2") == []


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """command(*arguments): exit code (0 where it just returns) and standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        code = 0
        try:
            main(list(arguments))
        except SystemExit as left:
            code = left.code
        return code, capsys.readouterr().err

    return run


KEYS = [
    "encoder.layer_norm.weight", "encoder.layers.0.fc1.bias", "encoder.layers.2.self_attn.k_proj.weight",
    "encoder.pos_conv.0.weight_g", "encoder.pos_conv.0.weight_v", "feature_extractor_audio.proj.weight",
    "feature_extractor_video.resnet.frontend3D.0.weight", "feature_extractor_video.resnet.frontend3D.2.weight",
    "feature_extractor_video.resnet.trunk.layer3.0.downsample.1.running_var", "layer_norm.weight",
    "post_extract_proj.weight",
]  # fmt: skip
HEAD_KEYS = ["mask_emb", "label_embs_concat", "final_proj.weight", "final_proj.bias"]


@pytest.mark.parametrize(
    ("fault", "tuned"), [("missing", False), ("missing", True), ("wrong shape", False), ("no tensor", True)]
)
def test_a_bad_tensor_is_named_in_one_line(command, fault, tuned):
    prefix = FINE_TUNED if tuned else ""
    for key in KEYS + ([] if tuned else HEAD_KEYS):
        arrays = small_arrays()
        bad = content(fine_tuned(arrays) if tuned else arrays)
        if fault == "missing":
            del bad["model"][prefix + key]
        elif fault == "wrong shape":
            bad["model"][prefix + key] = Tensor.of(np.ones((*arrays[key].shape[:-1], 3), np.float16))
        else:
            bad["model"][prefix + key] = Dictionary()
        save("bad.pt", bad, layout="zip")
        code, err = command("import-avhubert", "bad.pt", "--output=encoder")
        assert code == 2
        assert len(err.splitlines()) == 1, err
        assert err.startswith("mmpretrain import-avhubert: bad.pt: ")
        assert f"'{key}'" in err, err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": {"encoder.layers.3.fc1.bias": np.ones(20)}}, "'encoder.layers.3.fc1.bias', which this model"),
        ({"model": {"extra.weight": np.ones(20)}}, "has 'extra.weight', which this model configuration has no place"),
        (
            {"network": {"encoder_embed_dim": 16}},
            "'encoder.layer_norm.weight' has shape (12,), but encoder_embed_dim=16",
        ),
        ({"network": {"encoder_layers": 2}}, "'encoder.layers.2."),
        ({"network": {"encoder_layers": 10**9}}, "encoder_layers=1000000000, but it has"),
        ({"network": {"encoder_attention_heads": 5}}, "encoder_attention_heads=5 does not divide the width 12"),
        ({"network": {"sub_encoder_layers": 2}}, "sub_encoder_layers=2; encoders here have sub_encoder_layers=0"),
        ({"network": {"activation_fn": "relu"}}, "activation_fn='relu'"),
        ({"network": {"sim_type": "l2"}}, "sim_type='l2'; encoders here have 'cosine' or 'dot'"),
        ({"inputs": {"normalize": False}}, "normalize=False"),
        ({"content": {"model": {}}}, "no `model` with tensors"),
        ({"content": {"model": None}}, "no `model` with tensors"),
    ],
    ids=str,
)
def test_what_our_encoders_cannot_be_is_refused_in_one_line(command, change, words):
    cfg = {"model": NETWORK | change.get("network", {}), "task": INPUTS | change.get("inputs", {})}
    bad = content(small_arrays() | change.get("model", {}), cfg=cfg) | change.get("content", {})
    save("bad.pt", bad, layout="zip")
    code, err = command("import-avhubert", "bad.pt", "--output=encoder")
    assert code == 2
    assert len(err.splitlines()) == 1, err
    assert words in err


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_cut_off_anywhere_is_one_line_and_leaves_nothing(command, tmp_path, layout):
    save("whole.pt", content(small_arrays()), layout=layout)
    whole = (tmp_path / "whole.pt").read_bytes()
    for share in (0.0, 0.01, 0.2, 0.5, 0.9, 0.9999):
        (tmp_path / "bad.pt").write_bytes(whole[: int(share * len(whole))])
        code, err = command("import-avhubert", "bad.pt", "--output", "encoder")
        assert (code, len(err.splitlines())) == (2, 1), err
        assert err.startswith("mmpretrain import-avhubert: bad.pt: ")
        assert not (tmp_path / "encoder").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["import-avhubert"], "import-avhubert FILE.pt --output=DIR"),
        (["import-avhubert", "a.pt"], "import-avhubert FILE.pt --output=DIR"),
        (["import-avhubert", ".", "--output=encoder"], ". is a folder; give the checkpoint in it"),
        (["import-avhubert", "a.pt", "b.pt", "--output=encoder"], "import-avhubert FILE.pt --output=DIR"),
        (["import-avhubert", "no_such.pt", "--output=encoder"], "no_such.pt"),
        (["import-avhubert", "a.pt", "--output=."], "--output=. is there already and is no exported encoder"),
        (["import-avhubert", "a.pt", "--output=encoder", "--round=1"], "--round=1 is for targets and pretrain"),
        (["import-avhubert", "a.pt", "--output=encoder", "--format=avhubert"], "--format=avhubert is for export"),
        (["export", "no_such", "--format=avhubert", "--output=a.pt"], "no_such: there is no such folder"),
        (["export", "encoder", "--output=a.pt"], "without a recipe; SOURCE is"),
        (["export", "encoder", "--format=onyx", "--output=a.pt"], "--format=onyx; it must be one of folder, avhubert"),
        (["export", "sound", "--format=avhubert", "--output=a.pt"], "the reference's networks are of audio and video"),
        (["export", "level", "--format=avhubert", "--output=a.pt"], "audio_normalization='level' has no counterpart"),
        (["export", "short", "--format=avhubert", "--output=a.pt"], "model.resnet_blocks=(1, 1, 1, 1) has no counter"),
        (["export", "level", "--format=avhubert", "--output=level"], "--output=level is a folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_commands_that_cannot_work_say_so_in_one_line(command, arguments, words):
    level = InputConfig(image_size=16, audio_normalization="level")
    for name, config in (
        ("sound", tiny_model("audio")),
        ("level", tiny_model("audio", "video", inputs=level)),
        ("short", tiny_model("audio", "video")),
    ):
        if name in arguments:
            encoder = nnx.merge(*initial(lambda rngs, config=config: AVEncoder(config, rngs=rngs)))
            save_encoder(name, encoder, lineage={"fingerprint": "0" * 16})
    code, err = command(*arguments)
    assert code == 2
    assert len(err.splitlines()) == 1, err
    assert words in err


def batch_of(arrays: dict[str, np.ndarray]) -> Batch:
    valid_BT = ~arrays["in/padding_mask"]
    everywhere_B, none_B = np.ones(len(valid_BT), bool), np.full(len(valid_BT), -1, np.int32)
    return Batch(
        inputs={"audio": arrays["in/audio"].astype(np.float32), "video": arrays["in/video_u8"]},
        present={"audio": everywhere_B, "video": everywhere_B},
        valid_BT=valid_BT, targets_BTS=none_B[:, None, None], labels={}, clip_B=none_B, chance_B=none_B,
    )  # fmt: skip


@pytest.mark.parametrize("name", file_names("pretrain_*.npz", "seq2seq.npz"))
def test_an_imported_encoder_computes_what_the_reference_does(tmp_path, name):
    arrays, meta = load_arrays(name)
    weights = {key.removeprefix("sd/"): array for key, array in arrays.items() if key.startswith("sd/")}
    tuned = any(key.startswith(FINE_TUNED) for key in weights)
    weights |= {(FINE_TUNED if tuned else "") + key: array for key, array in resnet_weights().items()}
    cfg = {"task": {"normalize": True}, "model": meta["encoder_config" if tuned else "config"]}
    save(tmp_path / "public.pt", content(weights, cfg=cfg, extra_state={}), layout="stream" if tuned else "zip")
    import_checkpoint(tmp_path / "public.pt", tmp_path / "encoder")
    module = mmpretrain.load_encoder(tmp_path / "encoder").module
    reference = arrays["out/av/encoder_out" if tuned else "out/final"]
    with jax.default_matmul_precision("highest"):
        check("final", nnx.jit(lambda module, batch: module(batch))(module, batch_of(arrays)), reference)


SIZES = {
    "base": {"encoder_embed_dim": 768, "encoder_layers": 12, "encoder_ffn_embed_dim": 3072,
             "encoder_attention_heads": 12},
    "large": {"encoder_embed_dim": 1024, "encoder_layers": 24, "encoder_ffn_embed_dim": 4096,
              "encoder_attention_heads": 16},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", file_names("state_dict_*.json"))
def test_full_listings_of_public_checkpoints_go_through(tmp_path, name):
    entries = json.loads((folder() / name).read_text())["entries"]
    arrays = arrays_of({key: tuple(shape) for key, (shape, _) in entries.items()})
    layout = "stream" if "seq2seq" in name else "zip"
    network = NETWORK | SIZES[name.split("_")[3].split(".")[0]]
    network |= {"conv_pos": 128, "conv_pos_groups": 16, "final_dim": 256}
    cfg = {"task": INPUTS, "model": {"w2v_args": {"model": network}} if "seq2seq" in name else network}
    save(tmp_path / "public.pt", content(arrays, cfg=cfg, extra_state={}), layout=layout)
    import_checkpoint(tmp_path / "public.pt", tmp_path / "encoder")
    export_checkpoint(tmp_path / "encoder", tmp_path / "again.pt")
    again = read(tmp_path / "again.pt")
    shutil.rmtree(tmp_path)  # a gigabyte, which pytest would keep
    if "seq2seq" in name:
        left_out = ("decoder.", FINE_TUNED + "mask_emb", FINE_TUNED + "label_embs_concat")
        arrays = {key.removeprefix(FINE_TUNED): array for key, array in arrays.items() if not key.startswith(left_out)}
    assert set(again) == set(arrays)
    for key, array in arrays.items():
        assert again[key].dtype == (np.int64 if array.dtype == np.int64 else np.float32)
        np.testing.assert_array_equal(again[key], array, key)


def test_a_run_is_exported_beside_its_folder(command, tmp_path, monkeypatch):
    write_corpus(tmp_path / "clips", [make_clip(name, 20) for name in "ab"], 96, 112)
    data = "DataConfig(corpora=(CorpusConfig('clips', validation_share=0.5),))"
    (tmp_path / "recipe.py").write_text(
        "from mmpretrain.config import CorpusConfig, DataConfig\nfrom tests.tiny import tiny_run\n\n"
        f"def get_config():\n    return tiny_run(workdir='run', data={data})\n"
    )
    monkeypatch.setattr("mmpretrain.stages.export.export", lambda run: None)  # the folder is there already
    config = tiny_model("audio", "video", resnet_blocks=(2, 2, 2, 2))
    encoder = nnx.merge(*initial(lambda rngs: AVEncoder(config, rngs=rngs)))
    shapes = {"mask_emb": (104,), "label_embs_concat": (9, 8), "final_proj.weight": (8, 16), "final_proj.bias": (8,)}
    head = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    save_encoder(tmp_path / "run" / "export" / "encoder", encoder, lineage={"fingerprint": "0" * 16}, head=head)
    assert command("export", "--config=recipe.py", "--format=avhubert")[0] == 0
    written = read(tmp_path / "run" / "export" / "avhubert.pt")
    assert set(head) < set(written)
    code, err = command("export", "--config=recipe.py", "--format=avhubert", "--output=elsewhere.pt")
    assert (code, "written under --config.workdir" in err) == (2, True)
