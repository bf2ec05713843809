from __future__ import annotations

import dataclasses
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusionad_client import contract
from diffusionad_client.contract import Step
from diffusionad_client.errors import CategoryNameError

WORD = st.text(string.ascii_letters + string.digits + "-", min_size=1, max_size=12)
FIRST = st.sampled_from(string.ascii_letters + string.digits)
NAMES = st.builds(lambda first, words: first + "_".join(words), FIRST, st.lists(WORD, min_size=1))


@given(NAMES.filter(lambda name: len(name) <= contract.MAX_CATEGORY_LENGTH))
def test_words_joined_by_single_underscores_name_a_category(name: str) -> None:
    assert contract.check_category(name) == name
    assert contract.is_category(name)


@given(NAMES, st.sampled_from(Step))
def test_no_step_of_any_category_is_itself_a_category(name: str, step: Step) -> None:
    assert not contract.is_category(contract.step_model(name, step))


@given(st.text(max_size=80))
def test_the_check_and_the_question_agree_on_any_text(text: str) -> None:
    try:
        accepted = contract.check_category(text) == text
    except CategoryNameError:
        accepted = False
    assert accepted == contract.is_category(text)


@pytest.mark.parametrize(
    "name", ["", "a__b", "_a", "a_", "-a", "a b", "a/b", "../a", "a.b", "schräg", "a\n", "a" * 65]
)
def test_other_names_are_refused_with_an_example(name: str) -> None:
    with pytest.raises(CategoryNameError, match="'screw'"):
        contract.check_category(name)


@given(st.integers(1, 4096), st.sampled_from(list(contract.CONTRACTS)))
def test_every_tensor_between_steps_is_made_by_an_earlier_step(size: int, agreed: int) -> None:
    made = {contract.IMAGE: contract.ensemble_signature(size, agreed).inputs[0]}
    for step in contract.CONTRACTS[agreed]:
        signature = contract.step_signature(step, size)
        for tensor in signature.inputs:
            assert made[tensor.name] == tensor
        for tensor in signature.outputs:
            name = contract.tensor_in_ensemble(step, tensor.name, agreed)
            made[name] = dataclasses.replace(tensor, name=name)
    for tensor in contract.ensemble_signature(size, agreed).outputs:
        assert made[tensor.name] == tensor


@given(st.integers(1, 4096), st.sampled_from(list(contract.CONTRACTS)))
def test_no_output_of_an_ensemble_is_a_steps_input_too(size: int, agreed: int) -> None:
    """Triton would leave out the step that makes it: see `contract.tensor_in_ensemble`."""
    outputs = {tensor.name for tensor in contract.ensemble_signature(size, agreed).outputs}
    for step in contract.CONTRACTS[agreed]:
        taken = {tensor.name for tensor in contract.step_signature(step, size, agreed).inputs}
        assert not taken & outputs


@given(st.integers(1, 4096))
def test_steps_of_two_contracts_share_a_name_only_if_they_share_their_tensors(size: int) -> None:
    for name, (step, first) in contract.step_models("screw").items():
        for agreed, endings in contract.CONTRACTS.items():
            if step in endings and contract.step_model("screw", step, agreed) == name:
                signature = contract.step_signature(step, size, agreed)
                assert signature == contract.step_signature(step, size, first)


def test_the_public_face_is_the_documented_one() -> None:
    signature = contract.ensemble_signature(256, 1)
    assert signature.inputs == (contract.TensorSpec("IMAGE", "UINT8", (256, 256, 3)),)
    assert signature.outputs == (
        contract.TensorSpec("SCORE", "FP32", (1,)),
        contract.TensorSpec("ANOMALY_MAP", "FP32", (256, 256)),
        contract.TensorSpec("RECONSTRUCTION", "UINT8", (256, 256, 3)),
    )


def test_an_answer_of_contract_2_says_what_it_was_judged_by() -> None:
    before, now = contract.ensemble_signature(256, 1), contract.ensemble_signature(256, 2)
    assert now.inputs == before.inputs
    assert now.outputs == (
        *before.outputs,
        contract.TensorSpec("VERDICT", "BYTES", (1,)),
        contract.TensorSpec("THRESHOLDS", "FP32", (3,)),
        contract.TensorSpec("RELEASE", "BYTES", (1,)),
    )


def test_the_encoded_form_takes_a_file_and_answers_as_the_category_does() -> None:
    assert contract.encoded_model("screw") == "screw__encoded"
    assert contract.decoding_model(256) == "image_decoding_256"
    file = (contract.TensorSpec("IMAGE_BYTES", "BYTES", (1,)),)
    plain = contract.ensemble_signature(256, 2)
    assert contract.decoding_signature(256) == contract.Signature(file, plain.inputs)
    assert contract.encoded_signature(256, 2) == contract.Signature(file, plain.outputs)


@given(NAMES)
def test_no_encoded_form_is_itself_a_category(name: str) -> None:
    assert not contract.is_category(contract.encoded_model(name))


@given(st.integers(1, 4096))
def test_no_category_takes_the_name_of_a_model_that_decodes(size: int) -> None:
    name = contract.decoding_model(size)
    assert not contract.is_category(name)
    with pytest.raises(CategoryNameError, match="'image_decoding_' belong to the models"):
        contract.check_category(name)
