"""Makes the sample photographs of the page from those that scikit-image's PyPI package carries.

Needs Pillow and scikit-image (made with 0.26.0 and Pillow 13). Only pictures whose documentation in
`skimage/data/_fetchers.py` puts them into the public domain are used; `samples.json` quotes it.
"""

from pathlib import Path

import skimage
from PIL import Image

SOURCE = Path(skimage.__file__).parent / "data"
SAMPLES = Path(__file__).parents[2] / "web/static/samples"
# Name of the sample: file of the package.
PHOTOS = {
    "astronaut": "astronaut.png",
    "camera": "camera.png",
    "cat": "chelsea.png",
    "coffee": "coffee.png",
    "rocket": "rocket.jpg",
}
# Longer side in pixels.
SIDE = 640

for name, file in PHOTOS.items():
    picture = Image.open(SOURCE / file).convert("RGB")
    picture.thumbnail((SIDE, SIDE), Image.LANCZOS)
    picture.save(SAMPLES / f"{name}.jpg", quality=85, optimize=True)
