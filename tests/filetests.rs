//! Filetests: every form of a model can be written as text, so every stage can be tested alone, from a file.
//!
//! A file `tests/filetests/LEVEL/TOPIC.aic` holds commands as `; test COMMAND` lines at the top, then the text of a graph or a
//! tile program, then what the commands print, as `;` comments. `AIC_BLESS=1 cargo test --test filetests` rewrites those.
//!
//! | command | takes | prints |
//! |---|---|---|
//! | `print` | graph or program | its canonical text |
//! | `verify` | graph or program | `ok`, or `error: ` and each broken rule |
//! | `passes=fold,gelu` | graph | the graph after these passes, compacted; both must compute the same |
//! | `lower` | graph | its naive program |
//! | `directives [cpu=NAME]` | program | the directives that the scheduler chooses |
//! | `schedule [cpu=NAME]` | program | the program after them |
//! | `apply [cpu=NAME]` | program, then a schedule | the program after that schedule; its hash is not looked at |
//! | `plan` | program | its memory plan |
//! | `inner cpu=aarch64` | graph | of each kernel the inner loop with the most multiply-adds, disassembled, and what it consists of |
//! | `run [cpu=NAME]` | graph | the first elements of each output, for random inputs; every executor must agree |
//!
//! Text that does not parse, and directives that are refused, print as `error: ` and the reason.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use aic_cpu::CpuTarget;
use aic_ir::graph::{Graph, interp, passes};
use aic_ir::machine::builtin;
use aic_ir::schedule::{Level, Options, Schedule, apply, schedule};
use aic_ir::tile::{self, Program, hash, math};
use aic_ir::types::Tensor;
use aic_ir::{lower, plan};

/// A test file in its parts.
struct File {
    commands: Vec<String>,
    text: String,
    expected: Vec<String>,
}

impl File {
    fn parse(source: &str) -> File {
        let lines: Vec<&str> = source.lines().collect();
        let is_comment = |l: &&str| l.starts_with(';') || l.trim().is_empty();
        let start = lines.iter().position(|l| !is_comment(l)).unwrap_or(lines.len());
        let end = lines.iter().rposition(|l| !is_comment(l)).map_or(start, |i| i + 1);
        let commands = lines[..start].iter().filter_map(|l| l.strip_prefix("; test ")).map(str::to_owned).collect();
        let comment = |l: &&str| l.strip_prefix(';').map(|l| l.strip_prefix(' ').unwrap_or(l).to_owned());
        let expected = lines[end..].iter().filter_map(comment).collect();
        File { commands, text: lines[start..end].join("\n") + "\n", expected }
    }
}

/// What a file's commands print; an error in words is part of that.
fn output(file: &File) -> Result<Vec<String>, String> {
    if file.commands.is_empty() {
        return Err("no `; test` line".to_owned());
    }
    let mut lines = Vec::new();
    for command in &file.commands {
        let printed = run(command, &file.text)?.unwrap_or_else(|refusal| format!("error: {refusal}"));
        lines.extend(printed.trim_end().lines().map(str::to_owned));
    }
    Ok(lines)
}

/// Runs a command. The outer error is a fault of the test or the compiler, the inner one a refusal that is to be printed.
fn run(command: &str, text: &str) -> Result<Result<String, String>, String> {
    let mut words = command.split(' ');
    let verb = words.next().unwrap_or_default();
    let cpu = words.find_map(|w| w.strip_prefix("cpu=")).unwrap_or("x86-64-v3");
    let (verb, argument) = verb.split_once('=').unwrap_or((verb, ""));
    let is_graph = text.trim_start().starts_with("graph");
    Ok(match (verb, is_graph) {
        ("print", true) => graph(text).map(|g| g.to_string()),
        ("print", false) => program(text).map(|p| p.to_string()),
        ("verify", true) => graph(text).and_then(|g| g.verify().map(ok).map_err(|e| e.to_string())),
        ("verify", false) => program(text).and_then(|p| tile::verify::verify(&p).map(ok).map_err(|e| e.to_string())),
        ("passes", true) => graph(text).and_then(|g| run_passes(g, argument)),
        ("lower", true) => graph(text).and_then(|g| lower_verified(&g)).map(|p| p.to_string()),
        ("directives", false) => scheduled(text, cpu).map(|(_, s)| without_hash(&s.to_string())),
        ("schedule", false) => scheduled(text, cpu).map(|(p, _)| p.to_string()),
        ("apply", false) => apply_given(text, cpu).map(|p| p.to_string()),
        ("plan", false) => program(text).and_then(|p| plan_checked(&p)),
        ("inner", true) => graph(text).and_then(|g| inner_loops(&g, cpu)),
        ("run", true) => graph(text).and_then(|g| execute(&g, cpu)),
        _ => return Err(format!("`{command}` is not a test of {}", if is_graph { "graphs" } else { "programs" })),
    })
}

fn ok<T>(_: T) -> String {
    "ok".to_owned()
}

fn graph(text: &str) -> Result<Graph, String> {
    Graph::parse(text, None).map_err(|e| e.to_string())
}

fn program(text: &str) -> Result<Program, String> {
    Program::parse(text, None).map_err(|e| e.to_string())
}

fn target(cpu: &str) -> Result<CpuTarget, String> {
    let machine = builtin(cpu).map_err(|e| e.to_string())?;
    let triple = if cpu == "aarch64" { "aarch64-unknown-linux-gnu" } else { "x86_64-unknown-linux-gnu" };
    CpuTarget::new(machine, triple.parse().map_err(|_| "triple")?).map_err(|e| e.to_string())
}

fn run_passes(mut graph: Graph, names: &str) -> Result<String, String> {
    let before = graph.clone();
    for name in names.split(',') {
        let (_, pass) = passes::PASSES.iter().find(|(n, _)| *n == name).ok_or(format!("no pass `{name}`"))?;
        pass(&mut graph);
        graph.verify().map_err(|e| format!("broken after {name}: {e}"))?;
    }
    let (_, compact) = passes::PASSES.iter().find(|(n, _)| *n == "compact").ok_or("no pass `compact`")?;
    compact(&mut graph);
    let inputs = random_inputs(&before);
    let evaluate = |g| interp::evaluate(g, &inputs).map_err(|e| e.to_string());
    for (a, b) in evaluate(&before)?.iter().zip(&evaluate(&graph)?) {
        let got = b.to_tensor();
        let bounds = |i: u64| a.err(i as usize) + b.err(i as usize) + rounding(&got, i);
        let same = |i: &u64| match (a.to_tensor().get_f64(*i), got.get_f64(*i)) {
            (Some(x), Some(y)) => x == y || (x - y).abs() <= bounds(*i) || (x.is_nan() && y.is_nan()),
            _ => false,
        };
        if let Some(i) = (0..got.ty().elems()).find(|i| !same(i)) {
            return Err(format!("element {i} of an output changed"));
        }
    }
    Ok(graph.to_string())
}

/// What rounding both sides to the element type may add to their difference.
fn rounding(tensor: &Tensor, index: u64) -> f64 {
    tensor.get_f64(index).unwrap_or(0.0).abs() * 1e-6
}

fn lower_verified(graph: &Graph) -> Result<Program, String> {
    let naive = lower::lower(graph).map_err(|e| e.to_string())?;
    tile::verify::verify(&naive).map_err(|e| format!("broken after lowering: {e}"))?;
    Ok(naive)
}

fn scheduled(text: &str, cpu: &str) -> Result<(Program, Schedule), String> {
    let mut naive = program(text)?;
    let target = target(cpu)?;
    math::expand(&mut naive, target.machine.fma);
    let s = schedule(&naive, &target, &Options { level: Level::Full }).map_err(|e| e.to_string())?;
    tile::verify::verify_for(&s.program, &target.machine).map_err(|e| format!("broken after scheduling: {e}"))?;
    Ok((s.program, s.schedule))
}

fn apply_given(text: &str, cpu: &str) -> Result<Program, String> {
    let at = text.find("\nschedule for").ok_or("no `schedule for` after the program")?;
    let naive = program(&text[..at])?;
    let target = target(cpu)?;
    let mut schedule = Schedule::parse(&text[at + 1..]).map_err(|e| e.to_string())?;
    schedule.program_hash = hash::program_hash(&naive);
    let applied = apply(&naive, &schedule, &target).map_err(|e| e.to_string())?;
    tile::verify::verify_for(&applied, &target.machine).map_err(|e| format!("broken after the schedule: {e}"))?;
    Ok(applied)
}

/// The first line names a hash that changes with every change of the program.
fn without_hash(schedule: &str) -> String {
    schedule.lines().skip(1).fold(String::new(), |text, line| text + line + "\n")
}

fn plan_checked(program: &Program) -> Result<String, String> {
    let plan = plan::plan(program).map_err(|e| e.to_string())?;
    plan::check(program, &plan).map_err(|e| format!("the checker refuses the plan: {e}"))?;
    Ok(plan::text::print(program, &plan))
}

/// The inner loops of a graph's compiled kernels, as the foreign disassembler reads their bytes.
fn inner_loops(graph: &Graph, cpu: &str) -> Result<String, String> {
    let target = target(cpu)?;
    let mut naive = lower_verified(graph)?;
    math::expand(&mut naive, target.machine.fma);
    let s = schedule(&naive, &target, &Options { level: Level::Full }).map_err(|e| e.to_string())?;
    let plan = plan::plan(&s.program).map_err(|e| e.to_string())?;
    let code = aic_cpu::compile(&s.program, &plan, &target, &aic_cpu::Options::default()).map_err(|e| e.to_string())?;
    let mut text = String::new();
    for function in &code.functions {
        let Some(body) = inner_loop(&disassemble(&function.code)?) else { continue };
        let count = |what: &dyn Fn(&str) -> bool| body.iter().filter(|l| what(l)).count();
        let _ = writeln!(
            text,
            "{}: {} instructions, {} multiply-adds, {} loads, {} on the stack, {} calls",
            function.symbol,
            body.len(),
            count(&is_multiply_add),
            count(&|l| l.starts_with("ld")),
            count(&|l| l.contains("sp")),
            count(&|l| l.starts_with("bl")),
        );
        body.iter().for_each(|l| text += &format!("  {l}\n"));
    }
    Ok(text)
}

/// Address and text of each instruction of AArch64 code.
fn disassemble(code: &[u8]) -> Result<Vec<(u64, String)>, String> {
    let file = tempfile::NamedTempFile::new().map_err(|e| e.to_string())?;
    fs::write(file.path(), code).map_err(|e| e.to_string())?;
    let objdump = "aarch64-linux-gnu-objdump";
    let run =
        std::process::Command::new(objdump).args(["-D", "-b", "binary", "-m", "aarch64"]).arg(file.path()).output();
    let run = run.map_err(|e| format!("{objdump}: {e}; to install it: apt-get install binutils-aarch64-linux-gnu"))?;
    let listing = String::from_utf8(run.stdout).map_err(|e| e.to_string())?;
    let instruction = |line: &str| {
        let (address, rest) = line.split_once(":\t")?;
        let words: Vec<&str> = rest.split_once('\t')?.1.split("//").next()?.split_whitespace().collect();
        Some((u64::from_str_radix(address.trim(), 16).ok()?, words.join(" ")))
    };
    Ok(listing.lines().filter_map(instruction).collect())
}

fn is_multiply_add(line: &str) -> bool {
    line.starts_with("fmla ") || line.starts_with("fmadd ")
}

/// The loop with the most multiply-adds that jumps back only at its end. Jumps are shown without their targets.
fn inner_loop(code: &[(u64, String)]) -> Option<Vec<String>> {
    let target = |line: &str| {
        let (jump, to) = line.split_once(' ')?;
        let to = (jump == "b" || jump.starts_with("b.")).then_some(to)?;
        u64::from_str_radix(to.strip_prefix("0x")?, 16).ok()
    };
    let back = |i: usize| target(&code[i].1).filter(|&to| to <= code[i].0);
    let loops = (0..code.len()).filter_map(|end| {
        let start = code.iter().position(|(address, _)| Some(*address) == back(end))?;
        let inner = (start..end).all(|i| back(i).is_none());
        inner.then(|| &code[start..=end])
    });
    let macs = |body: &&[(u64, String)]| body.iter().filter(|(_, line)| is_multiply_add(line)).count();
    let found = loops.max_by_key(macs).filter(|body| macs(body) > 0)?;
    let shown = |(_, line): &(u64, String)| match target(line) {
        Some(_) => line.split(' ').next().unwrap_or_default().to_owned(),
        None => line.clone(),
    };
    Some(found.iter().map(shown).collect())
}

/// Random inputs as `aic run --random 1` makes them, without knowledge of what is an index.
fn random_inputs(graph: &Graph) -> Vec<Tensor> {
    let inputs = graph.inputs.iter().enumerate();
    inputs.map(|(i, &v)| aic::inputs::random(graph.ty(v), None, 1, i)).collect()
}

/// Graph interpreter, tile interpreter on the naive and on the scheduled program, and compiled code.
fn execute(graph: &Graph, cpu: &str) -> Result<String, String> {
    let inputs = random_inputs(graph);
    let expected = interp::evaluate(graph, &inputs).map_err(|e| e.to_string())?;
    let target = target(cpu)?;
    let mut naive = lower_verified(graph)?;
    math::expand(&mut naive, target.machine.fma);
    let s = schedule(&naive, &target, &Options { level: Level::Full }).map_err(|e| e.to_string())?;
    let mut results = Vec::new();
    for (what, program) in [("naive", &naive), ("scheduled", &s.program)] {
        results.push((what, tile::interp::run(program, &inputs).map_err(|e| format!("{what}: {e}"))?));
    }
    if target.triple.architecture == target_lexicon::HOST.architecture {
        results.push(("compiled", compiled(&s.program, &target, &inputs)?));
        let (interpreted, compiled) = (&results[1].1, &results[2].1);
        if interpreted != compiled {
            return Err("compiled code and the tile interpreter differ in bits".to_owned());
        }
    }
    let mut text = String::new();
    for (i, expected) in expected.iter().enumerate() {
        for (what, outputs) in &results {
            let comparison = expected.check(&outputs[i]).map_err(|e| e.to_string())?;
            if let Some(at) = comparison.first_outside {
                return Err(format!("{what}: element {at} of output {i} lies outside its error bound"));
            }
        }
        let tensor = expected.to_tensor();
        let shown = (0..tensor.ty().elems().min(6)).filter_map(|i| tensor.get_f64(i)).map(|v| format!("{v:.3}"));
        let _ = writeln!(text, "{}: {} {}", graph.outputs[i].name, tensor.ty(), shown.collect::<Vec<_>>().join(" "));
    }
    Ok(text)
}

fn compiled(program: &Program, target: &CpuTarget, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
    let plan = plan::plan(program).map_err(|e| e.to_string())?;
    plan::check(program, &plan).map_err(|e| e.to_string())?;
    let code = aic_cpu::compile(program, &plan, target, &aic_cpu::Options::default()).map_err(|e| e.to_string())?;
    let weights = aic_cpu::artifact::Weights::new(program, &plan).to_vec().map_err(|e| e.to_string())?;
    let mut jit = aic_cpu::jit::Jit::new(&code, &weights).map_err(|e| e.to_string())?;
    let bytes: Vec<&[u8]> = inputs.iter().map(|t| t.bytes().as_ref()).collect();
    let mut outputs = Vec::new();
    jit.run(&bytes, &mut outputs).map_err(|e| e.to_string())?;
    let types = program.outputs.iter().map(|&b| &program.buffers[b]);
    types
        .zip(outputs)
        .map(|(b, bytes)| {
            let ty = aic_ir::types::TensorType::new(b.dtype, b.shape.clone()).map_err(|e| e.to_string())?;
            Tensor::new(ty, bytes.into()).map_err(|e| e.to_string())
        })
        .collect()
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder).expect("folder").map(|e| e.expect("entry").path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|e| e == "aic") {
            found.push(path);
        }
    }
}

#[test]
fn filetests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/filetests");
    let bless = std::env::var_os("AIC_BLESS").is_some();
    let mut files = Vec::new();
    collect(&root, &mut files);
    assert!(!files.is_empty());
    let mut faults = String::new();
    for path in files {
        let name = path.strip_prefix(&root).unwrap_or(&path).display().to_string();
        let source = fs::read_to_string(&path).expect("text");
        let file = File::parse(&source);
        match output(&file) {
            Err(fault) => faults += &format!("{name}: {fault}\n"),
            Ok(lines) if lines == file.expected => {}
            Ok(lines) if bless => {
                let head: Vec<&str> =
                    source.lines().take_while(|l| l.starts_with(';') || l.trim().is_empty()).collect();
                let comments: String = lines.iter().map(|l| format!("; {l}").trim_end().to_owned() + "\n").collect();
                let head: String = head.iter().map(|l| format!("{l}\n")).collect();
                fs::write(&path, format!("{head}{}\n{comments}", file.text)).expect("writes");
            }
            Ok(lines) => {
                faults += &format!(
                    "{name}: expected\n{}\nbut it prints\n{}\n(AIC_BLESS=1 accepts what it prints)\n\n",
                    file.expected.join("\n"),
                    lines.join("\n")
                );
            }
        }
    }
    assert!(faults.is_empty(), "\n{faults}");
}
