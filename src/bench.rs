//! Measuring time: how long one run takes, and how good the cost model is.

use std::time::{Duration, Instant};

use aic_ir::schedule::KernelCost;

/// Order statistics of repeated runs, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Times {
    /// Number of runs.
    pub runs: usize,
    /// The fastest.
    pub min_ms: f64,
    /// A quarter is faster.
    pub q1_ms: f64,
    /// Half is faster.
    pub median_ms: f64,
    /// Three quarters are faster.
    pub q3_ms: f64,
}

impl Times {
    /// Of at least one measurement.
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |quarters: usize| times.get(times.len() * quarters / 4).map_or(0.0, |t| t.as_secs_f64() * 1e3);
        Self { runs: times.len(), min_ms: at(0), q1_ms: at(1), median_ms: at(2), q3_ms: at(3) }
    }
}

/// Runs once or for a tenth of the time to warm up, then until the time is over and at least five times.
///
/// # Errors
/// What `run` gives first.
pub fn measure<E>(budget: Duration, mut run: impl FnMut() -> Result<(), E>) -> Result<Times, E> {
    let start = Instant::now();
    loop {
        run()?;
        if start.elapsed() >= budget / 10 {
            break;
        }
    }
    let start = Instant::now();
    let mut times = Vec::new();
    while start.elapsed() < budget || times.len() < 5 {
        let before = Instant::now();
        run()?;
        times.push(before.elapsed());
    }
    Ok(Times::of(times))
}

/// A kernel's prediction beside its measurement.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelTime {
    /// What was predicted.
    pub cost: KernelCost,
    /// Median measured time in seconds.
    pub seconds: f64,
}

/// How well the cost model predicts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ModelQuality {
    /// Median over kernels of `|predicted - measured| / measured`.
    pub median_error: f64,
    /// Spearman's rank correlation of predicted and measured times: 1 if the order is the same.
    pub rank_correlation: f64,
}

/// Judges the predictions; `None` with fewer than two kernels.
pub fn quality(kernels: &[KernelTime]) -> Option<ModelQuality> {
    if kernels.len() < 2 {
        return None;
    }
    let mut errors: Vec<f64> =
        kernels.iter().map(|k| (k.cost.seconds - k.seconds).abs() / k.seconds.max(1e-12)).collect();
    errors.sort_unstable_by(f64::total_cmp);
    let predicted = ranks(kernels.iter().map(|k| k.cost.seconds));
    let measured = ranks(kernels.iter().map(|k| k.seconds));
    Some(ModelQuality { median_error: errors[errors.len() / 2], rank_correlation: correlation(&predicted, &measured) })
}

/// Ranks from 0; equal values share the mean of their ranks.
fn ranks(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let values: Vec<f64> = values.collect();
    let count = |test: &dyn Fn(f64) -> bool| values.iter().filter(|&&v| test(v)).count() as f64;
    values.iter().map(|&x| count(&|v| v < x) + (count(&|v| v == x) - 1.0) / 2.0).collect()
}

fn correlation(x: &[f64], y: &[f64]) -> f64 {
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    let (mx, my) = (mean(x), mean(y));
    let (mut xy, mut xx, mut yy) = (0.0, 0.0, 0.0);
    for (a, b) in x.iter().zip(y) {
        xy += (a - mx) * (b - my);
        xx += (a - mx) * (a - mx);
        yy += (b - my) * (b - my);
    }
    if xx > 0.0 && yy > 0.0 { xy / (xx * yy).sqrt() } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(predicted: f64, seconds: f64) -> KernelTime {
        KernelTime { cost: KernelCost { kernel: "k".into(), flops: 0.0, bytes: 0.0, seconds: predicted }, seconds }
    }

    #[test]
    fn order_statistics_come_from_sorted_times() {
        let times = Times::of([5, 1, 4, 2, 3].map(Duration::from_millis).to_vec());
        assert_eq!((times.runs, times.min_ms, times.median_ms), (5, 1.0, 3.0));
    }

    #[test]
    fn quality_counts_order_and_distance() {
        let good = quality(&[kernel(1.0, 2.0), kernel(2.0, 4.0), kernel(3.0, 6.0)]).expect("enough kernels");
        assert!((good.median_error - 0.5).abs() < 1e-12 && (good.rank_correlation - 1.0).abs() < 1e-12);
        let bad = quality(&[kernel(1.0, 3.0), kernel(2.0, 2.0), kernel(3.0, 1.0)]).expect("enough kernels");
        assert!((bad.rank_correlation + 1.0).abs() < 1e-12);
        assert_eq!(quality(&[]), None);
    }

    #[test]
    fn measuring_stops_at_errors() {
        assert_eq!(measure(Duration::from_secs(1), || Err::<(), _>("broken")), Err("broken"));
        assert!(measure(Duration::ZERO, || Ok::<_, ()>(())).is_ok_and(|t| t.runs >= 5));
    }
}
