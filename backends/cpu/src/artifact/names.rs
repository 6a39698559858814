//! C names of models and tensors: identifiers that the compiler accepts and that never collide.
//!
//! Every name that the header makes from one carries a prefix or a suffix (`int_run`, `KWS_INPUT_INT`), so keywords need
//! no care. Names reserved to the implementation do: those with two underscores in a row, or one at the start.

/// Suffixes of macros about one tensor.
pub const TENSOR_SUFFIXES: [&str; 4] = ["_BYTES", "_ALIGN", "_SCALE", "_ZERO_POINT"];

/// The C prefix of a model of that name.
pub fn model(name: &str) -> String {
    let ident = identifier(name, "model");
    // `aic` would collide with names of the common header.
    if ident.eq_ignore_ascii_case("aic") { format!("{ident}_model") } else { ident }
}

/// ASCII letters, digits and single underscores, not starting with a digit or an underscore.
fn identifier(name: &str, fallback: &str) -> String {
    let mut ident = String::new();
    for c in name.chars() {
        if c.is_ascii_alphanumeric() {
            ident.push(c);
        } else if !ident.is_empty() && !ident.ends_with('_') {
            ident.push('_');
        }
    }
    let ident = ident.trim_end_matches('_');
    match ident.chars().next() {
        None => fallback.to_owned(),
        Some(c) if c.is_ascii_digit() => format!("m{ident}"),
        Some(_) => ident.to_owned(),
    }
}

/// Macro names given out for one list of tensors.
#[derive(Clone, Debug, Default)]
pub struct Names {
    taken: Vec<String>,
}

impl Names {
    /// The upper-case identifier of a tensor. It and its [suffixed](TENSOR_SUFFIXES) names differ from all given out before.
    pub fn tensor(&mut self, name: &str) -> String {
        let base = identifier(name, "TENSOR").to_ascii_uppercase();
        let mut ident = base.clone();
        let mut count = 1;
        while self.macros(&ident).any(|m| self.taken.contains(&m)) {
            count += 1;
            ident = format!("{base}_{count}");
        }
        let macros: Vec<String> = self.macros(&ident).collect();
        self.taken.extend(macros);
        ident
    }

    fn macros(&self, ident: &str) -> impl Iterator<Item = String> + use<> {
        let ident = ident.to_owned();
        std::iter::once("").chain(TENSOR_SUFFIXES).map(move |suffix| format!("{ident}{suffix}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_become_identifiers() {
        for (name, ident) in [
            ("kws", "kws"),
            ("all-MiniLM-L6-v2", "all_MiniLM_L6_v2"),
            ("8x8 digits", "m8x8_digits"),
            ("__a--b__", "a_b"),
            ("模型", "model"),
            ("", "model"),
            ("aic", "aic_model"),
        ] {
            assert_eq!(model(name), ident);
        }
    }

    #[test]
    fn tensors_never_collide() {
        let mut names = Names::default();
        let given: Vec<String> = ["a.b", "a_b", "A-B", "x", "x_bytes", "y_scale", "y", "", "int", "a_b_2"]
            .iter()
            .map(|n| names.tensor(n))
            .collect();
        let expected = ["A_B", "A_B_2", "A_B_3", "X", "X_BYTES_2", "Y_SCALE", "Y_2", "TENSOR", "INT", "A_B_2_2"];
        assert_eq!(given, expected);
        let mut macros: Vec<String> = given.iter().flat_map(|g| names.macros(g)).collect();
        let count = macros.len();
        macros.sort();
        macros.dedup();
        assert_eq!(macros.len(), count);
    }
}
