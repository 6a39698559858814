//! `aic check`: compiled code against expected outputs or the interpreter, and the first operator that diverges.

use aic::bisect::{Divergence, bisect};
use aic::compare::{Difference, Tolerance, compare, compare_evaluated};
use aic::inputs::read_archive;
use aic::{Artifacts, Error, Model};
use aic_ir::graph::interp::{self, ErrorModel};
use aic_ir::types::Tensor;
use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::args::{Against, CheckArgs};
use crate::job::{self, DefaultTarget};
use crate::reply::{Reply, Status, fields, table};

/// Runs the command.
pub fn run(args: &CheckArgs) -> Result<Reply> {
    let tolerance = tolerance(args)?;
    let model = Model::open(&args.model.model)?;
    let config = job::config(&args.target, &args.model.shape, DefaultTarget::Native)?;
    let (arrays, config) = job::arrays(&model, &args.inputs, config)?;
    let artifacts = job::compile(&model, config.clone())?;
    let inputs = arrays.in_order(&artifacts.program, args.inputs.random)?;
    let got = artifacts.runner()?.run(&inputs)?;
    let differences = match (&args.expected, args.against) {
        (Some(path), _) => against_file(&artifacts, &got, &read_archive(path)?, &tolerance)?,
        (None, Some(Against::Graph) | None) => against_graph(&artifacts, &inputs, &got, &tolerance)?,
    };

    let failed = differences.iter().filter(|d| !d.passed).count();
    let divergence = match failed {
        0 => None,
        _ => bisect(&artifacts, &inputs, &config, &tolerance)?,
    };
    let mut text = differences_table(&differences);
    let mut object = json!({ "outputs": differences.iter().map(difference_json).collect::<Vec<_>>() });
    if failed > 0 {
        let verdict = verdict(divergence.as_ref());
        text += &format!("{verdict}\n");
        object["diverges_at"] = divergence.as_ref().map_or(Value::Null, |d| {
            json!({ "node": d.node, "op": d.op, "position": d.position, "difference": difference_json(&d.difference) })
        });
        object["verdict"] = verdict.into();
    }
    let reply = Reply::ok(text, fields(object));
    Ok(match failed {
        0 => reply,
        n => reply.with_status(Status::Mismatch, format!("{n} of {} outputs differ", differences.len())),
    })
}

fn tolerance(args: &CheckArgs) -> Result<Tolerance> {
    let default = Tolerance::default();
    let valid = |flag: &str, x: Option<f64>| match x {
        Some(x) if !(x.is_finite() && x >= 0.0) => Err(Error::Refused(format!("{flag} {x} is not a number from 0 on"))),
        x => Ok(x),
    };
    Ok(Tolerance {
        atol: valid("--atol", args.atol)?.unwrap_or(default.atol),
        rtol: valid("--rtol", args.rtol)?.unwrap_or(default.rtol),
        min_cosine: match valid("--min-cosine", args.min_cosine)? {
            // No cosine is larger, so nothing could pass.
            Some(x) if x > 1.0 => return Err(Error::Refused(format!("--min-cosine {x} is above 1")).into()),
            x => x,
        },
    })
}

fn against_file(
    artifacts: &Artifacts,
    got: &[Tensor],
    expected: &[(String, Tensor)],
    tolerance: &Tolerance,
) -> Result<Vec<Difference>> {
    let names = artifacts.output_names();
    if let Some((stray, _)) = expected.iter().find(|(n, _)| !names.contains(n)) {
        bail!(Error::Refused(format!("the model has no output `{stray}`; it has {}", names.join(", "))));
    }
    if expected.is_empty() {
        bail!(Error::Refused("the file of expected outputs holds none".to_owned()));
    }
    let mut differences = Vec::new();
    for (name, tensor) in names.iter().zip(got) {
        if let Some((_, expected)) = expected.iter().find(|(n, _)| n == name) {
            differences.push(compare(name, tensor, expected, tolerance).map_err(Error::Mismatch)?);
        }
    }
    Ok(differences)
}

fn against_graph(
    artifacts: &Artifacts,
    inputs: &[Tensor],
    got: &[Tensor],
    tolerance: &Tolerance,
) -> Result<Vec<Difference>> {
    let expected = interp::evaluate_with(&artifacts.declared, inputs, ErrorModel::Independent)?;
    let pairs = artifacts.output_names().into_iter().zip(got).zip(&expected);
    pairs.map(|((n, got), e)| Ok(compare_evaluated(&n, got, e, tolerance).map_err(Error::Mismatch)?)).collect()
}

fn verdict(divergence: Option<&Divergence>) -> String {
    match divergence {
        Some(d) => format!(
            "first diverging operator: `{}` ({}), node {} of the graph: largest error {:.3e}, cosine {:.6}",
            d.node, d.op, d.position, d.difference.max_abs, d.difference.cosine
        ),
        None => "compiled code agrees with the interpreter in every operator: the model as it was read, or as its \
                 passes left it, is not what the expected outputs come from"
            .to_owned(),
    }
}

fn differences_table(differences: &[Difference]) -> String {
    let rows: Vec<_> = differences
        .iter()
        .map(|d| {
            vec![
                d.name.clone(),
                format!("{:.3e}", d.max_abs),
                format!("{:.3e}", d.max_rel),
                format!("{:.8}", d.cosine),
                format!("{} of {}", d.outside, d.elems),
                if d.passed { "ok" } else { "DIFFERS" }.to_owned(),
            ]
        })
        .collect();
    table(&["output", "max abs", "max rel", "cosine", "outside", ""], &rows)
}

fn difference_json(d: &Difference) -> Value {
    // JSON has no infinity: such errors show as null.
    json!({
        "name": d.name, "elems": d.elems, "max_abs": d.max_abs, "max_rel": d.max_rel, "cosine": d.cosine,
        "worst": d.worst, "outside": d.outside, "passed": d.passed,
    })
}
