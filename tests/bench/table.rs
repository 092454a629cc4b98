//! Samples, their medians, and the table of them.

use std::time::Instant;

/// Values of one figure.
#[derive(Clone, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Takes in a value.
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// Takes in the seconds since a moment.
    pub fn took(&mut self, since: Instant) {
        self.push(since.elapsed().as_secs_f64());
    }

    /// Takes in a count.
    pub fn count(&mut self, count: usize) {
        self.push(f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }

    /// The middle value; of two, the higher.
    pub fn median(&self) -> f64 {
        let sorted = self.sorted();
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
    }

    fn range(&self, print: impl Fn(f64) -> String) -> String {
        match self.sorted().as_slice() {
            [] | [_] => String::new(),
            [first, .., last] => format!("{}..{} of {}", print(*first), print(*last), self.0.len()),
        }
    }
}

/// One line.
pub struct Row([String; 6], f64);

impl Row {
    fn new(what: impl Into<String>, samples: &Samples, print: impl Fn(f64) -> String) -> Row {
        let none = String::new;
        let median = samples.median();
        Row([what.into(), print(median), samples.range(print), none(), none(), none()], median)
    }

    /// Seconds.
    pub fn time(what: impl Into<String>, samples: &Samples) -> Row {
        Row::new(what, samples, |seconds| {
            if seconds < 1.0 {
                format!("{:.0} ms", seconds * 1000.0)
            } else {
                format!("{seconds:.2} s")
            }
        })
    }

    /// Seconds that so many of a hundred stay below.
    pub fn percentile(what: impl Into<String>, samples: &Samples, percent: usize) -> Row {
        let sorted = samples.sorted();
        let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
        let mut row = Row::time(what, &Samples(sorted.get(at).copied().into_iter().collect()));
        row.0[2] = format!("of {}", sorted.len());
        row
    }

    /// MiB.
    pub fn mebibytes(what: impl Into<String>, samples: &Samples) -> Row {
        Row::new(what, samples, |mebibytes| format!("{mebibytes:.1} MiB"))
    }

    /// KiB.
    pub fn kibibytes(what: impl Into<String>, samples: &Samples) -> Row {
        Row::new(what, samples, |kibibytes| format!("{kibibytes:.1} KiB"))
    }

    /// A number.
    pub fn count(what: impl Into<String>, samples: &Samples) -> Row {
        Row::new(what, samples, |count| format!("{count:.0}"))
    }

    /// What we want.
    pub fn aim(mut self, aim: &str) -> Row {
        self.0[3] = format!("≤ {aim}");
        self
    }

    /// What Flux 1.9's controllers took on a machine of this class, as plain processes.
    pub fn flux(mut self, flux: &str) -> Row {
        self.0[4] = flux.to_owned();
        self
    }

    /// The ratio to a reference of the same run.
    pub fn against(mut self, reference: &Samples, what: &str) -> Row {
        self.0[5] = format!("{:.2} × {what}", self.1 / reference.median());
        self
    }
}

/// All lines.
#[derive(Default)]
pub struct Table {
    rows: Vec<Row>,
    notes: Vec<String>,
}

impl Table {
    /// Takes in a line.
    pub fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// A remark below the table.
    pub fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Prints it, columns aligned.
    pub fn print(&self) {
        let head = ["figure", "median", "range", "aim", "Flux", "in this run"].map(str::to_owned);
        let rows: Vec<&[String; 6]> =
            std::iter::once(&head).chain(self.rows.iter().map(|row| &row.0)).collect();
        let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
        let widths: [usize; 6] = std::array::from_fn(width);
        println!();
        for row in &rows {
            let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
            println!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
        }
        println!();
        self.notes.iter().for_each(|note| println!("{note}"));
        println!(
            "Flux: source- and kustomize-controller 1.9 as plain processes, measured before this"
        );
        println!(
            "project on such a machine. Control plane: upstream Kubernetes, simulated pods, not k3s."
        );
    }
}
