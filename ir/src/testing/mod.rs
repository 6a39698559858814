//! Random graphs for tests, reproducible from a seed, behind the feature `testing` so that all crates can use them.
//!
//! They are for differential tests: every executor must give what the graph interpreter gives.

mod graphs;
mod scans;

use crate::tile::Scalar;
use crate::types::{DType, Tensor, TensorType};
pub use graphs::random_graph;

/// A small random number generator (SplitMix64; Steele, Lea and Flood, OOPSLA 2014).
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// Starts a sequence.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 if `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        // The high half of the product: bias below 2^-32 for the small ranges of tests.
        ((u128::from(self.bits()) * u128::from(end)) >> 64) as u64
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of some items, which must not be empty.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u64) as usize]
    }

    /// A float in `-limit..limit`.
    pub fn float(&mut self, limit: f32) -> f32 {
        ((self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * limit
    }

    /// A tensor of that type: floats in `-limit..limit`, integers in -8 to 8 (0 to 8 if unsigned), any truth values.
    pub fn tensor(&mut self, ty: &TensorType, limit: f32) -> Tensor {
        let dtype = ty.dtype();
        let size = dtype.bytes() as usize;
        let mut bytes = Vec::with_capacity(ty.elems() as usize * size);
        for _ in 0..ty.elems() {
            let value = match dtype {
                DType::Bool => self.below(2) as f64,
                _ if dtype.is_float() => f64::from(self.float(limit)),
                _ if dtype.is_signed_int() => self.below(17) as f64 - 8.0,
                _ => self.below(9) as f64,
            };
            bytes.extend_from_slice(&Scalar::from_f64(dtype, value).bits.to_le_bytes()[..size]);
        }
        Tensor::new(ty.clone(), bytes.into()).expect("as many elements as the type has")
    }
}
