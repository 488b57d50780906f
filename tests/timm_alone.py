"""A process that knows timm and not finetune: it loads folders, and answers with logits.

    python tests/timm_alone.py

A line of JSON in is `[folder, images.safetensors]`, a line out `{"logits": …, "names": …}` or
`{"error": …}`. It is what a person has who deploys a saved model with timm alone.
"""

import json
import sys

import torch
from safetensors.torch import load_file


def import_timm() -> object:
    """Import timm, also beside a torchvision whose compiled operators do not load."""
    library = torch.library.Library("torchvision", "DEF")
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in [name for name in sys.modules if name.startswith("torchvision")]:
            sys.modules.pop(name)
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor a, Tensor b, float c) -> Tensor")
    import timm

    return timm, library


def main() -> None:
    """Answer until the input ends."""
    timm, _library = import_timm()
    for line in sys.stdin:
        folder, file = json.loads(line)
        try:
            model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
            with torch.inference_mode():
                logits = model(load_file(file)["images"])
            names = list(model.pretrained_cfg.get("label_names") or ())
            answer = {"logits": logits.tolist(), "names": names}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        assert "finetune" not in sys.modules
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
