//! A progress bar on stderr for work that takes over a second, and only on a terminal.

use std::io::IsTerminal;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How long work stays without a bar.
const PATIENCE: Duration = Duration::from_secs(1);

/// Shows which stage is at work. Nothing is left on the screen when it is dropped.
pub struct Progress {
    bar: ProgressBar,
    timer: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Progress {
    /// Starts the clock.
    pub fn start() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {msg}") {
            bar.set_style(style);
        }
        let timer = std::io::stderr().is_terminal().then(|| {
            let (done, wait) = channel::<()>();
            let bar = bar.clone();
            let thread = std::thread::spawn(move || {
                if wait.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                    bar.set_draw_target(ProgressDrawTarget::stderr());
                    bar.enable_steady_tick(Duration::from_millis(100));
                    // Until the sender is dropped.
                    let _ = wait.recv();
                }
            });
            (done, thread)
        });
        Self { bar, timer }
    }

    /// Names the stage at work.
    pub fn stage(&self, name: &str) {
        self.bar.set_message(name.to_owned());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((done, thread)) = self.timer.take() {
            drop(done);
            let _ = thread.join();
        }
        self.bar.finish_and_clear();
    }
}

impl aic::observe::Observer for Progress {
    fn begin(&mut self, stage: &'static str) {
        self.stage(stage);
    }
}
