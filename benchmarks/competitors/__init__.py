"""Competitors of the scan: a class each, and the list that the benchmark goes through.

README.md, "How to add one", says how to add one.
"""

from __future__ import annotations

from benchmarks.competitors.competitor import Competitor, Scan, installed, missing
from benchmarks.competitors.duckdb_parquet import DuckDbParquet
from benchmarks.competitors.faiss_flat import FaissBytes, FaissHalves
from benchmarks.competitors.lance import LanceDbSearch, LanceScan
from benchmarks.competitors.memmap_torch import MemmapBuffer, MemmapTorch
from benchmarks.competitors.ours import Ours, OursInt8
from benchmarks.competitors.zarr_arrays import TensorStore, ZarrPython, Zarrs

__all__ = ["COMPETITORS", "OURS", "Competitor", "Scan", "installed", "missing"]

OURS: tuple[type[Competitor], ...] = (Ours, OursInt8)
COMPETITORS: tuple[type[Competitor], ...] = (
    MemmapTorch,
    MemmapBuffer,
    FaissHalves,
    FaissBytes,
    LanceScan,
    LanceDbSearch,
    DuckDbParquet,
    ZarrPython,
    Zarrs,
    TensorStore,
)
