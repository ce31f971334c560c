//! Figures and ratios, as a table or as one JSON object.

use serde_json::{Value, json};

/// What a run found.
pub(crate) struct Report {
    bench: &'static str,
    quick: bool,
    rows: Vec<Row>,
}

struct Row {
    name: String,
    value: f64,
    unit: &'static str,
}

/// Cores that this process may use.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

impl Report {
    pub(crate) fn new(bench: &'static str, quick: bool) -> Self {
        Self { bench, quick, rows: Vec::new() }
    }

    /// An absolute value.
    pub(crate) fn figure(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        self.rows.push(Row { name: name.into(), value, unit });
    }

    /// `measured / bare`.
    pub(crate) fn ratio(&mut self, name: impl Into<String>, measured: f64, bare: f64) {
        let value = if bare > 0.0 { measured / bare } else { f64::NAN };
        self.rows.push(Row { name: name.into(), value, unit: "x" });
    }

    pub(crate) fn json(&self) -> Value {
        let pick = |ratios: bool| -> Vec<Value> {
            let chosen = self.rows.iter().filter(|row| (row.unit == "x") == ratios);
            chosen.map(|row| json!({ "name": row.name, "value": row.value, "unit": row.unit })).collect()
        };
        json!({
            "bench": self.bench,
            "quick": self.quick,
            "cores": cores(),
            "ratios": pick(true),
            "figures": pick(false),
        })
    }

    pub(crate) fn table(&self) -> String {
        let width = self.rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
        let mut lines = vec![format!("{}, {} cores{}", self.bench, cores(), if self.quick { ", quick" } else { "" })];
        for ratio in [true, false] {
            lines.push(if ratio { "\nRatios".to_owned() } else { "\nAbsolutes".to_owned() });
            for row in self.rows.iter().filter(|row| (row.unit == "x") == ratio) {
                let digits = if row.value < 100.0 { 2 } else { 0 };
                lines.push(format!("  {:width$}  {:>12.digits$} {}", row.name, row.value, row.unit));
            }
        }
        lines.join("\n")
    }
}

/// The middle of the values; 0 of none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
