"""Files of arrays from strangers: what is whole is read exactly, everything else is refused with a reason."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save

from nait_store.errors import InvalidInputError
from nait_store.registry import tensor_files
from nait_store.registry.tensor_files import HEADER, TensorFormat, parse_tensors, tensor_bytes, tensor_format

ARRAYS: dict[str, NDArray[Any]] = {
    "directions": np.arange(12, dtype=np.float32).reshape(3, 4) / 7,
    "layers": np.array([0, 2, 5], dtype=np.int64),
}
BOTH = pytest.mark.parametrize("kind", list(TensorFormat))


def safetensors_of(header: Mapping[str, Any] | bytes, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def npz_of(entries: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return stream.getvalue()


def npy_of(header: str, body: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text + body


@BOTH
def test_what_is_written_reads_back_bit_by_bit(kind: TensorFormat) -> None:
    found = parse_tensors(tensor_bytes(kind, ARRAYS, "text über"), kind, "f")
    assert (found.header, sorted(found.arrays)) == ("text über", ["directions", "layers"])
    for name, array in ARRAYS.items():
        assert found.arrays[name].tobytes() == array.tobytes()
        assert found.arrays[name].shape == array.shape


@BOTH
def test_equal_input_gives_equal_bytes(kind: TensorFormat) -> None:
    assert tensor_bytes(kind, ARRAYS, "x") == tensor_bytes(kind, ARRAYS, "x")


def test_the_libraries_read_what_is_written(tmp_path: Any) -> None:
    path = tmp_path / "f.safetensors"
    path.write_bytes(tensor_bytes(TensorFormat.SAFETENSORS, ARRAYS, "text"))
    with safe_open(path, "np") as opened:
        np.testing.assert_array_equal(opened.get_tensor("directions"), ARRAYS["directions"])
        assert opened.metadata() == {HEADER: "text"}
    with np.load(io.BytesIO(tensor_bytes(TensorFormat.NPZ, ARRAYS, "text")), allow_pickle=False) as loaded:
        np.testing.assert_array_equal(loaded["directions"], ARRAYS["directions"])
        assert str(loaded[HEADER]) == "text"


def test_fortran_order_big_endian_and_compression_are_understood() -> None:
    stream = io.BytesIO()
    np.savez_compressed(stream, a=np.asfortranarray(ARRAYS["directions"]), b=ARRAYS["directions"].astype(">f8"))
    found = parse_tensors(stream.getvalue(), TensorFormat.NPZ, "f").arrays
    np.testing.assert_array_equal(found["a"], ARRAYS["directions"])
    np.testing.assert_array_equal(found["b"], ARRAYS["directions"].astype(np.float64))


def test_bfloat16_is_the_upper_half_of_float32() -> None:
    values = np.array([1.0, -2.5, 3.140625, 0.0078125], dtype=np.float32)
    bits = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    data = safetensors_of({"v": {"dtype": "BF16", "shape": [4], "data_offsets": [0, 8]}}, bits)
    np.testing.assert_array_equal(parse_tensors(data, TensorFormat.SAFETENSORS, "f").arrays["v"], values)


@pytest.mark.parametrize("name", ["a.pt", "a.PTH", "x/y.bin", "s3://b/a.pkl"])
def test_pickles_are_not_opened(name: str) -> None:
    with pytest.raises(InvalidInputError, match="may be a pickle") as caught:
        tensor_format(name)
    assert "save_file" in str(caught.value.next_step)


@pytest.mark.parametrize("name", ["a", "a.json", "a.npy", ".safetensors", ""])
def test_other_endings_are_refused(name: str) -> None:
    with pytest.raises(InvalidInputError, match="does not say its format"):
        tensor_format(name)


_TENSOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
HOSTILE_SAFETENSORS = {
    "empty": b"",
    "a length beyond the file": struct.pack("<Q", 1 << 62) + b"{}",
    "no JSON": safetensors_of(b"\xff\xfe{"),
    "nesting": safetensors_of(b"[" * 50_000),
    "cut off": safetensors_of({"a": _TENSOR}, bytes(4)),
    "bytes that belong to nothing": safetensors_of({"a": _TENSOR}, bytes(80)),
    "a hole": safetensors_of({"a": _TENSOR | {"data_offsets": [8, 16]}}, bytes(16)),
    "overlap": safetensors_of({"a": _TENSOR, "b": _TENSOR}, bytes(8)),
    "a negative offset": safetensors_of({"a": _TENSOR | {"data_offsets": [-8, 0]}}, bytes(8)),
    "a huge shape": safetensors_of({"a": _TENSOR | {"shape": [1 << 62, 8]}}, bytes(8)),
    "a negative shape": safetensors_of({"a": _TENSOR | {"shape": [-2]}}, bytes(8)),
    "a shape that is text": safetensors_of({"a": _TENSOR | {"shape": "2"}}, bytes(8)),
    "an empty array": safetensors_of({"a": _TENSOR | {"shape": [0, 1 << 40], "data_offsets": [0, 0]}}),
    "many axes": safetensors_of({"a": _TENSOR | {"shape": [1] * 60 + [2]}}, bytes(8)),
    "a type without use": safetensors_of({"a": _TENSOR | {"dtype": "BOOL", "data_offsets": [0, 2]}}, bytes(2)),
    "an unknown type": safetensors_of({"a": _TENSOR | {"dtype": "EVIL"}}, bytes(8)),
    "metadata that is no text": safetensors_of({"__metadata__": {HEADER: 5}, "a": _TENSOR}, bytes(8)),
    "a zip file": npz_of({"a.npy": b""}),
}


@pytest.mark.parametrize("case", HOSTILE_SAFETENSORS)
def test_hostile_safetensors_are_refused(case: str) -> None:
    with pytest.raises(InvalidInputError, match=r"^evil\.safetensors cannot be used: ") as caught:
        parse_tensors(HOSTILE_SAFETENSORS[case], TensorFormat.SAFETENSORS, "evil.safetensors")
    assert caught.value.next_step


_NPY = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}"
_OBJECTS = io.BytesIO()
np.save(_OBJECTS, np.array([print], dtype=object), allow_pickle=True)
HOSTILE_NPZ = {
    "empty": b"",
    "no zip file": b"PK" + bytes(200),
    "cut off": npz_of({"a.npy": npy_of(_NPY, bytes(8))})[:-9],
    "a pickle": npz_of({"a.npy": _OBJECTS.getvalue()}),
    "a pickle that hides as a member": npz_of({"a.pkl": b"cos\nsystem\n(S'true'\ntR."}),
    "a path that leaves": npz_of({"../../etc/passwd": b"root"}),
    "a bomb": npz_of({"a.npy": npy_of(_NPY, bytes(1 << 21))}, zipfile.ZIP_DEFLATED),
    "a huge shape": npz_of({"a.npy": npy_of(_NPY.replace("(2,)", "(10**12,)"), bytes(8))}),
    "a huge shape in digits": npz_of({"a.npy": npy_of(_NPY.replace("(2,)", f"({1 << 62}, 8)"), bytes(8))}),
    "a shape that multiplies to the truth": npz_of({"a.npy": npy_of(_NPY.replace("(2,)", "(-1, -2)"), bytes(8))}),
    "too few bytes": npz_of({"a.npy": npy_of(_NPY, bytes(4))}),
    "an empty array": npz_of({"a.npy": npy_of(_NPY.replace("(2,)", f"(0, {1 << 70})"))}),
    "code in the header": npz_of({"a.npy": npy_of("__import__('os').abort()", bytes(8))}),
    "nesting in the header": npz_of({"a.npy": npy_of("(" * 9_000, bytes(8))}),
    "a header that is too long": npz_of({"a.npy": npy_of(_NPY + " " * 20_000, bytes(8))}),
    "a later version": npz_of({"a.npy": npy_of(_NPY, bytes(8), b"\x09\x00")}),
    "no array": npz_of({"a.npy": b"hello"}),
    "a structured type": npz_of({"a.npy": npy_of(_NPY.replace("'<f4'", "[('x', '<f4')]"), bytes(8))}),
    "a type without use": npz_of({"a.npy": npy_of(_NPY.replace("<f4", "<c8"), bytes(16))}),
    "text": npz_of({"a.npy": npy_of(_NPY.replace("<f4", "<U1"), bytes(8))}),
    "a header that is an array": npz_of({f"{HEADER}.npy": npy_of(_NPY, bytes(8))}),
    "a safetensors file": save({"a": np.ones(2, np.float32)}),
}


@pytest.mark.parametrize("case", HOSTILE_NPZ)
def test_hostile_npz_are_refused(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_files, "MAX_FILE_BYTES", 1 << 20)
    with pytest.raises(InvalidInputError, match=r"^evil\.npz cannot be used: ") as caught:
        parse_tensors(HOSTILE_NPZ[case], TensorFormat.NPZ, "evil.npz")
    assert caught.value.next_step


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_array_that_is_there_twice_is_refused() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for _ in range(2):
            archive.writestr("a.npy", npy_of(_NPY, bytes(8)))
    with pytest.raises(InvalidInputError, match="twice"):
        parse_tensors(stream.getvalue(), TensorFormat.NPZ, "f")


@BOTH
def test_too_many_arrays_are_refused(kind: TensorFormat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_files, "MAX_ARRAYS", 2)
    data = tensor_bytes(kind, dict.fromkeys("abc", ARRAYS["layers"]), "")
    with pytest.raises(InvalidInputError, match="more than the 2 allowed"):
        parse_tensors(data, kind, "f")


@BOTH
def test_files_beyond_the_limit_are_refused(kind: TensorFormat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_files, "MAX_FILE_BYTES", 100)
    with pytest.raises(InvalidInputError, match="larger than 100 bytes"):
        parse_tensors(tensor_bytes(kind, ARRAYS, ""), kind, "f")


@BOTH
def test_a_text_beyond_the_limit_is_refused(kind: TensorFormat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_files, "MAX_HEADER_CHARACTERS", 10)
    with pytest.raises(InvalidInputError, match="at most 10 characters"):
        parse_tensors(tensor_bytes(kind, ARRAYS, "x" * 11), kind, "f")


_SOUND = {kind: tensor_bytes(kind, ARRAYS, "{}") for kind in TensorFormat}


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(list(TensorFormat)),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=6),
    st.integers(0, 3),
)
def test_damaged_files_are_read_or_refused_and_nothing_else(
    kind: TensorFormat, changes: list[tuple[int, int]], cut: int
) -> None:
    data = bytearray(_SOUND[kind])
    for position, value in changes:
        data[position % len(data)] = value
    try:
        found = parse_tensors(bytes(data[: len(data) - cut]), kind, "f")
    except InvalidInputError:
        return
    assert all(array.size > 0 for array in found.arrays.values())
