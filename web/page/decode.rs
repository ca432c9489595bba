//! Decodes a picture from a file, a drop, the clipboard or an address by the browser's decoder.
//!
//! The pixels stay in a JavaScript array outside the wasm memory until they are sent to the worker: a
//! picture of 50 megapixels would otherwise double that memory, which never shrinks.

use chatrex::error::{ErrorCode, Fault, FaultKind};
use chatrex::image::Pixels;
use js_sys::{Array, Promise, Reflect, Uint8Array};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{
    Blob, ColorSpaceConversion, File, FilePropertyBag, HtmlImageElement, ImageBitmap,
    ImageBitmapOptions, ImageOrientation, OffscreenCanvas, OffscreenCanvasRenderingContext2d,
    PremultiplyAlpha, Response, Url,
};

/// Pixels read from the canvas at a time.
const STRIP_PIXELS: u32 = 1 << 20;

/// A decoded picture.
pub struct Opened {
    /// Columns, EXIF rotation applied.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// `height * width * 3` bytes, row-major.
    pub rgb: Uint8Array,
    /// Object URL of the file, for the `img` element; revoked when dropped.
    pub url: ObjectUrl,
    /// The file itself.
    pub blob: Blob,
}

/// An object URL.
pub struct ObjectUrl(String);

impl ObjectUrl {
    fn new(blob: &Blob) -> Result<Self, Fault> {
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
    let blob: Blob = blob.map_err(|_| missing())?.unchecked_into();
    let name = address.rsplit('/').next().unwrap_or(address);
    named(blob, name).ok_or_else(missing)
}

/// A file called `name` with this content.
pub fn named(blob: Blob, name: &str) -> Option<Blob> {
    let options = FilePropertyBag::new();
    options.set_type(&blob.type_());
    let parts = Array::of1(&blob);
    let file = File::new_with_blob_sequence_and_options(&parts, name, &options);
    file.ok().map(Blob::from)
}

/// Decodes a picture. Transparent pixels are blended with white.
pub async fn open(blob: &Blob) -> Result<Opened, Fault> {
    let url = ObjectUrl::new(blob)?;
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
    let bitmap = bitmap(blob).await?;
    let rgb = read(&bitmap).await;
    let (width, height) = (bitmap.width(), bitmap.height());
    bitmap.close();
    Ok(Opened {
        width,
        height,
        rgb: rgb?,
        url,
        blob: blob.clone(),
    })
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
        yield_now().await;
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

/// Yields to pending events of the browser.
async fn yield_now() {
    let window = web_sys::window().expect("a page has a window");
    let waited = Promise::new(&mut |resolve, _| {
        window
            .set_timeout_with_callback(&resolve)
            .expect("a page has timers");
    });
    // A timer only ever resolves.
    let _ = JsFuture::from(waited).await;
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

fn too_large() -> Fault {
    Fault::new(
        FaultKind::Picture,
        "that picture",
        "the browser found no memory for its pixels",
        "Make it smaller and try again; your current picture is unchanged",
    )
    .code(ErrorCode::OutOfMemory)
}
