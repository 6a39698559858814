//! Conversions of 16-bit floats: the expanded ones give the bits that the interpreter's own casts give.

use super::*;

/// Runs a cast as it is and expanded; NaNs aside, the bits must be equal.
fn same(from: DType, to: DType, elements: &[u64]) {
    let size = from.bytes() as usize;
    let bytes: Vec<u8> = elements.iter().flat_map(|e| e.to_le_bytes()[..size].to_vec()).collect();
    let x = Tensor::new(TensorType::new(from, [elements.len() as u64]).unwrap(), bytes.into()).unwrap();
    let mut p = program(DType::F32, elements.len() as u64, 1, &|e, x| {
        e.push(Inst::Cast(to, x[0]));
    });
    let (input, output) = (p.inputs[0], p.outputs[0]);
    p.buffers[input].dtype = from;
    p.buffers[output].dtype = to;
    let expected = interp::run(&p, std::slice::from_ref(&x)).unwrap().remove(0);
    expand(&mut p, true);
    crate::tile::verify::verify(&p).unwrap();
    let actual = interp::run(&p, &[x]).unwrap().remove(0);
    let size = to.bytes() as usize;
    let chunks = |t: &Tensor| t.bytes().chunks(size).map(<[u8]>::to_vec).collect::<Vec<_>>();
    for (i, (a, e)) in chunks(&actual).into_iter().zip(chunks(&expected)).enumerate() {
        let nan = |t: &Tensor| to.is_float() && t.get_f64(i as u64).is_some_and(f64::is_nan);
        let both_nan = nan(&actual) && nan(&expected);
        assert!(a == e || both_nan, "{from} {:#x} to {to}: {a:x?} instead of {e:x?}", elements[i]);
    }
}

#[test]
fn every_16_bit_float_converts_to_every_type() {
    let all: Vec<u64> = (0..=u64::from(u16::MAX)).collect();
    for from in [DType::F16, DType::BF16] {
        for to in DType::ALL {
            same(from, to, &all);
        }
    }
}

#[test]
fn every_type_rounds_once_to_16_bits() {
    let mut state = 7u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state ^ state >> 29
    };
    for to in [DType::F16, DType::BF16] {
        let mut singles: Vec<u64> = (0..=u32::MAX).step_by(65_521).map(u64::from).collect();
        let mut doubles: Vec<u64> = (0..40_000).map(|_| random()).collect();
        // Around every number of 16 bits, and around the middles between them.
        for bits in 0..=u16::MAX {
            let number = |bits: u16| Scalar { dtype: to, bits: u64::from(bits) }.to_f64();
            let (value, next) = (number(bits) as f32, number(bits.wrapping_add(1)));
            let middle = (f64::from(value) + next) / 2.0;
            for by in [-1i64, 0, 1] {
                singles.push(u64::from((value.to_bits()).wrapping_add_signed(by as i32)));
                singles.push(u64::from(((middle as f32).to_bits()).wrapping_add_signed(by as i32)));
                doubles.push(middle.to_bits().wrapping_add_signed(by));
            }
        }
        same(DType::F32, to, &singles);
        same(DType::F64, to, &doubles);
        let mut longs: Vec<u64> = (0..40_000).map(|i| random() >> (i % 64)).collect();
        longs.extend(longs.clone().iter().map(|x| x.wrapping_neg()));
        for shift in 0..63 {
            longs.extend([-2i64, -1, 0, 1, 2].map(|by| (3u64 << shift).wrapping_add_signed(by)));
            longs.extend([-1i64, 0, 1].map(|by| (0x101u64 << shift).wrapping_add_signed(by)));
        }
        for from in [DType::I64, DType::U64, DType::I32, DType::U32, DType::I16, DType::U16, DType::I8, DType::U8] {
            let mask = u64::MAX >> (64 - 8 * from.bytes());
            same(from, to, &longs.iter().map(|x| x & mask).collect::<Vec<_>>());
        }
        same(DType::Bool, to, &[0, 1]);
    }
}

#[test]
fn functions_of_half_floats_go_through_binary32() {
    for dtype in [DType::F16, DType::BF16] {
        let xs: Vec<u8> = (0..=u16::MAX).step_by(7).flat_map(u16::to_le_bytes).collect();
        let n = xs.len() as u64 / 2;
        let mut p = program(dtype, n, 1, &|e, x| {
            e.push(Inst::Math(MathFn::Exp, x[0]));
        });
        let x = Tensor::new(TensorType::new(dtype, [n]).unwrap(), xs.into()).unwrap();
        let exact = interp::run(&p, std::slice::from_ref(&x)).unwrap().remove(0);
        expand(&mut p, true);
        let y = interp::run(&p, &[x]).unwrap().remove(0);
        // One rounding to nearest after an error of 2^-24: only next to a tie can the result differ, by one unit.
        for i in 0..n {
            let bits = |t: &Tensor| i64::from(u16::from_le_bytes(t.bytes().as_chunks::<2>().0[i as usize]));
            let both_nan = exact.get_f64(i).unwrap().is_nan() && y.get_f64(i).unwrap().is_nan();
            assert!(both_nan || (bits(&exact) - bits(&y)).abs() <= 1);
        }
    }
}
