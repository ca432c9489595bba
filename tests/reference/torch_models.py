"""The vision networks in PyTorch with random weights, in the sizes of the published models, for
`native_rivals.py`. Attention is the fused attention of PyTorch; deformable attention samples every level
with `grid_sample`.

The batch size is one. `NETWORKS` lists name, the equivalent rows of `chatrex bench`, constructor, and
input shape.
"""

import torch
from torch import nn
from torch.nn import functional as F


class Clip(nn.Module):
    """A layer of ViT-L/14."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(1024)
        self.norm2 = nn.LayerNorm(1024)
        self.qkv, self.out = nn.Linear(1024, 3072), nn.Linear(1024, 1024)
        self.fc1, self.fc2 = nn.Linear(1024, 4096), nn.Linear(4096, 1024)

    def forward(self, x):
        split = lambda t: t.unflatten(-1, (16, 64)).transpose(1, 2)
        q, k, v = (split(t) for t in self.qkv(self.norm(x)).chunk(3, -1))
        attended = F.scaled_dot_product_attention(q, k, v)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        y = self.fc1(self.norm2(x))
        return x + self.fc2(y * torch.sigmoid(1.702 * y))


class ConvNext(nn.Module):
    """A block of ConvNeXt."""

    def __init__(self, width):
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.rest = nn.Sequential(
            nn.LayerNorm(width, eps=1e-6), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.scale = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, x):
        y = self.rest(self.depthwise(x).permute(0, 2, 3, 1)) * self.scale
        return x + y.permute(0, 3, 1, 2)


def convnext():
    widths, depths = [192, 384, 768, 1536], [3, 3, 27, 3]
    stages = [nn.Conv2d(3, widths[0], 4, 4)]
    for index, (width, depth) in enumerate(zip(widths, depths)):
        if index:
            stages.append(nn.Conv2d(widths[index - 1], width, 2, 2))
        stages += [ConvNext(width) for _ in range(depth)]
    return nn.Sequential(*stages)


class SwinBlock(nn.Module):
    """A Swin block on `[1, h, w, C]`; every second block shifts its windows."""

    window = 12

    def __init__(self, width, heads, shifted):
        super().__init__()
        side = self.window
        self.heads, self.shift = heads, side // 2 if shifted else 0
        self.norm, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.table = nn.Parameter(0.02 * torch.randn((2 * side - 1) ** 2, heads))
        at = torch.cartesian_prod(torch.arange(side), torch.arange(side))
        offset = at[:, None] - at[None] + side - 1
        index = offset[..., 0] * (2 * side - 1) + offset[..., 1]
        self.register_buffer("relative_index", index, persistent=False)

    def windows(self, x):
        side = self.window
        n, h, w, c = x.shape
        return x.view(n, h // side, side, w // side, side, c).transpose(2, 3).reshape(-1, side * side, c)

    def forward(self, x):
        side, shift = self.window, self.shift
        _, h, w, c = x.shape
        y = F.pad(self.norm(x), (0, 0, 0, -w % side, 0, -h % side))
        _, hp, wp, _ = y.shape
        mask = self.table[self.relative_index.view(-1)].view(side * side, side * side, -1).permute(2, 0, 1)[None]
        if shift:
            y = y.roll((-shift, -shift), (1, 2))
            region = lambda size: torch.bucketize(
                torch.arange(size, device=x.device), torch.tensor([size - side, size - shift], device=x.device), right=True
            )
            ids = (3 * region(hp)[:, None] + region(wp)[None]).view(1, hp, wp, 1)
            ids = self.windows(ids).squeeze(-1)
            mask = mask - 100.0 * (ids[:, None, :, None] != ids[:, None, None, :]).to(x.dtype)
        split = lambda t: t.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        q, k, v = (split(t) for t in self.qkv(self.windows(y)).chunk(3, -1))
        attended = F.scaled_dot_product_attention(q, k, v, mask.to(x.dtype).expand(q.shape[0], -1, -1, -1))
        y = self.out(attended.transpose(1, 2).flatten(2))
        y = y.view(1, hp // side, wp // side, side, side, c).transpose(2, 3).reshape(1, hp, wp, c)
        x = x + y.roll((shift, shift), (1, 2))[:, :h, :w]
        return x + self.mlp(self.norm2(x))


class PatchMerging(nn.Module):
    """Patch merging: 2 x 2 patches of width C become one of width 2 C."""

    def __init__(self, width):
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(4 * width), nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x):
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        parts = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.linear(self.norm(torch.cat(parts, -1)))


class DeformableAttention(nn.Module):
    """Multi-scale deformable attention: 8 heads, 5 levels, 4 points."""

    def __init__(self):
        super().__init__()
        self.value, self.out = nn.Linear(256, 256), nn.Linear(256, 256)
        self.offsets, self.weights = nn.Linear(256, 8 * 5 * 4 * 2), nn.Linear(256, 8 * 5 * 4)

    def forward(self, query, reference, source, shapes):
        """`reference` is `[1, Q, 1, 1, 1, 2]` for points or `[1, Q, 1, 1, 1, 4]` for boxes."""
        count = query.shape[1]
        values = self.value(source).unflatten(-1, (8, 32)).split([h * w for h, w in shapes], 1)
        offsets = self.offsets(query).view(1, count, 8, 5, 4, 2)
        weights = self.weights(query).view(1, count, 8, 20).softmax(-1)
        if reference.shape[-1] == 2:
            scale = torch.tensor([[w, h] for h, w in shapes], device=query.device, dtype=query.dtype)
            positions = reference + offsets / scale[:, None]
        else:
            positions = reference[..., :2] + offsets / 8 * reference[..., 2:]
        grids = 2 * positions - 1
        sampled = []
        for level, (h, w) in enumerate(shapes):
            maps = values[level].flatten(2).transpose(1, 2).reshape(8, 32, h, w)
            grid = grids[:, :, :, level].transpose(1, 2).flatten(0, 1)
            sampled.append(F.grid_sample(maps, grid, padding_mode="zeros", align_corners=False))
        sampled = torch.stack(sampled, -2).flatten(-2)
        attended = (sampled * weights.transpose(1, 2).reshape(8, 1, count, 20)).sum(-1)
        return self.out(attended.reshape(1, 256, count).transpose(1, 2))


class EncoderLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.norm, self.norm2 = DeformableAttention(), nn.LayerNorm(256), nn.LayerNorm(256)
        self.mlp = nn.Sequential(nn.Linear(256, 2048), nn.ReLU(), nn.Linear(2048, 256))

    def forward(self, x, positions, reference, shapes):
        x = self.norm(x + self.attention(x + positions, reference, x, shapes))
        return self.norm2(x + self.mlp(x))


class DecoderLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.self_attention = nn.MultiheadAttention(256, 8, batch_first=True)
        self.attention = DeformableAttention()
        self.norms = nn.ModuleList(nn.LayerNorm(256) for _ in range(3))
        self.mlp = nn.Sequential(nn.Linear(256, 2048), nn.ReLU(), nn.Linear(2048, 256))

    def forward(self, x, positions, reference, memory, shapes):
        y = x + positions
        x = self.norms[1](x + self.self_attention(y, y, x, need_weights=False)[0])
        x = self.norms[0](x + self.attention(x + positions, reference, memory, shapes))
        return self.norms[2](x + self.mlp(x))


def mlp(*widths):
    layers = []
    for inputs, outputs in zip(widths, widths[1:]):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def sine_embedding(x, count):
    """Sine embedding of the last axis: alternating sine and cosine, `count` per value, temperature 20."""
    periods = 20.0 ** (2 * (torch.arange(count, device=x.device) // 2) / count)
    x = (2 * torch.pi * x[..., None] / periods).to(x.dtype)
    return torch.stack((x[..., 0::2].sin(), x[..., 1::2].cos()), -1).flatten(-3)


class Upn(nn.Module):
    """UPN: Swin-L, five levels from stride 4 on, encoder and decoder of `layers` layers, 900 queries."""

    def __init__(self, depths=(2, 2, 18, 2), layers=6):
        super().__init__()
        widths, heads = [192, 384, 768, 1536], [6, 12, 24, 48]
        self.patches, self.norm = nn.Conv2d(3, 192, 4, 4), nn.LayerNorm(192)
        self.stages = nn.ModuleList(
            nn.Sequential(*(SwinBlock(width, count, at % 2 == 1) for at in range(depth)))
            for width, depth, count in zip(widths, depths, heads)
        )
        self.merges = nn.ModuleList(PatchMerging(width) for width in widths[:-1])
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in widths)
        self.inputs = nn.ModuleList(
            nn.Sequential(conv, nn.GroupNorm(32, 256))
            for conv in [*(nn.Conv2d(width, 256, 1) for width in widths), nn.Conv2d(1536, 256, 3, 2, 1)]
        )
        self.levels = nn.Parameter(torch.randn(5, 256))
        self.encoder = nn.ModuleList(EncoderLayer() for _ in range(layers))
        self.memory = nn.Sequential(nn.Linear(256, 256), nn.LayerNorm(256))
        self.prompt = nn.Parameter(0.1 * torch.randn(256))
        self.first_boxes, self.boxes = mlp(256, 256, 256, 4), mlp(256, 256, 256, 4)
        self.queries = nn.Parameter(torch.randn(1, 900, 256))
        self.positions = mlp(512, 256, 256)
        self.decoder = nn.ModuleList(DecoderLayer() for _ in range(layers))
        self.last_norm = nn.LayerNorm(256)

    def backbone(self, image):
        h, w = image.shape[2:]
        x = self.norm(self.patches(F.pad(image, (0, -w % 4, 0, -h % 4))).permute(0, 2, 3, 1))
        found = []
        for index, stage in enumerate(self.stages):
            x = stage(x)
            found.append(self.norms[index](x).permute(0, 3, 1, 2))
            if index < 3:
                x = self.merges[index](x)
        return [*found, found[-1]]

    def forward(self, image):
        maps = [project(x) for project, x in zip(self.inputs, self.backbone(image))]
        shapes = [tuple(x.shape[2:]) for x in maps]
        source = torch.cat([x.flatten(2) for x in maps], 2).transpose(1, 2)
        positions, references, sides = [], [], []
        for level, (h, w) in enumerate(shapes):
            axis = lambda size: (torch.arange(size, device=source.device, dtype=source.dtype) + 0.5) / size
            reference = torch.stack(torch.meshgrid(axis(h), axis(w), indexing="ij")[::-1], -1).flatten(0, 1)
            positions.append(sine_embedding(reference.flip(-1), 128) + self.levels[level])
            references.append(reference)
            sides.append(torch.full_like(reference, 0.05 * 2**level))
        positions, reference = torch.cat(positions)[None], torch.cat(references)[None]
        proposals = torch.cat((reference, torch.cat(sides)[None].clamp(max=0.9)), -1)
        around = reference[:, :, None, None, None]
        for layer in self.encoder:
            source = layer(source, positions, around, shapes)
        memory = self.memory(source)
        best = (memory @ self.prompt).topk(900, 1).indices[..., None]
        boxes = self.first_boxes(memory) + proposals.logit(1e-3)
        boxes = boxes.gather(1, best.expand(-1, -1, 4)).sigmoid()
        x = self.queries
        for layer in self.decoder:
            position = self.positions(sine_embedding(boxes[..., [1, 0, 2, 3]], 128))
            x = layer(x, position, boxes[:, :, None, None, None], source, shapes)
            boxes = (self.boxes(x) + boxes.logit(1e-3)).sigmoid()
        return torch.cat((boxes.flatten(), self.last_norm(x).matmul(self.prompt).flatten()))


NETWORKS = [
    ("CLIP", ["CLIP"], lambda: nn.Sequential(*(Clip() for _ in range(23))), [1, 577, 1024]),
    ("ConvNeXt", ["ConvNeXt"], convnext, [1, 3, 768, 768]),
    ("UPN", ["backbone and encoder", "decoder, boxes read"], Upn, [1, 3, 800, 1066]),
]
