//! Comparison of arrays: largest errors, cosine, and whether they lie inside a tolerance.

use aic_ir::graph::interp::Evaluated;
use aic_ir::types::Tensor;

/// How far outputs may be from what is expected.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// Absolute part: elements pass when `|got - expected| <= atol + rtol * |expected|`, as `numpy.allclose` has it.
    pub atol: f64,
    /// Relative part.
    pub rtol: f64,
    /// Smallest cosine of the angle between the two arrays, if it counts.
    pub min_cosine: Option<f64>,
}

impl Default for Tolerance {
    /// What two orders of summing in binary32 may differ by in an encoder of a dozen layers.
    fn default() -> Self {
        Self { atol: 1e-4, rtol: 1e-3, min_cosine: None }
    }
}

/// How two arrays differ.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Name of the tensor.
    pub name: String,
    /// Number of elements.
    pub elems: u64,
    /// Largest absolute error; infinite when only one side is NaN or they are opposite infinities.
    pub max_abs: f64,
    /// Largest absolute error over the expected magnitude. Magnitudes below a millionth of the largest count as that, so
    /// that noise around zero does not decide.
    pub max_rel: f64,
    /// Cosine of the angle between the arrays as vectors; 1 for two zero arrays.
    pub cosine: f64,
    /// Position of the largest absolute error, in row-major order.
    pub worst: u64,
    /// Number of elements outside the tolerance.
    pub outside: u64,
    /// Whether the tolerance holds.
    pub passed: bool,
}

/// Compares arrays of one shape element by element.
///
/// # Errors
/// In words, when shapes differ.
pub fn compare(name: &str, got: &Tensor, expected: &Tensor, tolerance: &Tolerance) -> Result<Difference, String> {
    compare_with(name, got, expected, tolerance.min_cosine, |_, e| tolerance.atol + tolerance.rtol * e.abs())
}

/// Compares an array with what the graph interpreter computed, each element against the error bound of its own. Elements
/// that the interpreter leaves undetermined (their bound is infinite) fall under the tolerance.
///
/// # Errors
/// In words, when types differ.
pub fn compare_evaluated(
    name: &str,
    got: &Tensor,
    expected: &Evaluated,
    tolerance: &Tolerance,
) -> Result<Difference, String> {
    if got.ty() != expected.ty() {
        return Err(format!("output `{name}` is {}, but {} is expected", got.ty(), expected.ty()));
    }
    compare_with(name, got, &expected.to_tensor(), tolerance.min_cosine, |i, e| {
        let bound = expected.err(i as usize);
        // The reference itself was rounded to the element type once.
        let rounding = e.abs() * f64::from(f32::EPSILON);
        if bound.is_finite() { bound + rounding } else { tolerance.atol + tolerance.rtol * e.abs() }
    })
}

fn compare_with(
    name: &str,
    got: &Tensor,
    expected: &Tensor,
    min_cosine: Option<f64>,
    bound: impl Fn(u64, f64) -> f64,
) -> Result<Difference, String> {
    if got.ty().shape() != expected.ty().shape() {
        return Err(format!("output `{name}` is {}, but {} is expected", got.ty(), expected.ty()));
    }
    let elems = got.ty().elems();
    let values = || (0..elems).filter_map(|i| Some((i, got.get_f64(i)?, expected.get_f64(i)?)));
    let largest = values().map(|(_, _, e)| e.abs()).filter(|e| e.is_finite()).fold(0.0, f64::max);
    let mut d = Difference {
        name: name.to_owned(),
        elems,
        max_abs: 0.0,
        max_rel: 0.0,
        cosine: 1.0,
        worst: 0,
        outside: 0,
        passed: false,
    };
    let (mut dot, mut gg, mut ee) = (0.0, 0.0, 0.0);
    for (i, g, e) in values() {
        let error = if g == e || (g.is_nan() && e.is_nan()) { 0.0 } else { (g - e).abs() };
        let error = if error.is_nan() { f64::INFINITY } else { error };
        if error > d.max_abs {
            (d.max_abs, d.worst) = (error, i);
        }
        if error > 0.0 {
            d.max_rel = d.max_rel.max(error / e.abs().max(1e-6 * largest));
        }
        // False for a bound that is NaN.
        let inside = error <= bound(i, e);
        if error > 0.0 && !inside {
            d.outside += 1;
        }
        if g.is_finite() && e.is_finite() {
            (dot, gg, ee) = (dot + g * e, gg + g * g, ee + e * e);
        }
    }
    if gg > 0.0 || ee > 0.0 {
        d.cosine = if gg > 0.0 && ee > 0.0 { dot / (gg.sqrt() * ee.sqrt()) } else { 0.0 };
    }
    d.passed = d.outside == 0 && min_cosine.is_none_or(|min| d.cosine >= min);
    Ok(d)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(values: &[f32]) -> Tensor {
        Tensor::from_f32([values.len() as u64], values).expect("fits")
    }

    #[test]
    fn errors_cosine_and_position_are_those_of_the_worst_element() {
        let tolerance = Tolerance { atol: 0.0, rtol: 0.1, min_cosine: None };
        let d = compare("y", &tensor(&[1.0, 2.5, 4.0]), &tensor(&[1.0, 2.0, 4.0]), &tolerance).expect("same shape");
        assert_eq!((d.max_abs, d.max_rel, d.worst, d.outside, d.passed), (0.5, 0.25, 1, 1, false));
        assert!(d.cosine > 0.98 && d.cosine < 1.0);
    }

    #[test]
    fn nan_never_passes_for_a_number() {
        let loose = Tolerance { atol: 1e9, rtol: 1e9, min_cosine: None };
        let nan = tensor(&[f32::NAN]);
        assert!(!compare("y", &nan, &tensor(&[1.0]), &loose).expect("same shape").passed);
        assert!(!compare("y", &tensor(&[1.0]), &nan, &loose).expect("same shape").passed);
        assert!(compare("y", &nan, &nan, &loose).expect("same shape").passed);
        let certain = Evaluated::from_tensor(&tensor(&[2.0]));
        assert!(!compare_evaluated("y", &tensor(&[1.0]), &certain, &loose).expect("same type").passed);
        assert!(compare_evaluated("y", &tensor(&[2.0]), &certain, &loose).expect("same type").passed);
    }

    #[test]
    fn a_cosine_below_the_least_one_fails() {
        let tolerance = Tolerance { atol: 10.0, rtol: 0.0, min_cosine: Some(0.5) };
        assert!(!compare("y", &tensor(&[1.0, 0.0]), &tensor(&[0.0, 1.0]), &tolerance).expect("same shape").passed);
        assert!(compare("y", &tensor(&[1.0]), &tensor(&[1.0, 2.0]), &tolerance).is_err());
    }
}
