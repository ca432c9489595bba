// Pictures as cameras write them: JPEG with rotated pixels and an EXIF orientation.

// `photo` (PNG bytes) as JPEG bytes; with `isRotated` rotated left by 90 degrees, with the EXIF
// orientation that rotates it back (6).
export async function cameraJpeg(page, photo, { isRotated }) {
  const base64 = await page.evaluate(
    async ([photo, isRotated]) => {
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
      const jpeg = await canvas.convertToBlob({ type: "image/jpeg", quality: 0.95 });
      const encoded = new Uint8Array(await jpeg.arrayBuffer());
      return btoa(Array.from(encoded, (byte) => String.fromCharCode(byte)).join(""));
    },
    [photo.toString("base64"), isRotated],
  );
  const jpeg = Buffer.from(base64, "base64");
  return isRotated ? withOrientation(jpeg, 6) : jpeg;
}

// A JPEG with an EXIF segment that holds only the orientation, after the start marker.
function withOrientation(jpeg, orientation) {
  const entry = [0x01, 0x12, 0x00, 0x03, 0, 0, 0, 1, 0, orientation, 0, 0];
  const tiff = [0x4d, 0x4d, 0x00, 0x2a, 0, 0, 0, 8, 0, 1, ...entry, 0, 0, 0, 0];
  const body = Buffer.from([...Buffer.from("Exif\0\0"), ...tiff]);
  const length = Buffer.alloc(2);
  length.writeUInt16BE(body.length + 2);
  return Buffer.concat([jpeg.subarray(0, 2), Buffer.from([0xff, 0xe1]), length, body, jpeg.subarray(2)]);
}
