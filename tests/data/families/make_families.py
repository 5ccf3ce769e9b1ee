"""Writes the tiny random checkpoints of tst_families with the outputs of the transformers library, in f32.

    python make_families.py [case ...]        needs torch, safetensors, numpy and transformers

The files beside this script were made with transformers 5.24.0 and torch 2.11.0 on a CPU. Weights are drawn from fixed
seeds and rounded to float16, in which they are stored; expected.safetensors holds what the library computes from them.

A case is a folder with config.json, model.safetensors and expected.safetensors:
  ids                int64 [tokens]
  logits             [tokens, vocab_size], the whole text at once
  step_logits        [tokens, vocab_size], token by token through a cache; only where that differs from `logits`
  short_ids, short_logits   a shorter text that ran left-padded in one batch with `ids`
  embedded           [tokens, hidden_size], what the first block reads
  hidden             [layers, tokens, hidden_size], what each block returns
  key, value         [layers, kv_heads, tokens, head_dim], as the cache holds them
  key_pre_rope       the same before rotation, after the norm of keys
  query, query_pre_rope     [layers, heads, tokens, head_dim]
  in.q, in.o, in.up, in.down   inputs of these linears in the last block, [tokens, in_features]; in.up is the router's
                               input where there are experts, and in.down is missing there
"""

import json
import math
import pathlib
import shutil
import sys

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, DynamicCache
from transformers import (
    FalconConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    OPTConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
)

HERE = pathlib.Path(__file__).parent
TOKENS, SHORT = 40, 11
SIZES = dict(
    vocab_size=96,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    max_position_embeddings=64,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
)
GQA = dict(num_key_value_heads=2)


def rope(kind, **settings):
    return dict(rope_theta=10000.0, rope_type=kind, **settings)


FACTORS = dict(short_factor=[1.0, 1.1, 1.3, 1.6], long_factor=[1.0, 2.0, 5.0, 9.0])

# name: (configuration, whether config.json is rewritten to the keys of transformers 4)
CASES = {
    "llama": (LlamaConfig(**SIZES, **GQA, rms_norm_eps=1e-5), True),
    "llama_bias": (LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True, tie_word_embeddings=True), False),
    "llama3": (
        LlamaConfig(
            **SIZES,
            **GQA,
            rope_parameters=rope(
                "llama3",
                factor=8.0,
                low_freq_factor=1.0,
                high_freq_factor=4.0,
                original_max_position_embeddings=16,
            ),
        ),
        True,
    ),
    "llama_linear": (LlamaConfig(**SIZES, **GQA, rope_parameters=rope("linear", factor=4.0)), True),
    "llama_dynamic": (
        LlamaConfig(**{**SIZES, "max_position_embeddings": 16}, **GQA, rope_parameters=rope("dynamic", factor=4.0)),
        True,
    ),
    "llama_yarn": (
        LlamaConfig(
            **SIZES,
            **GQA,
            rope_parameters=rope("yarn", factor=4.0, original_max_position_embeddings=16),
        ),
        False,
    ),
    "mistral": (MistralConfig(**SIZES, **GQA, sliding_window=8), False),
    "mixtral": (
        MixtralConfig(**{**SIZES, "intermediate_size": 24}, **GQA, num_local_experts=4, num_experts_per_tok=2),
        True,
    ),
    "qwen2": (
        Qwen2Config(**SIZES, **GQA, use_sliding_window=True, sliding_window=8, max_window_layers=1),
        True,
    ),
    "qwen3": (Qwen3Config(**SIZES, **GQA, head_dim=16), False),
    "gemma": (GemmaConfig(**SIZES, num_key_value_heads=1, head_dim=16), False),
    "gemma2": (
        Gemma2Config(
            **SIZES,
            **GQA,
            head_dim=16,
            query_pre_attn_scalar=24,
            sliding_window=8,
            attn_logit_softcapping=5.0,
            final_logit_softcapping=3.0,
        ),
        False,
    ),
    "gemma3": (
        Gemma3TextConfig(
            **{**SIZES, "num_hidden_layers": 3},
            **GQA,
            head_dim=16,
            query_pre_attn_scalar=24,
            sliding_window=8,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
            rope_parameters={
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            },
        ),
        False,
    ),
    "gemma3_old_keys": (
        Gemma3TextConfig(
            **{**SIZES, "num_hidden_layers": 3},
            **GQA,
            head_dim=8,
            query_pre_attn_scalar=8,
            sliding_window=8,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
            rope_parameters={
                "full_attention": {"rope_type": "default", "rope_theta": 1000000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            },
        ),
        True,
    ),
    "phi3": (Phi3Config(**SIZES, **GQA, original_max_position_embeddings=64, sliding_window=8), True),
    "phi3_longrope": (
        Phi3Config(
            **SIZES,
            **GQA,
            original_max_position_embeddings=16,
            rope_parameters=rope("longrope", **FACTORS),
        ),
        True,
    ),
    "phi3_longrope_short": (
        Phi3Config(
            **{**SIZES, "max_position_embeddings": 128},
            **GQA,
            original_max_position_embeddings=64,
            rope_parameters=rope("longrope", partial_rotary_factor=0.5, short_factor=[1.0, 1.2], long_factor=[2.0, 4.0]),
        ),
        False,
    ),
    "opt": (
        OPTConfig(
            **{k: v for k, v in SIZES.items() if k != "intermediate_size"}, ffn_dim=48, word_embed_proj_dim=32
        ),
        True,
    ),
    "opt_350m": (
        OPTConfig(
            **{k: v for k, v in SIZES.items() if k != "intermediate_size"},
            ffn_dim=48,
            word_embed_proj_dim=16,
            do_layer_norm_before=False,
        ),
        True,
    ),
    "gpt2": (
        GPT2Config(
            vocab_size=96, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=2, pad_token_id=0
        ),
        True,
    ),
    "gpt_neox": (
        GPTNeoXConfig(
            **SIZES, rope_parameters={"rope_theta": 10000.0, "rope_type": "default", "partial_rotary_factor": 0.5}
        ),
        True,
    ),
    "gpt_neox_sequential": (
        GPTNeoXConfig(
            **SIZES,
            use_parallel_residual=False,
            rope_parameters={"rope_theta": 10000.0, "rope_type": "default", "partial_rotary_factor": 0.5},
        ),
        False,
    ),
    "falcon_7b": (
        FalconConfig(**{k: v for k, v in SIZES.items() if k != "intermediate_size"}, ffn_hidden_size=64),
        True,
    ),
    "falcon_40b": (
        FalconConfig(
            **{k: v for k, v in SIZES.items() if k != "intermediate_size"},
            ffn_hidden_size=64,
            new_decoder_architecture=True,
            num_kv_heads=2,
            bias=True,
        ),
        False,
    ),
}


def draw_weights(model, seed):
    generator = torch.Generator().manual_seed(seed)
    gemma = model.config.model_type.startswith("gemma")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "embed" in name or "wte" in name or "wpe" in name:
                noise *= 0.3 if gemma else 0.7
            elif parameter.dim() == 1 and name.endswith("weight"):
                noise = noise * 0.3 + (0.0 if gemma else 1.0)
            elif parameter.dim() == 1:
                noise *= 0.3
            else:
                noise *= 1.4 / math.sqrt(min(parameter.shape[-2:]))
            parameter.copy_(noise.half().float())
    model.tie_weights()


def old_keys(config):
    """config.json as transformers 4 wrote it."""
    settings = config.pop("rope_parameters", None)
    config["torch_dtype"] = config.pop("dtype", "float16")
    kind = config["model_type"]
    if kind == "gemma3_text":
        config["rope_theta"] = settings["full_attention"]["rope_theta"]
        config["rope_local_base_freq"] = settings["sliding_attention"]["rope_theta"]
        config["sliding_window_pattern"] = 2
        config["rope_scaling"] = None
        config.pop("layer_types")
    elif settings is not None:
        config["rotary_emb_base" if kind == "gpt_neox" else "rope_theta"] = settings.pop("rope_theta")
        share = settings.pop("partial_rotary_factor", None)
        if kind == "gpt_neox":
            config["rotary_pct"] = share
        settings.pop("original_max_position_embeddings", None) if kind == "phi3" else None
        config["rope_scaling"] = None if settings.get("rope_type") == "default" else settings
    if kind == "qwen2":
        config.pop("layer_types")
    if kind == "llama" and config["rope_scaling"] is None:
        config["pretraining_tp"] = 1
    if kind in ("opt", "phi3"):
        del config["architectures"]  # found by model_type
    return config


def blocks_of(model):
    base = model.base_model
    base = getattr(base, "decoder", base)
    for name in ("layers", "h"):
        if hasattr(base, name):
            return getattr(base, name)
    raise ValueError(type(model))


def part(block, *names):
    for name in names:
        found = block
        for step in name.split("."):
            found = getattr(found, step, None)
            if found is None:
                break
        if found is not None:
            return found
    return None


class Recorder:
    """Collects what flows through a model in one forward pass."""

    def __init__(self, model):
        self.model, self.handles = model, []
        self.hidden, self.inputs, self.rotations, self.queries = [], {}, [], []
        blocks = blocks_of(model)
        for index, block in enumerate(blocks):
            if index == 0:
                self.hook_input(block, "embedded")
            self.handles.append(
                block.register_forward_hook(lambda _m, _i, o: self.hidden.append((o[0] if isinstance(o, tuple) else o)))
            )
        last = blocks[-1]
        self.hook_input(part(last, "self_attn.q_proj", "self_attn.qkv_proj", "attn.c_attn", "attention.query_key_value",
                             "self_attention.query_key_value"), "in.q")
        self.hook_input(part(last, "self_attn.o_proj", "self_attn.out_proj", "attn.c_proj", "attention.dense",
                             "self_attention.dense"), "in.o")
        up = part(last, "mlp.gate", "mlp.up_proj", "mlp.gate_up_proj", "fc1", "mlp.c_fc", "mlp.dense_h_to_4h")
        self.hook_input(up, "in.up")
        down = part(last, "mlp.down_proj", "fc2", "mlp.c_proj", "mlp.dense_4h_to_h")
        if down is not None:
            self.hook_input(down, "in.down")
        module = sys.modules[type(model).__module__]
        self.module, self.rotate = module, getattr(module, "apply_rotary_pos_emb", None)
        if self.rotate is not None:

            def recording(q, k, *args, **kwargs):
                turned = self.rotate(q, k, *args, **kwargs)
                self.rotations.append((q, k, *turned))
                return turned

            module.apply_rotary_pos_emb = recording
        for block in blocks:
            fused = part(block, "attn.c_attn")
            query = part(block, "self_attn.q_proj") if model.config.model_type == "opt" else fused
            if query is not None:
                self.handles.append(query.register_forward_hook(lambda _m, _i, o: self.queries.append(o)))

    def hook_input(self, module, name):
        def keep(_module, args, kwargs):
            value = args[0] if args else kwargs["hidden_states"]
            self.inputs[name] = value.detach().reshape(-1, value.shape[-1]).clone()

        self.handles.append(module.register_forward_pre_hook(keep, with_kwargs=True))

    def close(self):
        for handle in self.handles:
            handle.remove()
        if self.rotate is not None:
            self.module.apply_rotary_pos_emb = self.rotate


def of_kv_heads(x, kv_heads):
    """[heads or kv_heads, tokens, head_dim] as [kv_heads, ...]: Falcon repeats keys and values for each query head."""
    return x[:: x.shape[0] // kv_heads]


def kv_heads_of(config):
    if config.model_type == "falcon":
        return config.num_kv_heads if config.new_decoder_architecture else (1 if config.multi_query else config.num_attention_heads)
    return getattr(config, "num_key_value_heads", None) or config.num_attention_heads


@torch.no_grad()
def expected_of(model):
    config = model.config
    generator = torch.Generator().manual_seed(len(config.model_type))
    ids = torch.randint(3, config.vocab_size, (TOKENS,), generator=generator)
    short = torch.randint(3, config.vocab_size, (SHORT,), generator=generator)
    recorder = Recorder(model)
    cache = DynamicCache()
    logits = model(ids[None], past_key_values=cache, use_cache=True).logits[0]
    recorder.close()
    kv_heads, heads = kv_heads_of(config), config.num_attention_heads
    layers = range(config.num_hidden_layers)
    result = {"ids": ids, "logits": logits}
    result["hidden"] = torch.stack([h.reshape(TOKENS, -1) for h in recorder.hidden])
    result.update(recorder.inputs)
    result["key"] = torch.stack([of_kv_heads(cache.layers[i].keys[0], kv_heads) for i in layers])
    result["value"] = torch.stack([of_kv_heads(cache.layers[i].values[0], kv_heads) for i in layers])
    if recorder.rotations:
        head_dim = result["key"].shape[-1]
        q, k, q_turned, k_turned = (
            torch.stack([r[i].reshape(-1, TOKENS, head_dim) for r in recorder.rotations]) for i in range(4)
        )
        result["query"], result["query_pre_rope"] = q_turned, q
        result["key_pre_rope"] = torch.stack([of_kv_heads(x, kv_heads) for x in k])
    else:
        width = config.hidden_size
        query = torch.stack([q.reshape(TOKENS, -1)[:, :width].reshape(TOKENS, heads, -1).transpose(0, 1) for q in recorder.queries])
        result["query"] = result["query_pre_rope"] = query
        result["key_pre_rope"] = result["key"]

    stepwise, cache = [], DynamicCache()
    for token in ids:
        stepwise.append(model(token.view(1, 1), past_key_values=cache, use_cache=True).logits[0, 0])
    stepwise = torch.stack(stepwise)
    difference = (stepwise - logits).abs().max().item()
    if difference > 1e-3:
        result["step_logits"] = stepwise
    else:
        padded = torch.cat([torch.zeros(TOKENS - SHORT, dtype=torch.long), short])
        mask = torch.ones(2, TOKENS, dtype=torch.long)
        mask[1, : TOKENS - SHORT] = 0
        places = torch.arange(TOKENS).repeat(2, 1)
        places[1] = (places[1] - (TOKENS - SHORT)).clamp_min(0)
        batch = model(torch.stack([ids, padded]), attention_mask=mask, position_ids=places).logits
        result["short_ids"], result["short_logits"] = short, batch[1, TOKENS - SHORT :]
    return {name: value.detach().contiguous().clone() for name, value in result.items()}, difference


def main():
    total = 0
    for seed, (name, (config, old)) in enumerate(CASES.items()):
        if len(sys.argv) > 1 and name not in sys.argv[1:]:
            continue
        folder = HERE / name
        shutil.rmtree(folder, ignore_errors=True)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
        draw_weights(model, 1000 + seed)
        model.half().save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        path = folder / "config.json"
        settings = json.loads(path.read_text())
        if old:
            settings = old_keys(settings)
        settings.pop("transformers_version", None)
        path.write_text(json.dumps(settings, indent=1, sort_keys=True) + "\n")
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        expected, difference = expected_of(model)
        save_file(expected, folder / "expected.safetensors")
        tensors = load_file(folder / "model.safetensors")
        assert all(t.dtype == torch.float16 for t in tensors.values()), name
        size = sum(file.stat().st_size for file in folder.iterdir())
        total += size
        print(f"{name}: {size / 1024:.0f} KiB, {len(tensors)} tensors, step by step differs by {difference:.1e}, "
              f"largest logit {expected['logits'].abs().max():.2f}")
    print(f"all: {total / 1024:.0f} KiB, transformers {transformers.__version__}, torch {torch.__version__}")


if __name__ == "__main__":
    main()
