// Pictures as cameras write them: rotated pixels and an EXIF orientation, in JPEG, PNG and WebP.

import { crc32 } from "node:zlib";

// `photo` (PNG bytes) as JPEG bytes; with `isRotated` rotated left by 90 degrees, with the EXIF
// orientation that rotates it back (6).
export async function cameraJpeg(page, photo, { isRotated }) {
  const jpeg = await encoded(page, photo, { isRotated, type: "image/jpeg", quality: 0.95 });
  return isRotated ? jpegWithOrientation(jpeg, 6) : jpeg;
}

// `photo` (PNG bytes) rotated left by 90 degrees with the EXIF orientation that rotates it back, by ending of
// the file; lossless but for JPEG.
export async function turnedFiles(page, photo) {
  const bytes = (type, quality) => encoded(page, photo, { isRotated: true, type, quality });
  const { width, height } = sizeOfPng(photo);
  return {
    jpg: jpegWithOrientation(await bytes("image/jpeg", 0.95), 6),
    png: pngWithOrientation(await bytes("image/png"), 6),
    webp: webpWithOrientation(await bytes("image/webp", 1), height, width, 6),
  };
}

const sizeOfPng = (png) => ({ width: png.readUInt32BE(16), height: png.readUInt32BE(20) });

// `photo` as the bytes of another type, rotated left by 90 degrees if `isRotated`.
async function encoded(page, photo, { isRotated, type, quality }) {
  const base64 = await page.evaluate(
    async ([photo, isRotated, type, quality]) => {
      const bytes = Uint8Array.from(atob(photo), (letter) => letter.charCodeAt(0));
      const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
      const { width, height } = bitmap;
      const canvas = isRotated ? new OffscreenCanvas(height, width) : new OffscreenCanvas(width, height);
      const context = canvas.getContext("2d");
      if (isRotated) {
        context.translate(0, width);
        context.rotate(-Math.PI / 2);
      }
      context.drawImage(bitmap, 0, 0);
      const blob = await canvas.convertToBlob({ type, quality });
      const encoded = new Uint8Array(await blob.arrayBuffer());
      return btoa(Array.from(encoded, (byte) => String.fromCharCode(byte)).join(""));
    },
    [photo.toString("base64"), isRotated, type, quality],
  );
  return Buffer.from(base64, "base64");
}

// EXIF that holds only the orientation.
function exif(orientation) {
  const entry = [0x01, 0x12, 0x00, 0x03, 0, 0, 0, 1, 0, orientation, 0, 0];
  return Buffer.from([0x4d, 0x4d, 0x00, 0x2a, 0, 0, 0, 8, 0, 1, ...entry, 0, 0, 0, 0]);
}

// A JPEG with an EXIF segment after the start marker.
function jpegWithOrientation(jpeg, orientation) {
  const body = Buffer.concat([Buffer.from("Exif\0\0"), exif(orientation)]);
  const length = Buffer.alloc(2);
  length.writeUInt16BE(body.length + 2);
  return Buffer.concat([jpeg.subarray(0, 2), Buffer.from([0xff, 0xe1]), length, body, jpeg.subarray(2)]);
}

// A chunk of a PNG.
export function pngChunk(name, content) {
  const body = Buffer.concat([Buffer.from(name, "latin1"), content]);
  const [length, sum] = [Buffer.alloc(4), Buffer.alloc(4)];
  length.writeUInt32BE(content.length);
  sum.writeUInt32BE(crc32(body));
  return Buffer.concat([length, body, sum]);
}

// A PNG with an EXIF chunk after its header.
function pngWithOrientation(png, orientation) {
  const header = 8 + 25;
  return Buffer.concat([png.subarray(0, header), pngChunk("eXIf", exif(orientation)), png.subarray(header)]);
}

// A simple WebP file as an extended one with an EXIF orientation.
export function webpWithOrientation(simple, width, height, orientation) {
  const chunk = (name, content) => {
    const head = Buffer.alloc(8);
    head.write(name, "latin1");
    head.writeUInt32LE(content.length, 4);
    return Buffer.concat([head, content, Buffer.alloc(content.length % 2)]);
  };
  const flags = Buffer.alloc(10);
  flags[0] = 0x08;
  flags.writeUIntLE(width - 1, 4, 3);
  flags.writeUIntLE(height - 1, 7, 3);
  const exif = Buffer.from("49492a0008000000010012010300010000000000000000000000", "hex");
  exif.writeUInt16LE(orientation, 18);
  // Chromium writes an extended file already where it has alpha; only the picture itself is taken.
  let picture = simple.subarray(12);
  while (!["VP8 ", "VP8L"].includes(picture.toString("latin1", 0, 4))) {
    const size = picture.readUInt32LE(4);
    picture = picture.subarray(8 + size + (size % 2));
  }
  const size = picture.readUInt32LE(4);
  picture = picture.subarray(0, 8 + size + (size % 2));
  const body = Buffer.concat([Buffer.from("WEBP"), chunk("VP8X", flags), picture, chunk("EXIF", exif)]);
  const head = Buffer.alloc(8);
  head.write("RIFF", "latin1");
  head.writeUInt32LE(body.length, 4);
  return Buffer.concat([head, body]);
}
