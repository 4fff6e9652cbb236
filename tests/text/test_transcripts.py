"""Texts through a language model of a folder, and a fine-tuning that hears them beside the sound."""

import csv
import dataclasses
import shutil

import jax
import numpy as np
import pytest

from mmpretrain.config import CorpusConfig, FinetuneConfig, OptimizerConfig, TextConfig, emotion
from mmpretrain.run.run import Run
from mmpretrain.stages.evaluate import evaluate
from mmpretrain.stages.finetune import finetune
from mmpretrain.stages.layers import layers
from mmpretrain.stages.probe import probe
from mmpretrain.text.transcripts import TextEncoder, Turn, folder_digest, with_context
from tests.corpus_fixture import make_clip, write_corpus
from tests.tiny import IMAGE_SIZE, tiny_model, tiny_run

WORDS = ("i", "am", "so", "glad", "sorry", "you", "a", "b", ":")


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """The folder of a BERT of 8 dims with its tokenizer."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("bert")
    (folder / "vocab.txt").write_text("\n".join(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS)))
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=14, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=16,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(folder)
    transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def test_context_is_what_was_said_before_in_the_same_dialogue_and_never_after():
    texts, speakers = ("one", "two", "three", "other", "four"), ("a", "b", "a", "c", "")
    turns = with_context(texts, speakers, ("d", "d", "d", "e", "d"), (1.0, 2.0, 3.0, 1.0, np.nan), 1)
    assert turns == [Turn("one"), Turn("two", ("a: one",)), Turn("three", ("b: two",)), Turn("other"), Turn("four")]
    assert with_context(texts[:3], speakers[:3], ("d",) * 3, (3.0, 2.0, 1.0), 5)[0].before == ("a: three", "b: two")


def test_tokens_are_those_of_the_model_at_the_turn_itself(bert):
    import torch
    import transformers

    encoder = TextEncoder(bert, 4)
    model = transformers.AutoModel.from_pretrained(bert).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(bert)
    with torch.no_grad():
        alone = model(**tokenizer("i am glad", return_tensors="pt")).last_hidden_state[0].numpy()
        beside = model(**tokenizer("b : sorry [SEP] i am glad", return_tensors="pt")).last_hidden_state[0].numpy()
    long_ago = Turn("i am glad", ("b: " + "so " * 40,))
    turns = [Turn("i am glad"), Turn("i am glad", ("b: sorry",)), Turn("i am so sorry you a b"), long_ago, Turn("  ")]
    together = encoder.tokens(turns)
    np.testing.assert_allclose(together[0], alone[1:-1], atol=1e-6)
    np.testing.assert_allclose(together[1], beside[-4:-1], atol=1e-6)
    assert [len(tokens) for tokens in together] == [3, 3, 4, 3, 0], "the first ones; what was said before is cut"
    for turn, tokens in zip(turns, together, strict=True):
        np.testing.assert_allclose(encoder.tokens([turn])[0], tokens, atol=1e-6, err_msg="others beside it say nothing")
    longest = ("i am so glad sorry you a " * 2).strip()  # 14 words and two marks are all that the model reads
    beyond = [Turn(longest + " b" * 40), Turn(longest + " b" * 40, ("b: sorry",))]
    for turn, tokens in zip(beyond, encoder.tokens(beyond), strict=True):
        np.testing.assert_allclose(tokens, encoder.tokens([Turn(longest)])[0], atol=1e-6, err_msg=str(turn))


def test_tokens_that_cannot_be_told_from_those_before_are_refused(bert):
    encoder = TextEncoder(bert, 4)
    encoder._tokenizer = _WithoutPlaces(encoder._tokenizer)
    assert len(encoder.tokens([Turn("i am glad")])[0]) == 3
    with pytest.raises(ValueError, match=r"cannot be told from what was said before; set finetune\.text\.context=0"):
        encoder.tokens([Turn("i am glad", ("b: sorry",))])


class _WithoutPlaces:
    """A tokenizer that is not fast."""

    is_fast = False

    def __init__(self, tokenizer):
        self._tokenizer = tokenizer

    def __call__(self, *given, **how):
        assert "return_offsets_mapping" not in how
        return self._tokenizer(*given, **how)

    def __getattr__(self, name):
        return getattr(self._tokenizer, name)


def test_a_folder_that_holds_no_model_is_one_line(bert, tmp_path):
    with pytest.raises(ValueError, match=r"finetune\.text\.encoder=.* is no model of transformers: it has no config"):
        folder_digest(tmp_path)
    (tmp_path / "config.json").write_text((bert / "config.json").read_text())
    with pytest.raises(ValueError, match=r"has no tokenizer \(none of tokenizer\.json.*; save it there by"):
        TextEncoder(tmp_path, 4)
    (tmp_path / "vocab.txt").write_text((bert / "vocab.txt").read_text())
    with pytest.raises(ValueError, match=r"has no weights"):
        TextEncoder(tmp_path, 4)
    (tmp_path / "model.safetensors").write_bytes(b"none")
    with pytest.raises(ValueError, match=r"cannot be loaded: .+") as refusal:
        TextEncoder(tmp_path, 4)
    assert "\n" not in str(refusal.value)
    shutil.copytree(bert, tmp_path / "cut")
    file = tmp_path / "cut" / "tokenizer.json"
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(ValueError, match=r"cannot be loaded: \S+"):
        TextEncoder(tmp_path / "cut", 4)


def test_a_tokenizer_of_another_model_and_damaged_weights_are_one_line(bert, tmp_path):
    import torch
    import transformers

    for name, config in (("few words", {"vocab_size": 8}), ("broken", {})):
        model = transformers.BertModel(transformers.AutoConfig.from_pretrained(bert, **config))
        with torch.no_grad():
            model.encoder.layer[1].output.dense.bias[0] = torch.nan
        shutil.copytree(bert, tmp_path / name)
        model.save_pretrained(tmp_path / name)
    with pytest.raises(ValueError, match=r"fails on what its tokenizer makes of texts \(index out of range"):
        TextEncoder(tmp_path / "few words", 4).tokens([Turn("so sorry")])
    with pytest.raises(ValueError, match=r"broken' says NaN, infinity or more than 65504 of 'so sorry'; its weights"):
        TextEncoder(tmp_path / "broken", 4).tokens([Turn("so sorry"), Turn("")])


def test_sound_and_text_are_learned_together_and_told_apart(bert, tmp_path, capsys):
    random, clips = np.random.default_rng(0), []
    splits = ("train", "train", "train", "train", "validation", "test")
    for i in range(36):
        word = ("happy", "sad")[i // 6 % 2]
        text = {} if i % 9 == 0 else {"text": {"happy": "i am so glad", "sad": "so sorry"}[word]}
        clip = make_clip(
            f"c{i}", 12, video=False, size=IMAGE_SIZE, speaker=f"s{i % 6}", split=splits[i % 6],
            labels={"emotion": word, "dialogue": f"d{i % 6}", "turn": i // 6, **text},
        )  # fmt: skip
        clips.append(dataclasses.replace(clip, audio=(random.normal(size=len(clip.audio)) * 3000).astype(np.int16)))
    for i in range(12):  # of text alone, but for two that have nothing
        text = {"text": ("i am so glad", "so sorry")[i % 2]} if i < 10 else {}
        clips.append(make_clip(
            f"t{i}", 0, audio=False, video=False, size=IMAGE_SIZE, speaker=f"s{i % 6}", split=splits[i % 6],
            labels={"emotion": ("happy", "sad")[i % 2], **text},
        ))  # fmt: skip
    columns = {"emotion": "class", "text": "text", "dialogue": "class", "turn": "value"}
    corpus = write_corpus(tmp_path / "corpus", clips, IMAGE_SIZE, IMAGE_SIZE + 16, columns)
    config = tiny_run(workdir=str(tmp_path / "run"), model=tiny_model(), rounds=())
    config.data.corpora, config.data.batch_multiple = (CorpusConfig(str(corpus)),), jax.device_count()
    config.finetune = FinetuneConfig(
        encoder="none", tasks=(emotion("happy", "sad"),), num_steps=30, eval_every=15, batch_frames=400, dropout=0.0,
        text=TextConfig(str(bert), context=1), fusion="gated", modality_dropout=0.3, modality_table=True,
        optimizer=OptimizerConfig(schedule="tri_stage", peak_lr=2e-2, warmup_steps=0),
    )  # fmt: skip
    finetune(Run(config))
    finetune(Run(config))  # the same command goes on where it was
    result = evaluate(Run(config))
    gates = result["gates"]["scratch"]["emotion"]
    assert gates["all"]["clips"] == gates["happy"]["clips"] + gates["sad"]["clips"]
    assert all(of_class["audio"] + of_class["text"] == pytest.approx(1) for of_class in gates.values())
    cells = {name: cell["emotion/ua"]["pooled"] for name, cell in result["modality_table"]["scratch"].items()}
    shares = result["modality_shares"]["scratch"]["emotion/ua"]
    assert list(cells) == ["audio", "text", "audio+text"]
    assert cells["text"] >= 0.8, "words tell, noise does not"
    assert cells["audio+text"] == result["scratch"]["ua"]
    assert shares["text"] > shares["audio"]
    assert sum(shares.values()) == pytest.approx(cells["audio+text"] - 0.5), "nothing shown is one answer to all"
    said = capsys.readouterr().err
    assert "text: 42 of 46 clips have one" in said
    assert "2 clips are left out: they have no audio or text" in said
    with open(tmp_path / "run" / "evaluation" / "scratch-fold1.csv", encoding="utf-8") as table:
        answers = {row["clip_id"]: row for row in csv.DictReader(table)}
    assert "t5" in answers, "text alone is tested too"
    assert answers["t5"]["predicted"] == answers["t5"]["true"]
    assert said.count("text: started in") == 1, "made once for training and test"
    assert "text: done already" in said


@pytest.fixture(scope="module")
def words_alone(tmp_path_factory):
    """A recipe on clips that have nothing but a text, by which their emotion can be told."""
    clips = []
    for i in range(36):
        word = ("glad", "sorry")[i % 2]
        labels = {"emotion": ("happy", "sad")[i % 2], "text": f"i am {'so ' * (i // 2 % 2)}{word}"}
        alone = dict(audio=False, video=False, size=IMAGE_SIZE, speaker=f"s{i // 6}", labels=labels)
        clips.append(make_clip(f"c{i:02}", 0, **alone))
    corpus = write_corpus(tmp_path_factory.mktemp("words") / "corpus", clips, IMAGE_SIZE, IMAGE_SIZE + 16)

    def make(path, **changes):
        part = FinetuneConfig(encoder="none", tasks=(emotion("happy", "sad"),), protocol="speakers-3", **changes)
        config = tiny_run(workdir=str(path), model=tiny_model("audio"), rounds=(), finetune=part)
        config.data.corpora, config.data.batch_multiple = (CorpusConfig(str(corpus)),), jax.device_count()
        return Run(config)

    return make


def test_words_alone_are_told_by_tfidf(words_alone, tmp_path):
    results = probe(words_alone(tmp_path), ["probe-superb"], ["tfidf"])
    assert results["models"]["tfidf"]["ua"] == 1.0
    assert sum(results["models"]["tfidf"]["support"]) == 36, "every clip, though none has a sound"


def test_a_model_of_texts_is_probed_by_its_folder(bert, words_alone, tmp_path, capsys):
    run = words_alone(tmp_path / "run", folds=(1,))
    results = probe(run, ["probe-avsuperb", "probe-emobox"], [str(bert), "tfidf"], shorter=20)
    for name in ("probe-avsuperb", "probe-emobox"):
        figures = results["models"][f"{bert.name}, {name}"]
        assert (sum(figures["support"]), figures["unlabelled_test_seen"].split()[0]) == (12, "unknown")
    assert results["models"][f"{bert.name}, probe-avsuperb"]["ua"] > 0.9, "words differ in the layers of any BERT"
    capsys.readouterr()
    assert probe(words_alone(tmp_path / "run", folds=(1,)), ["probe-avsuperb"], [str(bert)], shorter=20)
    assert "started in" not in capsys.readouterr().err
    deeper = words_alone(tmp_path / "run", folds=(1,), text=TextConfig(str(bert), max_tokens=2))
    with pytest.raises(ValueError, match=r"max_tokens"):
        probe(deeper, ["probe-avsuperb"], [str(bert)], shorter=20)
    with pytest.raises(ValueError, match="a model of text says nothing of single frames"):
        layers(words_alone(tmp_path / "layers", folds=(1,), text=TextConfig(str(bert))), [str(bert)])
    for file in ("vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (bert / file).unlink(missing_ok=True)
    with pytest.raises(ValueError, match=r"--model=.* has no tokenizer"):
        probe(run, ["probe-avsuperb"], [str(bert)])
