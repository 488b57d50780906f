"""What must hold of every architecture of timm, as three checks that give a row of a table.

`check_shape` builds on the meta device: the head replaced, the depth map whole, freezing what it
says, the saved configuration read back. `check_step` computes: one training step with the last
group unfrozen, then the saved model against timm alone in a process of its own. `check_split` cuts
at what learns and compares the two parts with the whole.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from finetune.components.heads import LinearHead
from finetune.components.policies import (
    AllPolicy,
    HeadPolicy,
    LastBlocksPolicy,
    LastPolicy,
)
from finetune.model.backbone import build_on_meta, group_names
from finetune.model.boundary import Split, split_network
from finetune.model.bundle import Bundle, load_bundle, save_bundle
from finetune.model.create import create_model
from finetune.model.depth import describe_parameters, is_batch_norm, num_blocks, num_depths
from finetune.model.family import find_family
from finetune.model.input import takes_size
from finetune.model.network import Network, build_network, has_classifier
from finetune.recipe.schema import Recipe
from finetune.train.freeze import freeze, set_modes

NUM_CLASSES = 5
CLASSES = ("ant", "bee", "cat", "dog", "elk")
SIZES = (32, 48, 56, 64, 96, 112, 128, 160, 192, 224, 256, 288, 320, 384, 448)


def check_shape(name: str) -> dict[str, Any]:
    """Take an architecture through everything that needs no arithmetic; give its facts."""
    network = meta_network(name)
    params = describe_parameters(network)
    names = [param.name for param in params]
    assert names == [key for key, _ in network.named_parameters()], "a parameter is not described"
    assert len(set(names)) == len(names), "a parameter is described twice"
    depths = sorted({param.depth for param in params})
    blocks = sorted({param.block for param in params})
    assert depths == list(range(len(depths))), "depths have gaps"
    assert blocks == list(range(len(blocks))), "blocks have gaps"
    head = {id(p) for module in network.head_modules() for p in module.parameters()}
    assert head, "the head has no parameter"
    found = {key for key, parameter in network.named_parameters() if id(parameter) in head}
    assert {param.name for param in params if param.is_head} == found, "the head is another"
    assert {param.depth for param in params if param.is_head} == {depths[-1]}, "head not last"
    check_freezing(network)
    check_configuration(name, network)
    return {
        "family": find_family(network),
        "head": " + ".join(sorted({type(module).__name__ for module in network.head_modules()})),
        "groups": num_depths(params),
        "blocks": num_blocks(params),
        "grouped_by": "timm" if group_names(network.backbone, coarse=True) else "modules",
    }


def meta_network(name: str) -> Network:
    """Build an architecture with a new head, without memory."""
    backbone = build_on_meta(name)
    with torch.device("meta"):
        return build_network(
            backbone,
            LinearHead(),
            num_classes=NUM_CLASSES,
            input_size=tuple(backbone.pretrained_cfg["input_size"]),
        )


def check_freezing(network: Network) -> None:
    """Let policies decide, and compare what requires a gradient with what they say."""
    params = describe_parameters(network)
    groups, fine = num_depths(params), num_blocks(params)
    expected = {
        HeadPolicy(): lambda param: False,
        LastPolicy(last=1): lambda param: param.depth >= groups - 1,
        LastPolicy(last=min(2, groups)): lambda param: param.depth >= groups - min(2, groups),
        LastBlocksPolicy(last_blocks=1): lambda param: param.block >= fine - 1,
        AllPolicy(): lambda param: True,
    }
    for policy, learns in expected.items():
        freeze(network, params, policy=policy)
        tensors = dict(network.named_parameters())
        for param in params:
            wanted = param.is_head or learns(param)
            assert tensors[param.name].requires_grad is wanted, f"{policy}: {param.name}"
        outside = [p for p in params if tensors[p.name].requires_grad and not p.is_head]
        assert bool(outside) is (not isinstance(policy, HeadPolicy)), f"{policy} trains nothing"


def check_configuration(name: str, network: Network) -> None:
    """Save the configuration as timm does, read it back, and compare the tensors."""
    from timm.models._hub import save_config_for_hf

    with tempfile.TemporaryDirectory() as folder:
        save_config_for_hf(network.backbone, str(Path(folder) / "config.json"))
        again = build_on_meta(f"local-dir:{folder}")
    shapes = {key: value.shape for key, value in network.backbone.state_dict().items()}
    assert {key: value.shape for key, value in again.state_dict().items()} == shapes, "not rebuilt"


def check_step(name: str, alone: "TimmAlone") -> dict[str, Any]:
    """Train one step with the last group unfrozen, save, and compare with timm alone."""
    size = smallest_size(name)
    values = {"backbone": name, "pretrained": False, "image_size": size}
    model = create_model(Recipe(model=values), num_classes=NUM_CLASSES)
    network = model.network
    settle(network)
    loss = check_one_step(network)
    network.eval()
    images = torch.rand(2, *network.input_size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        logits = network(images)
    assert torch.isfinite(logits).all(), "logits are not finite"
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "model"
        saved = save_bundle(Bundle(network, CLASSES, model.preprocessing, {"recipe": {}}), place)
        is_loadable = saved.document["timm_loadable"]
        assert is_loadable is has_classifier(network.backbone), "timm_loadable is wrong"
        if is_loadable:
            again = alone.logits(place, images)
        else:
            with torch.inference_mode():
                again = load_bundle(place).network(images)
    # Random networks give logits of any size, up to a million: rounding is relative to the largest.
    scale = max(1.0, logits.abs().max().item())
    torch.testing.assert_close(again / scale, logits / scale, atol=1e-5, rtol=0)
    return {"size": size, "loss": round(loss, 3), "timm_loadable": is_loadable}


@torch.no_grad()
def settle(network: Network) -> None:
    """Set batch statistics to those of one batch; a deep random network overflows with its own."""
    norms = [module for module in network.modules() if is_batch_norm(module)]
    momenta = [module.momentum for module in norms]
    for module in norms:
        module.momentum = 1.0
    network.train()(torch.randn(4, *network.input_size, generator=torch.Generator().manual_seed(2)))
    for module, momentum in zip(norms, momenta, strict=True):
        module.momentum = momentum


def check_one_step(network: Network) -> float:
    """Make one step; what is frozen keeps every bit, what learns moves."""
    freezing = freeze(network, describe_parameters(network), policy=LastPolicy(last=1))
    set_modes(network, "trained")
    learning = {param.name for param, _ in freezing.trained}
    before = {key: value.clone() for key, value in network.state_dict().items()}
    images = torch.randn(2, *network.input_size, generator=torch.Generator().manual_seed(0))
    logits = network(images)
    assert logits.shape == (2, NUM_CLASSES), f"logits of shape {tuple(logits.shape)}"
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1]))
    assert torch.isfinite(loss), "the loss is not finite"
    loss.backward()
    parameters = [p for p in network.parameters() if p.requires_grad]
    torch.optim.Adam(parameters, lr=1e-4).step()  # steps of one size, however steep the slope
    after = network.state_dict()
    learning |= aliases(network, learning)
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    followed = {
        f"{path}.{key}"
        for path, module in network.named_modules()
        if any(p.requires_grad for p in module.parameters(recurse=False))
        for key, _ in module.named_buffers(recurse=False)
    }
    assert moved <= learning | followed, f"frozen and moved: {sorted(moved - learning)[:3]}"
    assert moved & learning, "nothing learned"
    return loss.item()


def check_split(name: str, policy: str = "last") -> dict[str, Any]:
    """Split with the last group unfrozen, or with the head alone; the parts are the network."""
    values = {"backbone": name, "pretrained": False, "image_size": smallest_size(name)}
    network = create_model(Recipe(model=values), num_classes=NUM_CLASSES).network
    learns = HeadPolicy() if policy == "head" else LastPolicy(last=1)
    freeze(network, describe_parameters(network), policy=learns)
    set_modes(network, "trained")
    split = split_network(network)
    if not isinstance(split, Split):
        return {"how": "none", "reason": split.reason}
    images = torch.randn(3, *network.input_size, generator=torch.Generator().manual_seed(2))
    crossing = split.frozen(images)
    gradients, logits = [], []
    for part, given in ((network, (images,)), (split.trained, crossing)):
        before = [buffer.clone() for buffer in network.buffers()]
        network.zero_grad(set_to_none=True)
        torch.manual_seed(0)
        logits.append(part(*given))
        logits[-1].square().mean().backward()
        gradients.append({n: p.grad for n, p in network.named_parameters() if p.grad is not None})
        for buffer, value in zip(network.buffers(), before, strict=True):
            buffer.copy_(value)
    assert torch.equal(*logits), "other logits in training"
    assert gradients[0].keys() == gradients[1].keys(), "gradients of other parameters"
    for key, gradient in gradients[0].items():
        error = (gradients[1][key] - gradient).abs().max() / gradient.abs().max().clamp(min=1e-12)
        assert error <= 1e-6, f"the gradient of {key} is off by {error:.1e}"
    network.eval()
    with torch.no_grad():
        # Careful: where gradients are off, torch may take other kernels (oneDNN's LSTM, with AVX2).
        composed = split.trained(*split.frozen(images))
        assert torch.equal(composed, network(images)), "other logits in eval mode"
    num_bytes = sum(tensor[0].numel() * tensor.element_size() for tensor in crossing)
    return {"how": split.how, "bytes": num_bytes, "reason": split.reason}


def aliases(network: Network, names: set[str]) -> set[str]:
    """Name the tensors that are the same as some parameters: CoaT's blocks share their layers."""
    parameters = dict(network.named_parameters())
    wanted = {parameters[name].data_ptr() for name in names}
    return {key for key, value in network.state_dict().items() if value.data_ptr() in wanted}


def smallest_size(name: str) -> int:
    """Find the smallest square size, in pixels, that an architecture computes on."""
    own = build_on_meta(name).pretrained_cfg["input_size"][1]
    return next(size for size in sorted({*SIZES, own}) if takes_size(name, (size, size)))


class TimmAlone:
    """A process that knows timm and not finetune; ask it for logits."""

    def __init__(self) -> None:
        script = Path(__file__).with_name("timm_alone.py")
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def logits(self, folder: Path, images: torch.Tensor) -> torch.Tensor:
        """Load a saved model there and compute logits (B, K) of normalised images."""
        file = folder.parent / "images.safetensors"
        save_file({"images": images}, file)
        self._process.stdin.write(json.dumps([str(folder), str(file)]) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert "error" not in answer, answer.get("error")
        assert tuple(answer["names"]) == CLASSES, "class names are lost"
        return torch.tensor(answer["logits"])

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()


@contextmanager
def timm_alone() -> Iterator[TimmAlone]:
    """Have a process with timm alone for a while."""
    alone = TimmAlone()
    try:
        yield alone
    finally:
        alone.close()
