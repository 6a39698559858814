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

use clap::{CommandFactory, Parser};

use args::{Cli, Command};
use reply::{Reply, Status};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => return explain(&usage, asked().as_deref()),
    };
    let (name, json) = (cli.command.name(), cli.command.json());
    let reply = match dispatch(cli.command) {
        Ok(reply) => reply,
        Err(error) => match error.downcast::<clap::Error>() {
            Ok(usage) => return explain(&usage, json.then_some(name)),
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

/// The command named in a line that could not be parsed, if it also asks for JSON.
fn asked() -> Option<String> {
    let args: Vec<String> = std::env::args().skip(1).take_while(|a| a != "--").collect();
    let command = args.first().filter(|name| Cli::command().find_subcommand(name).is_some());
    args.iter().any(|a| a == "--json").then(|| command.map_or("usage", String::as_str).to_owned())
}

/// Help and version are replies; anything else is wrong use, which clap explains on stderr, and which is a reply too where JSON
/// is asked for.
fn explain(usage: &clap::Error, json: Option<&str>) -> ExitCode {
    let _ = usage.print();
    if !usage.use_stderr() {
        return ExitCode::SUCCESS;
    }
    if let Some(command) = json {
        let text = usage.to_string();
        let message = text.split("\n\n").next().unwrap_or_default();
        let reply = Reply::wrong_use(message.strip_prefix("error: ").unwrap_or(message));
        // Nobody is left to tell if this fails.
        let _ = std::io::stdout().lock().write_all(reply.to_json(command).as_bytes());
    }
    ExitCode::from(2)
}
