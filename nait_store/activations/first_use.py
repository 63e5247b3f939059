"""What the first segment of a process waits for: the imports of Arrow and Zarr."""

from __future__ import annotations

from nait_store.activations.chunks import ArraySpec, zarr_metadata
from nait_store.activations.sample_rows import samples_parquet


def import_formats() -> None:
    """Have Arrow and Zarr import all that writing needs, which takes half a second and more.

    Both do it when they are first used (the first table has pandas imported, where it is installed), which for a
    segment is when everything else is done and its last file is waited for.
    """
    samples_parquet(())
    zarr_metadata([ArraySpec(name="any", shape=(1,), chunks=(1,), dtype="<f4", attributes={})], {})
