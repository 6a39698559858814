//! Packing: the bytes of a constant in a layout.
//!
//! In a lossless layout the storage dimensions of an axis are the digits of its coordinate, so the place of an element in the
//! dense tensor is linear in its place in storage: storage index `i` of a dimension adds `i * div` to its axis. Packing is
//! therefore a strided copy, done in blocks over the two dimensions that are contiguous in storage and in the tensor,
//! so that both sides stay in the nearest cache.

use bytes::Bytes;

use super::layout::{Layout, LayoutError};
use crate::types::Tensor;

/// The bytes of a tensor stored in `layout`, whose padding is zero. A row-major layout gives the tensor's own bytes,
/// uncopied. `shape` is the logical shape, of as many elements as the tensor.
///
/// # Errors
/// When the layout does not fit the shape or loses elements, or the shape does not fit the tensor.
pub fn materialize(tensor: &Tensor, layout: &Layout, shape: &[u64]) -> Result<Bytes, LayoutError> {
    layout.check(shape)?;
    let elems = shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d));
    if elems != Some(tensor.ty().elems()) {
        return Err(LayoutError::Tensor { shape: shape.to_vec(), elems: tensor.ty().elems() });
    }
    if layout.is_row_major(shape) {
        return Ok(tensor.bytes().clone());
    }
    Ok(match tensor.ty().dtype().bytes() {
        1 => pack::<1>(tensor.bytes(), layout, shape),
        2 => pack::<2>(tensor.bytes(), layout, shape),
        4 => pack::<4>(tensor.bytes(), layout, shape),
        _ => pack::<8>(tensor.bytes(), layout, shape),
    })
}

/// Points of the innermost storage dimension in a block.
const INNER_BLOCK: u64 = 16;
/// Points of the dimension that is contiguous in the tensor in a block: a few cache lines.
const CONTIGUOUS_BLOCK: u64 = 64;

/// A storage dimension as a loop: its steps in storage, on its axis and in the tensor.
#[derive(Clone, Copy)]
struct Step {
    axis: usize,
    extent: u64,
    stored: u64,
    coordinate: u64,
    dense: u64,
}

fn pack<const N: usize>(bytes: &[u8], layout: &Layout, shape: &[u64]) -> Bytes {
    let mut out = vec![0; layout.elems() as usize * N];
    let source = bytes.as_chunks::<N>().0;
    let stored = out.as_chunks_mut::<N>().0;
    if !source.is_empty() {
        let mut steps = steps(layout, shape);
        // The two loops of a block go innermost.
        let inner = steps.pop();
        let contiguous = (0..steps.len()).min_by_key(|&i| steps[i].dense).map(|i| steps.remove(i));
        let unit = Step { axis: shape.len(), extent: 1, stored: 0, coordinate: 0, dense: 0 };
        let block = [contiguous.unwrap_or(unit), inner.unwrap_or(unit)];
        // One coordinate more, for the unit step's axis.
        let mut bounds = shape.to_vec();
        bounds.push(1);
        let mut at = vec![0; bounds.len()];
        outer::<N>(source, stored, &steps, &block, &bounds, &mut at, (0, 0));
    }
    out.into()
}

/// The storage dimensions as loops, outermost first. Positions above a modulus are padding and are not visited.
fn steps(layout: &Layout, shape: &[u64]) -> Vec<Step> {
    let mut dense = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        dense[axis - 1] = dense[axis] * shape[axis];
    }
    let mut stored = 1;
    let mut steps: Vec<Step> = Vec::with_capacity(layout.dims.len());
    for d in layout.dims.iter().rev() {
        steps.push(Step {
            axis: d.axis,
            extent: d.modulo.map_or(d.extent, |m| m.min(d.extent)),
            stored,
            coordinate: d.div,
            dense: dense[d.axis] * d.div,
        });
        stored *= d.extent;
    }
    steps.reverse();
    steps
}

/// The loops around the block. Recursion is as deep as a layout has dimensions.
fn outer<const N: usize>(
    source: &[[u8; N]],
    out: &mut [[u8; N]],
    steps: &[Step],
    block: &[Step; 2],
    bounds: &[u64],
    at: &mut [u64],
    (stored, dense): (u64, u64),
) {
    let Some((step, rest)) = steps.split_first() else {
        return blocks::<N>(source, out, block, bounds, at, (stored, dense));
    };
    for i in 0..step.extent {
        at[step.axis] += i * step.coordinate;
        if at[step.axis] < bounds[step.axis] {
            outer::<N>(source, out, rest, block, bounds, at, (stored + i * step.stored, dense + i * step.dense));
        }
        at[step.axis] -= i * step.coordinate;
    }
}

/// The two innermost loops, in blocks.
fn blocks<const N: usize>(
    source: &[[u8; N]],
    out: &mut [[u8; N]],
    [contiguous, inner]: &[Step; 2],
    bounds: &[u64],
    at: &[u64],
    (stored, dense): (u64, u64),
) {
    // How many points of a loop stay inside the shape when its axis stands at `at`.
    let inside =
        |step: &Step, at: u64| bounds[step.axis].saturating_sub(at).div_ceil(step.coordinate.max(1)).min(step.extent);
    let points = inside(contiguous, at[contiguous.axis]);
    let shared_axis = contiguous.axis == inner.axis;
    for block in (0..points).step_by(CONTIGUOUS_BLOCK as usize) {
        for inner_block in (0..inner.extent).step_by(INNER_BLOCK as usize) {
            for i in block..(block + CONTIGUOUS_BLOCK).min(points) {
                let base = at[inner.axis] + if shared_axis { i * contiguous.coordinate } else { 0 };
                let end = inside(inner, base).min(inner_block + INNER_BLOCK);
                let (stored, dense) = (stored + i * contiguous.stored, dense + i * contiguous.dense);
                for j in inner_block..end {
                    out[(stored + j * inner.stored) as usize] = source[(dense + j * inner.dense) as usize];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tile::LayoutDim;
    use crate::types::{DType, TensorType};

    fn tensor(dtype: DType, shape: &[u64]) -> Tensor {
        let ty = TensorType::new(dtype, shape).unwrap();
        let bytes: Vec<u8> = (0..ty.bytes()).map(|i| (i % 251) as u8 + 1).collect();
        Tensor::new(ty, bytes.into()).unwrap()
    }

    /// Element by element, by the definition of a layout.
    fn plain(tensor: &Tensor, layout: &Layout, shape: &[u64]) -> Vec<u8> {
        let size = tensor.ty().dtype().bytes() as usize;
        let mut out = vec![0; layout.elems() as usize * size];
        for i in 0..tensor.ty().elems() {
            let mut rest = i;
            let mut index = vec![0; shape.len()];
            for axis in (0..shape.len()).rev() {
                index[axis] = rest % shape[axis];
                rest /= shape[axis];
            }
            let (to, from) = (layout.offset_of(&index) as usize * size, i as usize * size);
            out[to..to + size].copy_from_slice(&tensor.bytes()[from..from + size]);
        }
        out
    }

    #[test]
    fn row_major_is_not_copied() {
        let t = tensor(DType::F32, &[3, 5]);
        let bytes = materialize(&t, &Layout::row_major(&[3, 5]), &[3, 5]).unwrap();
        assert_eq!(bytes.as_ptr(), t.bytes().as_ptr());
    }

    #[test]
    fn panels_of_rows_and_columns() {
        let shape = [19, 70];
        for dtype in [DType::I8, DType::F16, DType::F32, DType::F64] {
            let t = tensor(dtype, &shape);
            for layout in [Layout::panels(&shape, 0, 8, &[1]), Layout::panels(&shape, 1, 16, &[0])] {
                assert_eq!(materialize(&t, &layout, &shape).unwrap(), plain(&t, &layout, &shape));
            }
        }
    }

    #[test]
    fn lossy_layouts_are_refused() {
        let t = tensor(DType::F32, &[6, 2]);
        let ring = |m| Layout {
            dims: vec![
                LayoutDim { axis: 0, div: 1, modulo: Some(m), extent: m },
                LayoutDim { axis: 1, div: 1, modulo: None, extent: 2 },
            ],
        };
        assert_eq!(materialize(&t, &ring(3), &[6, 2]), Err(LayoutError::Lossy { axis: 0 }));
        assert_eq!(materialize(&t, &ring(6), &[6, 2]).unwrap(), t.bytes());
        assert!(materialize(&t, &Layout { dims: vec![] }, &[6, 2]).is_err());
        assert!(materialize(&t, &Layout::row_major(&[6]), &[6]).is_err());
        assert!(materialize(&t, &Layout::row_major(&[6, 1]), &[6, 2]).is_err());
    }

    proptest! {
        /// Random blocking of each axis, random order of the digits, random padding.
        #[test]
        fn packs_like_the_definition(
            shape in prop::collection::vec(1u64..12, 0..4),
            radices in prop::collection::vec(prop::collection::vec(1u64..5, 0..3), 4),
            order in prop::collection::vec(any::<u32>(), 16),
            padding in prop::collection::vec(0u64..2, 16),
        ) {
            let mut dims = Vec::new();
            for (axis, &size) in shape.iter().enumerate() {
                let mut div = 1;
                for &m in &radices[axis] {
                    // A digit of radix 1 says nothing, and would leave two dimensions of one divisor.
                    if m > 1 {
                        dims.push(LayoutDim { axis, div, modulo: Some(m), extent: m });
                        div *= m;
                    }
                }
                dims.push(LayoutDim { axis, div, modulo: None, extent: size.div_ceil(div) });
            }
            for (d, p) in dims.iter_mut().zip(&padding) {
                d.extent += p;
            }
            let mut keyed: Vec<_> = order.iter().zip(dims).collect();
            keyed.sort_by_key(|k| *k.0);
            let layout = Layout { dims: keyed.into_iter().map(|k| k.1).collect() };
            let t = tensor(DType::I16, &shape);
            prop_assert_eq!(materialize(&t, &layout, &shape).unwrap().to_vec(), plain(&t, &layout, &shape));
        }
    }
}
