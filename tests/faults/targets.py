"""What is fuzzed: each reader of files, good files to begin with, and words that mean something."""

import io
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

__all__ = ["TARGETS", "Target"]

Read = Callable[[bytes], object]


@dataclass(frozen=True)
class Target:
    """A reader of files.

    Attributes:
        prepare: Makes what it needs in an empty folder, and gives what reads a file's content.
        seeds: Good files.
        words: Put in as they are: what the format gives a meaning to.
        share: Of all cases, relative to the other targets.
    """

    prepare: Callable[[Path], Read]
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...]
    share: float


def _recipes(folder: Path) -> Read:
    from finetune.recipe.load import load_recipe

    file = folder / "recipe.yaml"

    def read(content: bytes) -> object:
        file.write_bytes(content)
        return load_recipe(file)

    return read


def _manifests(folder: Path) -> Read:
    from finetune.data.manifest import read_manifest

    for name in ("ants/1.png", "ants/2.png", "bees/1.png", "bees/2.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    file = folder / "photos.csv"

    def read(content: bytes) -> object:
        file.write_bytes(content)
        return read_manifest(file)

    return read


def _fix_lists(folder: Path) -> Read:
    from finetune.data.fixes import read_fixes

    file = folder / "fixes.csv"

    def read(content: bytes) -> object:
        file.write_bytes(content)
        return read_fixes(file)

    return read


def _images(folder: Path) -> Read:
    from finetune.data.decode import decode

    def halved(full: tuple[int, int], reduced: tuple[int, int]) -> bool:
        return min(reduced) >= 8

    def read(content: bytes) -> object:
        channels = (1, 3, 4)[len(content) % 3]
        reduction = halved if len(content) % 2 else None
        return decode(content, max_pixels=1_000_000, channels=channels, reduction=reduction)

    return read


def _models(folder: Path) -> Read:
    """The three files of a saved model, one after another, separated as in the seeds."""
    from finetune.model.bundle import load_bundle

    def read(content: bytes) -> object:
        ours, _, rest = content.partition(_BETWEEN)
        theirs, _, weights = rest.partition(_BETWEEN)
        (folder / "finetune.json").write_bytes(ours)
        (folder / "config.json").write_bytes(theirs)
        (folder / "model.safetensors").write_bytes(weights)
        return load_bundle(folder)

    return read


def _image_seeds() -> Iterator[bytes]:
    """Small pictures of every kind that the decoder knows and this Pillow writes."""
    Image.init()
    whole = Image.linear_gradient("L").resize((24, 20))
    colour = Image.merge("RGB", (whole, whole.rotate(90), whole.rotate(180)))
    kinds: list[tuple[str, Image.Image, dict[str, object]]] = [
        ("JPEG", colour, {"quality": 80}),
        ("JPEG", colour.convert("CMYK"), {"progressive": True}),
        ("PNG", colour, {}),
        ("PNG", whole.convert("I;16"), {}),
        ("PNG", colour.convert("P"), {"transparency": 3}),
        ("GIF", colour.convert("P"), {"save_all": True, "append_images": [whole.convert("P")]}),
        ("BMP", colour, {}),
        ("TIFF", colour, {"compression": "tiff_lzw"}),
        ("TIFF", whole.convert("F"), {}),
        ("TIFF", colour.convert("CMYK"), {"compression": "packbits"}),
        ("WEBP", colour.convert("RGBA"), {"lossless": True}),
        ("PPM", colour, {}),
        ("ICO", colour, {"sizes": [(16, 16)]}),
        ("JPEG2000", colour, {}),
        ("MPO", colour, {"save_all": True, "append_images": [colour]}),
        ("AVIF", colour, {}),
    ]
    exif = Image.Exif()
    exif[0x0112] = 6
    for format_, image, options in kinds:
        if format_ not in Image.SAVE:
            continue
        stream = io.BytesIO()
        extra = {"exif": exif.tobytes()} if format_ in ("JPEG", "PNG", "WEBP") else {}
        image.save(stream, format_, **options, **extra)
        yield stream.getvalue()


def _model_seed() -> bytes:
    """A saved model of the smallest kind."""
    from finetune.components.preprocess import Preprocessing
    from finetune.model.backbone import create_backbone
    from finetune.model.bundle import Bundle, save_bundle
    from finetune.model.network import Network

    size = (3, 32, 32)
    backbone = create_backbone("test_resnet", pretrained=False)
    network = Network(backbone, num_classes=2, input_size=size)
    document = {"backbone": "test_resnet", "versions": {}, "recipe": {"name": "default"}}
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "model"
        preprocessing = Preprocessing(input_size=size)
        save_bundle(Bundle(network.eval(), ("ants", "bees"), preprocessing, document), saved)
        names = ("finetune.json", "config.json", "model.safetensors")
        return _BETWEEN.join((saved / name).read_bytes() for name in names)


_BETWEEN = b"\n-- the next file --\n"
_NUMBERS = (b"0", b"-1", b"1e309", b"nan", b".inf", b"9" * 40, b"\xff\xff\xff\xff", b"\0\0\0\0")
_RECIPE = b"""\
schema_version: 1
name: x
model: {backbone: resnet18, head: linear}
augment: {kind: albumentations, transforms: [{name: HorizontalFlip, p: 0.5}]}
stages:
  - {name: head, train: head, solver: probe}
  - {name: full, train: {last: 2}, epochs: 3, lr: 1e-4}
runtime: {device: cpu, precision: fp32}
"""
_YAML_WORDS = (
    *(b"!!python/object/apply:os.system [id]", b"!!binary a", b"&a ", b"*a", b"<<: *a", b"? "),
    *(b"{", b"[", b"}", b"]", b": ", b"- ", b"\n", b"\n  ", b"| ", b"> ", b"# ", b"---\n"),
    *(b"%YAML 1.1\n", b"null", b"~", b"true", b"auto", b"Lambda", b"lora", b"match: '(a+)+$'"),
    *(b"\xef\xbb\xbf", b"\xff", b"[" * 500),
)
_CSV = b"""\
path,label,split,group
ants/1.png,ants,train,a
ants/2.png,ants,val,
bees/1.png,bees,train,b
"""
_CSV_WORDS = (
    *(b",", b";", b"\t", b'"', b"\n", b"\r", b"\r\n", b"\0", b"=1+1", b"train", b"TEST", b"~/x"),
    *(b"../../etc/passwd", b"/etc/passwd", b"C:\\x.png", b"a" * 300, b"x" * 140_000),
    *(b"\xff", b"\xef\xbb\xbf", b"\xe2\x80\xae"),
)
_FIXES = b"action,path,finding,reason\nexclude,ants/1.png,damaged,cut\nkeep,bees/1.png,duplicate,\n"
_IMAGE_WORDS = (
    *(b"\xff\xd8\xff", b"\xff\xda", b"\xff\xc0", b"Exif\0\0", b"II*\0", b"MM\0*", b"RIFF"),
    *(b"IHDR", b"IDAT", b"zTXt", b"iCCP", b"acTL", b"GIF89a", b"ftypavif", b"ftypheic"),
    *(b"%!PS-Adobe", b"%PDF-1.4", b"<svg"),
)
_JSON_WORDS = (
    *(b"{", b"}", b"[", b"]", b'"', b",", b":", b"null", b"true", b"[[", b'"\\ud800"', b"NaN"),
    *(b'"pretrained_cfg": [], ', b'"classes": 5, ', b'"architecture": "vgg11", ', b"[" * 3000),
    *(b"__metadata__", b"F64", b'"num_classes": 1e12, ', b'"model_args": {"in_chans": 9}, '),
)

TARGETS: dict[str, Target] = {
    "recipe": Target(_recipes, (_RECIPE,), (*_YAML_WORDS, *_NUMBERS), 0.1),
    "CSV": Target(
        _manifests,
        (_CSV, _CSV.replace(b",", b";"), _CSV.decode().encode("utf-16")),
        (*_CSV_WORDS, *_NUMBERS),
        0.35,
    ),
    "fix list": Target(_fix_lists, (_FIXES,), (*_CSV_WORDS, *_NUMBERS), 0.15),
    "image": Target(_images, tuple(_image_seeds()), (*_IMAGE_WORDS, *_NUMBERS), 0.35),
    "model": Target(_models, (_model_seed(),), (*_JSON_WORDS, *_NUMBERS), 0.05),
}
