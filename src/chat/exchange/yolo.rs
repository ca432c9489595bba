//! YOLO in the layout of Ultralytics: one text file per picture with a line `class cx cy w h` per box,
//! classes from 0, coordinates as shares of the picture with 6 decimals, and `data.yaml` with the names.

use super::archive;
use super::foreign::Found;
use super::marked::{Sheet, category, safe_name, stem};
use crate::chat::document::{LabelledBox, refused};
use crate::error::Fault;
use crate::protocol::ImageSize;

/// The lines of the boxes with a label; those without are left out.
pub fn labels(sheet: &Sheet) -> String {
    labels_among(sheet, &sheet.categories())
}

/// The same with the classes of a data set.
pub fn labels_among(sheet: &Sheet, categories: &[String]) -> String {
    let (width, height) = (f64::from(sheet.size.width), f64::from(sheet.size.height));
    let lines = sheet.boxes.iter().filter_map(|marked| {
        let class = category(categories, marked.label.as_ref()?)?;
        let [x1, y1, x2, y2] = <[f32; 4]>::from(marked.bbox).map(f64::from);
        Some(format!(
            "{class} {:.6} {:.6} {:.6} {:.6}\n",
            (x1 + x2) / 2.0 / width,
            (y1 + y2) / 2.0 / height,
            (x2 - x1) / width,
            (y2 - y1) / height,
        ))
    });
    lines.collect()
}

/// The file `data.yaml` for these names.
pub fn data_yaml(categories: &[String]) -> String {
    let mut text = "path: .\ntrain: images/train\nval: images/train\n".to_owned();
    text.push_str(if categories.is_empty() {
        "names: {}\n"
    } else {
        "names:\n"
    });
    for (class, name) in categories.iter().enumerate() {
        // A JSON string is a quoted scalar of YAML.
        let name = serde_json::to_string(name).expect("a string");
        text.push_str(&format!("  {class}: {name}\n"));
    }
    text
}

/// The data set as a zip archive; `picture` is the picture's file.
pub fn zip(sheet: &Sheet, picture: &[u8]) -> Vec<u8> {
    let yaml = data_yaml(&sheet.categories());
    let labels = labels(sheet);
    archive::write(&[
        ("data.yaml".to_owned(), yaml.as_bytes()),
        (
            format!("labels/train/{}.txt", stem(&sheet.name)),
            labels.as_bytes(),
        ),
        (format!("images/train/{}", safe_name(&sheet.name)), picture),
    ])
}

/// Reads the boxes of a label file for a picture of `size`. A class beyond `names` has no label.
///
/// # Errors
/// A line is not `class cx cy w h`, with an optional confidence behind.
pub fn read(
    place: &str,
    text: &str,
    names: Option<&[String]>,
    size: ImageSize,
) -> Result<Found, Fault> {
    let mut found = Found::default();
    for (index, line) in text.lines().enumerate() {
        let values: Vec<&str> = line.split_whitespace().collect();
        if values.is_empty() {
            continue;
        }
        // Polygons and oriented boxes have more values.
        if values.len() > 6 {
            found.left_out += 1;
            continue;
        }
        let wrong = || {
            let what = format!("line {} is not `class cx cy w h`", index + 1);
            refused(place, what)
        };
        let (Some(class), [_, cx, cy, w, h, ..]) = (values[0].parse::<usize>().ok(), &values[..])
        else {
            return Err(wrong());
        };
        let mut shares = [0.0_f32; 4];
        for (share, text) in shares.iter_mut().zip([cx, cy, w, h]) {
            let value: f32 = text.parse().map_err(|_| wrong())?;
            if !(-1.0..=2.0).contains(&value) {
                return Err(wrong());
            }
            *share = value;
        }
        let [cx, cy, w, h] = shares;
        let (width, height) = (size.width as f32, size.height as f32);
        found.boxes.push(LabelledBox {
            bbox: [
                (cx - w / 2.0) * width,
                (cy - h / 2.0) * height,
                (cx + w / 2.0) * width,
                (cy + h / 2.0) * height,
            ]
            .into(),
            label: names.and_then(|names| names.get(class)).cloned(),
        });
    }
    Ok(found)
}

/// The names of `data.yaml`, as a map `0: name`, as a list of lines `- name` or as `[name, name]`; other
/// keys are skipped.
pub fn names_of_yaml(text: &str) -> Option<Vec<String>> {
    let mut lines = text.lines().map(without_comment);
    let first = lines.find_map(|line| line.strip_prefix("names:").map(str::trim))?;
    if let Some(inner) = first.strip_prefix('[') {
        let mut inner = inner.to_owned();
        for line in lines {
            if inner.contains(']') {
                break;
            }
            inner.push_str(line);
        }
        let (inner, _) = inner.rsplit_once(']')?;
        return Some(flow(inner));
    }
    let mut names = Vec::new();
    for line in lines {
        let trimmed = line.trim();
        let is_item = trimmed.starts_with("- ") || line.starts_with([' ', '\t']);
        if trimmed.is_empty() {
            continue;
        } else if !is_item {
            break;
        }
        if let Some(name) = trimmed.strip_prefix("- ") {
            names.push(scalar(name));
        } else {
            let (class, name) = trimmed.split_once(':')?;
            let class: usize = class.trim().parse().ok().filter(|&class| class < 100_000)?;
            if names.len() <= class {
                names.resize(class + 1, String::new());
            }
            names[class] = scalar(name);
        }
    }
    Some(names)
}

/// The lines of `classes.txt`.
pub fn names_of_lines(text: &str) -> Vec<String> {
    let lines = text.lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

fn without_comment(line: &str) -> &str {
    match line.find(" #") {
        Some(at) if !line[..at].contains(['"', '\'']) => &line[..at],
        _ if line.starts_with('#') => "",
        _ => line,
    }
}

/// The items of a YAML list in one line.
fn flow(text: &str) -> Vec<String> {
    let mut items = Vec::new();
    let mut item = String::new();
    let mut quote = None;
    for c in text.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c == ',' => {
                items.push(scalar(&std::mem::take(&mut item)));
                continue;
            }
            _ => {}
        }
        item.push(c);
    }
    if !item.trim().is_empty() {
        items.push(scalar(&item));
    }
    items
}

/// A YAML string, quoted or plain.
fn scalar(text: &str) -> String {
    let text = text.trim();
    if text.starts_with('"') {
        return serde_json::from_str(text).unwrap_or_else(|_| text.trim_matches('"').to_owned());
    }
    match text
        .strip_prefix('\'')
        .and_then(|text| text.strip_suffix('\''))
    {
        Some(inner) => inner.replace("''", "'"),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::exchange::marked::Unlabelled;
    use crate::chat::exchange::test_sheet::{SIZE, sheet};

    #[test]
    fn lines_have_shares_with_six_decimals_and_classes_from_zero() {
        let all = sheet().labelled(Unlabelled::AsObject);
        let expected = "0 0.050000 0.062500 0.100000 0.125000\n\
                        1 0.250000 0.062500 0.100000 0.125000\n\
                        2 0.502500 0.501563 0.195000 0.246875\n";
        assert_eq!(labels(&all), expected);
        assert_eq!(labels(&sheet()).lines().count(), 2);
    }

    #[test]
    fn written_files_come_back_within_six_decimals() {
        let all = sheet().labelled(Unlabelled::AsObject);
        let names = names_of_yaml(&data_yaml(&all.categories())).expect("names");
        assert_eq!(names, all.categories());
        let found = read("a.txt", &labels(&all), Some(&names), SIZE).expect("our own");
        for (read, written) in found.boxes.iter().zip(&all.boxes) {
            assert_eq!(read.label, written.label);
            let (a, b): ([f32; 4], [f32; 4]) = (read.bbox.into(), written.bbox.into());
            assert!(
                a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-3),
                "{a:?} {b:?}"
            );
        }
        let files = archive::read("a.zip", &zip(&all, b"pixels")).expect("an archive");
        let paths: Vec<_> = files.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(paths, ["data.yaml", "labels/train/room.txt"]);
    }

    #[test]
    fn names_are_read_in_every_usual_form() {
        let odd = vec!["a: b".to_owned(), "it's # \"1\"".to_owned(), "é".to_owned()];
        assert_eq!(names_of_yaml(&data_yaml(&odd)), Some(odd));
        let three = ["cat", "dog", "tea pot"].map(str::to_owned).to_vec();
        let cases = [
            "nc: 3\nnames: ['cat', \"dog\", tea pot]\nroboflow: x",
            "names:\n- cat\n- dog # small\n- 'tea pot'\nnc: 3",
            "names:\n  0: cat\n  1: dog\n\n  2: tea pot\npath: .",
            "names: [cat,\n  dog,\n  tea pot]",
            "# names of things\nnames:\n  - cat\n  - dog\n  - tea pot",
        ];
        for text in cases {
            assert_eq!(names_of_yaml(text).as_ref(), Some(&three), "{text}");
        }
        assert_eq!(names_of_yaml("nc: 3"), None);
        assert_eq!(names_of_yaml("names:\n  x: cat"), None);
        assert_eq!(names_of_lines("cat\n\n dog \r\ntea pot"), three);
    }

    #[test]
    fn odd_lines_are_refused_or_counted() {
        let polygon = "0 0.1 0.1 0.2 0.2 0.3 0.3 0.4 0.4";
        let found = read(
            "a.txt",
            &format!("\n3 0.5 0.5 1 1 0.9\n{polygon}\n"),
            None,
            SIZE,
        );
        let found = found.expect("a box with a confidence, a polygon");
        assert_eq!((found.boxes.len(), found.left_out), (1, 1));
        assert_eq!(found.boxes[0].label, None);
        for bad in [
            "cat 0 0 1 1",
            "0 0 0 1",
            "0 0.5 0.5 NaN 1",
            "0 50 50 10 10",
            "-1 0 0 1 1",
        ] {
            let fault = read("a.txt", bad, None, SIZE).expect_err(bad);
            assert!(fault.what.contains("line 1"), "{fault}");
        }
    }
}
