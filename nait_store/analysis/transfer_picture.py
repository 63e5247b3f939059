"""Heatmaps of how profiles transfer, drawn by matplotlib (the extra ``plots``)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nait_store.pictures import default_style, literally, picture_bytes, require_matplotlib

if TYPE_CHECKING:
    from nait_store.analysis.transfer import ProfileTransfer

_CELL_INCHES, _ROW_INCHES, _MARGIN_INCHES = 0.7, 0.45, 2.2
_MOST_PAIRS = 60
"""Up to which each has a row in the picture: that of 11 profiles is four feet tall with them."""
_MOST_WRITTEN = 16
"""Columns up to which a cell has room for its number."""


@dataclass(frozen=True)
class _Heatmap:
    """One panel: values [rows, columns], NaN where there is none."""

    title: str
    values: NDArray[np.float64]
    rows: Sequence[str]
    columns: Sequence[str]
    colors: str
    least: float
    row_title: str = ""
    column_title: str = ""


def draw_transfer(found: ProfileTransfer, form: str = "png") -> bytes:
    """Draw cosines, overlaps, areas under the curve and cosines by layer.

    Parameters
    ----------
    found
        What was found.
    form
        ``png``, ``svg`` or ``pdf``.

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    """
    require_matplotlib("heatmaps need", "leave the picture out: the numbers are in the table")
    with default_style():
        from matplotlib.figure import Figure

        panels, has_layers = list(_panels(found)), len(found.pairs) <= _MOST_PAIRS
        side = max(4.5, len(found.profiles) * _CELL_INCHES + _MARGIN_INCHES)
        heights = [side, side, *([len(found.pairs) * _ROW_INCHES + _MARGIN_INCHES] if has_layers else [])]
        figure = Figure(figsize=(2 * side, sum(heights)), layout="constrained")
        where = "" if found.where is None else f" where {found.where}"
        title = f"{found.n_candidates:,} candidates of {found.set_ref}{where}"
        figure.suptitle(literally(title), wrap=True)
        grid = figure.add_gridspec(len(heights), 2, height_ratios=heights)
        for place, panel in enumerate(panels):
            _draw(figure, figure.add_subplot(grid[place // 2, place % 2]), panel)
        if has_layers:
            _draw(figure, figure.add_subplot(grid[2, :]), _by_layer(found))
        return picture_bytes(figure, form)


def _panels(found: ProfileTransfer) -> Iterator[_Heatmap]:
    names = found.profiles
    yield _Heatmap("cosine of the directions", _matrix(found, "cosine"), names, names, "RdBu_r", -1.0)
    yield _Heatmap("rank correlation of the scores", _matrix(found, "spearman"), names, names, "RdBu_r", -1.0)
    title = f"overlap of the best {found.n_best:,} ({100 * found.overlap_by_chance:.1f} % by chance)"
    yield _Heatmap(title, _matrix(found, "overlap"), names, names, "Blues", 0.0)
    aucs = np.array([[domain.aucs.get(name, np.nan) for domain in found.domains] for name in names])
    if not np.isnan(aucs).all():
        title = "area under the curve (0.5 is chance)"
        yield _Heatmap(title, aucs, names, names, "RdBu_r", 0.0, "ranked by", "samples of the domain of")


def _by_layer(found: ProfileTransfer) -> _Heatmap:
    layers = found.layers
    values = np.array([[pair.cosines.get(layer, np.nan) for layer in layers] for pair in found.pairs])
    pairs = [f"{pair.first}, {pair.second}" for pair in found.pairs]
    return _Heatmap("cosine by layer", values, pairs, [str(layer) for layer in layers], "RdBu_r", -1.0, "", "layer")


def _matrix(found: ProfileTransfer, name: str) -> NDArray[np.float64]:
    """[P, P], 1 on the diagonal."""
    values = np.eye(len(found.profiles))
    for pair in found.pairs:
        i, j = found.profiles.index(pair.first), found.profiles.index(pair.second)
        value = getattr(pair, name)
        values[i, j] = values[j, i] = np.nan if value is None else value
    return values


def _draw(figure: Any, axes: Any, panel: _Heatmap) -> None:
    image = axes.imshow(panel.values, cmap=panel.colors, vmin=panel.least, vmax=1.0, aspect="auto")
    axes.set_facecolor("lightgrey")  # where there is no value
    figure.colorbar(image, ax=axes, shrink=0.8)
    turned = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if panel.columns == panel.rows else {}
    axes.set_xticks(range(len(panel.columns)), panel.columns, **turned)
    axes.set_yticks(range(len(panel.rows)), panel.rows)
    axes.set(title=panel.title, xlabel=panel.column_title, ylabel=panel.row_title)
    if len(panel.columns) > _MOST_WRITTEN:
        return
    for (row, column), value in np.ndenumerate(panel.values):
        if not np.isnan(value):
            red, green, blue, _ = image.cmap(image.norm(value))
            dark = 0.3 * red + 0.6 * green + 0.1 * blue < 0.5
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color="white" if dark else "black")
