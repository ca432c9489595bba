//! Files out of the page and into it: drawing on a canvas off the screen, downloads, and reading.

use std::time::Duration;

use chatrex::chat::exchange::annotated::{Mark, PixelRect, Plan, shrunk};
use chatrex::chat::exchange::import::{InFile, MAX_BYTES};
use chatrex::error::{ErrorCode, Fault, FaultKind};
use chatrex::geometry::BoxXyxy;
use chatrex::protocol::ImageSize;
use js_sys::{Array, JsString, Promise, Uint8Array};
use leptos::prelude::set_timeout;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{
    Blob, BlobPropertyBag, File, FileReader, HtmlAnchorElement, ImageBitmap, OffscreenCanvas,
    OffscreenCanvasRenderingContext2d, Url,
};

use crate::decode;

/// How long an address of a download stays valid.
const DOWNLOAD_TIME: Duration = Duration::from_secs(60);

/// Starts the download of a file.
///
/// # Errors
/// The browser refuses.
pub fn download(name: &str, blob: &Blob) -> Result<(), Fault> {
    let url = Url::create_object_url_with_blob(blob).map_err(|_| refused(name))?;
    let document = web_sys::window().and_then(|window| window.document());
    let link = document.and_then(|document| document.create_element("a").ok());
    let link: HtmlAnchorElement = link.ok_or_else(|| refused(name))?.unchecked_into();
    link.set_href(&url);
    link.set_download(name);
    link.click();
    set_timeout(
        move || {
            // A failure only costs memory.
            let _ = Url::revoke_object_url(&url);
        },
        DOWNLOAD_TIME,
    );
    Ok(())
}

/// A file in memory from strings and buffers of JavaScript.
pub fn blob(parts: &Array, media_type: &str) -> Result<Blob, Fault> {
    let options = BlobPropertyBag::new();
    options.set_type(media_type);
    let blob = Blob::new_with_buffer_source_sequence_and_options(parts, &options);
    blob.map_err(|_| too_large())
}

/// A text file in memory.
pub fn text(text: &str, media_type: &str) -> Result<Blob, Fault> {
    blob(&Array::of1(&text.into()), media_type)
}

/// A file in memory from bytes.
pub fn bytes(bytes: &[u8], media_type: &str) -> Result<Blob, Fault> {
    blob(&Array::of1(&Uint8Array::from(bytes)), media_type)
}

/// The content of a file as a data address.
pub async fn data_address(blob: &Blob) -> Result<JsString, Fault> {
    let reader = FileReader::new().map_err(|_| too_large())?;
    let read = Promise::new(&mut |resolve, reject| {
        reader.set_onload(Some(&resolve));
        reader.set_onerror(Some(&reject));
    });
    reader.read_as_data_url(blob).map_err(|_| too_large())?;
    JsFuture::from(read).await.map_err(|_| too_large())?;
    let result = reader.result().map_err(|_| too_large())?;
    result.dyn_into().map_err(|_| too_large())
}

/// The bytes of a file.
pub async fn content(blob: &Blob) -> Result<Vec<u8>, Fault> {
    let buffer = JsFuture::from(blob.array_buffer()).await;
    Ok(Uint8Array::new(&buffer.map_err(|_| too_large())?).to_vec())
}

/// Reads a file of the user.
///
/// # Errors
/// It is too large, or the browser cannot read it.
pub async fn read(file: &File) -> Result<InFile, Fault> {
    let name = file.name();
    if file.size() > MAX_BYTES as f64 {
        return Err(Fault::new(
            FaultKind::File,
            name,
            format!("it is larger than {} MB", MAX_BYTES / 1_000_000),
            "Choose a smaller file; nothing was changed",
        )
        .code(ErrorCode::Unsupported));
    }
    let bytes = content(file).await.map_err(|_| {
        Fault::new(
            FaultKind::File,
            name.clone(),
            "the browser cannot read it",
            "Choose it again; nothing was changed",
        )
    })?;
    Ok(InFile { name, bytes })
}

/// A canvas off the screen with a picture on it.
struct Drawn {
    canvas: OffscreenCanvas,
    context: OffscreenCanvasRenderingContext2d,
    bitmap: ImageBitmap,
}

impl Drawn {
    /// A canvas of `width` by `height` pixels with the picture of a file at its top left.
    async fn new(picture: &Blob, width: u32, height: u32) -> Result<Self, Fault> {
        let bitmap = decode::bitmap(picture).await?;
        let canvas = OffscreenCanvas::new(width, height).map_err(|_| too_large())?;
        let context = context(&canvas)?;
        context
            .draw_image_with_image_bitmap(&bitmap, 0.0, 0.0)
            .map_err(|_| too_large())?;
        Ok(Self {
            canvas,
            context,
            bitmap,
        })
    }

    /// The canvas as a PNG file; nothing of the picture's file but its pixels is in it.
    async fn png(self) -> Result<Blob, Fault> {
        self.bitmap.close();
        let blob = self.canvas.convert_to_blob().map_err(|_| too_large())?;
        let blob = JsFuture::from(blob).await.map_err(|_| too_large())?;
        Ok(blob.unchecked_into())
    }
}

fn context(canvas: &OffscreenCanvas) -> Result<OffscreenCanvasRenderingContext2d, Fault> {
    let context = canvas.get_context("2d").ok().flatten();
    Ok(context.ok_or_else(too_large)?.unchecked_into())
}

/// A picture with the marks of a plan, as PNG.
pub async fn annotated(picture: &Blob, plan: &Plan) -> Result<Blob, Fault> {
    let drawn = Drawn::new(picture, plan.width, plan.height).await?;
    for mark in &plan.marks {
        draw(&drawn.context, mark);
    }
    drawn.png().await
}

fn draw(context: &OffscreenCanvasRenderingContext2d, mark: &Mark) {
    match mark {
        Mark::Outline {
            bbox,
            width,
            color,
            dash,
        } => {
            let lengths: Array = dash.iter().map(|&length| JsValue::from(length)).collect();
            // Fails only for a list of something else than numbers.
            let _ = context.set_line_dash(&lengths);
            context.set_stroke_style_str(color);
            context.set_line_width(f64::from(*width));
            let [x, y, w, h] = rect(bbox);
            context.stroke_rect(x, y, w, h);
        }
        Mark::Fill { bbox, color } => {
            context.set_fill_style_str(color);
            let [x, y, w, h] = rect(bbox);
            context.fill_rect(x, y, w, h);
        }
        Mark::Text {
            x,
            y,
            size,
            color,
            bold,
            text,
        } => {
            context.set_font(&font(*size, *bold));
            context.set_fill_style_str(color);
            // Fails only for coordinates that are no numbers.
            let _ = context.fill_text(text, f64::from(*x), f64::from(*y));
        }
    }
}

fn rect(b: &BoxXyxy) -> [f64; 4] {
    [b.x1, b.y1, b.x2 - b.x1, b.y2 - b.y1].map(f64::from)
}

fn font(size: f32, bold: bool) -> String {
    let weight = if bold { 600 } else { 400 };
    format!("{weight} {size}px system-ui, \"Noto Sans\", \"Liberation Sans\", sans-serif")
}

/// Measures the width of a text in pixels from its size and whether it is bold.
pub fn measure() -> Result<impl FnMut(&str, f32, bool) -> f32, Fault> {
    let canvas = OffscreenCanvas::new(1, 1).map_err(|_| too_large())?;
    let context = context(&canvas)?;
    Ok(move |text: &str, size: f32, bold: bool| {
        context.set_font(&font(size, bold));
        let guess = text.chars().count() as f32 * size * 0.6;
        context
            .measure_text(text)
            .map_or(guess, |m| m.width() as f32)
    })
}

/// A picture with covered parts, as PNG of the same size: black, or shrunk and drawn large again.
pub async fn redacted(
    picture: &Blob,
    size: ImageSize,
    parts: &[PixelRect],
    blur: bool,
) -> Result<Blob, Fault> {
    let drawn = Drawn::new(picture, size.width, size.height).await?;
    let context = &drawn.context;
    context.set_fill_style_str("black");
    for &part in parts {
        let [x, y, w, h] = [part.0, part.1, part.2, part.3].map(f64::from);
        if !blur {
            context.fill_rect(x, y, w, h);
            continue;
        }
        let (small_w, small_h) = shrunk(part);
        let small = OffscreenCanvas::new(small_w, small_h).map_err(|_| too_large())?;
        let (small_w, small_h) = (f64::from(small_w), f64::from(small_h));
        self::context(&small)?
            .draw_image_with_image_bitmap_and_sw_and_sh_and_dx_and_dy_and_dw_and_dh(
                &drawn.bitmap,
                x,
                y,
                w,
                h,
                0.0,
                0.0,
                small_w,
                small_h,
            )
            .map_err(|_| too_large())?;
        // What was below a transparent picture would stay visible.
        context.clear_rect(x, y, w, h);
        context
            .draw_image_with_offscreen_canvas_and_sw_and_sh_and_dx_and_dy_and_dw_and_dh(
                &small, 0.0, 0.0, small_w, small_h, x, y, w, h,
            )
            .map_err(|_| too_large())?;
    }
    drawn.png().await
}

/// A picture as PNG.
pub async fn png(picture: &Blob, size: ImageSize) -> Result<Blob, Fault> {
    Drawn::new(picture, size.width, size.height)
        .await?
        .png()
        .await
}

fn too_large() -> Fault {
    Fault::new(
        FaultKind::File,
        "the file",
        "the browser found no memory for it",
        "Close other tabs and try again; nothing was changed",
    )
    .code(ErrorCode::OutOfMemory)
}

fn refused(name: &str) -> Fault {
    Fault::new(
        FaultKind::File,
        name,
        "the browser refused the download",
        "Allow downloads for this page and try again",
    )
}
