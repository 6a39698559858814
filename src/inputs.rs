//! Inputs of a run: arrays from files, matched by name, and random ones for what is not given.

use std::fs;
use std::path::{Path, PathBuf};

use aic_frontend::InputInfo;
use aic_ir::tile::{Program, Step};
use aic_ir::types::{DType, Tensor, TensorType};
use bytes::Bytes;

use crate::{Error, npy, npz};

/// Arrays by the names of the inputs they are for, in no particular order.
#[derive(Clone, Debug, Default)]
pub struct Arrays(Vec<(String, Tensor)>);

impl Arrays {
    /// No arrays.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads arrays as `--input` names them: `NAME=FILE.npy`, `NAME=FILE.npz` (that array of the archive), or `FILE.npz` (all
    /// arrays of the archive that are inputs of the model).
    ///
    /// # Errors
    /// For files that cannot be read, arrays that are damaged, names that are no inputs, and inputs given twice.
    pub fn load(flags: &[String], inputs: &[InputInfo]) -> Result<Self, Error> {
        let mut arrays = Self::new();
        for flag in flags {
            match split_flag(flag, inputs) {
                None if is_archive(Path::new(flag)) => {
                    for (name, tensor) in read_archive(Path::new(flag))? {
                        if inputs.iter().any(|i| i.name == name) {
                            arrays.add(name, tensor)?;
                        }
                    }
                }
                None => {
                    let text = format!("input `{flag}` is not understood: write NAME=FILE.npy, or FILE.npz");
                    return Err(Error::Refused(text));
                }
                Some((name, path)) => {
                    if !inputs.iter().any(|i| i.name == name) {
                        let names: Vec<&str> = inputs.iter().map(|i| i.name.as_str()).collect();
                        let text = format!("the model has no input `{name}`; it has {}", names.join(", "));
                        return Err(Error::Refused(text));
                    }
                    let tensor = if is_archive(&path) {
                        let mut all = read_archive(&path)?;
                        let at = all.iter().position(|(n, _)| *n == name).ok_or_else(|| Error::Array {
                            path: path.clone(),
                            source: npy::NpyError::Missing {
                                name: name.clone(),
                                has: all.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>().join(", "),
                            },
                        })?;
                        all.swap_remove(at).1
                    } else {
                        read_array(&path)?
                    };
                    arrays.add(name, tensor)?;
                }
            }
        }
        Ok(arrays)
    }

    /// Adds an array for an input.
    ///
    /// # Errors
    /// When there is one already.
    pub fn add(&mut self, name: String, tensor: Tensor) -> Result<(), Error> {
        if self.0.iter().any(|(n, _)| *n == name) {
            return Err(Error::Refused(format!("input `{name}` is given twice")));
        }
        self.0.push((name, tensor));
        Ok(())
    }

    /// Names and shapes of all arrays.
    pub fn shapes(&self) -> impl Iterator<Item = (&str, &[u64])> {
        self.0.iter().map(|(n, t)| (n.as_str(), t.ty().shape()))
    }

    /// One array for each input of a program, in its order; what is not given is made by [`random`] if there is a seed.
    ///
    /// # Errors
    /// When inputs are missing, or an array has another type than its input.
    pub fn in_order(&self, program: &Program, seed: Option<u64>) -> Result<Vec<Tensor>, Error> {
        let mut missing = Vec::new();
        let mut tensors = Vec::with_capacity(program.inputs.len());
        for (position, &buffer) in program.inputs.iter().enumerate() {
            let data = &program.buffers[buffer];
            let ty = TensorType::new(data.dtype, data.shape.clone()).map_err(|e| Error::Refused(e.to_string()))?;
            match (self.0.iter().find(|(n, _)| *n == data.name), seed) {
                (Some((_, tensor)), _) if *tensor.ty() == ty => tensors.push(tensor.clone()),
                (Some((name, tensor)), _) => {
                    return Err(Error::Refused(format!("input `{name}` is {ty}, but {} is given", tensor.ty())));
                }
                (None, Some(seed)) => tensors.push(random(&ty, index_bound(program, buffer), seed, position)),
                (None, None) => missing.push(format!("`{}` ({ty})", data.name)),
            }
        }
        if missing.is_empty() {
            return Ok(tensors);
        }
        Err(Error::Refused(format!("missing inputs: {}; give them with --input, or --random", missing.join(", "))))
    }
}

/// Number of valid positions where an input is used as an index; the smallest if there are several uses.
fn index_bound(program: &Program, input: aic_ir::tile::Buffer) -> Option<u64> {
    let bounds = program.steps.iter().filter_map(|step| match step {
        Step::Check { buffer, bound } if *buffer == input => Some(*bound),
        Step::Check { .. } | Step::Run(_) | Step::Repeat { .. } | Step::End => None,
    });
    bounds.min()
}

/// Random values that a model can take: about standard normal for floats, valid positions for indices, any value for bytes and
/// truth values, and 1 for other integers (the usual one is a mask).
pub fn random(ty: &TensorType, index_bound: Option<u64>, seed: u64, position: usize) -> Tensor {
    let mut rng = SplitMix(seed ^ (position as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut bytes = Vec::with_capacity(ty.bytes() as usize);
    for _ in 0..ty.elems() {
        let mut index = || match index_bound {
            Some(bound) => rng.next() % bound.max(1),
            None => 1,
        };
        match ty.dtype() {
            DType::F16 => bytes.extend(half::f16::from_f64(rng.normal()).to_le_bytes()),
            DType::BF16 => bytes.extend(half::bf16::from_f64(rng.normal()).to_le_bytes()),
            DType::F32 => bytes.extend((rng.normal() as f32).to_le_bytes()),
            DType::F64 => bytes.extend(rng.normal().to_le_bytes()),
            DType::I8 | DType::U8 => bytes.push(rng.next() as u8),
            DType::Bool => bytes.push((rng.next() & 1) as u8),
            DType::I16 | DType::U16 => bytes.extend((index() as u16).to_le_bytes()),
            DType::I32 | DType::U32 => bytes.extend((index() as u32).to_le_bytes()),
            DType::I64 | DType::U64 => bytes.extend(index().to_le_bytes()),
        }
    }
    match Tensor::new(ty.clone(), Bytes::from(bytes)) {
        Ok(tensor) => tensor,
        // Every element type above adds its own size.
        Err(e) => unreachable!("{e}"),
    }
}

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014).
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Sum of twelve uniform numbers less 6: mean 0, variance 1, and the same bits on every host.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| (self.next() >> 11) as f64 / (1u64 << 53) as f64).sum::<f64>() - 6.0
    }
}

/// Splits `NAME=FILE`. Names of tensors and files may hold `=`, so a split whose left side is an input goes first.
fn split_flag(flag: &str, inputs: &[InputInfo]) -> Option<(String, PathBuf)> {
    let splits = || flag.match_indices('=').map(|(i, _)| (&flag[..i], &flag[i + 1..]));
    let (name, path) = splits().find(|(name, _)| inputs.iter().any(|i| i.name == *name)).or_else(|| splits().next())?;
    Some((name.to_owned(), PathBuf::from(path)))
}

fn is_archive(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "npz")
}

/// Reads a `.npy` file.
///
/// # Errors
/// When it cannot be read or is damaged.
pub fn read_array(path: &Path) -> Result<Tensor, Error> {
    let bytes = fs::read(path).map_err(|e| Error::io("read", path, e))?;
    npy::read(&bytes).map_err(|source| Error::Array { path: path.to_owned(), source })
}

/// Reads a `.npz` file.
///
/// # Errors
/// When it cannot be read or is damaged.
pub fn read_archive(path: &Path) -> Result<Vec<(String, Tensor)>, Error> {
    let bytes = fs::read(path).map_err(|e| Error::io("read", path, e))?;
    npz::read(&bytes).map_err(|source| Error::Array { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_split_at_an_input_if_they_can() {
        let inputs = [InputInfo { name: "a=b".into(), dtype: DType::F32, dims: None }];
        assert_eq!(split_flag("a=b=c.npy", &inputs), Some(("a=b".into(), "c.npy".into())));
        assert_eq!(split_flag("x=y=z.npy", &inputs), Some(("x".into(), "y=z.npy".into())));
        assert_eq!(split_flag("z.npz", &inputs), None);
    }

    #[test]
    fn random_values_are_valid_and_repeatable() {
        let ty = TensorType::new(DType::I64, [64]).expect("small");
        let ids = random(&ty, Some(7), 1, 0);
        assert!((0..64).all(|i| ids.get_i64(i).is_some_and(|v| (0..7).contains(&v))));
        assert_eq!(ids, random(&ty, Some(7), 1, 0));
        assert_ne!(ids, random(&ty, Some(7), 2, 0));
        let floats = random(&TensorType::new(DType::F32, [4096]).expect("small"), None, 1, 0);
        let mean = (0..4096).filter_map(|i| floats.get_f64(i)).sum::<f64>() / 4096.0;
        assert!(mean.abs() < 0.1);
    }
}
