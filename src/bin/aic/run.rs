//! `aic run`: compiles in memory, runs once, writes the outputs.

use std::path::Path;

use aic::output::{Outputs, create_folder};
use aic::{Model, npy, npz};
use aic_ir::types::{DType, Tensor};
use anyhow::Result;
use serde_json::json;

use crate::args::RunArgs;
use crate::job::{self, DefaultTarget};
use crate::reply::{Reply, fields};

/// Runs the command.
pub fn run(args: &RunArgs) -> Result<Reply> {
    args.output.as_deref().map_or(Ok(()), job::named_file)?;
    let model = Model::open(&args.model.model)?;
    let config = job::config(&args.target, &args.model.shape, DefaultTarget::Native)?;
    let (arrays, config) = job::arrays(&model, &args.inputs, config)?;
    let artifacts = job::compile(&model, config)?;
    let inputs = arrays.in_order(&artifacts.program, args.inputs.random)?;
    let results = artifacts.runner()?.run(&inputs)?;
    let outputs: Vec<(String, Tensor)> = artifacts.output_names().into_iter().zip(results).collect();
    let written = match &args.output {
        Some(path) => write(path, &outputs)?,
        None => Vec::new(),
    };
    let mut text = String::new();
    for (name, tensor) in &outputs {
        text += &format!("{name}: {} = {}\n", tensor.ty(), preview(tensor));
    }
    let described: Vec<_> = outputs
        .iter()
        .map(|(name, t)| json!({ "name": name, "dtype": t.ty().dtype().name(), "shape": t.ty().shape() }))
        .collect();
    Ok(Reply::ok(text, fields(json!({ "outputs": described, "written": written }))))
}

/// Writes arrays to one archive, or to a folder with one file each; gives the paths.
fn write(path: &Path, outputs: &[(String, Tensor)]) -> Result<Vec<String>> {
    let mut files = Outputs::new();
    let mut written = Vec::new();
    let mut add = |path: &Path, bytes: &[u8]| -> Result<()> {
        files.add(path, bytes)?;
        written.push(path.display().to_string());
        Ok(())
    };
    match path.extension().and_then(|e| e.to_str()) {
        Some("npz") => {
            let archive = |source| aic::Error::Array { path: path.to_owned(), source };
            add(path, &npz::write(outputs).map_err(archive)?)?;
        }
        Some("npy") if outputs.len() == 1 => add(path, &npy::write(&outputs[0].1))?,
        _ => {
            create_folder(path)?;
            for (name, file) in outputs.iter().zip(file_names(outputs)).map(|((_, t), file)| (t, file)) {
                add(&path.join(file), &npy::write(name))?;
            }
        }
    }
    files.commit()?;
    Ok(written)
}

/// A file name for each output: the tensor's name, with what could leave the folder replaced, and made unique.
fn file_names(outputs: &[(String, Tensor)]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for (name, _) in outputs {
        let safe: String =
            name.chars().map(|c| if c.is_alphanumeric() || "._-".contains(c) { c } else { '_' }).collect();
        let safe = if safe.is_empty() || safe.starts_with('.') { format!("_{safe}") } else { safe };
        let mut file = format!("{safe}.npy");
        let mut n = 2;
        while names.contains(&file) {
            file = format!("{safe}-{n}.npy");
            n += 1;
        }
        names.push(file);
    }
    names
}

/// The first few elements.
fn preview(tensor: &Tensor) -> String {
    const SHOWN: u64 = 8;
    let elems = tensor.ty().elems();
    // The shortest text that reads back: fewer digits for the smaller type.
    let text = |v: f64| if tensor.ty().dtype() == DType::F32 { (v as f32).to_string() } else { v.to_string() };
    let mut shown: Vec<String> = (0..elems.min(SHOWN)).filter_map(|i| tensor.get_f64(i)).map(text).collect();
    if elems > SHOWN {
        shown.push("…".to_owned());
    }
    format!("[{}]", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_stay_in_the_folder_and_apart() {
        let outputs = ["a/b", "a:b", "../x", ""].map(|n| (n.to_owned(), Tensor::scalar_f32(0.0)));
        assert_eq!(file_names(&outputs), ["a_b.npy", "a_b-2.npy", "_.._x.npy", "_.npy"]);
    }
}
