//! A test case on disk: a model, the arrays that go in and those that come out.
//!
//! A case is a folder of `model.onnx` and `data.npz`, as `tests/models/setup.py` writes them. The archive has arrays
//! `in:INDEX` and `out:INDEX`, in the order of the model's inputs and outputs, and `tolerance`: relative, absolute. Arrays are
//! missing where a value is none (a sequence, a text, numbers of fewer than 8 bits).

use std::fs;
use std::path::{Path, PathBuf};

use aic::inputs::read_archive;
use aic_frontend::onnx::schema::{GraphProto, ModelProto, NodeProto};
use aic_ir::types::Tensor;
use prost::Message;

use crate::error::Tolerance;

/// A case.
pub struct Case {
    pub name: String,
    pub model: ModelProto,
    /// One for each input of the graph that is not initialized; `None` where it is not an array.
    pub inputs: Vec<(String, Option<Tensor>)>,
    /// One for each output of the graph.
    pub outputs: Vec<(String, Option<Tensor>)>,
    pub tolerance: Tolerance,
}

impl Case {
    /// Reads a case.
    pub fn read(folder: &Path) -> Self {
        let name = folder.file_name().expect("a name").to_string_lossy().into_owned();
        let bytes = fs::read(folder.join("model.onnx")).unwrap_or_else(|e| panic!("{name}: {e}"));
        let model = ModelProto::decode(bytes.as_slice()).unwrap_or_else(|e| panic!("{name}: {e}"));
        let arrays = read_archive(&folder.join("data.npz")).unwrap_or_else(|e| panic!("{name}: {e}"));
        let array = |key: String| arrays.iter().find(|(n, _)| *n == key).map(|(_, t)| t.clone());
        let tolerance = array("tolerance".to_owned()).expect("a tolerance");
        let number = |i| tolerance.get_f64(i).expect("two numbers");
        let tolerance = Tolerance { relative: number(0), absolute: number(1) };
        let graph = model.graph.as_ref().expect("a graph");
        let named = |prefix: &str, names: Vec<&String>| {
            let names = names.into_iter().enumerate();
            names.map(|(i, name)| (name.clone(), array(format!("{prefix}:{i}")))).collect()
        };
        let is_initialized = |name: &String| graph.initializer.iter().any(|t| t.name == *name);
        let inputs = named("in", graph.input.iter().map(|i| &i.name).filter(|n| !is_initialized(n)).collect());
        let outputs = named("out", graph.output.iter().map(|o| &o.name).collect());
        Self { name, inputs, outputs, tolerance, model }
    }

    /// The graph.
    pub fn graph(&self) -> &GraphProto {
        self.model.graph.as_ref().expect("a graph")
    }

    /// Version of the standard operator set; 0 if the model uses others only.
    pub fn opset(&self) -> i64 {
        let standard = |domain: &str| domain.is_empty() || domain == "ai.onnx";
        self.model.opset_import.iter().filter(|o| standard(&o.domain)).map(|o| o.version).max().unwrap_or(0)
    }

    /// All nodes, those of branches and bodies included.
    pub fn nodes(&self) -> Vec<&NodeProto> {
        let mut nodes = Vec::new();
        let mut graphs = vec![self.graph()];
        while let Some(graph) = graphs.pop() {
            for node in &graph.node {
                nodes.push(node);
                graphs.extend(node.attribute.iter().filter_map(|a| a.g.as_deref()));
            }
        }
        nodes
    }
}

/// The folders of all cases below a folder, by name.
pub fn folders(root: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(root).unwrap_or_else(|e| panic!("{}: {e}", root.display()));
    let mut folders: Vec<PathBuf> = entries.map(|e| e.expect("an entry").path()).filter(|p| p.is_dir()).collect();
    folders.sort();
    folders
}
