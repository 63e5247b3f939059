"""Reading records: every kind of file, every way in which one is broken."""

import csv
import gzip
import io
import json
import math
import os
import subprocess
import sys
import tracemalloc
from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from nait_store.capture import json_records, source_records
from nait_store.capture.readers import RejectedRecord, count_records, open_sources, read_records
from nait_store.errors import InvalidInputError, NotFoundError, StorageError

ROWS = [{"instruction": f"add {i}", "output": str(i), "n": i} for i in range(10)]


def jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def records(path, **options):
    return [item.record for item in read_records(str(path), **options)]


def skipping(path):
    rejected: list[RejectedRecord] = []
    kept = list(read_records(str(path), on_error="skip", rejects=rejected.append))
    return kept, rejected


def write(path, data):
    path.write_bytes(data)
    return path


def parquet_bytes(rows=ROWS):
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def arrow_bytes(rows=ROWS, *, stream=False):
    table, sink = pa.Table.from_pylist(rows), io.BytesIO()
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=3)
    return sink.getvalue()


KINDS = {
    "rows.jsonl": jsonl(ROWS),
    "rows.ndjson": jsonl(ROWS),
    "lines.json": jsonl(ROWS),
    "array.json": json.dumps(ROWS).encode(),
    "pretty.json": json.dumps(ROWS, indent=2).encode(),
    "objects.json": "\n".join(json.dumps(row, indent=1) for row in ROWS).encode(),
    "array.jsonl": json.dumps(ROWS).encode(),
    "rows.parquet": parquet_bytes(),
    "rows.arrow": arrow_bytes(),
    "rows.arrows": arrow_bytes(stream=True),
    "no-suffix": jsonl(ROWS),
    "no-suffix-parquet": parquet_bytes(),
}


@pytest.mark.parametrize("compress", [None, "gz", "zst"])
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_file_gives_the_same_records(tmp_path, name, compress):
    data = KINDS[name]
    if compress == "gz":
        name, data = name + ".gz", gzip.compress(data)
    if compress == "zst":
        name, data = name + ".zst", zstandard.compress(data)
    assert records(write(tmp_path / name, data)) == ROWS


def test_feather_files_are_read(tmp_path):
    pyarrow.feather.write_feather(pa.Table.from_pylist(ROWS), str(tmp_path / "rows.feather"))
    assert records(tmp_path / "rows.feather") == ROWS


def test_gzip_and_zstd_files_of_several_members_are_read_whole(tmp_path):
    half = [jsonl(ROWS[:5]), jsonl(ROWS[5:])]
    assert records(write(tmp_path / "a.jsonl.gz", b"".join(map(gzip.compress, half)))) == ROWS
    assert records(write(tmp_path / "a.jsonl.zst", b"".join(map(zstandard.compress, half)))) == ROWS


def test_compression_is_told_by_content_not_by_name(tmp_path):
    assert records(write(tmp_path / "rows.jsonl", gzip.compress(jsonl(ROWS)))) == ROWS
    assert records(write(tmp_path / "rows.jsonl.gz", jsonl(ROWS))) == ROWS


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
def test_a_cut_off_compressed_file_is_an_error_that_names_it(tmp_path, compress):
    path = write(tmp_path / "rows.jsonl.z", compress(jsonl(ROWS * 100))[:-20])
    with pytest.raises(InvalidInputError, match=r"rows\.jsonl\.z"):
        records(path)


def test_csv_values_stay_text_and_may_hold_line_breaks(tmp_path):
    path = write(tmp_path / "a.csv", b'instruction,output\n"two\nlines, really",007\n\nplain,\n')
    found = list(read_records(str(path)))
    assert [item.record for item in found] == [
        {"instruction": "two\nlines, really", "output": "007"},
        {"instruction": "plain", "output": ""},
    ]
    assert [item.line for item in found] == [2, 5]
    assert [item.source_index for item in found] == [0, 1]


def test_tab_separated_values_are_read(tmp_path):
    assert records(write(tmp_path / "a.tsv", b"text\tn\na,b\t1\n")) == [{"text": "a,b", "n": "1"}]


@pytest.mark.parametrize("header", ["a,a\n1,2\n", "a,\n1,2\n"])
def test_a_csv_header_that_names_columns_badly_is_refused(tmp_path, header):
    with pytest.raises(InvalidInputError, match="header"):
        records(write(tmp_path / "a.csv", header.encode()))


def test_a_csv_row_with_too_many_values_is_rejected_with_its_line(tmp_path):
    kept, rejected = skipping(write(tmp_path / "a.csv", b"a,b\n1,2\n1,2,3\n4,5\n"))
    assert [item.record for item in kept] == [{"a": "1", "b": "2"}, {"a": "4", "b": "5"}]
    assert (rejected[0].line, rejected[0].source_index) == (3, 1)
    assert "3 values under 2 columns" in rejected[0].reason


def test_a_csv_quote_that_never_closes_is_rejected(tmp_path):
    kept, rejected = skipping(write(tmp_path / "a.csv", b'a,b\n1,2\n"1,2\n3,4\n'))
    assert len(kept) == 1
    assert rejected[0].line == 3
    assert "CSV" in rejected[0].reason


def test_a_csv_value_of_a_megabyte_is_read(tmp_path):
    path = write(tmp_path / "a.csv", b"text\n" + b"x" * 1_000_000 + b"\n")
    assert len(records(path)[0]["text"]) == 1_000_000
    assert csv.field_size_limit() >= source_records.MAX_RECORD_BYTES


def test_arrow_values_become_plain_json(tmp_path):
    table = pa.table(
        {
            "text": ["a"],
            "at": pa.array([datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)]),
            "day": [date(2024, 1, 2)],
            "raw": [b"\x00\xff"],
            "price": [Decimal("1.10")],
            "ns": pa.array([1_700_000_000_123_456_789], pa.timestamp("ns")),
            "tags": [["a", "b"]],
            "nested": [{"x": 1, "y": None}],
            "half": pa.array([0.5], pa.float16()),
            "category": pa.array(["c"]).dictionary_encode(),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    assert records(tmp_path / "a.parquet") == [
        {
            "text": "a",
            "at": "2024-01-02T03:04:05+00:00",
            "day": "2024-01-02",
            "raw": "AP8=",
            "price": "1.10",
            "ns": "2023-11-14T22:13:20.123456",
            "tags": ["a", "b"],
            "nested": {"x": 1, "y": None},
            "half": 0.5,
            "category": "c",
        }
    ]


def test_an_index_that_pandas_stored_is_left_out(tmp_path):
    import pandas as pd

    frame = pd.DataFrame({"text": ["a", "a"]}, index=pd.Index([5, 7]))
    frame.to_parquet(tmp_path / "a.parquet")
    assert "__index_level_0__" in pq.read_schema(tmp_path / "a.parquet").names
    assert records(tmp_path / "a.parquet") == [{"text": "a"}, {"text": "a"}]


def test_a_parquet_row_with_nan_is_rejected_with_the_field(tmp_path):
    kept, rejected = skipping(write(tmp_path / "a.parquet", parquet_bytes([{"x": 1.0}, {"x": math.nan}])))
    assert len(kept) == 1
    assert "'x'" in rejected[0].reason
    assert rejected[0].source_index == 1


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_a_damaged_table_is_an_error_that_names_it(tmp_path, name):
    whole = KINDS["rows" + name[1:]]
    with pytest.raises(InvalidInputError, match=name):
        records(write(tmp_path / name, whole[: len(whole) // 2]))


def test_reading_and_understanding_records_loads_neither_torch_nor_transformers():
    code = (
        "import sys, nait_store.capture.readers, nait_store.capture.conversations, nait_store.capture.rendering\n"
        "print(sorted({'torch', 'transformers', 'datasets', 'tokenizers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# ---- broken text


def test_a_broken_line_is_an_error_with_file_line_and_the_way_out(tmp_path):
    lines = jsonl(ROWS).splitlines(keepends=True)
    lines[6] = b'{"instruction": "broken\n'
    path = write(tmp_path / "rows.jsonl", b"".join(lines))
    with pytest.raises(InvalidInputError, match=r"rows\.jsonl:7: not valid JSON") as caught:
        records(path)
    assert "--on-error skip" in str(caught.value)


def test_a_broken_line_is_skipped_reported_and_counted_in_the_positions(tmp_path):
    lines = jsonl(ROWS).splitlines(keepends=True)
    lines[6] = b"{broken\n"
    kept, rejected = skipping(write(tmp_path / "rows.jsonl", b"".join(lines)))
    assert [item.record["n"] for item in kept] == [0, 1, 2, 3, 4, 5, 7, 8, 9]
    assert kept[6].source_index == 7
    assert [(item.line, item.source_index, item.raw) for item in rejected] == [(7, 6, "{broken\n")]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "\xff\xfe"}', "UTF-8"),
        (b'{"text": NaN}', "NaN or infinity in 'text'"),
        (b'{"text": 1e999}', "NaN or infinity"),
        (b'{"text": "\\ud800"}', "Unicode"),
        (b"[1, 2]", "a list, not an object"),
        (b'"text"', "text, not an object"),
        (b"null", "null, not an object"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"n": ' + b"9" * 5_000 + b"}", "digits"),
        (b'{"a": 1} {"b": 2}', "JSON"),
    ],
)
def test_an_unusable_line_is_rejected_with_its_reason(tmp_path, line, reason):
    kept, rejected = skipping(write(tmp_path / "a.jsonl", b'{"text": "a"}\n' + line + b'\n{"text": "b"}\n'))
    assert [item.record["text"] for item in kept] == ["a", "b"]
    assert reason in rejected[0].reason
    assert rejected[0].line == 2
    rejected[0].raw.encode("utf-8")  # the rejects file can hold it


def test_a_rejected_records_raw_text_is_cut(tmp_path):
    _, rejected = skipping(write(tmp_path / "a.jsonl", b'{"x": ' + b"y" * 10_000 + b"\n{}\n"))
    assert len(rejected[0].raw) == 2_000


def test_huge_integers_and_repeated_keys_are_taken_as_json_has_them(tmp_path):
    path = write(tmp_path / "a.jsonl", b'{"n": 1267650600228229401496703205376, "x": 1, "x": 2}\n')
    assert records(path) == [{"n": 2**100, "x": 2}]


def test_a_byte_order_mark_blank_lines_and_windows_line_ends_are_passed_over(tmp_path):
    data = b"\xef\xbb\xbf" + jsonl(ROWS).replace(b"\n", b"\r\n\r\n")
    found = list(read_records(str(write(tmp_path / "a.jsonl", data))))
    assert [item.record for item in found] == ROWS
    assert [item.line for item in found][:3] == [1, 3, 5]


def test_utf_16_text_is_named_as_such(tmp_path):
    with pytest.raises(InvalidInputError, match="UTF-16"):
        records(write(tmp_path / "a.jsonl", '{"text": "a"}\n'.encode("utf-16")))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl", b""),
        ("a.jsonl", b"\n\n"),
        ("a.json", b""),
        ("a.json", b"[]"),
        ("a.csv", b""),
        ("a.csv", b"a,b\n"),
        ("a.parquet", parquet_bytes([{"x": 1}])[:0]),
        ("a.jsonl.gz", gzip.compress(b"", mtime=0)),
    ],
)
def test_an_empty_file_is_a_clear_error(tmp_path, name, data):
    with pytest.raises(InvalidInputError, match=r"empty|no records|not a readable"):
        records(write(tmp_path / name, data), on_error="skip")


def test_a_parquet_file_without_rows_is_a_clear_error(tmp_path):
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "a.parquet")
    with pytest.raises(InvalidInputError, match="no records"):
        records(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[{"a": 1}, {"a": }]', ":1: "),
        ('[{"a": 1},\n {"a": 2}\n {"a": 3}]', ":3: .*','"),
        ('[{"a": 1},\n {"a": "open}]', ":2: "),
        ('[{"a": 1}', "not closed"),
        ('[{"a": 1}] x', "after the array"),
        ('{\n"a": 1}\n{"a": ', ":3: "),
    ],
)
def test_a_broken_json_file_is_an_error_with_its_line_even_when_skipping(tmp_path, text, problem):
    with pytest.raises(InvalidInputError, match=problem):
        list(read_records(str(write(tmp_path / "a.json", text.encode())), on_error="skip"))


def test_unusable_elements_of_a_whole_json_array_are_rejected_singly(tmp_path):
    text = b'[{"a": 1}, 7, {"a": NaN}, {"a": "\xff"}, {"a": 2}]'
    kept, rejected = skipping(write(tmp_path / "a.json", text))
    assert [item.record for item in kept] == [{"a": 1}, {"a": 2}]
    assert [item.source_index for item in rejected] == [1, 2, 3]


@pytest.mark.parametrize(
    ("value", "step"),
    [
        ({"instruction": ["a", "b"], "output": ["c", "d"]}, "one object per record"),
        ({"data": [{"instruction": "a", "output": "b"}]}, "jq"),
    ],
)
def test_one_object_of_columns_is_refused_with_the_way_out(tmp_path, value, step):
    with pytest.raises(InvalidInputError, match="not records") as caught:
        records(write(tmp_path / "a.json", json.dumps(value).encode()))
    assert step in str(caught.value)


def test_one_conversation_alone_in_its_file_is_a_record(tmp_path):
    record = {"messages": [{"role": "user", "content": "hi"}]}
    assert records(write(tmp_path / "a.json", json.dumps(record, indent=1).encode())) == [record]


def test_a_file_of_no_known_kind_is_refused(tmp_path):
    with pytest.raises(InvalidInputError, match="no kind") as caught:
        records(write(tmp_path / "a.txt", b"hello there"))
    assert "Parquet" in str(caught.value)


# ---- sizes


def test_a_record_of_five_megabytes_is_read_from_lines_and_arrays(tmp_path):
    row = {"instruction": "x" * 5_000_000, "output": "y"}
    assert records(write(tmp_path / "a.jsonl", jsonl([row, ROWS[0]]))) == [row, ROWS[0]]
    assert records(write(tmp_path / "a.json", json.dumps([row, ROWS[0]]).encode())) == [row, ROWS[0]]


def test_an_overlong_line_is_rejected_without_being_held(monkeypatch):
    class Endless(io.RawIOBase):
        """Yields {"text": "xxx… for 64 MB, then a good line."""

        left = 64 << 20
        tail = b'"}\n{"text": "next"}\n'

        def readable(self):
            return True

        def readinto(self, buffer):
            if self.left:
                n = min(len(buffer), self.left)
                buffer[:n] = b"x" * n
                self.left -= n
                return n
            n = min(len(buffer), len(self.tail))
            buffer[:n], self.tail = self.tail[:n], self.tail[n:]
            return n

    tracemalloc.start()
    try:
        lines = list(json_records.read_lines(io.BufferedReader(Endless()), limit_bytes=4 << 20))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [(number, whole) for number, _, whole in lines] == [(1, False), (2, True)]
    assert lines[1][1] == b'{"text": "next"}\n'
    assert peak < 16 << 20


def test_an_overlong_record_is_rejected_with_its_line(tmp_path, monkeypatch):
    monkeypatch.setattr(json_records, "MAX_RECORD_BYTES", 1000)
    monkeypatch.setattr(json_records.read_lines, "__defaults__", (1000,))
    path = write(tmp_path / "a.jsonl", jsonl([ROWS[0], {"text": "x" * 2000}, ROWS[1]]))
    kept, rejected = skipping(path)
    assert [item.record for item in kept] == ROWS[:2]
    assert rejected[0].line == 2
    assert "MiB" in rejected[0].reason
    kept, rejected = skipping(write(tmp_path / "a.csv", b"text\nshort\n" + b"x" * 2000 + b"\nlast\n"))
    assert [item.record["text"] for item in kept] == ["short", "last"]
    assert [(item.line, "MiB" in item.reason) for item in rejected] == [(3, True)]


def test_an_overlong_array_element_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(json_records, "MAX_RECORD_BYTES", 1 << 20)
    path = write(tmp_path / "a.json", json.dumps([ROWS[0], {"text": "x" * (4 << 20)}]).encode())
    with pytest.raises(InvalidInputError, match=r"a\.json:1: .*longer than"):
        records(path)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_reading_a_large_file_holds_little_of_it(tmp_path, name):
    rows = [{"text": "x" * 2000, "n": str(i)} for i in range(15_000)]
    if name == "a.csv":
        data = b"text,n\n" + b"".join(f"{row['text']},{row['n']}\n".encode() for row in rows)
    else:
        data = jsonl(rows) if name == "a.jsonl" else json.dumps(rows).encode()
    path = write(tmp_path / name, data)
    del rows, data
    tracemalloc.start()
    try:
        count = sum(1 for _ in read_records(str(path)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 15_000
    assert peak < 12 << 20  # the file has 30 MB


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(
        st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
            st.recursive(
                st.none()
                | st.booleans()
                | st.integers()
                | st.floats(allow_nan=False, allow_infinity=False)
                | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
                lambda inner: st.lists(inner, max_size=3),
                max_leaves=6,
            ),
            max_size=4,
        ),
        min_size=2,
        max_size=6,
    ),
    block=st.integers(1, 40),
    indent=st.sampled_from([None, 1]),
    ascii_only=st.booleans(),
)
def test_json_is_read_alike_wherever_the_blocks_are_cut(values, block, indent, ascii_only):
    class Blocks(io.RawIOBase):
        def __init__(self, data):
            self.data = io.BytesIO(data)

        def read(self, size=-1):
            return self.data.read(block)

    array = json.dumps(values, indent=indent, ensure_ascii=ascii_only).encode()
    lines = "".join(json.dumps(value, ensure_ascii=ascii_only) + "\n" for value in values).encode()
    assert [item.record for item in json_records.read_json(Blocks(array), "a")] == values
    assert [item.record for item in json_records.read_json_lines(Blocks(lines), "a")] == values


# ---- finding sources


def test_globs_are_expanded_in_sorted_order_with_sizes_and_digests(tmp_path):
    for name in ("b.jsonl", "a.jsonl", "c.csv"):
        write(tmp_path / name, b"abc")
    found = open_sources([str(tmp_path / "*.jsonl"), str(tmp_path / "a.jsonl")])
    assert [item.uri for item in found] == [str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]
    assert {item.size_bytes for item in found} == {3}
    # SHA-256 of b"abc", the test vector of FIPS 180
    assert {item.sha256 for item in found} == {"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}


def test_a_file_whose_name_looks_like_a_glob_is_itself(tmp_path):
    path = write(tmp_path / "a[1].jsonl", jsonl(ROWS))
    assert [item.uri for item in open_sources([str(path)])] == [str(path)]


def test_a_missing_file_suggests_near_names(tmp_path):
    write(tmp_path / "pool.jsonl", jsonl(ROWS))
    with pytest.raises(NotFoundError, match=r"pol\.jsonl") as caught:
        open_sources([str(tmp_path / "pol.jsonl")])
    assert "'pool.jsonl'" in str(caught.value)


def test_a_file_url_is_a_local_file(tmp_path):
    path = write(tmp_path / "a.jsonl", jsonl(ROWS))
    assert records(f"file://{path}") == ROWS
    assert open_sources([f"file://{path}"])[0].sha256 is not None


def test_reading_may_stop_early_and_leaves_no_file_open(tmp_path):
    import gc

    for name in ("rows.jsonl", "rows.parquet", "rows.arrow", "array.json"):
        found = read_records(str(write(tmp_path / name, KINDS[name])))
        next(found)
        found.close()
    gc.collect()  # an open file would be a ResourceWarning, which is an error here


@pytest.mark.parametrize("source", ["nowhere/a.jsonl", "nothing-*.jsonl"])
def test_what_matches_nothing_is_not_found(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFoundError):
        open_sources([source])


@pytest.mark.parametrize("source", ["", "a\x00b", "nosuchprotocol://a"])
def test_what_is_no_source_is_refused(source):
    with pytest.raises(InvalidInputError):
        open_sources([source])


def test_no_source_at_all_is_refused():
    with pytest.raises(InvalidInputError, match="no input"):
        open_sources([])


def test_a_plain_folder_is_refused_with_a_glob_to_use(tmp_path):
    with pytest.raises(InvalidInputError, match="folder") as caught:
        open_sources([str(tmp_path)])
    assert "*.jsonl" in str(caught.value)


def test_a_pipe_is_refused_with_what_to_do(tmp_path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(InvalidInputError, match="read only once"):
        open_sources([str(tmp_path / "pipe.jsonl")])


def test_files_on_other_filesystems_are_read(tmp_path):
    import fsspec

    fs = fsspec.filesystem("memory")
    fs.pipe_file("/readers/a.jsonl", jsonl(ROWS))
    fs.pipe_file("/readers/b.parquet", parquet_bytes())
    fs.pipe_file("/readers/c.jsonl.gz", gzip.compress(jsonl(ROWS)))
    try:
        found = open_sources(["memory://readers/*"])
        assert [item.uri for item in found] == [
            "memory:///readers/a.jsonl",
            "memory:///readers/b.parquet",
            "memory:///readers/c.jsonl.gz",
        ]
        assert all(records(item.uri) == ROWS for item in found)
        assert found[0].sha256 is not None
    finally:
        fs.rm("/readers", recursive=True)


def test_a_missing_remote_file_is_not_found():
    with pytest.raises(NotFoundError):
        open_sources(["memory://readers/none.jsonl"])


def test_a_file_that_may_not_be_read_is_a_storage_error(tmp_path, monkeypatch):
    from pathlib import Path

    path = write(tmp_path / "a.jsonl", jsonl(ROWS))

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(StorageError, match="Permission denied"):
        records(path)


@pytest.mark.parametrize(
    ("name", "count"), [("rows.jsonl", 10), ("rows.parquet", 10), ("array.json", None), ("rows.jsonl.gz", None)]
)
def test_records_are_counted_where_that_is_cheap(tmp_path, name, count):
    data = gzip.compress(KINDS["rows.jsonl"]) if name.endswith(".gz") else KINDS[name]
    assert count_records(str(write(tmp_path / name, data))) == count


def test_a_last_line_without_its_end_counts(tmp_path):
    assert count_records(str(write(tmp_path / "a.jsonl", jsonl(ROWS)[:-1]))) == 10
