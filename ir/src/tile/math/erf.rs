//! `erf`: an odd polynomial near zero, and `1 - q(|x|)^4` elsewhere.
//!
//! The fourth root of `1 - erf` falls so slowly that one polynomial (of degree 7 in binary32) follows it over the whole range, which saves
//! the exponential and the division of the usual forms. Its relative error is multiplied by 4, and by `1 - erf`, which is
//! below 0.16 there.

use super::{Code, Format};
use crate::tile::expr::ExprRef;

/// `erf(x) / x - 1` in powers of `x^2` up to 1; the function has a relative error of 2^-24.5.
const SMALL: [f32; 6] = [
    f32::from_bits(0x3e03_75d1),
    f32::from_bits(0xbec0_9338),
    f32::from_bits(0x3de7_0448),
    f32::from_bits(0xbcda_cd4a),
    f32::from_bits(0x3ba1_0d4e),
    f32::from_bits(0xba13_5301),
];

/// `(1 - erf(x))^(1/4)` in powers of `x` from 1 to 3.95; the function has an absolute error of 2^-25.3.
const LARGE: [f32; 8] = [
    f32::from_bits(0x3f80_8252),
    f32::from_bits(0xbe9a_eab4),
    f32::from_bits(0xbd97_ba43),
    f32::from_bits(0xbd26_031e),
    f32::from_bits(0x3d78_8096),
    f32::from_bits(0xbca7_9b8f),
    f32::from_bits(0x3b3f_e277),
    f32::from_bits(0xb924_b8f6),
];

/// [`SMALL`] in binary64: 2^-56.3.
const SMALL_DOUBLE: [f64; 14] = [
    0.1283791670955126,
    -0.37612638903183754,
    0.11283791670955119,
    -0.026866170645129733,
    0.005223977625422086,
    -0.0008548327021853201,
    0.00012055332899357821,
    -1.4925647465110833e-05,
    1.6462043407599716e-06,
    -1.636461441824939e-07,
    1.4792145719035877e-08,
    -1.2163041701482618e-09,
    8.703789063157564e-11,
    -4.222894970306497e-12,
];

/// [`LARGE`] in binary64, in powers of `x - 3.4375` up to 5.9: 2^-57.2.
const LARGE_DOUBLE: [f64; 24] = [
    0.032859304999993955,
    -0.05869754225065563,
    0.04449308423746194,
    -0.017089989708099492,
    0.002328473247560392,
    0.0007701109807440457,
    -0.0003960672738190196,
    4.273070665440175e-05,
    1.4935538922428614e-05,
    -5.168798099519273e-06,
    1.616118635925649e-07,
    2.0404319250391986e-07,
    -3.580273713814405e-08,
    -2.9498651709854447e-09,
    1.610319568690423e-09,
    -8.761932741336981e-11,
    -3.969843569149574e-11,
    6.89164923157838e-12,
    4.3814700123186367e-13,
    -2.6140832831005055e-13,
    -7.936079348033285e-16,
    6.7901924705398936e-15,
    3.862136757734638e-16,
    -2.0550793629777134e-17,
];

impl Code {
    /// Error function.
    pub(super) fn erf(&mut self, x: ExprRef) -> ExprRef {
        let a = self.abs(x);
        // From here on the function rounds to 1.
        let bound = match self.format {
            Format::Single => f64::from(3.95f32),
            Format::Double => 5.9,
        };
        let a = self.at_most(a, bound);
        let square = self.mul(a, a);
        let q = match self.format {
            Format::Single => self.polynomial(square, &SMALL),
            Format::Double => self.polynomial(square, &SMALL_DOUBLE),
        };
        let small = self.fma(a, q, a);
        let root = match self.format {
            Format::Single => self.polynomial(a, &LARGE),
            Format::Double => {
                let middle = self.f(3.4375);
                let t = self.sub(a, middle);
                self.polynomial(t, &LARGE_DOUBLE)
            }
        };
        let root = self.mul(root, root);
        let one = self.f(1.0);
        let large = if self.fused {
            let negated = self.neg(root);
            self.fma(negated, root, one)
        } else {
            let complement = self.mul(root, root);
            self.sub(one, complement)
        };
        let near = self.lt(a, one);
        let magnitude = self.select(near, small, large);
        self.with_sign(magnitude, x)
    }
}
