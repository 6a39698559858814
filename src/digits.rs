//! The model that comes with the compiler: a student of 3,402 parameters that reads handwritten digits, and the images on
//! which nobody trained it. `tests/models/distil_digits.py` made both.

use aic_ir::types::Tensor;

use crate::{Error, Model, npz};

/// The student as an ONNX file: `image` f32 [batch, 1, 8, 8] with grey levels 0 to 1, to `logits` f32 [batch, 10].
pub const ONNX: &[u8] = include_bytes!("../tests/models/digits.onnx");

/// The held-out images and their labels, as a `.npz` archive.
pub const HELD_OUT: &[u8] = include_bytes!("../tests/models/digits_heldout.npz");

/// The student.
pub fn model() -> Model {
    Model::from_onnx("digits", ONNX)
}

/// The held-out images, each `f32[1, 1, 8, 8]`, and the digit on each.
///
/// # Errors
/// When the embedded archive is damaged.
pub fn held_out() -> Result<Vec<(Tensor, u8)>, Error> {
    let damaged = |what: &str| Error::internal("build", format!("embedded images: {what}"));
    let arrays = npz::read(HELD_OUT).map_err(|e| damaged(&e.to_string()))?;
    let array = |name: &str| arrays.iter().find(|(n, _)| n == name).map(|(_, t)| t).ok_or_else(|| damaged(name));
    let (images, labels) = (array("images")?.bytes(), array("labels")?.bytes());
    let (images, rest) = images.as_chunks::<64>();
    if images.len() != labels.len() || !rest.is_empty() {
        return Err(damaged("sizes differ"));
    }
    let image = |levels: &[u8; 64]| {
        let values = levels.map(|level| f32::from(level) / 16.0);
        Tensor::from_f32([1, 1, 8, 8], &values).ok_or_else(|| damaged("shape"))
    };
    images.iter().zip(labels).map(|(levels, &label)| Ok((image(levels)?, label))).collect()
}

/// Position of the largest element: the digit that the student reads.
pub fn largest(logits: &Tensor) -> Option<u64> {
    let value = |i: &u64| logits.get_f64(*i).unwrap_or(f64::NEG_INFINITY);
    (0..logits.ty().elems()).max_by(|a, b| value(a).total_cmp(&value(b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_holds_images_and_digits() {
        let images = held_out().expect("readable");
        assert_eq!(images.len(), 497);
        assert!(images.iter().all(|(_, label)| *label < 10));
        assert!(images.iter().all(|(x, _)| (0..64).all(|i| x.get_f64(i).is_some_and(|v| (0.0..=1.0).contains(&v)))));
    }
}
