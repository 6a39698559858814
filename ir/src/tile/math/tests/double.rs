//! Functions in binary64 against `libm`, whose own error of at most one unit is part of the limits.

use super::*;

fn evaluate(p: &Program, inputs: &[&[f64]]) -> Vec<f64> {
    let tensor = |x: &[f64]| {
        let bytes: Vec<u8> = x.iter().flat_map(|v| v.to_le_bytes()).collect();
        Tensor::new(TensorType::new(DType::F64, [x.len() as u64]).unwrap(), bytes.into()).unwrap()
    };
    let y = interp::run(p, &inputs.iter().map(|x| tensor(x)).collect::<Vec<_>>()).unwrap().remove(0);
    y.bytes().as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect()
}

/// Distance in units in the last place of the expected number.
fn ulps(y: f64, expected: f64) -> f64 {
    if y == expected || (y.is_nan() && expected.is_nan()) {
        return 0.0;
    }
    if !y.is_finite() || !expected.is_finite() {
        // One step from the largest number to infinity.
        let near = |a: f64, b: f64| a.is_infinite() && b.abs() == f64::MAX && a.signum() == b.signum();
        return if near(y, expected) || near(expected, y) { 1.0 } else { f64::INFINITY };
    }
    let exponent = ((expected.abs().to_bits() >> 52) as i32 - 1023).max(-1022);
    libm::ldexp((y - expected).abs(), 52 - exponent)
}

/// Numbers of every magnitude, ordinary ones more often, and the values where formulas change.
fn sweep() -> Vec<f64> {
    let mut state = 3u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state ^ state >> 31
    };
    let mut xs: Vec<f64> = (0..20_000).map(|_| f64::from_bits(random())).collect();
    for _ in 0..60_000 {
        let unit = (random() >> 11) as f64 / (1u64 << 53) as f64;
        xs.extend([unit * 2.0 - 1.0, unit * 40.0 - 20.0, unit * 1500.0 - 750.0, 0.5 + unit]);
    }
    let special = [
        0.0,
        f64::MIN_POSITIVE,
        f64::from_bits(1),
        f64::MAX,
        f64::INFINITY,
        f64::NAN,
        1.0,
        std::f64::consts::FRAC_1_SQRT_2,
        std::f64::consts::LN_2 / 2.0,
        5.9,
        19.4,
        709.782_712_893_384,
        708.396_418_532_264_1,
        745.133_219_101_941_2,
    ];
    for x in special {
        for by in -3i64..=3 {
            let near = f64::from_bits(x.to_bits().wrapping_add_signed(by));
            xs.extend([near, -near]);
        }
    }
    xs
}

fn check(f: MathFn, limit: f64, xs: &[f64], expected: &dyn Fn(f64) -> f64) {
    for fused in [true, false] {
        let mut p = program(DType::F64, xs.len() as u64, 1, &|e, x| {
            e.push(Inst::Math(f, x[0]));
        });
        expand(&mut p, fused);
        let ys = evaluate(&p, &[xs]);
        let errors = xs.iter().zip(&ys).map(|(&x, &y)| (ulps(y, expected(x)), x, y));
        let worst = errors.fold((0.0, 0.0, 0.0), |worst, e| if e.0 > worst.0 { e } else { worst });
        assert!(worst.0 <= limit, "{f:?} (fused: {fused}): {} ulp at {:e}, gives {:e}", worst.0, worst.1, worst.2);
    }
}

#[test]
fn functions_are_accurate() {
    let xs = sweep();
    check(MathFn::Exp, 2.0, &xs, &libm::exp);
    check(MathFn::Log, 2.0, &xs, &libm::log);
    check(MathFn::Erf, 4.0, &xs, &libm::erf);
    check(MathFn::Tanh, 4.0, &xs, &libm::tanh);
    check(MathFn::Atan, 3.0, &xs, &libm::atan);
    check(MathFn::Expm1, 3.0, &xs, &libm::expm1);
    check(MathFn::Log1p, 3.0, &xs, &libm::log1p);
    check(MathFn::Sigmoid, 4.0, &xs, &|x| {
        let s = libm::exp(-x.abs());
        if x < 0.0 { s / (1.0 + s) } else { 1.0 / (1.0 + s) }
    });
}

#[test]
fn sin_and_cos_are_accurate() {
    let mut xs: Vec<f64> = sweep().into_iter().filter(|x| x.abs() <= 1e6).collect();
    xs.extend((1..60_000).map(|n| f64::from(n) * std::f64::consts::FRAC_PI_2));
    check(MathFn::Sin, 2.0, &xs, &libm::sin);
    check(MathFn::Cos, 2.0, &xs, &libm::cos);
}

#[test]
fn pow_is_accurate() {
    let bases: Vec<f64> = sweep().into_iter().step_by(997).collect();
    let mut exponents = vec![0.0, 0.5, 1.0, 1.5, 2.5, 3.0, 4.0, 7.0, 17.3, 1001.0, 1e9, 1e300, f64::INFINITY];
    exponents.extend([1e-3, 1.0 / 3.0, 9_007_199_254_740_991.0, f64::NAN, f64::MIN_POSITIVE]);
    exponents.extend(exponents.clone().iter().map(|x| -x));
    let mut a: Vec<f64> = bases.iter().flat_map(|b| vec![*b; exponents.len()]).collect();
    let mut b: Vec<f64> = bases.iter().flat_map(|_| exponents.clone()).collect();
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    // Powers of every magnitude.
    for _ in 0..20_000 {
        for base in [libm::exp2(random() * 2000.0 - 1000.0) * (1.0 + random()), 0.7 + random() * 0.72] {
            a.push(base);
            b.push((random() * 1450.0 - 740.0) / base.ln());
        }
    }
    for fused in [true, false] {
        let mut p = program(DType::F64, a.len() as u64, 2, &|e, x| {
            e.push(Inst::Pow(x[0], x[1]));
        });
        expand(&mut p, fused);
        let mut worst = (0.0, 0.0, 0.0, 0.0);
        for ((&a, &b), y) in a.iter().zip(&b).zip(evaluate(&p, &[&a, &b])) {
            let expected = libm::pow(a, b);
            assert!(y != 0.0 || y.is_sign_negative() == expected.is_sign_negative(), "pow({a:e}, {b:e}) = {y:e}");
            let error = ulps(y, expected);
            if error > worst.0 {
                worst = (error, a, b, y);
            }
        }
        assert!(worst.0 <= 2.0, "pow (fused: {fused}): {worst:?}");
    }
}
