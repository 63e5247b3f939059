from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nait_store.activations.versions import ActivationSets, SetVersion
from nait_store.errors import IncompatibleError
from nait_store.registry.compatibility import differences, require_compatible
from nait_store.registry.profiles import Profile, ProfileRegistry
from nait_store.registry.recipes import choose_recipe
from nait_store.schemas.capture import CaptureIdentity, Feature, HookPoint, Span, SpanEdges, TemplatePolicy
from nait_store.storage.location import Location
from nait_store.testing.stores import build_set, fake_identity

MEAN = np.ones(8, np.float32)


@pytest.fixture
def profile(local: Location) -> Profile:
    source = build_set(local, "gsm8k", 20, mean=MEAN)
    return ProfileRegistry(local).build("math", source, recipe=choose_recipe())[0]


def candidates(location: Location, **options: Any) -> SetVersion:
    return build_set(location, "pool", 10, first=100, **options)


def with_settings(profile: Profile, **changes: object) -> Profile:
    settings = profile.record.settings.model_copy(update=changes)
    record = profile.record.model_copy(update={"settings": settings})
    changed = object.__new__(Profile)
    changed.__dict__.update(profile.__dict__, record=record)
    return changed


def test_set_of_the_same_capture_is_compatible(local: Location, profile: Profile) -> None:
    version = candidates(local)
    assert differences(profile.record, version) == []
    assert require_compatible(profile, version) == []


IDENTITY_CHANGES: dict[str, object] = {
    "model_fingerprint": "1" * 64,
    "tokenizer_fingerprint": "2" * 64,
    "template": TemplatePolicy(name="chat", sha256="3" * 64),
    "span": Span.RESPONSE,
    "span_edges": SpanEdges.RENDERED,
    "hook_point": HookPoint.ATTN,
    "hook_path": "mlp.down_proj",
    "moe_layout": "expert-flattened:4×2",
}


def test_every_field_of_the_identity_is_tried() -> None:
    assert set(IDENTITY_CHANGES) == set(CaptureIdentity.model_fields)


@pytest.mark.parametrize("field", sorted(IDENTITY_CHANGES))
def test_each_field_of_the_capture_identity_refuses(local: Location, profile: Profile, field: str) -> None:
    identity = fake_identity().model_copy(update={field: IDENTITY_CHANGES[field]})
    found = differences(profile.record, candidates(local, identity=identity))
    assert [(d.field, d.severity) for d in found] == [(field, "refuse")]
    assert found[0].profile_value != found[0].set_value


def test_refusal_names_both_values_and_the_commands_to_run(local: Location, profile: Profile) -> None:
    version = candidates(local, identity=fake_identity("other"))
    with pytest.raises(IncompatibleError) as caught:
        require_compatible(profile, version, force=True)
    text = str(caught.value)
    for expected in (
        "profile math@1 does not apply to set pool@1",
        "model_fingerprint",
        fake_identity().model_fingerprint[:12],
        fake_identity("other").model_fingerprint[:12],
        "--model ./fake-model",
        "nait-store profile build",
    ):
        assert expected in text


def test_advice_for_another_hook_point_names_the_option(local: Location, profile: Profile) -> None:
    version = candidates(local, identity=fake_identity(hook_point=HookPoint.RESIDUAL))
    with pytest.raises(IncompatibleError, match="--hook residual"):
        require_compatible(profile, version)


def test_set_without_the_candidate_feature_is_refused(local: Location, profile: Profile) -> None:
    version = candidates(local, features=[Feature.DRIFT])
    with pytest.raises(IncompatibleError, match=r"reads mean \(profile\), stores drift \(set\)[\s\S]*--features mean"):
        require_compatible(profile, version)


def test_set_without_the_profiles_layers_is_refused(local: Location, profile: Profile) -> None:
    sets = ActivationSets(local)
    version = candidates(local)
    narrowed = profile.record.model_copy(update={"layers": (0, 1, 5)})
    found = differences(narrowed, sets.open(version.reference))
    assert [(d.field, d.profile_value, d.set_value) for d in found] == [("layers", "reads 0-1, 5", "stores 0-1")]


def test_set_may_hold_more_layers_than_the_profile(local: Location) -> None:
    source = build_set(local, "gsm8k", 20, mean=MEAN)
    profile, _ = ProfileRegistry(local).build("math", source, recipe=choose_recipe(), layers=[1])
    assert differences(profile.record, candidates(local)) == []


@pytest.mark.parametrize(
    ("field", "value"), [("max_length_tokens", 64), ("truncation", "left"), ("compute_dtype", "bfloat16")]
)
def test_other_settings_warn_naming_both_values(local: Location, profile: Profile, field: str, value: object) -> None:
    changed, version = with_settings(profile, **{field: value}), candidates(local)
    warnings = require_compatible(changed, version)
    assert len(warnings) == 1
    assert field in warnings[0]
    assert str(value) in warnings[0]
    assert str(getattr(profile.record.settings, field)) in warnings[0]


def test_force_silences_warnings(local: Location, profile: Profile) -> None:
    changed = with_settings(profile, max_length_tokens=64)
    assert require_compatible(changed, candidates(local), force=True) == []


def test_width_of_another_model_is_refused(local: Location, profile: Profile) -> None:
    found = differences(profile.record, candidates(local, n_neurons=9))
    assert ("n_neurons", "8", "9", "refuse") in [(d.field, d.profile_value, d.set_value, d.severity) for d in found]
