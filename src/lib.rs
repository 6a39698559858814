//! Compiles distilled student models ahead of time into native code that needs no runtime.
//!
//! A model (an ONNX file, or a Hugging Face folder of a BERT encoder) goes in; an object and a C header come out. The
//! code allocates nothing, calls nothing, and works in one block of memory whose exact size is a constant in the header.
//!
//! ```
//! use aic::{Config, TargetSpec, digits};
//!
//! // The model that comes with the compiler reads handwritten digits.
//! let session = Config::new().target(TargetSpec::native()).shape("batch=1")?.session()?;
//! let artifacts = session.compile(&digits::model())?;
//!
//! // Run it here ...
//! let (image, digit) = digits::held_out()?.swap_remove(0);
//! let outputs = artifacts.runner()?.run(&[image])?;
//! assert_eq!(digits::largest(&outputs[0]), Some(u64::from(digit)));
//!
//! // ... or write what a C program needs.
//! let object = artifacts.emit(aic::EmitKind::Obj)?;
//! assert!(object.starts_with(b"\x7fELF"));
//! println!("the header says that the arena takes {} bytes", artifacts.plan.arena_bytes);
//! # Ok::<(), aic::Error>(())
//! ```
//!
//! # In a build script
//!
//! [`compile`] does the usual: it writes a static library and a header into `OUT_DIR`, tells Cargo to link the library, and
//! to run the script again when the model changes.
//!
//! ```toml
//! [build-dependencies]
//! aic-compiler = { version = "0.1", default-features = false }
//! ```
//!
//! ```no_run
//! // build.rs
//! aic::compile("models/kws.onnx").expect("compile models/kws.onnx");
//! ```
//!
//! # Watching
//!
//! `AIC_DUMP` writes the forms a model goes through; see [`observe`]. The command `aic` is this library with a command line.

pub mod bench;
pub mod bisect;
pub mod compare;
pub mod digits;
pub mod inputs;
pub mod npy;
pub mod npz;
pub mod observe;
pub mod output;
pub mod report;

mod artifacts;
mod config;
mod emit;
mod error;
mod folder;
mod model;
mod pipeline;
mod runner;
mod session;
mod target;

pub use artifacts::Artifacts;
pub use config::{Config, Limits, OptLevel, Weights};
pub use emit::EmitKind;
pub use error::{Error, ErrorKind};
pub use model::Model;
pub use runner::Runner;
pub use session::{Session, compile};
pub use target::{TargetSpec, known_features};
