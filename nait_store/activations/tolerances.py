"""How far apart two captures of one sample may lie: by the dtypes of computing and of storing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nait_store.activations.set_version import SetVersion
from nait_store.schemas.capture import CaptureSettings, StoredDtype

SCORE_FACTOR = 10.0
"""What a relative error of vectors may be in standard deviations of the scores."""
_OF_COMPUTING = {"float32": 1e-3, "float64": 1e-3}
_OF_COMPUTING_OTHERS = 5e-2
_OF_STORING = {
    StoredDtype.FLOAT32: 0.0,
    StoredDtype.FLOAT16: 1e-3,
    StoredDtype.BFLOAT16: 8e-3,
    StoredDtype.INT8: 5e-2,
}


def computing_tolerance(settings: CaptureSettings) -> float:
    """Largest relative error of a sample's vector that batches, devices and releases may bring about."""
    return _OF_COMPUTING.get(settings.compute_dtype, _OF_COMPUTING_OTHERS)


def storing_tolerance(dtype: StoredDtype) -> float:
    """Largest relative error of a sample's vector from rounding it to what is stored."""
    return _OF_STORING[dtype]


def capture_tolerance(version: SetVersion) -> float:
    """Both together, the largest of all segments."""
    records = [segment.record for segment in version.segments]
    computing = [computing_tolerance(one.settings) for one in records]
    storing = [storing_tolerance(array.dtype) for one in records for array in one.arrays]
    return max(computing, default=0.0) + max(storing, default=0.0)


def relative_errors(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """‖a − b‖ / ‖a‖ of each row of two arrays [n, J]; of a row of zeros, ‖b‖."""
    norms = np.linalg.norm(a, axis=1)
    errors: NDArray[np.float64] = np.linalg.norm(a - b, axis=1) / np.where(norms > 0, norms, 1.0)
    return errors
