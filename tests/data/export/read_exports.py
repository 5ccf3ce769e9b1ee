"""Reader written from the public format definitions; independent of the project's code."""
import json, sys, pathlib, numpy as np, torch
from safetensors.numpy import load_file, save_file
import safetensors.torch as st
from transformers import AutoModelForCausalLM, AutoConfig
ROOT = pathlib.Path(sys.argv[1])

def unpack(words, bits):            # words uint32 [rows, n]; a bit stream per row
    rows, n = words.shape
    b = ((words[:, :, None] >> np.arange(32, dtype=np.uint32)) & 1).reshape(rows, n * 32)
    b = b.reshape(rows, -1, bits)
    return (b * (1 << np.arange(bits))).sum(-1)

def dequant_gptq(t, stem, bits, v1):
    q = unpack(np.ascontiguousarray(t[stem + ".qweight"].view(np.uint32).T), bits)        # [O, I]
    z = unpack(t[stem + ".qzeros"].view(np.uint32), bits)                                 # [G, O]
    if v1: z = z + 1
    s = t[stem + ".scales"].astype(np.float32)                                            # [G, O]
    g = t[stem + ".g_idx"]
    return ((q.T - z[g]).astype(np.float32) * s[g]).T

def dequant_pack(t, stem, bits):
    O, I = [int(x) for x in t[stem + ".weight_shape"]]
    pf = 32 // bits
    w = t[stem + ".weight_packed"].view(np.uint32)
    q = np.stack([(w >> (bits * i)) & ((1 << bits) - 1) for i in range(pf)], -1).reshape(O, -1)[:, :I].astype(np.int64) - (1 << (bits - 1))
    s = t[stem + ".weight_scale"].astype(np.float32)
    G = s.shape[1]
    zp = np.zeros((O, G), np.int64)
    if stem + ".weight_zero_point" in t:
        p = t[stem + ".weight_zero_point"].view(np.uint32)
        zp = np.stack([(p >> (bits * i)) & ((1 << bits) - 1) for i in range(pf)], 1).reshape(-1, G)[:O].astype(np.int64) - (1 << (bits - 1))
    g = t.get(stem + ".weight_g_idx", np.arange(I) // (I // G))
    return (q - zp[:, g]).astype(np.float32) * s[:, g]

def main(folder):
    cfg = json.load(open(folder / "config.json")); qc = cfg.pop("quantization_config")
    t = load_file(folder / "model.safetensors"); dense = {}; int8 = set()
    for k, v in t.items():
        stem = k.rsplit(".", 1)[0]
        if k.endswith(".qweight"): dense[stem + ".weight"] = dequant_gptq(t, stem, qc["bits"], qc["checkpoint_format"] == "gptq")
        elif k.endswith(".weight_packed"): dense[stem + ".weight"] = dequant_pack(t, stem, qc["config_groups"]["group_0"]["weights"]["num_bits"])
        elif v.dtype == np.int8: dense[k] = v.astype(np.float32) * t[stem + ".weight_scale"].astype(np.float32); int8.add(stem)
        elif k.rsplit(".", 1)[1] in ("weight", "bias"): dense[k] = v.astype(np.float32)
    config = AutoConfig.for_model(**cfg) if "model_type" in cfg else None
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    missing, unexpected = model.load_state_dict({k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in dense.items()}, strict=False)
    print(folder.name, "missing", missing, "unexpected", unexpected)
    def quant_input(mod, args):
        x = args[0]; s = x.abs().amax(-1, keepdim=True).clamp_min(1e-5) / 127.0
        return (torch.round(x / s) * s,) + args[1:]
    for name, mod in model.named_modules():
        if name in int8: mod.register_forward_pre_hook(quant_input)
    ids = [1]
    while len(ids) < 24: ids.append((ids[-1] * 37 + 11) % 89 + 3)
    with torch.no_grad(): logits = model(torch.tensor([ids])).logits[0]
    up = dense["model.layers.1.mlp.up_proj.weight"]
    save_file({"ids": np.array(ids, np.int64), "logits": logits.numpy().astype(np.float32), "weight": np.ascontiguousarray(up).astype(np.float32)}, folder / "expected.safetensors")
    print(logits[-1, :4])
for f in sorted(ROOT.iterdir()):
    if (f / "config.json").exists(): main(f)
