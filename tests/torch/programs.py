"""Functions of tensors, each odd in its own way: what a front end for PyTorch must take."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.checkpoint import checkpoint


def _module(make, *shapes, mean=lambda y: y.square().mean()):
    def build():
        torch.manual_seed(0)
        model = make()
        return (lambda *xs: mean(model(*xs))), tuple(torch.randn(s) for s in shapes)

    return build


def mlp(width=16, depth=4, act=nn.GELU):
    layers = [m for _ in range(depth) for m in (nn.Linear(width, width), act())]
    return nn.Sequential(*layers)


class Block(nn.Module):
    """A transformer's, with dropout."""

    def __init__(self, width, heads, dropout=0.1):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.dropout, self.heads = nn.Dropout(dropout), heads

    def forward(self, x):
        b, t, c = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.dropout(self.proj(y.transpose(1, 2).reshape(b, t, c)))
        return x + self.dropout(self.mlp(self.norm2(x)))


class GPT(nn.Module):
    """Tied weights, dropout."""

    def __init__(self, depth=3, width=32, vocabulary=50, length=12, heads=4, dropout=0.1):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens, targets):
        x = self.drop(self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1])))
        for block in self.blocks:
            x = block(x)
        logits = self.norm(x) @ self.wte.weight.t()
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


class UNet(nn.Module):
    def __init__(self, width=4, levels=2):
        super().__init__()
        self.first = nn.Conv2d(1, width, 3, padding=1)
        self.down = nn.ModuleList(self.step(width << k, width << k + 1) for k in range(levels))
        self.up = nn.ModuleList(
            self.step((width << k + 1) + (width << k), width << k) for k in reversed(range(levels))
        )
        self.last = nn.Conv2d(width, 1, 1)

    @staticmethod
    def step(a, b):
        return nn.Sequential(
            nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU(inplace=True)
        )

    def forward(self, x):
        x = self.first(x)
        skips = []
        for layer in self.down:
            skips.append(x)
            x = layer(F.max_pool2d(x, 2))
        for layer in self.up:
            x = layer(torch.cat([F.interpolate(x, scale_factor=2), skips.pop()], 1))
        return self.last(x)


class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width),
            nn.ReLU(inplace=True), nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )  # fmt: skip

    def forward(self, x):
        return F.relu(x + self.body(x), inplace=True)


class Experts(nn.Module):
    """A mixture of all experts, softly."""

    def __init__(self, width=16, experts=3):
        super().__init__()
        self.gate = nn.Linear(width, experts)
        self.experts = nn.ModuleList(mlp(width, 1) for _ in range(experts))

    def forward(self, x):
        weights = self.gate(x).softmax(-1)
        best = weights.topk(2, -1)
        kept = torch.zeros_like(weights).scatter(-1, best.indices, best.values)
        return sum(kept[:, k : k + 1] * e(x) for k, e in enumerate(self.experts))


class Recurrent(nn.Module):
    def __init__(self, width=8, cell=nn.LSTMCell):
        super().__init__()
        self.cell, self.width = cell(width, width), width

    def forward(self, xs):
        h = c = torch.zeros(xs.shape[1], self.width)
        out = []
        for x in xs:
            if isinstance(self.cell, nn.LSTMCell):
                h, c = self.cell(x, (h, c))
            else:
                h = self.cell(x, h)
            out.append(h)
        return torch.stack(out)


class Fourier(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width // 2 + 1, dtype=torch.complex64))

    def forward(self, x):
        return torch.fft.irfft(torch.fft.rfft(x) * self.weight, n=x.shape[-1]) + x.cos()


class Spectral(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.a = nn.utils.spectral_norm(nn.Linear(width, width))
        self.b = nn.utils.parametrizations.spectral_norm(nn.Linear(width, width))
        self.c = nn.utils.parametrizations.weight_norm(nn.Linear(width, width))

    def forward(self, x):
        return self.c(self.b(self.a(x).tanh()).tanh())


class Bags(nn.Module):
    def __init__(self):
        super().__init__()
        self.bag = nn.EmbeddingBag(20, 8, mode="sum")
        self.head = mlp(8, 2)

    def forward(self, tokens):
        return self.head(self.bag(tokens)).square().mean()


class Checkpointed(nn.Module):
    """The user's own checkpoints, which a plan takes the place of."""

    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleList(mlp(16, 2) for _ in range(3))

    def forward(self, x):
        for part in self.parts:
            x = checkpoint(part, x, use_reentrant=False)
        return x


class Reentrant(Checkpointed):
    """The older kind, whose backward runs a backward of its own."""

    def forward(self, x):
        for part in self.parts:
            x = checkpoint(part, x, use_reentrant=True) if x.requires_grad else part(x)
        return x


class Custom(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        y = x.exp()
        ctx.save_for_backward(y, x)
        return y + x

    @staticmethod
    def backward(ctx, g):
        y, x = ctx.saved_tensors
        return g * y + g + 0 * x


def _gpt():
    torch.manual_seed(0)
    model = GPT()
    tokens = torch.randint(50, (2, 12))
    return model, (tokens, tokens.roll(-1, 1))


def _bags():
    torch.manual_seed(0)
    return Bags(), (torch.randint(20, (6, 5)),)


def _frozen():
    torch.manual_seed(0)
    model = mlp(16, 4)
    for p in model[:4].parameters():
        p.requires_grad_(False)
    return (lambda x: model(x).square().mean()), (torch.randn(5, 16),)


def _inputs():
    a, b = torch.randn(5, 6, requires_grad=True), torch.randn(6, requires_grad=True)

    def loss(a, b, scale):
        y = (a * b).sin() @ torch.tensor([[1.0, 2.0]] * 6)
        return (y * scale).exp().mean() + a.sum() + b.norm()

    return loss, (a, b, 0.5)


def _vector():
    """A loss of several numbers, each with a cotangent of 1."""
    torch.manual_seed(0)
    model = mlp(16, 3)
    return (lambda x: {"loss": model(x).square().mean(0)}), (torch.randn(5, 16),)


def _several():
    torch.manual_seed(0)
    model = mlp(16, 3)

    def loss(x):
        y = model(x)
        return {"a": y.square().mean(), "b": y.abs().sum() * 0.1, "y": y}

    return loss, (torch.randn(5, 16),)


def _in_place():
    torch.manual_seed(0)
    a, b = nn.Linear(16, 16), nn.Linear(16, 16)

    def loss(x):
        y = a(x)
        y += 1
        y = y.mul_(2).sigmoid_()
        z = torch.empty(5, 16)
        z[:, :8] = y[:, 8:]
        z[:, 8:] = b(y)[:, :8]
        z[0].zero_()
        z = z.sin().t_().unsqueeze_(0).mul_(0.5)
        return (z * z).sum() + (b(y).t_() * y.t()).mean()

    return loss, (torch.randn(5, 16),)


def _views():
    torch.manual_seed(0)
    w = nn.Parameter(torch.randn(4, 6))

    def loss(x):
        y = (x @ w).t().unsqueeze(0).expand(3, 6, 5)
        a, b = y.chunk(2, 1)
        return (a.transpose(1, 2) @ b).diagonal(dim1=1, dim2=2).cumsum(-1).logsumexp(-1).sum()

    return loss, (torch.randn(5, 4),)


def _random():
    torch.manual_seed(0)
    w = nn.Parameter(torch.randn(16))
    generator = torch.Generator().manual_seed(3)

    def loss(x):
        noise = torch.randn_like(x) + torch.rand(x.shape) + torch.randn(16, generator=generator)
        y = F.dropout(torch.sin(x * w + noise), 0.4) * torch.bernoulli(torch.full_like(x, 0.5))
        y = F.dropout1d(y.unsqueeze(0), 0.3) + F.gumbel_softmax(y, -1)
        return (F.feature_alpha_dropout(y, 0.2) * torch.randperm(16)).tanh().mean()

    return loss, (torch.randn(5, 16),)


def _custom():
    torch.manual_seed(0)
    model = mlp(16, 2)
    return (lambda x: Custom.apply(model(x)).mean()), (torch.randn(5, 16),)


def _autocast():
    torch.manual_seed(0)
    model = mlp(16, 3)

    def loss(x):
        with torch.autocast("cpu", torch.bfloat16):
            y = model(x)
        return y.float().square().mean()

    return loss, (torch.randn(5, 16),)


def _shared():
    """One module twice, one weight in three places, a loss that is a view."""
    torch.manual_seed(0)
    model, norm = mlp(16, 1), nn.BatchNorm1d(16)

    def loss(x):
        y = norm(model(norm(model(x))))
        return torch.stack([y.mean(), (y @ model[0].weight).square().mean()]).sum()

    return loss, (torch.randn(5, 16),)


def _scalars():
    """Numbers become tensors of 8 B, and products save them."""
    torch.manual_seed(0)
    model = mlp(16, 1)

    def loss(x):
        for _ in range(6):
            x = x + 0.5 * (model(x) * 0.3 - 1) / 3 + 1e-3
        return x.square().mean()

    return loss, (torch.randn(5, 16),)


ACTIVATIONS = (
    nn.SiLU, nn.ELU, nn.Hardswish, nn.Mish, nn.Softplus, nn.LeakyReLU, nn.PReLU, nn.Tanh,
    nn.Sigmoid,
)  # fmt: skip


def _turned_norm():
    """Layer norm of a transposed view, with a transposed cotangent."""
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 8, 3, padding=1), nn.LayerNorm(8)

    def loss(x):
        y = norm(conv(x).flatten(2).transpose(1, 2))
        return y.transpose(1, 2).contiguous().square().mean()

    return loss, (torch.randn(2, 3, 6, 6),)


def _autoencoder():
    """A loss that lies in a buffer of all squares, draws that nobody reads, casts within ops."""
    torch.manual_seed(0)
    encoder, decoder = nn.Linear(16, 8), nn.Linear(4, 16)

    def loss(x):
        torch.randn(3)
        F.dropout(x, 0.5).sin()
        mean, spread = encoder(x).chunk(2, -1)
        z = mean + torch.randn_like(mean) * spread.exp()
        z = z * (z > 0) + z.bfloat16() * torch.arange(4)
        return {"loss": F.mse_loss(decoder(z), x) + F.smooth_l1_loss(decoder(z), x), "z": z}

    return loss, (torch.randn(5, 16),)


def _norms_in_autocast():
    """Statistics are float32 where torch's own shapes say bfloat16."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(16, 16), nn.LayerNorm(16), nn.Linear(16, 16), nn.Unflatten(1, (4, 4)),
        nn.GroupNorm(2, 4), nn.BatchNorm1d(4), nn.Flatten(), nn.Linear(16, 4),
    )  # fmt: skip

    def loss(x):
        with torch.autocast("cpu", torch.bfloat16):
            return model(x).float().square().mean()

    return loss, (torch.randn(5, 16),)


def _penalty():
    """A gradient within the loss, and pivots, which a kernel checks."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1))

    def loss(a, b):
        x = (torch.rand(5, 1) * (a - b) + b).requires_grad_()
        (g,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        w = model[0].weight @ model[0].weight.T + 5 * torch.eye(16)
        solved = torch.linalg.solve(w, g.T).square().mean() + torch.linalg.slogdet(w)[1]
        return solved + (g.norm(2, -1) - 1).square().mean()

    return loss, (torch.randn(5, 16), torch.randn(5, 16))


def _complex():
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(16, 8, dtype=torch.cfloat))

    def loss(x):
        y = torch.complex(x, x.flip(0)) @ weight
        y = torch.fft.fft2(y * y.conj())
        return torch.view_as_real(y).square().mean() + y.angle().mean() + y.abs().sum()

    return loss, (torch.randn(5, 16),)


PROGRAMS = {
    "mlp": _module(mlp, (5, 16)),
    "relu in place": _module(lambda: mlp(16, 4, lambda: nn.ReLU(inplace=True)), (5, 16)),
    "activations": _module(
        lambda: nn.Sequential(*[
            m for act in ACTIVATIONS for m in (nn.Linear(16, 16), act())
        ], nn.Linear(16, 16), nn.GLU()), (5, 16)),
    "gpt": _gpt,
    "encoder": _module(
        lambda: nn.TransformerEncoder(
            nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2, enable_nested_tensor=False),
        (2, 6, 16)),
    "unet": _module(UNet, (2, 1, 16, 16)),
    "residual": _module(lambda: nn.Sequential(nn.Conv2d(3, 8, 3, 2), Residual(8), Residual(8),
                                              nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                                              nn.Linear(8, 4)), (2, 3, 12, 12)),
    "convolutions": _module(
        lambda: nn.Sequential(nn.Conv2d(4, 8, 3, groups=2), nn.GroupNorm(2, 8), nn.SiLU(),
                              nn.AvgPool2d(2), nn.ConvTranspose2d(8, 4, 3), nn.InstanceNorm2d(4)),
        (2, 4, 12, 12)),
    "conv1d": _module(
        lambda: nn.Sequential(nn.Conv1d(4, 8, 3), nn.ReLU(), nn.MaxPool1d(2)), (2, 4, 17)),
    "experts": _module(Experts, (6, 16)),
    "lstm cell": _module(Recurrent, (4, 3, 8)),
    "gru cell": _module(lambda: Recurrent(8, nn.GRUCell), (4, 3, 8)),
    "fourier": _module(Fourier, (3, 16)),
    "spectral": _module(Spectral, (5, 16)),
    "bags": _bags,
    "checkpointed": _module(Checkpointed, (5, 16)),
    "reentrant": _module(Reentrant, (5, 16)),
    "scalars": _scalars,
    "frozen": _frozen,
    "inputs": _inputs,
    "several losses": _several,
    "vector": _vector,
    "in place": _in_place,
    "views": _views,
    "random": _random,
    "custom": _custom,
    "autocast": _autocast,
    "shared": _shared,
    "turned norm": _turned_norm,
    "folded": _module(
        lambda: nn.Sequential(nn.Unfold(3, padding=1), nn.Conv1d(9, 9, 1),
                              nn.Fold((6, 6), 3, padding=1)), (2, 1, 6, 6)),
    "autoencoder": _autoencoder,
    "norms in autocast": _norms_in_autocast,
    "penalty": _penalty,
    "complex": _complex,
}  # fmt: skip
