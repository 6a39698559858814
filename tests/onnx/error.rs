//! How far an array is from what is expected: whether it passes, and the distance in units of the last place.

use aic_ir::types::{DType, Tensor};

/// `|got - expected| <= absolute + relative * |expected|`, as `numpy.testing.assert_allclose` has it.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    pub relative: f64,
    pub absolute: f64,
}

/// An expected element that is smaller than this part of the largest one counts as that large when distances are measured:
/// what is left of a sum of larger terms has no more digits.
const NOISE: f64 = 1e-6;

/// The largest distance in units of the last place of the element type at the expected element; 0 for integers.
///
/// # Errors
/// In words, when types differ, integers are not equal, or a float is outside the tolerance.
pub fn compare(name: &str, got: &Tensor, expected: &Tensor, tolerance: Tolerance) -> Result<f64, String> {
    if got.ty() != expected.ty() {
        return Err(format!("output `{name}` is {}, but {} is expected", got.ty(), expected.ty()));
    }
    let dtype = got.ty().dtype();
    // The official runner allows two units in the last place of bfloat16.
    let relative = if dtype == DType::BF16 { tolerance.relative.max(2f64.powi(-6)) } else { tolerance.relative };
    let finite = (0..expected.ty().elems()).filter_map(|i| expected.get_f64(i)).filter(|e| e.is_finite());
    let noise = NOISE * finite.map(f64::abs).fold(0.0, f64::max);
    let mut worst: f64 = 0.0;
    for i in 0..got.ty().elems() {
        if !dtype.is_float() {
            let (g, e) = (got.get_i64(i), expected.get_i64(i));
            if g != e {
                return Err(format!("element {i} of `{name}` is {g:?}, but {e:?} is expected"));
            }
            continue;
        }
        let (g, e) = (got.get_f64(i).unwrap_or(f64::NAN), expected.get_f64(i).unwrap_or(f64::NAN));
        if g == e || (g.is_nan() && e.is_nan()) {
            continue;
        }
        let difference = (g - e).abs();
        // False where either is NaN, and where they are different infinities.
        let inside = e.is_finite() && difference <= tolerance.absolute + relative * e.abs();
        if !inside {
            return Err(format!("element {i} of `{name}` is {g:e}, but {e:e} is expected"));
        }
        worst = worst.max(difference / unit_in_the_last_place(dtype, e.abs().max(noise)));
    }
    Ok(worst)
}

/// Distance of neighbouring numbers of a floating-point type at a positive one.
fn unit_in_the_last_place(dtype: DType, at: f64) -> f64 {
    // Bits behind the point, and the exponent of the smallest normal number.
    let (bits, least) = match dtype {
        DType::F16 => (10, -14),
        DType::BF16 => (7, -126),
        DType::F64 => (52, -1022),
        _ => (23, -126),
    };
    // A number below the smallest normal one of binary64 has exponent field 0, and is below every type's.
    let exponent = ((at.to_bits() >> 52) as i32 - 1023).max(least);
    2f64.powi(exponent - bits)
}

#[test]
fn distances_are_in_units_of_the_expected_element() {
    let floats = |values: &[f32]| Tensor::from_f32([values.len() as u64], values).expect("fits");
    let loose = Tolerance { relative: 1e-3, absolute: 0.0 };
    let one_and_two_more = floats(&[1.0, 8.0 + 2.0 * 8.0 * f32::EPSILON]);
    assert_eq!(compare("y", &one_and_two_more, &floats(&[1.0, 8.0]), loose), Ok(2.0));
    assert!(compare("y", &floats(&[1.1]), &floats(&[1.0]), loose).is_err());
    assert!(compare("y", &floats(&[f32::NAN]), &floats(&[1.0]), loose).is_err());
    assert!(compare("y", &floats(&[f32::INFINITY]), &floats(&[f32::NEG_INFINITY]), loose).is_err());
    assert!(compare("y", &floats(&[1.0]), &Tensor::from_i64([1], &[1]).expect("fits"), loose).is_err());
}
