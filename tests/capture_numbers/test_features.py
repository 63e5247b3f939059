"""Features of every architecture equal plain float64 loops, whatever the batch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from nait_store.capture.session import CaptureSession
from nait_store.schemas.capture import MEASURED_FEATURES, Feature, HookPoint
from nait_store.testing.tiny_models import ARCHITECTURES, MAX_POSITIONS, SLIDING_WINDOW, tiny_model
from nait_store.testing.token_samples import by_sample_id, random_samples

FEATURES = MEASURED_FEATURES
LENGTHS = (1, 2, 1, SLIDING_WINDOW, SLIDING_WINDOW + 1, 3 * SLIDING_WINDOW, 40, 5, MAX_POSITIONS, 11, 11, 33)
TOLERANCE = 1e-5


# architecture → decoder layers, down projection, attention output projection
_LLAMA = ("model.layers", "mlp.down_proj", "self_attn.o_proj")
PATHS = {
    **dict.fromkeys(("llama", "qwen2", "qwen3", "mistral", "gemma2", "gemma3_text", "phi3", "olmo2"), _LLAMA),
    "mixtral": ("model.layers", None, "self_attn.o_proj"),
    "qwen3_moe": ("model.layers", None, "self_attn.o_proj"),
    "gpt2": ("transformer.h", "mlp.c_proj", "attn.c_proj"),
    "gpt_neox": ("gpt_neox.layers", "mlp.dense_4h_to_h", "attention.dense"),
    "opt": ("model.decoder.layers", "fc2", "self_attn.out_proj"),
    "falcon": ("transformer.h", "mlp.dense_4h_to_h", "self_attention.dense"),
    "bloom": ("transformer.h", "mlp.dense_4h_to_h", "self_attention.dense"),
}


class Reference:
    """The same weights in float64, with plain attention where the model has it."""

    def __init__(self, architecture: str, model: Any) -> None:
        self._architecture = architecture
        self._model = copy.deepcopy(model)
        if self._model._can_set_attn_implementation():
            self._model.set_attn_implementation("eager")
        if self._model._can_set_experts_implementation():
            self._model.set_experts_implementation("eager")
        self._model.double()

    def activations(self, hook_point: HookPoint, token_ids: Sequence[int]) -> np.ndarray:
        """[L, T, J] float64."""
        layers_path, down, attention_output = PATHS[self._architecture]
        layers = self._model.get_submodule(layers_path)
        seen: list[np.ndarray] = []
        hooks = []
        for layer in layers:
            if hook_point is HookPoint.RESIDUAL:
                hooks.append(
                    layer.register_forward_hook(
                        lambda _module, _inputs, output: seen.append(
                            (output[0] if isinstance(output, tuple) else output).numpy().reshape(len(token_ids), -1)
                        )
                    )
                )
                continue
            path = attention_output if hook_point is HookPoint.ATTN else down
            hooks.append(
                layer.get_submodule(path).register_forward_pre_hook(
                    lambda _module, inputs: seen.append(inputs[0].numpy().reshape(len(token_ids), -1).copy())
                )
                if path
                else layer.mlp.register_forward_pre_hook(
                    lambda module, inputs: seen.append(expert_activations(module, inputs[0][0]))
                )
            )
        try:
            with torch.no_grad():
                self._model(input_ids=torch.tensor([list(token_ids)]), use_cache=False)
        finally:
            for hook in hooks:
                hook.remove()
        assert len(seen) == len(layers)
        return np.stack(seen)


def expert_activations(block: Any, hidden: torch.Tensor) -> np.ndarray:
    """[T, E·I]: what each routed expert multiplies with its down projection, token by token."""
    gate_up = block.experts.gate_up_proj.numpy()
    n_experts, width = gate_up.shape[0], gate_up.shape[1] // 2
    router = block.gate.weight.numpy()
    result = np.zeros((len(hidden), n_experts, width))
    for token, state in enumerate(hidden.numpy()):
        logits = router @ state
        for expert in np.argsort(-logits)[: block.gate.top_k]:
            gate, up = gate_up[expert, :width] @ state, gate_up[expert, width:] @ state
            result[token, expert] = gate / (1 + np.exp(-gate)) * up
    return result.reshape(len(hidden), n_experts * width)


def reduce(feature: Feature, activations: np.ndarray, content: Sequence[tuple[int, int]]) -> np.ndarray:
    """[L, J] from [L, T, J], by the feature's definition."""
    tokens = [token for low, high in content for token in range(low, high)]
    if feature is Feature.LAST:
        return activations[:, tokens[-1]]
    if feature is Feature.DRIFT:
        return activations[:, tokens[-1]] - activations[:, tokens[0]]
    total = np.zeros((activations.shape[0], activations.shape[2]))
    for token in tokens:
        total += activations[:, token]
    return total / len(tokens)


def assert_close(actual: np.ndarray, expected: np.ndarray) -> None:
    """Norm-wise per layer, [L, J]."""
    difference = np.linalg.norm(actual - expected, axis=-1)
    norm = np.linalg.norm(expected, axis=-1)
    # A drift between equal tokens may be exactly zero (layer 0 of parallel blocks sees only the token).
    assert (difference <= TOLERANCE * norm + 1e-12).all(), (difference / np.maximum(norm, 1e-30)).max()


@pytest.mark.parametrize("hook_point", HookPoint)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_features_equal_a_float64_loop(
    architecture: str, hook_point: HookPoint, model_folder: Callable[[str], str]
) -> None:
    reference = Reference(architecture, tiny_model(architecture))
    samples = random_samples(LENGTHS, seed=3)
    expected = {
        sample.sample.sample_id: (reference.activations(hook_point, sample.token_ids.tolist()), sample.content)
        for sample in samples
    }
    with CaptureSession.open(
        model_folder(architecture), features=FEATURES, hook_point=hook_point, token_budget=130
    ) as session:
        generator = np.random.default_rng(5)
        for size in (len(samples), 5):
            order = generator.permutation(len(samples))[:size]
            captured = by_sample_id(session.capture([samples[index] for index in order]))
            assert len(captured) == size
            for sample_id, features in captured.items():
                activations, content = expected[sample_id]
                assert set(features) == set(FEATURES)
                for feature, values in features.items():
                    assert values.dtype == np.float32
                    assert_close(values, reduce(feature, activations, content))


def test_one_content_token_has_no_drift(model_folder: Callable[[str], str]) -> None:
    samples = random_samples([1] * 3)
    with CaptureSession.open(model_folder("llama"), features=[Feature.DRIFT]) as session:
        for features in by_sample_id(session.capture(samples)).values():
            assert not features[Feature.DRIFT].any()


def test_bfloat16_weights_accumulate_in_float32(model_folder: Callable[[str], str]) -> None:
    samples = random_samples([40, 9, 23])
    with CaptureSession.open(model_folder("llama"), features=FEATURES, compute_dtype="bfloat16") as session:
        low = by_sample_id(session.capture(samples))
    with CaptureSession.open(model_folder("llama"), features=FEATURES) as session:
        full = by_sample_id(session.capture(samples))
    for sample_id, features in low.items():
        mean = features[Feature.MEAN]
        # A mean that had been rounded to bfloat16 would leave the low 16 bits of every float32 empty.
        assert (mean.view(np.uint32) & 0xFFFF).any()
        exact = full[sample_id][Feature.MEAN]
        assert np.linalg.norm(mean - exact) < 0.05 * np.linalg.norm(exact)


def test_a_subset_of_layers_gives_those_rows(model_folder: Callable[[str], str]) -> None:
    samples = random_samples([8, 30])
    with CaptureSession.open(model_folder("llama"), features=[Feature.MEAN]) as session:
        whole = by_sample_id(session.capture(samples))
    with CaptureSession.open(model_folder("llama"), features=[Feature.MEAN], layers=[2, 0]) as session:
        assert session.layers == (0, 2)
        assert session.n_model_layers == 3
        for sample_id, features in by_sample_id(session.capture(samples)).items():
            np.testing.assert_allclose(features[Feature.MEAN], whole[sample_id][Feature.MEAN][[0, 2]], rtol=1e-6)
