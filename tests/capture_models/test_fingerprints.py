"""Fingerprints: what changes them and what must not."""

import hashlib
import json
import os

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from nait_store.capture.fingerprints import canonical_config, model_fingerprint, tokenizer_fingerprint
from nait_store.capture.models import load_model
from nait_store.errors import InvalidInputError, NotFoundError
from nait_store.schemas.record import json_digest
from nait_store.storage.cache_folder import cache_folder
from nait_store.testing.tiny_tokenizers import CHATML_TEMPLATE, tiny_tokenizer


def test_the_fingerprint_is_the_digest_of_tensors_and_configuration(saved_llama):
    tensors = []
    for name, tensor in load_file(saved_llama / "model.safetensors").items():
        digest = hashlib.sha256(np.ascontiguousarray(tensor.numpy()).tobytes()).hexdigest()
        tensors.append([name, "F32", list(tensor.shape), digest])
    config = json.loads((saved_llama / "config.json").read_text())
    for key in ("transformers_version", "dtype", "use_cache"):
        config.pop(key, None)
    expected = json_digest({"revision": 1, "config": config, "tensors": json_digest(sorted(tensors))})
    assert model_fingerprint(str(saved_llama)) == expected


def test_resharding_renaming_and_moving_change_nothing(tiny_llama, saved_llama, tmp_path):
    tiny_llama.save_pretrained(tmp_path / "elsewhere", max_shard_size="8KB")
    assert len(list((tmp_path / "elsewhere").glob("*.safetensors"))) > 3
    assert model_fingerprint(tmp_path / "elsewhere") == model_fingerprint(saved_llama)


def test_the_order_of_tensors_in_a_file_changes_nothing(checkpoint, saved_llama):
    tensors = load_file(checkpoint / "model.safetensors")
    save_file(dict(reversed(tensors.items())), checkpoint / "model.safetensors", metadata={"format": "pt", "x": "y"})
    assert model_fingerprint(checkpoint) == model_fingerprint(saved_llama)


@pytest.mark.parametrize("changes", [{"transformers_version": "9"}, {"use_cache": False}, {"torch_dtype": "float32"}])
def test_how_a_model_was_saved_changes_nothing(checkpoint, saved_llama, changes):
    path = checkpoint / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    assert model_fingerprint(checkpoint) == model_fingerprint(saved_llama)


@pytest.mark.parametrize("changes", [{"rms_norm_eps": 1e-5}, {"num_attention_heads": 4}, {"hidden_act": "gelu"}])
def test_what_a_model_computes_changes_it(checkpoint, saved_llama, changes):
    path = checkpoint / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    assert model_fingerprint(checkpoint) != model_fingerprint(saved_llama)


def test_one_changed_number_changes_it(checkpoint, saved_llama):
    tensors = load_file(checkpoint / "model.safetensors")
    tensors["model.norm.weight"][3] += 1e-6
    save_file(tensors, checkpoint / "model.safetensors", metadata={"format": "pt"})
    assert model_fingerprint(checkpoint) != model_fingerprint(saved_llama)


def test_a_tensors_name_shape_and_dtype_count(tmp_path):
    variants = [
        {"a": torch.zeros(4)},
        {"b": torch.zeros(4)},
        {"a": torch.zeros(2, 2)},
        {"a": torch.zeros(4, dtype=torch.int32)},
    ]
    found = set()
    for index, tensors in enumerate(variants):
        folder = tmp_path / str(index)
        folder.mkdir()
        (folder / "config.json").write_text('{"model_type": "llama"}')
        save_file(tensors, folder / "model.safetensors")
        found.add(model_fingerprint(folder))
    assert len(found) == 4


def test_nested_volatile_keys_are_left_out():
    assert canonical_config({"a": {"dtype": "x", "b": 1}, "torch_dtype": "y"}) == {"a": {"b": 1}}


def test_a_configuration_with_infinity_has_a_fingerprint(checkpoint):
    path = checkpoint / "config.json"
    path.write_text(path.read_text().replace("{", '{"time_step_limit": [0.0, Infinity],', 1))
    assert len(model_fingerprint(checkpoint)) == 64


def test_a_loaded_model_stands_for_its_source(saved_llama):
    assert model_fingerprint(load_model(str(saved_llama))) == model_fingerprint(saved_llama)


def test_a_model_in_memory_is_fingerprinted_by_its_state(tiny_llama):
    same = LlamaForCausalLM(tiny_llama.config)
    same.load_state_dict(tiny_llama.state_dict())
    assert model_fingerprint(same) == model_fingerprint(tiny_llama)
    with torch.no_grad():
        same.model.norm.weight[0] += 1
    assert model_fingerprint(same) != model_fingerprint(tiny_llama)


def test_pickled_checkpoints_are_fingerprinted_by_their_tensors(tiny_llama, tmp_path):
    found = set()
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text('{"model_type": "llama"}')
        torch.save(tiny_llama.state_dict(), folder / "pytorch_model.bin")
        found.add(model_fingerprint(folder))
    assert len(found) == 1


class _Payload:
    def __reduce__(self):
        return os.mkdir, ("pwned",)


def test_a_pickle_that_would_run_code_is_refused_and_does_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    torch.save({"a": _Payload()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InvalidInputError, match="not a file of weights"):
        model_fingerprint(tmp_path)
    assert not (tmp_path / "pwned").exists()


def _header(entry):
    text = json.dumps(entry).encode()
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8 + b"{}",
        (5).to_bytes(8, "little") + b"nojson",
        _header({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}),
        _header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}) + b"\0" * 4,
        _header({"a": {"dtype": "F32"}}),
        _header([]),
        _header({"a": 1}),
    ],
)
def test_damaged_safetensors_are_refused(tmp_path, content):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"model\.safetensors is not a whole"):
        model_fingerprint(tmp_path)


def test_an_index_may_not_point_outside_its_folder(checkpoint):
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../x.safetensors"}}')
    with pytest.raises(InvalidInputError, match="outside"):
        model_fingerprint(checkpoint)


def test_a_model_that_is_not_here_is_not_found():
    with pytest.raises(NotFoundError):
        model_fingerprint("no-such-owner/no-such-model")


# ---- the cache


def cached_files():
    return sorted((cache_folder() / "fingerprints").glob("*"))


def test_a_second_fingerprint_reads_no_tensors(checkpoint, monkeypatch):
    from nait_store.capture import fingerprints

    first = model_fingerprint(checkpoint)
    assert len(cached_files()) == 1
    monkeypatch.setattr(fingerprints, "_digest_safetensors", lambda paths: pytest.fail("read again"))
    assert model_fingerprint(checkpoint) == first


def test_a_rewritten_file_of_the_same_size_is_read_again(checkpoint):
    first = model_fingerprint(checkpoint)
    path = checkpoint / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(1, 1))
    assert model_fingerprint(checkpoint) != first


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe", b"0" * 63, b"0" * 65])
def test_a_damaged_cache_does_not_matter(checkpoint, damage):
    first = model_fingerprint(checkpoint)
    cached_files()[0].write_bytes(damage)
    assert model_fingerprint(checkpoint) == first


def test_a_cache_that_cannot_be_written_does_not_matter(checkpoint, monkeypatch, tmp_path):
    first = model_fingerprint(checkpoint)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("NAIT_STORE_CACHE", str(tmp_path / "file"))
    assert model_fingerprint(checkpoint) == first


# ---- tokenizers


def test_equal_tokenizers_have_equal_fingerprints(tmp_path):
    from transformers import AutoTokenizer

    tokenizer = tiny_tokenizer(chat_template=CHATML_TEMPLATE)
    tokenizer.save_pretrained(tmp_path)
    saved = AutoTokenizer.from_pretrained(tmp_path)
    again = tmp_path / "again"
    saved.save_pretrained(again)
    assert tokenizer_fingerprint(AutoTokenizer.from_pretrained(again)) == tokenizer_fingerprint(saved)
    assert tokenizer_fingerprint(tiny_tokenizer()) == tokenizer_fingerprint(tiny_tokenizer())


def test_using_a_tokenizer_does_not_change_its_fingerprint():
    tokenizer = tiny_tokenizer()
    before = tokenizer_fingerprint(tokenizer)
    tokenizer(["a b", "a"], padding=True, truncation=True, max_length=2)
    assert tokenizer_fingerprint(tokenizer) == before


def test_vocabulary_special_tokens_and_chat_template_change_it():
    variants = [
        tiny_tokenizer(),
        tiny_tokenizer(merges=False),
        tiny_tokenizer(add_bos=True),
        tiny_tokenizer(chat_template=CHATML_TEMPLATE),
        tiny_tokenizer(),
    ]
    variants[-1].pad_token = "</s>"
    assert len({tokenizer_fingerprint(tokenizer) for tokenizer in variants}) == 5


class SlowTokenizer:
    is_fast = False
    chat_template = None

    def __init__(self, vocabulary, vocab_file):
        self.special_tokens_map, self.vocab_files_names = {"eos_token": "</s>"}, {"vocab_file": "spiece.model"}
        self._vocabulary, self.vocab_file = vocabulary, str(vocab_file)

    def get_vocab(self):
        return self._vocabulary


def test_a_slow_tokenizer_is_fingerprinted_by_vocabulary_and_files(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    variants = [({"x": 0}, "a"), ({"x": 0}, "b"), ({"y": 0}, "a"), ({"x": 0}, "missing")]
    found = {tokenizer_fingerprint(SlowTokenizer(vocabulary, tmp_path / name)) for vocabulary, name in variants}
    assert len(found) == 4


# ---- where the cache lies


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    import sys

    assert str(cache_folder()) == os.environ["NAIT_STORE_CACHE"]
    monkeypatch.delenv("NAIT_STORE_CACHE")
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "nait-store"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert str(cache_folder()) == "/home/me/.cache/nait-store"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert str(cache_folder()) == "/home/me/Library/Caches/nait-store"
