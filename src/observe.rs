//! Watching a compilation: which stage is at work, what each pass left, and how long it took.
//!
//! The environment variable `AIC_DUMP` names the passes after which the form of the model is written as text:
//! `AIC_DUMP=all`, or a list as `AIC_DUMP=fold,schedule`. Only passes that changed something are written. The text goes to
//! stderr, or with `AIC_DUMP_DIR=FOLDER` to files `01-read.aic`, `02-fold.aic`, … in that folder. Each has its time in a
//! comment on the first line.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use aic_ir::graph::passes::PASSES;

use crate::Error;
use crate::pipeline::STAGES;

/// What a pass or stage left.
pub struct Event<'a> {
    /// Name of the pass: `read`, `fold`, `lower`, `schedule`, …
    pub pass: &'a str,
    /// Whether anything changed.
    pub changed: bool,
    /// How long it took.
    pub time: Duration,
    /// The form after it, as text; made only when asked for.
    pub text: &'a dyn Fn() -> String,
}

/// Someone who watches a compilation.
pub trait Observer {
    /// A stage begins.
    fn begin(&mut self, _stage: &'static str) {}

    /// A pass or stage is done.
    fn after(&mut self, _event: &Event<'_>) {}
}

/// Nobody watches.
impl Observer for () {}

/// Two who watch.
impl<A: Observer, B: Observer> Observer for (A, B) {
    fn begin(&mut self, stage: &'static str) {
        self.0.begin(stage);
        self.1.begin(stage);
    }

    fn after(&mut self, event: &Event<'_>) {
        self.0.after(event);
        self.1.after(event);
    }
}

/// Writes dumps as `AIC_DUMP` asks for. See the [module documentation](self).
#[derive(Clone, Debug, Default)]
pub struct Dump {
    passes: Vec<String>,
    folder: Option<PathBuf>,
    written: usize,
}

impl Dump {
    /// What the environment asks for.
    ///
    /// # Errors
    /// [`Error::Refused`] for names that no pass has.
    pub fn from_env() -> Result<Self, Error> {
        let passes = std::env::var_os("AIC_DUMP").unwrap_or_default();
        Self::new(&passes.to_string_lossy(), std::env::var_os("AIC_DUMP_DIR").map(PathBuf::from))
    }

    fn new(list: &str, folder: Option<PathBuf>) -> Result<Self, Error> {
        let passes: Vec<String> = list.split(',').map(str::trim).filter(|p| !p.is_empty()).map(str::to_owned).collect();
        let known: Vec<&str> = ["all"].into_iter().chain(STAGES).chain(PASSES.iter().map(|p| p.0)).collect();
        match passes.iter().find(|p| !known.contains(&p.as_str())) {
            Some(p) => {
                Err(Error::Refused(format!("AIC_DUMP: no pass is called `{p}`; there are {}", known.join(", "))))
            }
            None => Ok(Self { passes, folder, written: 0 }),
        }
    }

    fn wants(&self, pass: &str) -> bool {
        self.passes.iter().any(|p| p == "all" || p == pass)
    }
}

impl Observer for Dump {
    fn after(&mut self, event: &Event<'_>) {
        if !event.changed || !self.wants(event.pass) {
            return;
        }
        self.written += 1;
        let text = format!("; after {} ({:.3} ms)\n{}", event.pass, event.time.as_secs_f64() * 1e3, (event.text)());
        // A dump is a help for people at work on the compiler; that it fails is no reason to fail with it.
        let written = match &self.folder {
            None => std::io::stderr().lock().write_all(text.as_bytes()),
            Some(folder) => std::fs::create_dir_all(folder)
                .and_then(|()| std::fs::write(folder.join(format!("{:02}-{}.aic", self.written, event.pass)), text)),
        };
        if let Err(e) = written {
            let _ = writeln!(std::io::stderr().lock(), "warning: AIC_DUMP: cannot write after `{}`: {e}", event.pass);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_passes_asked_for_that_changed_something_are_written() {
        let folder = tempfile::tempdir().expect("folder");
        let mut dump = Dump::new("fold", Some(folder.path().join("dumps"))).expect("a pass");
        let text = || "graph\n".to_owned();
        for (pass, changed) in [("read", true), ("fold", false), ("fold", true)] {
            dump.after(&Event { pass, changed, time: Duration::ZERO, text: &text });
        }
        let files: Vec<_> = std::fs::read_dir(folder.path().join("dumps")).expect("lists").collect();
        assert_eq!(files.len(), 1);
        let written = std::fs::read_to_string(folder.path().join("dumps/01-fold.aic")).expect("reads");
        assert_eq!(written, "; after fold (0.000 ms)\ngraph\n");
    }

    #[test]
    fn only_passes_that_exist_can_be_asked_for() {
        assert!(Dump::new("all", None).is_ok() && Dump::new(" read, gelu,plan,", None).is_ok());
        assert!(Dump::new("fold,flod", None).is_err_and(|e| e.to_string().contains("`flod`")));
    }
}
