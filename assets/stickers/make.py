"""Makes atlas.png: one 96 x 96 RGBA cell per sticker, eight cells a row, in the order of KINDS.

Needs Pillow and Debian's fonts-noto-color-emoji (made with 2.042-0+deb12u1 and Pillow 13).
Each picture is rendered at the font's own bitmap size, freed of specks that do not touch the main
shape, cropped to its visible extent and scaled so that its longer side is 96.
"""

from collections import deque
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
CELL, COLUMNS = 96, 8
KINDS = "🐶🐱🐘🦋🐧🐟" "🍎🍌🍕🥕🍩" "🚗🚲⛵🚀✈🚂" "☂🎸⏰📷🏠" "🌳🌵🌻🍄"


def main_shape(picture):
    """The picture with everything cleared but its largest connected opaque region."""
    alpha = picture.getchannel("A").load()
    width, height = picture.size
    seen, best = set(), []
    for start in ((x, y) for y in range(height) for x in range(width)):
        if start in seen or not alpha[start]:
            continue
        region, queue = [], deque([start])
        seen.add(start)
        while queue:
            x, y = queue.popleft()
            region.append((x, y))
            for near in ((x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)):
                inside = 0 <= near[0] < width and 0 <= near[1] < height
                if inside and near not in seen and alpha[near]:
                    seen.add(near)
                    queue.append(near)
        best = max(best, region, key=len)
    kept = Image.new("RGBA", picture.size)
    for at in best:
        kept.putpixel(at, picture.getpixel(at))
    return kept


def sticker(font, character):
    """One character as a cell."""
    canvas = Image.new("RGBA", (180, 180))
    ImageDraw.Draw(canvas).text((16, 16), character, font=font, embedded_color=True)
    picture = main_shape(canvas)
    visible = picture.getchannel("A").point(lambda a: 255 if a >= 128 else 0).getbbox()
    picture = picture.crop(visible)
    scale = CELL / max(picture.size)
    size = [max(1, round(side * scale)) for side in picture.size]
    picture = picture.convert("RGBa").resize(size, Image.LANCZOS).convert("RGBA")
    cell = Image.new("RGBA", (CELL, CELL))
    cell.paste(picture, ((CELL - size[0]) // 2, (CELL - size[1]) // 2))
    return cell


def main():
    font = ImageFont.truetype(FONT, 109)
    rows = -(-len(KINDS) // COLUMNS)
    atlas = Image.new("RGBA", (COLUMNS * CELL, rows * CELL))
    for number, character in enumerate(KINDS):
        at = (number % COLUMNS * CELL, number // COLUMNS * CELL)
        atlas.paste(sticker(font, character), at)
    atlas.save(Path(__file__).with_name("atlas.png"), optimize=True)


main()
