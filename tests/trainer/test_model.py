"""The Transformer is Llama's and Qwen3's, respects documents, and its cache changes nothing."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from tests.trainer.conftest import small_model
from trainer.attention import by_blocks, document_bias, document_bounds
from trainer.config import RopeScaling
from trainer.model import Cache, Transformer


def randomized(**fields) -> Transformer:
    """A model without its zero-initialized parts, which would hide mistakes behind them."""
    model = Transformer(small_model(**fields), seed=3)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def tokens(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 61, shape, generator=torch.Generator().manual_seed(seed))


SCALINGS = {
    "linear": (RopeScaling(type="linear", factor=2.0), {"rope_type": "linear", "factor": 2.0}),
    "llama3": (
        RopeScaling(factor=4.0, low_freq_factor=1.0, high_freq_factor=3.0, original_context=8),
        {
            "rope_type": "llama3",
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 3.0,
            "original_max_position_embeddings": 8,
        },
    ),
}


@pytest.mark.parametrize("kind", ["linear", "llama3"])
def test_stretched_positions_are_those_of_transformers(kind: str) -> None:
    ours, theirs = SCALINGS[kind]
    model = randomized(qk_norm=False, rope_base=100.0, rope_scaling=ours)
    shape = model.config
    reference = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=shape.vocab_size,
            hidden_size=shape.width,
            intermediate_size=shape.ffn,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            head_dim=shape.head_dim,
            max_position_embeddings=shape.context,
            rope_theta=shape.rope_base,
            rope_scaling=theirs,
            rms_norm_eps=shape.norm_eps,
            attn_implementation="eager",
        )
    ).eval()
    renamed = {name if name == "lm_head.weight" else f"model.{name}": p for name, p in model.named_parameters()}
    reference.load_state_dict(renamed)
    with torch.no_grad():
        torch.testing.assert_close(model(tokens(2, 16)), reference(tokens(2, 16)).logits, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("qk_norm", [False, True])
def test_logits_are_those_of_transformers(qk_norm: bool, tied: bool) -> None:
    model = randomized(qk_norm=qk_norm, tied=tied, rope_base=500.0)
    shape = model.config
    kind, settings = (Qwen3ForCausalLM, Qwen3Config) if qk_norm else (LlamaForCausalLM, LlamaConfig)
    reference = kind(
        settings(
            vocab_size=shape.vocab_size,
            hidden_size=shape.width,
            intermediate_size=shape.ffn,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            head_dim=shape.head_dim,
            max_position_embeddings=shape.context,
            rope_theta=shape.rope_base,
            rms_norm_eps=shape.norm_eps,
            tie_word_embeddings=tied,
            attn_implementation="eager",
        )
    ).eval()
    renamed = {name if name == "lm_head.weight" else f"model.{name}": p for name, p in model.named_parameters()}
    missing, unexpected = reference.load_state_dict(renamed, strict=False)
    assert not unexpected
    assert missing == (["lm_head.weight"] if tied else [])
    with torch.no_grad():
        torch.testing.assert_close(model(tokens(2, 16)), reference(tokens(2, 16)).logits, atol=2e-5, rtol=1e-5)


def test_documents_do_not_see_each_other() -> None:
    model = randomized()
    first, second = tokens(1, 6, seed=1), tokens(1, 10, seed=2)
    documents = torch.tensor([[0] * 6 + [1] * 10])
    with torch.no_grad():
        packed = model(torch.cat((first, second), 1), documents=documents)
        torch.testing.assert_close(packed[:, :6], model(first), atol=1e-5, rtol=1e-5)
        # rotary positions are relative, so a document starting at 6 is the same as one starting at 0
        torch.testing.assert_close(packed[:, 6:], model(second), atol=1e-5, rtol=1e-5)
        whole = model(torch.cat((first, second), 1))
    assert not torch.allclose(packed[:, 6:], whole[:, 6:], atol=1e-3)


def test_the_future_is_unseen() -> None:
    model = randomized()
    before, after = tokens(1, 16), tokens(1, 16)
    after[0, 9:] = (after[0, 9:] + 1) % 61
    with torch.no_grad():
        one, other = model(before), model(after)
    assert torch.equal(one[:, :9], other[:, :9])
    assert not torch.equal(one[:, 9:], other[:, 9:])


def test_the_cache_gives_the_same_hidden_states_for_prompts_of_any_length() -> None:
    model = randomized()
    sequences, lengths = tokens(2, 12), [5, 8]
    cache = Cache.empty(model, 2, 12)
    with torch.no_grad():
        whole = model.hidden(sequences)
        prompt = sequences[:, :8].clone()
        prompt[0, 5:] = 0  # padding of the shorter prompt; its slots are written over later
        hidden = model.extend(prompt, torch.arange(8).expand(2, 8), cache)
        torch.testing.assert_close(hidden[0, :5], whole[0, :5], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(hidden[1], whole[1, :8], atol=1e-5, rtol=1e-5)
        for ahead in range(4):
            places = torch.tensor([[length + ahead] for length in lengths])
            hidden = model.extend(sequences.gather(1, places), places, cache)
            expected = torch.stack([whole[row, place] for row, place in enumerate(places[:, 0].tolist())])
            torch.testing.assert_close(hidden[:, 0], expected, atol=1e-5, rtol=1e-5)


def test_weights_follow_from_the_seed_and_leave_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    first = Transformer(small_model(), seed=5)
    torch.rand(3)
    torch.set_rng_state(state)
    second, third = Transformer(small_model(), seed=5), Transformer(small_model(), seed=6)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.embed_tokens.weight, third.embed_tokens.weight)
    # zero output projections and head: every token equally likely, so the loss is log(vocabulary)
    loss = first(tokens(2, 16), tokens(2, 16, seed=1))
    torch.testing.assert_close(loss, torch.tensor(61.0).log())


def test_ignored_targets_do_not_count() -> None:
    model = randomized()
    inputs, targets = tokens(2, 16), tokens(2, 16, seed=1)
    targets[:, 4:] = -100
    torch.testing.assert_close(model(inputs, targets), model(inputs[:, :4], targets[:, :4]))
    with torch.no_grad():
        _, losses = model.losses(inputs, targets, scale=1.0)
    assert losses.shape == (2, 16)
    assert (losses[:, 4:] == 0).all()
    assert (losses[:, :4] > 0).all()


def test_bf16_computes_in_bf16_over_fp32_weights() -> None:
    model = randomized()
    reference = model(tokens(2, 16), tokens(2, 16, seed=1))
    model.compute_dtype = torch.bfloat16
    assert model.hidden(tokens(2, 16)).dtype == torch.bfloat16
    loss = model(tokens(2, 16), tokens(2, 16, seed=1))
    loss.backward()
    assert {p.grad.dtype for p in model.parameters() if p.grad is not None} == {torch.float32}
    torch.testing.assert_close(loss, reference, atol=0.05, rtol=0)


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_attention_by_blocks_is_attention(kv_heads: int, stored: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Output and gradients, with blocks that do not divide the context, two documents and grouped heads."""
    monkeypatch.setattr("trainer.attention.BLOCK", 7)
    generator = torch.Generator().manual_seed(4)
    query = torch.randn(2, 4, 16, 8, generator=generator, requires_grad=True)
    key, value = (torch.randn(2, kv_heads, 16, 8, generator=generator, requires_grad=True) for _ in range(2))
    upstream = torch.randn(2, 4, 16, 8, generator=generator)
    bias = document_bias(torch.tensor([[0] * 6 + [1] * 10, [0] * 16]), torch.float32)
    found = by_blocks(query, key, value, bias, stored)
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=bias, enable_gqa=True)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    for ours, theirs in zip(
        torch.autograd.grad(found, (query, key, value), upstream),
        torch.autograd.grad(expected, (query, key, value), upstream),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_bounds_list_the_documents_of_the_flattened_batch() -> None:
    bounds = document_bounds(torch.tensor([[0, 0, 1, 1], [0, 0, 0, 0], [3, 4, 4, 5]]))
    assert bounds.offsets.dtype == torch.int32
    assert bounds.offsets.tolist() == [0, 2, 4, 8, 9, 11, 12, 12, 12]  # empty documents up to eight
    assert bounds.longest == 4


def test_recomputed_blocks_give_the_same_gradients() -> None:
    kept, again = randomized(), randomized()
    again.recompute = True
    for model in (kept, again):
        model(tokens(2, 16), tokens(2, 16, seed=1)).backward()
    for one, other in zip(kept.parameters(), again.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


def test_each_group_starts_with_its_deviation() -> None:
    shape = small_model(width=128, embedding_deviation=0.8, head_deviation=0.01, matrices_deviation=0.3)
    weights = dict(Transformer(shape, seed=1).named_parameters())
    expected = {"embed_tokens": 0.8, "lm_head": 0.01, "layers.0.self_attn.q_proj": 0.3, "layers.0.mlp.down_proj": 0.0}
    for name, deviation in expected.items():
        assert float(weights[f"{name}.weight"].detach().std()) == pytest.approx(deviation, rel=0.05), name


def test_without_zero_init_output_projections_are_drawn() -> None:
    model = Transformer(small_model(zero_init=False), seed=1)
    deviation = model.layers[0].self_attn.o_proj.weight.std().item()
    assert deviation == pytest.approx(32**-0.5, rel=0.1)
