//! Graphs that stand still.

use std::str::FromStr;

/// A graph's shape; the number of nodes comes with it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// 0 – 1 – 2 – …
    Line,
    /// A line whose ends meet.
    Ring,
    /// As square as the number of nodes allows, four neighbours each.
    Grid,
    /// Everyone hears everyone.
    Full,
    /// Random geometric: nodes at random places hear each other within a range that gives so many
    /// neighbours on average; drawn again until it is in one piece.
    Geometric {
        /// Neighbours on average, without the field's edges.
        degree: f64,
    },
}

impl Shape {
    /// Pairs of neighbours. Geometric graphs are made by [`crate::Field`].
    pub fn edges(self, n: usize) -> Vec<(usize, usize)> {
        let mut edges = Vec::new();
        let side = (1..=n).find(|s| s * s >= n).unwrap_or(1);
        match self {
            Self::Line => edges.extend((1..n).map(|i| (i - 1, i))),
            Self::Ring => {
                edges.extend((1..n).map(|i| (i - 1, i)));
                if n > 2 {
                    edges.push((n - 1, 0));
                }
            }
            Self::Grid => {
                edges.extend((1..n).filter(|i| i % side > 0).map(|i| (i - 1, i)));
                edges.extend((side..n).map(|i| (i - side, i)));
            }
            Self::Full => edges.extend((0..n).flat_map(|a| (0..a).map(move |b| (b, a)))),
            Self::Geometric { .. } => {}
        }
        edges
    }
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "line" => Ok(Self::Line),
            "ring" => Ok(Self::Ring),
            "grid" => Ok(Self::Grid),
            "full" => Ok(Self::Full),
            "rgg" => Ok(Self::Geometric { degree: 10.0 }),
            _ => Err(format!("unknown graph {text}: line, ring, grid, full or rgg")),
        }
    }
}
