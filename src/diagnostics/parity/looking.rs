//! Requests for another look: `vpt_region`.

use burn::tensor::Device;
use serde::Deserialize;

use super::fixture::{Array, Computed, Fixture};
use crate::closer_look::{Cells, LookRequest, request, second_turn, shrunk};
use crate::error::Fault;

/// The picture of `crops_640x480`.
const SIZE_OF_CASES: [u32; 2] = [640, 480];

#[derive(Deserialize)]
struct Case {
    text: String,
    request: String,
    #[serde(default)]
    cells: Vec<[u32; 4]>,
    #[serde(default)]
    crops_640x480: Vec<[u32; 4]>,
    second_user_turn: Option<String>,
}

/// Every rectangle of cells as a crop of recorded sizes, and replies.
pub(super) async fn vpt_region(fixture: &Fixture, _: &Device) -> Result<Computed, Fault> {
    let mut computed = Computed::new();
    let longer: u32 = fixture.config_at("/image_resolution")?;
    let shorter: u32 = fixture.config_at("/min_side")?;
    let sizes: Vec<[u32; 2]> = fixture.config_at("/sizes")?;
    let rectangles = fixture.array("cells")?.i64();
    let rectangles = rectangles.as_chunks::<4>().0;
    for (picture, size) in sizes.into_iter().enumerate() {
        let crops = rectangles.iter().map(|&rectangle| {
            let [x0, y0, x1, y1] = rectangle.map(|cell| cell as u32);
            Cells { x0, y0, x1, y1 }.grown().crop(size)
        });
        let crops: Vec<[u32; 4]> = crops.collect();
        let shrunk = crops.iter().flat_map(|[left, top, right, bottom]| {
            shrunk([right - left, bottom - top], longer, shorter).unwrap_or_default()
        });
        let second = Array::new(&[crops.len(), 2], shrunk);
        computed.put_array(format!("second_size.{picture}"), second);
        let crops = Array::new(&[crops.len(), 4], crops.into_iter().flatten());
        computed.put_array(format!("crop.{picture}"), crops);
    }
    let cases: Vec<Case> = fixture.config_at("/cases")?;
    computed.put_json(cases.iter().filter_map(difference));
    Ok(computed)
}

/// How the request of a reply differs from the recorded one.
fn difference(case: &Case) -> Option<String> {
    let asked = request(&case.text);
    let cells = match &asked {
        LookRequest::Regions(cells) => &cells[..],
        _ => &[],
    };
    let kind = match &asked {
        LookRequest::None => "none",
        LookRequest::Regions(_) => "region",
        LookRequest::Encode(tower) => tower.name(),
        LookRequest::Incomplete => "error",
    };
    let turn = (!cells.is_empty()).then(|| second_turn(cells.len()));
    let crops = cells.iter().map(|cells| cells.grown().crop(SIZE_OF_CASES));
    let crops: Vec<[u32; 4]> = crops.collect();
    let corners = cells
        .iter()
        .map(|cells| [cells.x0, cells.y0, cells.x1, cells.y1]);
    let corners: Vec<[u32; 4]> = corners.collect();
    let same = kind == case.request
        && corners == case.cells
        && crops == case.crops_640x480
        && turn == case.second_user_turn;
    let text = &case.text;
    (!same).then(|| format!("request of {text:?}: {asked:?}, {crops:?}, {turn:?}"))
}
