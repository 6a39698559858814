//! What a command answers: text for people, the same as JSON for programs, and a status.

use serde_json::{Map, Value};

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// All is well.
    Ok,
    /// The input is refused, or a file cannot be read or written.
    Refused,
    /// Outputs differ from what is expected.
    Mismatch,
    /// A limit is exceeded.
    Limit,
    /// The command line is wrong.
    Usage,
}

impl Status {
    /// The word in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Refused => "refused",
            Status::Mismatch => "mismatch",
            Status::Limit => "limit",
            Status::Usage => "usage",
        }
    }
}

/// A command's answer.
#[derive(Debug)]
pub struct Reply {
    /// How it ended.
    pub status: Status,
    /// One message for stderr, if it did not end well.
    pub message: Option<String>,
    /// For people, ending in a line break unless empty.
    pub text: String,
    /// For programs; `schema` and `status` are added.
    pub fields: Map<String, Value>,
}

impl Reply {
    /// A successful answer.
    pub fn ok(text: String, fields: Map<String, Value>) -> Self {
        Self { status: Status::Ok, message: None, text, fields }
    }

    /// The answer for an error: its whole chain as the message, and nothing for people on stdout.
    pub fn failure(error: &anyhow::Error) -> Self {
        let status = match error.chain().find_map(|e| e.downcast_ref::<aic::Error>()).map(aic::Error::kind) {
            Some(aic::ErrorKind::Limit) => Status::Limit,
            Some(aic::ErrorKind::Mismatch) => Status::Mismatch,
            _ => Status::Refused,
        };
        Self { status, message: Some(format!("{error:#}")), text: String::new(), fields: Map::new() }
    }

    /// The answer for a wrong command line.
    pub fn wrong_use(message: &str) -> Self {
        Self { status: Status::Usage, message: Some(message.to_owned()), text: String::new(), fields: Map::new() }
    }

    /// The same answer with another status and its message.
    #[must_use]
    pub fn with_status(mut self, status: Status, message: impl Into<String>) -> Self {
        self.status = status;
        self.message = Some(message.into());
        self
    }

    /// One JSON object on one line.
    pub fn to_json(&self, command: &str) -> String {
        let mut object = Map::new();
        object.insert("schema".into(), format!("aic.{command}.v1").into());
        object.insert("status".into(), self.status.name().into());
        if let Some(message) = &self.message {
            object.insert("error".into(), message.as_str().into());
        }
        object.extend(self.fields.clone());
        format!("{}\n", Value::Object(object))
    }
}

/// Builds the fields of a reply from a `serde_json::json!` object.
pub fn fields(object: Value) -> Map<String, Value> {
    match object {
        Value::Object(map) => map,
        other => Map::from_iter([("value".to_owned(), other)]),
    }
}

/// A table for people: columns as wide as their widest cell, the first one left-aligned, the others right-aligned.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = head.iter().map(|h| h.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (i, (cell, &width)) in cells.zip(&widths).enumerate() {
            let pad = " ".repeat(width.saturating_sub(cell.chars().count()));
            match i {
                0 => text.extend([cell, &pad]),
                _ => text.extend(["  ", &pad, cell]),
            }
        }
        text.truncate(text.trim_end().len());
        text + "\n"
    };
    let mut text = line(&mut head.iter().copied());
    for row in rows {
        text += &line(&mut row.iter().map(String::as_str));
    }
    text
}

/// A size for people: `41984 B`, `1.4 MiB`.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..10_240 => format!("{bytes} B"),
        10_240..10_485_760 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

/// A count for people: `12.3 M`, `1.42 G`.
pub fn count(n: u64) -> String {
    match n {
        0..10_000 => n.to_string(),
        10_000..10_000_000 => format!("{:.1} k", n as f64 / 1e3),
        10_000_000..10_000_000_000 => format!("{:.1} M", n as f64 / 1e6),
        _ => format!("{:.2} G", n as f64 / 1e9),
    }
}

/// A time for people, from milliseconds.
pub fn time_ms(ms: f64) -> String {
    match ms {
        ms if ms < 0.001 => format!("{:.0} ns", ms * 1e6),
        ms if ms < 1.0 => format!("{:.1} µs", ms * 1e3),
        ms if ms < 1000.0 => format!("{ms:.2} ms"),
        ms => format!("{:.2} s", ms / 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align() {
        let rows = vec![vec!["a".to_owned(), "10".to_owned()], vec!["long".to_owned(), "7".to_owned()]];
        assert_eq!(table(&["x", "n"], &rows), "x      n\na     10\nlong   7\n");
    }

    #[test]
    fn failures_have_schema_status_and_error() {
        let error = anyhow::Error::from(aic::Error::Limit("arena".into())).context("compile");
        let json: Value = serde_json::from_str(&Reply::failure(&error).to_json("compile")).expect("JSON");
        assert_eq!(json["schema"], "aic.compile.v1");
        assert_eq!(json["status"], "limit");
        assert_eq!(json["error"], "compile: limit exceeded: arena");
    }
}
