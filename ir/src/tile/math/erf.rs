//! `erf`: an odd polynomial near zero, and `1 - q(|x|)^4` elsewhere.
//!
//! The fourth root of `1 - erf` falls so slowly that a polynomial of degree 7 follows it over the whole range, which saves
//! the exponential and the division of the usual forms. Its relative error is multiplied by 4, and by `1 - erf`, which is
//! below 0.16 there.

use super::Code;
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

impl Code {
    /// Error function.
    pub(super) fn erf(&mut self, x: ExprRef) -> ExprRef {
        let a = self.abs(x);
        // From here on the function rounds to 1.
        let a = self.at_most(a, 3.95);
        let square = self.mul(a, a);
        let q = self.polynomial(square, &SMALL);
        let small = self.fma(a, q, a);
        let root = self.polynomial(a, &LARGE);
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
