"""Pictures of score curves, and of scores by source and length."""

from __future__ import annotations

import dataclasses
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import nait_store
from nait_store.analysis.audit import SetAudit
from nait_store.analysis.ratio import RatioReport
from nait_store.cli.main import main
from nait_store.errors import InvalidInputError, MissingExtraError
from tests.selection.choices import PROFILES, Pool, build_pool

Built = tuple[nait_store.Store, Pool]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build_pool(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def ratios(built: Built) -> RatioReport:
    return built[0].analyses.ratio("pool", profile=PROFILES, by="source", targets="source = 'code'")


@pytest.fixture(scope="module")
def audit(built: Built) -> SetAudit:
    return built[0].analyses.audit("pool", "math", "code", by="source", recapture=False)


def pixels(picture: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(picture)) as image:
        return np.asarray(image.convert("RGB"))


def test_a_curve_has_a_row_of_panels_and_sources_a_panel(ratios: RatioReport, built: Built) -> None:
    height, width, _ = pixels(ratios.picture()).shape
    one = pixels(built[0].analyses.ratio("pool", profile="math").picture())
    assert (height // one.shape[0], width / one.shape[1]) == (3, 1.5)
    assert len(np.unique(one.reshape(-1, 3), axis=0)) > 50


def test_scores_of_each_profile_are_drawn(audit: SetAudit) -> None:
    both = pixels(audit.picture())
    one = pixels(dataclasses.replace(audit, profiles=audit.profiles[:1]).picture())
    assert both.shape[0] == 2 * one.shape[0]
    assert len(np.unique(one.reshape(-1, 3), axis=0)) > 50


def test_the_picture_is_the_same_twice_and_names_may_hold_dollars(ratios: RatioReport, audit: SetAudit) -> None:
    odd = dataclasses.replace(ratios, by="$a$ and $\\foo", where="x = '$5 \\bar$'")
    assert odd.picture("svg") == odd.picture("svg")
    assert dataclasses.replace(audit, by="$\\foo$").picture("pdf").startswith(b"%PDF")


def test_scores_that_do_not_differ_are_not_drawn(audit: SetAudit) -> None:
    with pytest.raises(InvalidInputError, match="nothing to draw"):
        dataclasses.replace(audit, profiles=()).picture()


def test_missing_matplotlib_is_an_error_before_anything_is_computed(
    built: Built, ratios: RatioReport, audit: SetAudit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for found in (ratios, audit):
        with pytest.raises(MissingExtraError, match="plots"):
            found.picture()
    command = ["--store", built[0].url, "analyze", "ratio", "nowhere", "--profile", "math"]
    assert main([*command, "--picture", str(tmp_path / "curve.png")]) == 11


def test_the_commands_draw_to_a_file_once(
    built: Built, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = ["--store", built[0].url, "--json", "analyze"]
    for command in (["ratio", "pool", "--profile", "math"], ["audit", "pool", "--profile", "math", "--no-recapture"]):
        file = f"{command[0]}.svg"
        assert main([*store, *command, "--picture", file]) == 0
        assert json.loads(capsys.readouterr().out)["picture"] == str(tmp_path / file)
        assert Path(file).read_bytes().startswith(b"<?xml")
        assert main([*store, *command, "--picture", file]) == 4  # it exists
        assert main([*store, *command, "--picture", file, "--force"]) == 0
        assert main([*store, *command, "--picture", "picture.gif"]) == 7
        capsys.readouterr()
