"""A map lies where a class comes from; it is found in every kind of network, and changes none."""

import numpy as np
import pytest
import timm
import torch
from torch import nn

from finetune.model.maps import MapSource, compute_maps, find_map_source

SIDE = 160  # pixels: of timm's networks for tests

# Layout, grid and tokens before it, at SIDE pixels where nothing else is said.
NETWORKS = [
    ("test_resnet", {}, "channels first", (5, 5), 0),
    ("test_efficientnet", {}, "channels first", (5, 5), 0),
    ("test_convnext", {}, "channels first", (5, 5), 0),
    ("test_mambaout", {}, "channels last", (5, 5), 0),
    ("test_vit", {}, "tokens", (10, 10), 1),  # answers by its class token
    ("test_vit", {"global_pool": "avg", "class_token": False}, "tokens", (10, 10), 0),
    ("test_vit3", {}, "tokens", (10, 10), 1),  # answers by attention over its tokens
    ("test_vit_relpos", {}, "tokens", (10, 10), 0),
    ("mobilenetv3_small_050", {}, "channels first", (5, 5), 0),  # has a layer behind its pooling
    ("vit_tiny_patch16_224", {"img_size": 96}, "tokens", (6, 6), 1),
    ("deit_tiny_distilled_patch16_224", {"img_size": 96}, "tokens", (6, 6), 2),
    ("vit_tiny_patch16_224", {"img_size": 96, "reg_tokens": 4}, "tokens", (6, 6), 5),
    (
        "swin_tiny_patch4_window7_224",
        {"img_size": 64, "window_size": 2, "embed_dim": 24, "depths": (1, 1, 1, 1)},
        "channels last",
        (2, 2),
        0,
    ),
    ("cait_xxs24_224", {"img_size": 96, "depth": 2}, "tokens", (6, 6), 0),
    (
        "convit_tiny",
        {"img_size": 96},
        "tokens",
        (6, 6),
        1,
    ),  # its attention is seen, pairs of tokens
    ("mixer_s32_224", {"img_size": 96}, "tokens", (3, 3), 0),
]


def make_network(name: str, num_classes: int = 3, **arguments: object) -> nn.Module:
    """A network of random weights, its classifier included: some begin with one of zeros."""
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=num_classes, **arguments).eval()
    classifier = network.get_classifier()
    for layer in classifier if isinstance(classifier, tuple) else (classifier,):
        nn.init.normal_(layer.weight, std=0.1)
    return network


def random_images(number: int, *size: int) -> torch.Tensor:
    return torch.randn(number, 3, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("name", "arguments", "layout", "grid", "num_prefix"), NETWORKS)
def test_a_map_is_found_and_made_in_every_kind_of_network(
    name: str, arguments: dict[str, object], layout: str, grid: tuple[int, int], num_prefix: int
) -> None:
    network = make_network(name, **arguments)
    side = int(arguments.get("img_size", SIDE))  # type: ignore[call-overload]
    images = random_images(2, side, side)
    source = find_map_source(network, images)
    assert source is not None
    assert (source.layout, source.grid, source.num_prefix) == (layout, grid, num_prefix)
    maps = compute_maps(network, images, torch.tensor([[0, 1], [2, 0]]), source)
    assert maps.shape == (2, 2, *grid)
    assert maps.min() >= 0
    assert {float(one.max()) for one in maps.reshape(4, -1)} <= {0.0, 1.0}
    assert maps.any()


def test_a_vision_transformer_is_looked_at_before_its_last_attention() -> None:
    source = find_map_source(make_network("test_vit"), random_images(1, SIDE, SIDE))
    assert source is not None
    assert source.module == "blocks.5.norm1"


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_mambaout"])
def test_behind_pooled_features_it_is_the_class_activation_map(name: str) -> None:
    network = make_network(name)
    if name == "test_mambaout":  # has layers between pooling and classifier
        network.head.norm = network.head.pre_logits = nn.Identity()
        network.head.fc = nn.Linear(network.num_features, 3)
    images = random_images(2, SIDE, SIDE)
    source = find_map_source(network, images)
    assert source is not None
    found = compute_maps(network, images, torch.tensor([[0, 1, 2]] * 2), source)
    with torch.no_grad():
        features = source.by_place(network.forward_features(images))  # (B, places, C)
        classifier = network.get_classifier()
        weights = classifier.weight - classifier.weight.mean(dim=0)  # against the mean of logits
        expected = (features @ weights.T).relu().transpose(1, 2).reshape(found.shape)
        expected /= expected.amax((2, 3), keepdim=True).clamp(min=1e-12)
    assert found.any()
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)  # rounding of fp32


class PooledConvolution(nn.Module):
    """Pools what a convolution gives: where something stands it does not know itself."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, kernel_size=8, stride=8)
        self.act = nn.ReLU(inplace=True)  # writes into what the layer before it gave
        self.head = nn.Linear(16, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.act(self.stem(images)).mean((2, 3)))
        return logits


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    """Trained to tell images of grey noise by the colour of a square somewhere in them."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    network = PooledConvolution()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(200):
        labels = torch.randint(3, (16,), generator=generator)
        corners = torch.randint(4, (16,), generator=generator)
        loss = nn.functional.cross_entropy(network(coloured(labels, corners)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
    return network.eval()


def coloured(labels: torch.Tensor, corners: torch.Tensor) -> torch.Tensor:
    """Noise of 64 by 64 pixels; one quadrant has one channel raised."""
    images = 0.2 * torch.randn(len(labels), 3, 64, 64, generator=torch.Generator().manual_seed(2))
    for image, label, corner in zip(images, labels.tolist(), corners.tolist(), strict=True):
        top, left = 32 * (corner // 2), 32 * (corner % 2)
        image[label, top : top + 32, left : left + 32] += 1
    return images


@pytest.mark.parametrize("corner", range(4))
def test_a_map_lies_in_the_quadrant_that_decides(trained: nn.Module, corner: int) -> None:
    labels = torch.tensor([0, 1, 2])
    images = coloured(labels, torch.full((3,), corner))
    assert trained(images).argmax(1).tolist() == [0, 1, 2]
    source = find_map_source(trained, images)
    assert source is not None
    maps = compute_maps(trained, images, labels[:, None], source)[:, 0]
    rows, columns = slice(4 * (corner // 2), None), slice(4 * (corner % 2), None)
    inside = maps[:, rows, columns][:, :4, :4].sum((1, 2))
    assert (inside / maps.sum((1, 2)) > 0.9).all()  # a quarter would be chance


@pytest.mark.parametrize("size", [(96, 192), (192, 96), (100, 150)])
def test_an_oblong_image_has_an_oblong_map(size: tuple[int, int]) -> None:
    source = find_map_source(make_network("test_resnet"), random_images(1, *size))
    assert source is not None
    assert source.grid == (-(-size[0] // 32), -(-size[1] // 32))


class Twice(nn.Module):
    """Calls one module twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, kernel_size=8, stride=8)
        self.mix = nn.Conv2d(8, 8, kernel_size=1)
        self.head = nn.Linear(8, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.mix(self.mix(self.stem(images))).mean((2, 3)))
        return logits


def test_of_a_module_that_is_called_twice_the_second_output_counts() -> None:
    torch.manual_seed(0)
    network = Twice().eval()
    images = random_images(2, 64, 64)
    source = find_map_source(network, images)
    assert source == MapSource("mix", 1, "channels first", (8, 8))
    found = compute_maps(network, images, torch.tensor([[0], [1]]), source)
    with torch.no_grad():
        values = network.mix(network.mix(network.stem(images)))  # (B, C, H, W)
        difference = network.head.weight - network.head.weight.mean(dim=0)  # (K, C)
        expected = torch.einsum("bchw,bc->bhw", values, difference).relu()  # image k, class k
        expected /= expected.amax((1, 2), keepdim=True)
    np.testing.assert_allclose(found[:, 0], expected.numpy(), atol=1e-5)


def test_a_network_without_places_has_no_map() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    assert find_map_source(network, random_images(1, 8, 8)) is None


def test_tokens_that_never_were_a_grid_have_no_map() -> None:
    network = make_network("hiera_tiny_224", img_size=64)  # reorders its patches by windows
    assert find_map_source(network, random_images(1, 64, 64)) is None


@pytest.mark.parametrize("name", ["test_vit", "test_mambaout", "test_convnext"])
def test_a_place_of_the_map_is_that_place_of_the_image(name: str) -> None:
    network = make_network(name)
    image = random_images(1, SIDE, SIDE).requires_grad_()
    source = find_map_source(network, image)
    assert source is not None
    caught: list[torch.Tensor] = []
    layer = network.get_submodule(source.module)
    layer.register_forward_hook(lambda *arguments: caught.append(arguments[2]))
    network(image)
    places = source.by_place(caught[0])
    columns = source.grid[1]
    corners = [places[0, place].square().sum() for place in (0, columns - 1, -columns, -1)]
    energy = [torch.autograd.grad(one, image, retain_graph=True)[0].square() for one in corners]
    quarters = [one[0].sum(0).unflatten(0, (2, -1)).unflatten(2, (2, -1)) for one in energy]
    sums = torch.stack([one.sum((1, 3)).flatten() for one in quarters])  # (corner, quarter)
    assert sums.argmax(dim=1).tolist() == [0, 1, 2, 3]


def test_a_network_that_ignores_its_places_has_no_map() -> None:
    network = make_network("test_resnet")
    nn.init.zeros_(network.get_classifier().weight)
    assert find_map_source(network, random_images(1, SIDE, SIDE)) is None


def test_where_nothing_speaks_for_a_class_its_map_is_empty() -> None:
    network = Twice().eval()
    nn.init.zeros_(network.stem.weight)
    nn.init.zeros_(network.stem.bias)
    nn.init.zeros_(network.mix.bias)
    images = random_images(1, 64, 64)
    source = MapSource("mix", 1, "channels first", (8, 8))
    assert not compute_maps(network, images, torch.tensor([[0]]), source).any()


def test_a_network_is_left_as_it_was() -> None:
    network = make_network("test_vit")
    before = {name: values.clone() for name, values in network.state_dict().items()}
    images = random_images(2, SIDE, SIDE)
    source = find_map_source(network, images)
    assert source is not None
    compute_maps(network, images, torch.tensor([[0], [1]]), source)
    assert torch.is_grad_enabled()
    assert not network.training
    assert all(torch.equal(before[name], values) for name, values in network.state_dict().items())
    assert [name for name, one in network.named_parameters() if one.grad is not None] == []
    assert [name for name, one in network.named_parameters() if not one.requires_grad] == []
    assert [module for module in network.modules() if module._forward_hooks] == []


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
def test_another_library_gives_the_same_maps(name: str) -> None:
    library = pytest.importorskip("pytorch_grad_cam", reason="grad-cam is not installed")
    network = make_network(name)
    images = random_images(2, SIDE, SIDE)
    source = find_map_source(network, images)
    assert source is not None
    with torch.no_grad():
        likeliest = network(images).argmax(dim=1)
    found = compute_maps(network, images, likeliest[:, None], source)[:, 0]

    def to_map(values: torch.Tensor) -> torch.Tensor:
        places = source.by_place(values)
        return places.transpose(1, 2).reshape(len(values), -1, *source.grid)

    targets = [lambda logits, k=k: logits[k] - logits.mean() for k in likeliest.tolist()]
    layer = network.get_submodule(source.module)
    with library.GradCAM(network, [layer], reshape_transform=to_map) as cam:
        cam(images, targets)
        watched = cam.activations_and_grads
        values, gradients = (
            one[0].cpu().numpy() for one in (watched.activations, watched.gradients)
        )
        theirs = np.maximum(cam.get_cam_image(images, layer, targets, values, gradients, False), 0)
    theirs /= np.maximum(theirs.max((1, 2), keepdims=True), 1e-12)
    assert found.any()
    np.testing.assert_allclose(found, theirs, atol=1e-4)  # sums in another order
