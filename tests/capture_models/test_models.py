"""Loading models: what is recorded, and what is refused in which words."""

import json
import logging

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, LlamaForCausalLM, T5Config

from nait_store.capture.models import load_model
from nait_store.errors import InvalidInputError, NotFoundError
from nait_store.testing.tiny_tokenizers import tiny_tokenizer


def edit_config(folder, **changes):
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def refusal(source, kind=InvalidInputError, **options):
    with pytest.raises(kind) as caught:
        load_model(str(source), **options)
    assert caught.value.next_step
    return str(caught.value)


def test_a_folder_is_loaded_with_what_there_is_to_record(checkpoint, tiny_llama):
    loaded = load_model(str(checkpoint))
    assert (loaded.model_type, loaded.hidden_size, loaded.n_layers) == ("llama", 16, 2)
    assert loaded.n_parameters == sum(parameter.numel() for parameter in tiny_llama.parameters())
    assert (loaded.dtype, loaded.max_positions, loaded.revision) == ("float32", 64, None)
    assert (loaded.vocabulary_size, loaded.pad_token_id) == (400, 2)
    assert not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    ids = torch.tensor([[5, 6, 7]])
    with torch.inference_mode():
        expected = tiny_llama(ids).logits
        found = loaded.model(ids.to(loaded.device)).logits.cpu()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_loading_says_nothing(checkpoint, capfd):
    load_model(str(checkpoint))
    out, err = capfd.readouterr()
    assert out + err == ""


@pytest.mark.parametrize("level", [logging.INFO, logging.DEBUG])
def test_transformers_is_left_as_talkative_as_it_was_and_talks_under_debug(checkpoint, caplog, monkeypatch, level):
    from transformers import AutoTokenizer
    from transformers.utils import logging as transformers_logging

    def settings():
        return transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()

    before, during = settings(), []
    load = AutoTokenizer.from_pretrained
    monkeypatch.setattr(
        AutoTokenizer, "from_pretrained", lambda *args, **options: during.append(settings()) or load(*args, **options)
    )
    with caplog.at_level(level, "nait_store"):
        load_model(str(checkpoint))
    assert settings() == before
    assert (during == [before]) == (level == logging.DEBUG)


def test_a_hub_model_in_the_local_cache_is_loaded_with_its_commit(checkpoint, tmp_path, monkeypatch):
    from huggingface_hub import constants

    from nait_store.capture.fingerprints import model_fingerprint

    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--owner--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots").mkdir()
    checkpoint.rename(repository / "snapshots" / commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    loaded = load_model("owner/tiny")
    assert loaded.revision == commit
    assert model_fingerprint(loaded) == model_fingerprint(repository / "snapshots" / commit)


@pytest.mark.parametrize(
    ("stored", "asked", "used"),
    [
        ("bfloat16", "auto", "bfloat16"),
        ("float16", "auto", "float32"),
        ("float16", "float16", "float16"),
        ("float32", "bfloat16", "bfloat16"),
    ],
)
def test_the_dtype_is_the_checkpoints_except_half_precision_on_a_cpu(tiny_llama, tmp_path, stored, asked, used):
    model = LlamaForCausalLM(tiny_llama.config).to(getattr(torch, stored))
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    assert load_model(str(tmp_path), dtype=asked, device="cpu").dtype == used


def test_an_unknown_dtype_or_device_is_refused(checkpoint):
    assert "'float32'" in refusal(checkpoint, dtype="float23")
    assert "'abacus'" in refusal(checkpoint, device="abacus")


def test_a_padding_id_is_valid_even_without_a_padding_token(checkpoint):
    path = checkpoint / "tokenizer_config.json"
    config = json.loads(path.read_text())
    del config["pad_token"]
    path.write_text(json.dumps(config))
    loaded = load_model(str(checkpoint))
    assert loaded.pad_token_id == loaded.tokenizer.eos_token_id == 1
    assert loaded.tokenizer.pad_token is None


# ---- what is refused


@pytest.mark.parametrize("source", ["/nowhere/at/all", "./modle", "a/b/c", "~/no/such/model"])
def test_a_path_that_does_not_exist_is_not_found(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    message = refusal(source, NotFoundError)
    assert source in message
    if source == "./modle":
        assert "'model'" in message


def test_a_name_that_is_no_folder_and_not_on_the_hub_is_not_found(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "neither a folder here nor a model on the hub" in refusal("no-such-owner/no-such-model", NotFoundError)


@pytest.mark.parametrize("source", ["", " ", "a\x00b"])
def test_what_is_no_name_is_refused(source):
    refusal(source)


def test_a_file_is_refused(checkpoint):
    assert "is a file" in refusal(checkpoint / "config.json")


def test_a_folder_without_config_says_what_it_holds(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    message = refusal(tmp_path)
    assert "config.json" in message
    assert "notes.txt" in message


@pytest.mark.parametrize("text", ["{", "[]", '{"hidden_size": 4}'])
def test_a_bad_config_is_refused(checkpoint, text):
    (checkpoint / "config.json").write_text(text)
    assert "config.json" in refusal(checkpoint)


def test_a_folder_without_weights_says_which_files_are_missing(checkpoint):
    (checkpoint / "model.safetensors").unlink()
    message = refusal(checkpoint)
    assert "no weights" in message
    assert "model.safetensors" in message


def test_a_missing_shard_is_named(tiny_llama, checkpoint):
    (checkpoint / "model.safetensors").unlink()
    tiny_llama.save_pretrained(checkpoint, max_shard_size="10KB")
    shards = sorted(checkpoint.glob("model-*.safetensors"))
    shards[1].unlink()
    message = refusal(checkpoint)
    assert shards[1].name in message
    assert f"1 of {len(shards)}" in message


def test_code_of_its_own_is_refused_with_what_trusting_means(checkpoint):
    edit_config(checkpoint, model_type="strange", auto_map={"AutoConfig": "c.C", "AutoModelForCausalLM": "m.M"})
    message = refusal(checkpoint)
    assert "code of its own" in message
    assert "--trust-remote-code" in message
    assert "with your rights" in message


def test_an_unknown_architecture_is_refused(checkpoint):
    edit_config(checkpoint, model_type="strange")
    message = refusal(checkpoint)
    assert "architecture" in message
    assert "strange" in message
    assert "upgrade" in message


@pytest.mark.parametrize(
    ("config", "what"),
    [
        (T5Config(d_model=16, num_layers=1, num_heads=2, d_ff=16), "an encoder-decoder"),
        (BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2), "a bidirectional encoder"),
    ],
)
def test_what_is_no_decoder_is_refused_before_weights_are_read(config, what, tmp_path):
    config.save_pretrained(tmp_path)
    message = refusal(tmp_path)
    assert what in message
    assert "decoder-only" in message


def test_a_vision_model_is_refused(tmp_path):
    from transformers import ViTConfig

    ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2).save_pretrained(tmp_path)
    assert "no causal language model" in refusal(tmp_path)


def test_a_model_without_tokenizer_is_refused(checkpoint):
    for path in checkpoint.glob("tokenizer*"):
        path.unlink()
    assert "no tokenizer" in refusal(checkpoint)


def test_a_broken_tokenizer_is_refused(checkpoint):
    (checkpoint / "tokenizer.json").write_text("{")
    assert "no tokenizer" in refusal(checkpoint)


@pytest.mark.parametrize("keep", [0, 4, 100, -8])
def test_damaged_weights_are_refused(checkpoint, keep):
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    assert "damaged" in refusal(checkpoint)


def test_weights_of_other_shapes_are_refused(checkpoint):
    edit_config(checkpoint, intermediate_size=48)
    assert "shapes" in refusal(checkpoint)


def test_weights_that_lack_a_tensor_are_refused_not_made_up(checkpoint):
    path = checkpoint / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    message = refusal(checkpoint)
    assert "lack 1 of" in message
    assert "model.layers.1.mlp.up_proj.weight" in message


def test_a_missing_language_model_head_does_not_matter(checkpoint):
    path = checkpoint / "model.safetensors"
    tensors = load_file(path)
    del tensors["lm_head.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    assert load_model(str(checkpoint)).n_layers == 2
