//! Figures of several routers beside each other.

use mesh_lab::daemon::Daemon;
use mesh_lab::report::say;

/// What is measured in one row, and what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) what: &'static str,
    /// `""`: no goal.
    pub(super) goal: &'static str,
}

/// What each router showed in one row.
type Cells = Vec<(Daemon, Vec<f64>)>;

/// The figures of one graph.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: Vec<(Row, Cells)>,
}

impl Table {
    /// Adds a measurement.
    pub(super) fn add(&mut self, row: Row, daemon: Daemon, value: f64) {
        let at = match self.rows.iter().position(|(r, _)| *r == row) {
            Some(at) => at,
            None => {
                self.rows.push((row, Vec::new()));
                self.rows.len() - 1
            }
        };
        let Some((_, cells)) = self.rows.get_mut(at) else { return };
        match cells.iter_mut().find(|(d, _)| *d == daemon) {
            Some((_, values)) => values.push(value),
            None => cells.push((daemon, vec![value])),
        }
    }

    /// Prints it: medians, the largest beside them where there are several, and ours over the best of the
    /// others'.
    pub(super) fn print(&self, title: &str) {
        let columns: Vec<Daemon> = Daemon::ALL
            .into_iter()
            .filter(|d| self.rows.iter().any(|(_, c)| c.iter().any(|(x, _)| x == d)))
            .collect();
        let mut head = format!("{:<42}", title);
        columns.iter().for_each(|d| head.push_str(&format!("{:>17}", d.name())));
        say(&format!("\n{head}{:>11}  goal", "ours/best"));
        for (row, cells) in &self.rows {
            let mut line = format!("{:<42}", row.what);
            for column in &columns {
                let values = cells.iter().find(|(d, _)| d == column).map(|(_, v)| v.as_slice());
                line.push_str(&format!("{:>17}", values.map_or_else(|| "-".into(), cell)));
            }
            let of = |ours: bool| {
                let medians = cells.iter().filter(|(d, _)| if ours { *d == Daemon::Mesh } else { !d.ours() });
                medians.map(|(_, v)| median(v)).min_by(f64::total_cmp)
            };
            let ratio = match (of(true), of(false)) {
                (Some(ours), Some(best)) if best > 0.0 => format!("{:.2}", ours / best),
                _ => "-".into(),
            };
            say(&format!("{line}{ratio:>11}  {}", row.goal));
        }
    }
}

fn cell(values: &[f64]) -> String {
    let longest = values.iter().copied().fold(f64::MIN, f64::max);
    match values.len() {
        0 => "-".into(),
        1 => number(longest),
        _ => format!("{} ({})", number(median(values)), number(longest)),
    }
}

fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 0.1 || v == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.get(sorted.len() / 2), sorted.len() % 2, sorted.len() / 2) {
        (Some(upper), 0, at) => sorted.get(at - 1).map_or(*upper, |lower| (lower + upper) / 2.0),
        (Some(middle), ..) => *middle,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_cells() {
        assert_eq!(
            (median(&[]), median(&[3.0]), median(&[3.0, 1.0, 2.0]), median(&[4.0, 1.0])),
            (0.0, 3.0, 2.0, 2.5)
        );
        assert_eq!(cell(&[1.0, 3.0, 2.0]), "2.00 (3.00)");
        assert_eq!([cell(&[0.0]), cell(&[123.4]), cell(&[0.0123])], ["0.00", "123", "0.0123"]);
    }
}
