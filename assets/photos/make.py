"""Makes the background photographs from those that scikit-image's PyPI package carries.

Needs Pillow and scikit-image (made with 0.26.0 and Pillow 13). WebP, because its lossy decoding
is exact to the bit everywhere.
"""

from pathlib import Path

import skimage
from PIL import Image

SOURCE = Path(skimage.__file__).parent / "data"
# name: (file, part used as left, top, right, bottom; longer side afterwards)
PHOTOS = {
    "astronaut": ("astronaut.png", (0, 0, 340, 512), 320),
    "brick": ("brick.png", None, 256),
    "coffee": ("coffee.png", None, 320),
    "grass": ("grass.png", None, 256),
    "gravel": ("gravel.png", None, 256),
    "hubble": ("hubble_deep_field.jpg", None, 320),
    "retina": ("retina.jpg", None, 256),
}

for name, (file, part, side) in PHOTOS.items():
    picture = Image.open(SOURCE / file).convert("RGB").crop(part)
    picture.thumbnail((side, side), Image.LANCZOS)
    picture.save(Path(__file__).with_name(f"{name}.webp"), quality=70, method=6)
