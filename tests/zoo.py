"""Models as people write them, small: torch.nn, functions and operators, and nothing of ours."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class GPT(nn.Module):
    """Like GPT-2: learned positions, fused QKV, causal attention written out, tied weights."""

    def __init__(self, vocabulary: int = 20, width: int = 16, heads: int = 2, depth: int = 2):
        super().__init__()
        self.heads = heads
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(12, width)
        self.drop = nn.Dropout(0.1)
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "ln_1": nn.LayerNorm(width),
                    "qkv": nn.Linear(width, 3 * width),
                    "proj": nn.Linear(width, width),
                    "ln_2": nn.LayerNorm(width),
                    "fc": nn.Linear(width, 4 * width),
                    "out": nn.Linear(4 * width, width),
                }
            )
            for _ in range(depth)
        )
        self.ln = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.tokens.weight

    def attend(self, x: Tensor, block: Any) -> Tensor:
        n, t, c = x.shape
        q, k, v = block["qkv"](x).split(c, dim=2)
        q, k, v = (m.view(n, t, self.heads, c // self.heads).transpose(1, 2) for m in (q, k, v))
        scores = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
        mask = torch.tril(torch.ones(t, t)).view(1, 1, t, t)
        scores = scores.masked_fill(mask == 0, float("-inf"))
        mixed = self.drop(F.softmax(scores, dim=-1)) @ v
        return block["proj"](mixed.transpose(1, 2).contiguous().view(n, t, c))

    def forward(self, index: Tensor) -> Tensor:
        x = self.drop(self.tokens(index) + self.positions(torch.arange(index.shape[1])))
        for block in self.blocks:
            x = x + self.attend(block["ln_1"](x), block)
            h = block["fc"](block["ln_2"](x))
            h = 0.5 * h * (1.0 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h.pow(3.0))))
            x = x + block["out"](h)
        logits = self.head(self.ln(x))
        return F.cross_entropy(logits.view(-1, logits.size(-1)), index.roll(-1, 1).view(-1))


class BERT(nn.Module):
    """Like BERT: segments, torch's own Transformer encoder with padding, a pooled first token."""

    def __init__(self, vocabulary: int = 20, width: int = 16):
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width, padding_idx=0)
        self.segments = nn.Embedding(2, width)
        self.positions = nn.Parameter(torch.randn(12, width))
        self.norm = nn.LayerNorm(width, eps=1e-12)
        layer = nn.TransformerEncoderLayer(width, 2, 32, 0.1, "gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.pooler, self.head = nn.Linear(width, width), nn.Linear(width, 3)

    def forward(self, index: Tensor) -> Tensor:
        segments = (torch.arange(index.shape[1]) > 2).long().expand_as(index)
        x = self.tokens(index) + self.segments(segments) + self.positions[: index.shape[1]]
        x = self.encoder(self.norm(x), src_key_padding_mask=index == 0)
        return self.head(torch.tanh(self.pooler(x[:, 0])))


class Llama(nn.Module):
    """Like Llama: RMSNorm, rotary positions, grouped queries, SwiGLU."""

    def __init__(self, vocabulary: int = 20, width: int = 16, heads: int = 4, groups: int = 2):
        super().__init__()
        self.heads, self.groups, self.size = heads, groups, width // heads
        self.tokens = nn.Embedding(vocabulary, width)
        self.norms = nn.ModuleList(nn.RMSNorm(width, eps=1e-6) for _ in range(3))
        self.q = nn.Linear(width, width, bias=False)
        self.k = nn.Linear(width, groups * self.size, bias=False)
        self.v = nn.Linear(width, groups * self.size, bias=False)
        self.o = nn.Linear(width, width, bias=False)
        self.gate, self.up = nn.Linear(width, 32, bias=False), nn.Linear(width, 32, bias=False)
        self.down = nn.Linear(32, width, bias=False)

    def rotated(self, x: Tensor) -> Tensor:
        half = self.size // 2
        angles = torch.outer(torch.arange(x.shape[2]), 10000.0 ** -(torch.arange(half) / half))
        angles = torch.cat((angles, angles), dim=-1).to(x.dtype)
        turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
        return (x * angles.cos()) + (turned * angles.sin())

    def forward(self, index: Tensor) -> Tensor:
        x = self.tokens(index)
        n, t, width = x.shape
        h = self.norms[0](x)
        q = self.rotated(self.q(h).view(n, t, self.heads, self.size).transpose(1, 2))
        k = self.rotated(self.k(h).view(n, t, self.groups, self.size).transpose(1, 2))
        v = self.v(h).view(n, t, self.groups, self.size).transpose(1, 2)
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.o(a.transpose(1, 2).reshape(n, t, width))
        h = self.norms[1](x)
        x = x + self.down(F.silu(self.gate(h)) * self.up(h))
        return self.norms[2](x) @ self.tokens.weight.T


class Speech(nn.Module):
    """An LSTM classifier over sequences of several lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(20, 6, padding_idx=0)
        self.lstm = nn.LSTM(6, 5, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(10, 3)

    def forward(self, index: Tensor) -> Tensor:
        lengths = torch.arange(index.shape[1], index.shape[1] - index.shape[0], -1)
        packed = nn.utils.rnn.pack_padded_sequence(self.tokens(index), lengths, batch_first=True)
        _, (h, _) = self.lstm(packed)
        return self.head(torch.cat([h[-2], h[-1]], dim=1))


class UNet(nn.Module):
    """Down and up again, with bridges."""

    def __init__(self, width: int = 4):
        super().__init__()

        def twice(a: int, b: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(a, b, 3, padding=1),
                nn.BatchNorm2d(b),
                nn.ReLU(inplace=True),
                nn.Conv2d(b, b, 3, padding=1),
                nn.GroupNorm(2, b),
                nn.LeakyReLU(0.1, inplace=True),
            )

        self.down1, self.down2 = twice(3, width), twice(width, 2 * width)
        self.bottom = twice(2 * width, 4 * width)
        self.up2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, stride=2)
        self.join2, self.join1 = twice(4 * width, 2 * width), twice(3 * width, width)
        self.head = nn.Conv2d(width, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.down1(x)
        b = self.down2(F.max_pool2d(a, 2))
        y = self.up2(self.bottom(F.avg_pool2d(b, 2)))
        y = self.join2(torch.cat([b, y], dim=1))
        y = F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=True)
        y = F.pad(y, [0, a.shape[3] - y.shape[3], 0, a.shape[2] - y.shape[2]])
        return self.head(self.join1(torch.cat([a, y], dim=1)))


class DCGAN(nn.Module):
    """A generator and the discriminator that judges what it makes."""

    def __init__(self, width: int = 4):
        super().__init__()
        self.generator = nn.Sequential(
            nn.ConvTranspose2d(8, 2 * width, 4, 1, 0, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(True),
            nn.ConvTranspose2d(2 * width, width, 4, 2, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(True),
            nn.ConvTranspose2d(width, 3, 4, 2, 1, bias=False),
            nn.Tanh(),
        )
        self.discriminator = nn.Sequential(
            nn.Conv2d(3, width, 4, 2, 1, bias=False),
            nn.LeakyReLU(0.2, inplace=True),
            nn.utils.spectral_norm(nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False)),
            nn.InstanceNorm2d(2 * width, affine=True),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(2 * width, 1, 4, 1, 0, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, z: Tensor) -> Tensor:
        judged = self.discriminator(self.generator(z)).view(-1)
        return F.binary_cross_entropy(judged, torch.ones_like(judged))


def tokens(count: int = 3, length: int = 6) -> Tensor:
    index = torch.randint(1, 20, (count, length))
    index[0, -2:] = 0
    return index


def pixels(size: int, channels: int = 3, count: int = 2) -> Tensor:
    return torch.randn(count, channels, size, size, dtype=torch.double)


#: name → (a model, an input), made anew
OURS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "GPT": lambda: (GPT(), tokens()),
    "BERT": lambda: (BERT(), tokens()),
    "Llama": lambda: (Llama(), tokens()),
    "LSTM": lambda: (Speech(), tokens()),
    "UNet": lambda: (UNet(), pixels(20)),
    "DCGAN": lambda: (DCGAN(), torch.randn(4, 8, 1, 1, dtype=torch.double)),
}


def _vision(name: str, size: int, **options: Any) -> Callable[[], tuple[nn.Module, Tensor]]:
    def make() -> tuple[nn.Module, Tensor]:
        from torchvision import models

        model = models.get_model(name, weights=None, num_classes=10, **options)
        if name in ("alexnet", "vgg11_bn"):  # nine tenths of them are two matrices
            model.classifier = nn.Sequential(
                nn.Dropout(),
                nn.Linear(256 * 36 if name == "alexnet" else 512 * 49, 32),
                nn.ReLU(inplace=True),
                nn.Linear(32, 10),
            )
        return model, pixels(size)

    return make


#: every classification family of torchvision, its smallest member, on small pictures
VISION = {
    name: _vision(name, size, **options)
    for name, size, options in [
        ("alexnet", 64, {}),
        ("convnext_tiny", 32, {}),
        ("densenet121", 32, {}),
        ("efficientnet_b0", 32, {}),
        ("efficientnet_v2_s", 32, {}),
        ("googlenet", 64, {"aux_logits": True, "init_weights": False}),
        ("inception_v3", 80, {"aux_logits": False, "init_weights": False}),
        ("maxvit_t", 224, {}),
        ("mnasnet0_5", 32, {}),
        ("mobilenet_v2", 32, {}),
        ("mobilenet_v3_small", 32, {}),
        ("regnet_x_400mf", 32, {}),
        ("regnet_y_400mf", 32, {}),
        ("resnet18", 32, {}),
        ("resnext50_32x4d", 32, {}),
        ("shufflenet_v2_x0_5", 32, {}),
        ("squeezenet1_1", 32, {}),
        ("swin_t", 32, {}),
        ("swin_v2_t", 32, {}),
        ("vgg11_bn", 32, {"init_weights": False}),
        ("vit_b_16", 32, {"image_size": 32}),
        ("wide_resnet50_2", 32, {}),
    ]
}


def _transformers(kind: str, config: str, **options: Any) -> Callable[[], tuple[nn.Module, Tensor]]:
    def make() -> tuple[nn.Module, Tensor]:
        import transformers

        model = getattr(transformers, kind)(getattr(transformers, config)(**options))
        return model, torch.randint(1, options["vocab_size"], (2, 6))

    return make


def _timm(name: str, size: int = 32, **options: Any) -> Callable[[], tuple[nn.Module, Tensor]]:
    def make() -> tuple[nn.Module, Tensor]:
        import timm

        return timm.create_model(name, num_classes=5, **options), pixels(size)

    return make


_SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 32, "vocab_size": 30}
_SMALL |= {"num_attention_heads": 4, "max_position_embeddings": 16}

#: name → (package, maker): models of two libraries, in small and random configurations
LIBRARIES = {
    "gpt2": (
        "transformers",
        _transformers(
            "GPT2LMHeadModel", "GPT2Config", n_embd=16, n_layer=2, n_head=2, vocab_size=30
        ),
    ),
    "bert": (
        "transformers",
        _transformers("BertForSequenceClassification", "BertConfig", **_SMALL),
    ),
    "llama": (
        "transformers",
        _transformers("LlamaForCausalLM", "LlamaConfig", num_key_value_heads=2, **_SMALL),
    ),
    "timm resnet": ("timm", _timm("resnet10t")),
    "timm convnext": ("timm", _timm("convnext_atto")),
    "timm vit": ("timm", _timm("vit_tiny_patch16_224", img_size=32, depth=2)),
    "timm mixer": ("timm", _timm("mixer_s32_224", size=224)),
    "timm efficientnet": ("timm", _timm("efficientnet_lite0")),
}
