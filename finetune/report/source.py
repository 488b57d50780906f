"""What sections are made of: the files, the photos that are shown, and what is said of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finetune.report.words import as_percent

if TYPE_CHECKING:
    from finetune.report.checked import Checked
    from finetune.report.gallery import Gallery
    from finetune.report.maps import Maps, PhotoMaps
    from finetune.report.material import Material
    from finetune.report.photos import Photo

__all__ = ["Section", "Shot", "Source"]


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page under its own heading.

    Attributes:
        key: Its anchor, a word.
        title: Its heading.
        template: File in `templates/sections/`.
        values: What the template shows, by name.
    """

    key: str
    title: str
    template: str
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Shot:
    """A photo with what the model says of it.

    Attributes:
        key: Where its picture stands in the page.
        photo: The picture, or why there is none.
        label: Its class.
        predicted: The class that it is taken for.
        own: Probability of its class.
        likeliest: Classes and their probabilities, the likeliest first.
        maps: Where the model looked; None where that is not known.
    """

    key: str
    photo: Photo
    label: str
    predicted: str
    own: float
    likeliest: tuple[tuple[str, float], ...]
    maps: PhotoMaps | None = None

    @property
    def confidence(self) -> float:
        """Probability of the predicted class."""
        return self.likeliest[0][1]

    @property
    def details(self) -> dict[str, object]:
        """What the page shows of it when it is opened."""
        return {
            "name": self.photo.name,
            "label": self.label,
            "predicted": self.predicted,
            "own": as_percent(self.own),
            "likeliest": [[name, share, as_percent(share)] for name, share in self.likeliest],
            "width": self.photo.width,
            "height": self.photo.height,
            "reason": self.photo.reason,
            **(self._map_details(self.maps) if self.maps else {}),
        }

    @property
    def is_right(self) -> bool:
        """Whether it is taken for what it is."""
        return self.label == self.predicted

    def _map_details(self, maps: PhotoMaps) -> dict[str, object]:
        """Give the maps, and where they lie over the small picture, in its pixels."""
        sides = (self.photo.width, self.photo.height) * 2
        return {
            "box": [round(share * side, 2) for share, side in zip(maps.box, sides, strict=True)],
            "maps": [[one.name, one.uri, one.strongest] for one in maps.maps],
        }


@dataclass(frozen=True, slots=True)
class Source:
    """All that sections are made of.

    Attributes:
        material: What the files say.
        gallery: Which photos are shown.
        shots: These photos, by position in the answers.
        maps: Where the model looked.
        checked: What a check found in the data; None where none was named.
    """

    material: Material
    gallery: Gallery
    shots: Mapping[int, Shot]
    maps: Maps
    checked: Checked | None = None

    @classmethod
    def of(
        cls, material: Material, gallery: Gallery, photos: Mapping[str, Photo], maps: Maps
    ) -> Source:
        """Put together what the model says of each photo, its picture and its maps."""
        answers = material.main.answers
        shots = {}
        for number, place in enumerate(gallery.photos):
            ranked = zip(answers.likeliest[place], answers.probabilities[place], strict=True)
            name = answers.names[place]
            shots[place] = Shot(
                key=f"photo-{number}",
                photo=photos[name],
                label=answers.classes[answers.labels[place]],
                predicted=answers.classes[answers.predicted[place]],
                own=float(answers.own[place]),
                likeliest=tuple((answers.classes[rank], float(share)) for rank, share in ranked),
                maps=maps.photos.get(name),
            )
        return cls(material, gallery, shots, maps)
