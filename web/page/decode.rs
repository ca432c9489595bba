//! Decodes a picture from a file, a drop, the clipboard or an address by the browser's decoder.
//!
//! The pixels stay in a JavaScript array outside the wasm memory until they are sent to the worker: a
//! picture of 50 megapixels would otherwise double that memory, which never shrinks.

use chatrex::error::{ErrorCode, Fault, FaultKind};
use chatrex::image::webp::{self, Orientation};
use chatrex::image::{Pixels, jpeg};
use js_sys::{Array, Promise, Reflect, Uint8Array};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{
    Blob, BlobPropertyBag, ColorSpaceConversion, File, FilePropertyBag, HtmlImageElement,
    HtmlVideoElement, ImageBitmap, ImageBitmapOptions, ImageEncodeOptions, ImageOrientation,
    OffscreenCanvas, OffscreenCanvasRenderingContext2d, PremultiplyAlpha, Response, Url,
};

use crate::pause::pause;

/// Pixels read from the canvas at a time.
const STRIP_PIXELS: u32 = 1 << 20;

/// The longer side of a thumbnail in pixels.
const THUMBNAIL: f64 = 160.0;

/// A decoded picture.
pub struct Opened {
    /// Columns, EXIF rotation applied.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// `height * width * 3` bytes, row-major.
    pub rgb: Uint8Array,
    /// Object URL of the picture, for the `img` element; revoked when dropped.
    pub url: ObjectUrl,
    /// The file as it was opened, in memory.
    pub file: Blob,
    /// A small JPEG of it, if the browser made one.
    pub thumbnail: Option<Blob>,
}

/// A copy of pixels, to be transferred to a worker.
pub fn copied(rgb: &Uint8Array) -> Uint8Array {
    rgb.slice(0, rgb.length())
}

/// An object URL.
pub struct ObjectUrl(String);

impl ObjectUrl {
    /// The address of a blob.
    ///
    /// # Errors
    /// The browser gives no address.
    pub fn new(blob: &Blob) -> Result<Self, Fault> {
        Url::create_object_url_with_blob(blob)
            .map(Self)
            .map_err(|_| unreadable())
    }

    /// The address.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Drop for ObjectUrl {
    fn drop(&mut self) {
        // A failure only costs memory.
        let _ = Url::revoke_object_url(&self.0);
    }
}

/// Fetches a picture from this site.
pub async fn fetch(address: &str) -> Result<Blob, Fault> {
    let missing = || {
        Fault::new(
            FaultKind::Network,
            address,
            "the picture could not be fetched",
            "Drop a picture of your own, or reload the page",
        )
    };
    let window = web_sys::window().expect("a page has a window");
    let response = JsFuture::from(window.fetch_with_str(address)).await;
    let response: Response = response.map_err(|_| missing())?.unchecked_into();
    if !response.ok() {
        return Err(missing());
    }
    let blob = JsFuture::from(response.blob().map_err(|_| missing())?).await;
    blob.map(JsCast::unchecked_into).map_err(|_| missing())
}

/// Whether a file says that it is a picture.
pub fn is_picture(file: &File) -> bool {
    file.type_().starts_with("image/")
}

/// A file called `name` with this content.
pub fn named(blob: &Blob, name: &str) -> Option<File> {
    let options = FilePropertyBag::new();
    options.set_type(&blob.type_());
    let parts = Array::of1(blob);
    let file = File::new_with_blob_sequence_and_options(&parts, name, &options);
    file.ok()
}

/// Decodes a picture. Transparent pixels are blended with white.
///
/// # Errors
/// Not a picture that this browser can read, cut short, or too large.
pub async fn open(blob: &Blob) -> Result<Opened, Fault> {
    let Decoded { url, file, bitmap } = decode(blob).await?;
    let thumbnail = thumbnail(&bitmap).await;
    let rgb = read(&bitmap).await;
    let (width, height) = (bitmap.width(), bitmap.height());
    bitmap.close();
    Ok(Opened {
        width,
        height,
        rgb: rgb?,
        url,
        file,
        thumbnail,
    })
}

/// The address of a picture, upright, where it is only shown.
///
/// # Errors
/// Those of [`open`].
pub async fn address(blob: &Blob) -> Result<ObjectUrl, Fault> {
    let Decoded { url, bitmap, .. } = decode(blob).await?;
    bitmap.close();
    Ok(url)
}

/// A decoded picture, upright.
struct Decoded {
    url: ObjectUrl,
    file: Blob,
    bitmap: ImageBitmap,
}

async fn decode(blob: &Blob) -> Result<Decoded, Fault> {
    let bytes = bytes(blob).await?;
    if !jpeg::is_complete(&bytes) {
        return Err(cut_short());
    }
    let file = memory_blob(&bytes, &blob.type_())?;
    let turned = webp::turned(&bytes);
    let ended = jpeg::with_end(&bytes);
    if is_heic(&bytes) && measure(&ObjectUrl::new(&file)?).await.is_err() {
        return Err(heic());
    }
    drop(bytes);
    let (orientation, shown) = match (turned, ended) {
        (Some((orientation, plain)), _) => (Some(orientation), memory_blob(&plain, "image/webp")?),
        (None, Some(ended)) => (None, memory_blob(&ended, "image/jpeg")?),
        (None, None) => (None, file.clone()),
    };
    let mut url = ObjectUrl::new(&shown)?;
    let (width, height) = measure(&url).await?;
    let pixels = u64::from(width) * u64::from(height);
    if pixels > Pixels::LIMIT {
        let millions = pixels.div_ceil(1_000_000);
        return Err(Fault::new(
            FaultKind::Picture,
            "that picture",
            format!(
                "it has {millions} million pixels; {} million is the most",
                Pixels::LIMIT / 1_000_000
            ),
            "Make it smaller and try again; your current picture is unchanged",
        ));
    }
    let mut bitmap = bitmap(&shown).await?;
    if let Some(orientation) = orientation {
        let upright = turn(&bitmap, orientation)?;
        url = ObjectUrl::new(&encode(&upright, "image/png").await.ok_or_else(too_large)?)?;
        bitmap.close();
        bitmap = upright
            .transfer_to_image_bitmap()
            .map_err(|_| too_large())?;
    }
    Ok(Decoded { url, file, bitmap })
}

/// A thumbnail of a picture that is not opened yet; `None` if the browser cannot read it.
pub async fn preview(blob: &Blob) -> Option<Blob> {
    let bitmap = match bitmap(blob).await {
        Ok(bitmap) => bitmap,
        Err(_) => {
            let ended = jpeg::with_end(&bytes(blob).await.ok()?)?;
            bitmap(&memory_blob(&ended, "image/jpeg").ok()?)
                .await
                .ok()?
        }
    };
    let made = thumbnail(&bitmap).await;
    bitmap.close();
    made
}

/// The frame that a video shows.
///
/// # Errors
/// It shows none, or the browser finds no memory.
pub async fn still(video: &HtmlVideoElement) -> Result<Blob, Fault> {
    let (width, height) = (video.video_width(), video.video_height());
    let canvas = OffscreenCanvas::new(width, height).map_err(|_| too_large())?;
    let context = context(&canvas).ok_or_else(too_large)?;
    context
        .draw_image_with_html_video_element(video, 0.0, 0.0)
        .map_err(|_| too_large())?;
    encode(&canvas, "image/jpeg").await.ok_or_else(too_large)
}

/// The bytes of a file.
async fn bytes(blob: &Blob) -> Result<Vec<u8>, Fault> {
    let buffer = JsFuture::from(blob.array_buffer()).await;
    let buffer = buffer.map_err(|_| {
        Fault::new(
            FaultKind::Picture,
            "that file",
            "it cannot be read; it may have been moved or changed",
            "Choose it again; your current picture is unchanged",
        )
    })?;
    Ok(Uint8Array::new(&buffer).to_vec())
}

/// A blob in memory: what happens to the file on the disk does not change it.
fn memory_blob(bytes: &[u8], kind: &str) -> Result<Blob, Fault> {
    let parts = js_sys::Array::of1(&Uint8Array::from(bytes));
    let options = BlobPropertyBag::new();
    options.set_type(kind);
    Blob::new_with_u8_array_sequence_and_options(&parts, &options).map_err(|_| too_large())
}

/// True for the pictures of phones that only some browsers read.
fn is_heic(bytes: &[u8]) -> bool {
    let brand = bytes.get(4..12);
    brand.is_some_and(|b| b.starts_with(b"ftyp") && [&b"he"[..], b"mi", b"ms"].contains(&&b[4..6]))
}

/// The upright picture on a canvas.
fn turn(bitmap: &ImageBitmap, orientation: Orientation) -> Result<OffscreenCanvas, Fault> {
    let (width, height) = (bitmap.width(), bitmap.height());
    let upright = orientation.upright(width, height);
    let canvas = OffscreenCanvas::new(upright.0, upright.1).map_err(|_| too_large())?;
    let context = context(&canvas).ok_or_else(too_large)?;
    let [a, b, c, d, e, f] = orientation.transform(width, height);
    context
        .set_transform(a, b, c, d, e, f)
        .map_err(|_| too_large())?;
    context
        .draw_image_with_image_bitmap(bitmap, 0.0, 0.0)
        .map_err(|_| too_large())?;
    Ok(canvas)
}

async fn thumbnail(bitmap: &ImageBitmap) -> Option<Blob> {
    let (width, height) = (f64::from(bitmap.width()), f64::from(bitmap.height()));
    let scale = (THUMBNAIL / width.max(height)).min(1.0);
    let (width, height) = ((width * scale).max(1.0), (height * scale).max(1.0));
    let canvas = OffscreenCanvas::new(width as u32, height as u32).ok()?;
    let context = context(&canvas)?;
    context.set_fill_style_str("white");
    context.fill_rect(0.0, 0.0, width, height);
    context
        .draw_image_with_image_bitmap_and_dw_and_dh(bitmap, 0.0, 0.0, width, height)
        .ok()?;
    encode(&canvas, "image/jpeg").await
}

async fn encode(canvas: &OffscreenCanvas, kind: &str) -> Option<Blob> {
    let options = ImageEncodeOptions::new();
    options.set_type(kind);
    let blob = canvas.convert_to_blob_with_options(&options).ok()?;
    JsFuture::from(blob).await.ok()?.dyn_into().ok()
}

/// Width and height of a picture from its header, before it is decoded.
async fn measure(url: &ObjectUrl) -> Result<(u32, u32), Fault> {
    let image = HtmlImageElement::new().map_err(|_| unreadable())?;
    let loaded = Promise::new(&mut |resolve, reject| {
        image.set_onload(Some(&resolve));
        image.set_onerror(Some(&reject));
    });
    image.set_src(url.as_str());
    JsFuture::from(loaded).await.map_err(|_| unreadable())?;
    match (image.natural_width(), image.natural_height()) {
        (0, _) | (_, 0) => Err(unreadable()),
        size => Ok(size),
    }
}

/// Decodes a picture, EXIF rotation applied.
pub async fn bitmap(blob: &Blob) -> Result<ImageBitmap, Fault> {
    let options = ImageBitmapOptions::new();
    options.set_image_orientation(ImageOrientation::FromImage);
    options.set_premultiply_alpha(PremultiplyAlpha::Default);
    options.set_color_space_conversion(ColorSpaceConversion::None);
    let window = web_sys::window().expect("a page has a window");
    let decoded = window
        .create_image_bitmap_with_blob_and_image_bitmap_options(blob, &options)
        .map_err(|_| unreadable())?;
    let decoded = JsFuture::from(decoded).await.map_err(|_| unreadable())?;
    Ok(decoded.unchecked_into())
}

/// The RGB bytes of a bitmap. Reads strips and yields between them, so that the page stays
/// responsive.
async fn read(bitmap: &ImageBitmap) -> Result<Uint8Array, Fault> {
    let (width, height) = (bitmap.width(), bitmap.height());
    let rows = (STRIP_PIXELS / width).clamp(1, height);
    let canvas = OffscreenCanvas::new(width, rows).map_err(|_| too_large())?;
    let context = context(&canvas).ok_or_else(too_large)?;
    context.set_fill_style_str("white");
    let rgb = Uint8Array::new_with_length(width * height * 3);
    let mut strip = Vec::new();
    for top in (0..height).step_by(rows as usize) {
        let rows = rows.min(height - top);
        let (w, h) = (f64::from(width), f64::from(rows));
        context.fill_rect(0.0, 0.0, w, h);
        context
            .draw_image_with_image_bitmap_and_sw_and_sh_and_dx_and_dy_and_dw_and_dh(
                bitmap,
                0.0,
                f64::from(top),
                w,
                h,
                0.0,
                0.0,
                w,
                h,
            )
            .map_err(|_| too_large())?;
        let data = context
            .get_image_data(0.0, 0.0, w, h)
            .map_err(|_| too_large())?;
        let data = data.data();
        strip.resize(data.len() / 4 * 3, 0);
        for (rgb, rgba) in strip.chunks_exact_mut(3).zip(data.chunks_exact(4)) {
            rgb.copy_from_slice(&rgba[..3]);
        }
        rgb.subarray(top * width * 3, (top + rows) * width * 3)
            .copy_from(&strip);
        pause(0).await;
    }
    Ok(rgb)
}

fn context(canvas: &OffscreenCanvas) -> Option<OffscreenCanvasRenderingContext2d> {
    let options = js_sys::Object::new();
    Reflect::set(&options, &"willReadFrequently".into(), &true.into()).ok()?;
    let context = canvas
        .get_context_with_context_options("2d", &options)
        .ok()??;
    Some(context.unchecked_into())
}

fn unreadable() -> Fault {
    Fault::new(
        FaultKind::Picture,
        "that file",
        "this browser cannot read it as a picture",
        "Take a JPEG, PNG or WebP file; your current picture is unchanged",
    )
    .code(ErrorCode::Unsupported)
}

fn heic() -> Fault {
    Fault::new(
        FaultKind::Picture,
        "that file",
        "it is a HEIC picture, which this browser cannot read; Safari can",
        "Save it as JPEG and try again; your current picture is unchanged",
    )
    .code(ErrorCode::Unsupported)
}

fn cut_short() -> Fault {
    Fault::new(
        FaultKind::Picture,
        "that picture",
        "it was cut short: its end is missing",
        "Export or download it again; your current picture is unchanged",
    )
    .code(ErrorCode::Corrupt)
}

fn too_large() -> Fault {
    Fault::new(
        FaultKind::Picture,
        "that picture",
        "the browser found no memory for its pixels",
        "Make it smaller and try again; your current picture is unchanged",
    )
    .code(ErrorCode::OutOfMemory)
}
