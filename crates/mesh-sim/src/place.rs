//! Nodes in the plane: random geometric graphs and mobility.

use std::collections::BTreeMap;

use nhdp::Rng;

/// A square field; two nodes hear each other within a distance of 1.
#[derive(Clone, Debug)]
pub struct Field {
    side: f64,
    places: Vec<Place>,
    rng: Rng,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    at: (f64, f64),
    /// Where it is going (random waypoint).
    goal: (f64, f64),
}

impl Field {
    /// `n` nodes at random places, `degree` neighbours on average away from the edges, all in one piece.
    /// Where the degree is too low for that, it is raised a little after every 50 draws.
    pub fn new(seed: u64, n: usize, degree: f64) -> Self {
        let mut rng = Rng::new(seed ^ 0x0066_6965_6c64);
        let mut degree = degree.max(1.0);
        loop {
            let side = (n as f64 * std::f64::consts::PI / degree).sqrt();
            for _ in 0..50 {
                let places = (0..n).map(|_| {
                    let at = point(&mut rng, side);
                    Place { at, goal: at }
                });
                let field = Self { side, places: places.collect(), rng: rng.clone() };
                if field.is_in_one_piece() {
                    return field;
                }
            }
            degree *= 1.05;
        }
    }

    /// Pairs within range, and their distance.
    pub fn edges(&self) -> Vec<(usize, usize, f64)> {
        let cell = |p: (f64, f64)| (p.0.floor() as i64, p.1.floor() as i64);
        let mut cells: BTreeMap<(i64, i64), Vec<usize>> = BTreeMap::new();
        for (i, place) in self.places.iter().enumerate() {
            cells.entry(cell(place.at)).or_default().push(i);
        }
        let mut edges = Vec::new();
        for (a, place) in self.places.iter().enumerate() {
            let (x, y) = cell(place.at);
            for near in (x - 1..=x + 1).flat_map(|x| (y - 1..=y + 1).map(move |y| (x, y))) {
                for b in cells.get(&near).into_iter().flatten().copied().filter(|b| *b > a) {
                    let d = distance(place.at, self.places[b].at);
                    if d <= 1.0 {
                        edges.push((a, b, d));
                    }
                }
            }
        }
        edges
    }

    /// Every node walks `step` (in ranges) towards its goal; one that is there draws a new goal.
    pub fn walk(&mut self, step: f64) {
        let (side, rng) = (self.side, &mut self.rng);
        for place in &mut self.places {
            let far = distance(place.at, place.goal);
            if far <= step {
                place.at = place.goal;
                place.goal = point(rng, side);
            } else {
                let part = step / far;
                place.at.0 += (place.goal.0 - place.at.0) * part;
                place.at.1 += (place.goal.1 - place.at.1) * part;
            }
        }
    }

    /// Which half of the field a node is in.
    pub fn is_left(&self, node: usize) -> bool {
        self.places[node].at.0 < self.side / 2.0
    }

    fn is_in_one_piece(&self) -> bool {
        let mut root: Vec<usize> = (0..self.places.len()).collect();
        fn find(root: &mut [usize], mut i: usize) -> usize {
            while root[i] != i {
                root[i] = root[root[i]];
                i = root[i];
            }
            i
        }
        let mut pieces = root.len();
        for (a, b, _) in self.edges() {
            let (a, b) = (find(&mut root, a), find(&mut root, b));
            if a != b {
                root[a] = b;
                pieces -= 1;
            }
        }
        pieces <= 1
    }
}

fn point(rng: &mut Rng, side: f64) -> (f64, f64) {
    let mut unit = || (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64 * side;
    (unit(), unit())
}

fn distance(a: (f64, f64), b: (f64, f64)) -> f64 {
    (a.0 - b.0).hypot(a.1 - b.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_has_about_the_degree_asked_for_and_moves() {
        let mut field = Field::new(1, 400, 12.0);
        let degree = 2.0 * field.edges().len() as f64 / 400.0;
        assert!((9.0..14.0).contains(&degree), "{degree}");
        let before = field.edges();
        (0..20).for_each(|_| field.walk(0.1));
        assert_ne!(before, field.edges());
    }
}
