"""Scanning a store on S3, against ``s3fs.cat`` of the same objects.

moto serves them on loopback from a process of its own, which is slower than a real object store is at a distance of
a millisecond: what is compared is how busy each keeps it. ``cat`` only fetches; the scan fetches, hashes, keeps the
chunks in the local cache, and scores them.
"""

from __future__ import annotations

import os
import shutil

from benchmarks.harness import Options, Report, interleave, ratio, run, workspace
from benchmarks.scan import Size, random_targets, scan_to_memory, write_set
from nait_store.activations.set_version import SetVersion
from nait_store.storage.location import Location
from nait_store.testing.object_store import object_store

FULL = Size(1024, 16, 4096)  # 134 MB in 64 objects of 2 MB
TOY = Size(128, 2, 256)
N_PROFILES = 4


def chunk_urls(version: SetVersion, location: Location) -> list[str]:
    """Every chunk of the set's one feature, as s3fs names them."""
    segments = location.url.removeprefix("s3://") + "/activations/pool/segments"
    return [
        f"{segments}/{segment.segment_id}/{file.path}"
        for segment in version.segments
        for file in segment.record.files
        if "/c/" in file.path and "_norms" not in file.path
    ]


def body(options: Options, report: Report) -> None:
    """Time fetching alone, and scans with the cache off, empty and full."""
    import s3fs

    size = TOY if options.toy else FULL
    with workspace(options, 2 * size.n_bytes) as folder, object_store() as server:
        cache = folder / "cache"
        os.environ["NAIT_STORE_CACHE"] = str(cache)
        location = Location(server.new_url())
        version = write_set(location, size)
        urls = chunk_urls(version, location)
        targets = random_targets(N_PROFILES, size)
        fs = s3fs.S3FileSystem()

        def scan_without_cache() -> None:
            os.environ["NAIT_STORE_CACHE_SIZE"] = "0"
            try:
                scan_to_memory(fresh(location, version), targets)
            finally:
                del os.environ["NAIT_STORE_CACHE_SIZE"]

        def before(case: str) -> None:
            if case == "scan, cache empty":
                shutil.rmtree(cache / "objects", ignore_errors=True)

        scan_to_memory(fresh(location, version), targets)
        cases = {
            "s3fs cat": lambda: fs.cat(urls),
            "scan, from the local cache": lambda: scan_to_memory(fresh(location, version), targets),
            "scan, cache off": scan_without_cache,
            "scan, cache empty": lambda: scan_to_memory(fresh(location, version), targets),
        }
        times = interleave(cases, options.rounds, before=before)
        report.timings(
            f"{size.n:,} samples × {size.n_layers} layers × {size.n_neurons:,} neurons, float16, on S3 (moto), "
            f"{N_PROFILES} profiles, {len(urls)} objects of {size.n_bytes / len(urls) / 1e6:.1f} MB",
            times,
            reference="s3fs cat",
            work_bytes=size.n_bytes,
        )
        for case in ("scan, cache empty", "scan, cache off"):
            report.limit(f"speed of {case} against s3fs cat", "≥", 0.8, ratio(times["s3fs cat"], times[case]))


def fresh(location: Location, version: SetVersion) -> SetVersion:
    """The same version, opened anew: readers look at the cache's settings when they are made."""
    return SetVersion(location, version.record, version.manifest, version.refs)


if __name__ == "__main__":
    run(__doc__, body, packages=("s3fs", "moto", "numba"))
