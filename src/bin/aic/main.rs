//! The `aic` command: parses the line, runs one command, prints its reply once, and turns its status into the exit status.

mod args;
mod bench;
mod check;
mod compile;
mod demo;
mod inspect;
mod job;
mod progress;
mod reply;
mod run;
mod tables;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};
use reply::{Reply, Status};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => return explain(&usage),
    };
    let (name, json) = (cli.command.name(), cli.command.json());
    let reply = match dispatch(cli.command) {
        Ok(reply) => reply,
        Err(error) => match error.downcast::<clap::Error>() {
            Ok(usage) => return explain(&usage),
            Err(error) => Reply::failure(&error),
        },
    };
    if let Some(message) = &reply.message {
        // Nobody is left to tell if this fails.
        let _ = writeln!(std::io::stderr().lock(), "error: {message}");
    }
    let status = reply.status;
    let text = if json { reply.to_json(name) } else { reply.text };
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        // Whoever reads has enough: `aic ops | head`.
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(e) => {
            let _ = writeln!(std::io::stderr().lock(), "error: cannot write to standard output: {e}");
            ExitCode::FAILURE
        }
        Ok(()) if status == Status::Ok => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
    }
}

fn dispatch(command: Command) -> anyhow::Result<Reply> {
    match command {
        Command::Compile(args) => compile::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Ops(_) => Ok(tables::ops()),
        Command::Targets(_) => Ok(tables::targets()),
        Command::Demo(_) => demo::run(),
    }
}

/// Help and version are replies; anything else is wrong use, which clap explains on stderr.
fn explain(usage: &clap::Error) -> ExitCode {
    let wrong = usage.use_stderr();
    let _ = usage.print();
    if wrong { ExitCode::from(2) } else { ExitCode::SUCCESS }
}
